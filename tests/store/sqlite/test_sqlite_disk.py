"""What callers are told when the disk fails, hangs or is full, or when the file is taken away."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from greenroom import (
    OutcomeUnknownError,
    SessionData,
    SqliteStore,
    StoreFullError,
    UnavailableError,
)
from greenroom.sqlite import files, room
from greenroom.testing import library_named
from tests.store.client.store_stage import run, until
from tests.store.sqlite.sqlite_stage import OLD_VERSION, Disk, remove, session


def test_a_hung_sync_is_an_unknown_outcome_in_time(
    library: str, wal: None, disk: Disk, new_store: Callable[..., SqliteStore]
) -> None:
    made = session(data={"n": 0})

    async def work() -> None:
        async with new_store(deadline_seconds=0.5) as store:
            await store.create(made)
            assert await store.get(made.session_id) is not None
            gate = disk.hold("COMMIT")
            # Only that of a write: a read that commits has nothing to sync.
            disk.only_in = "greenroom-sqlite-writes"
            begun = time.monotonic()
            with pytest.raises(OutcomeUnknownError) as caught:
                await store.patch(made.session_id, set={"n": 1})
            assert time.monotonic() - begun < 0.6
            assert caught.value.harmless_to_repeat
            assert await store.get(made.session_id) is not None
            with pytest.raises(UnavailableError):  # it waited behind the other, and was not applied
                await store.patch(made.session_id, set={"n": 2}, expect={"n": 0})
            gate.set()
            found = await store.get(made.session_id)
            assert found is not None
            assert found.data["n"] in (0, 1)

    run(library, work)


@pytest.mark.parametrize("error", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_WRITE"])
def test_after_a_failed_sync_nothing_is_written_and_reads_go_on(
    error: str, library: str, journal: str, disk: Disk, new_store: Callable[..., SqliteStore]
) -> None:
    made = session(data={"n": 0})

    async def work() -> None:
        async with new_store() as store:
            await store.create(made)
            disk.fail("COMMIT", error)
            with pytest.raises(OutcomeUnknownError, match=error) as caught:
                await store.create(session())
            assert not caught.value.harmless_to_repeat
            disk.heal()
            with pytest.raises(UnavailableError, match="restart the app"):
                await store.patch(made.session_id, set={"n": 1})
            found = await store.get(made.session_id)
            assert found is not None
            assert found.data == {"n": 0}

    run(library, work)


def test_a_failed_read_is_told_and_others_go_on(
    library: str, journal: str, disk: Disk, new_store: Callable[..., SqliteStore]
) -> None:
    made = session()

    async def work() -> None:
        async with new_store() as store:
            await store.create(made)
            disk.fail("SELECT version", "SQLITE_IOERR_READ")
            with pytest.raises(UnavailableError, match="SQLITE_IOERR_READ"):
                await store.get(made.session_id)
            with pytest.raises(UnavailableError, match="SQLITE_IOERR_READ"):
                await store.delete(made.session_id)
            disk.heal()
            assert await store.get(made.session_id) is not None

    run(library, work)


def test_a_damaged_file_is_named(library: str, disk: Disk, new_store: Callable[..., SqliteStore]) -> None:
    async def work() -> None:
        async with new_store() as store:
            await store.check()
            disk.fail("INSERT", "SQLITE_CORRUPT")
            with pytest.raises(UnavailableError, match="is damaged"):
                await store.create(session())

    run(library, work)


def test_a_full_disk_refuses_growth_until_there_is_room(
    library: str, journal: str, disk: Disk, new_store: Callable[..., SqliteStore]
) -> None:
    disk.pragmas = ("PRAGMA max_page_count = 60",)

    async def work() -> None:
        async with new_store() as store:
            made, refused = [], None
            while refused is None:
                made.append(session(data={"text": "x" * 2000}))
                try:
                    await store.create(made[-1])
                except StoreFullError as error:
                    refused = str(error)
            assert "free space on its disk" in refused
            assert len(made) > 20
            assert await store.get(made[-1].session_id) is None
            for each in made[:-1]:
                assert await store.get(each.session_id) is not None
            for each in made[:5]:
                await store.delete(each.session_id)
            await store.create(made[-1])

    run(library, work)


def test_with_little_room_sessions_only_end(
    library: str,
    journal: str,
    new_store: Callable[..., SqliteStore],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept, ended, of_user = session(data={"n": 0}), session(), session(user_id="alice")

    async def work() -> None:
        async with new_store() as store:
            for each in (kept, ended, of_user):
                await store.create(each)
            with monkeypatch.context() as short:
                short.setattr(room, "FREE_BYTES_MIN", 1 << 62)
                for action in (
                    lambda: store.create(session()),
                    lambda: store.patch(kept.session_id, set={"n": 1}),
                    lambda: store.rotate(kept.session_id),
                ):
                    with pytest.raises(StoreFullError, match="nearly full"):
                        await action()
                assert await store.get(kept.session_id) is not None
                await store.delete(ended.session_id)
                assert await store.delete_by_user("alice") == 1
                assert await store.get(ended.session_id) is None
            await store.patch(kept.session_id, set={"n": 2})

    run(library, work)
    (warned,) = [line for line in caplog.records if "are free on the disk" in line.getMessage()]
    assert warned.levelname == "WARNING"


def test_room_within_the_file_is_room(
    library: str, journal: str, new_store: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file never shrinks, so on a full disk new sessions must have the room of those that have ended."""
    many = [session(data={"text": "x" * 20_000}, user_id="alice") for _ in range(100)]

    async def work() -> None:
        async with new_store() as store:
            for each in many:
                await store.create(each)
            monkeypatch.setattr(room, "FREE_BYTES_MIN", 1 << 62)
            with pytest.raises(StoreFullError):
                await store.create(session())
            await store.delete_by_user("alice")
            await store.create(session())

    run(library, work)


def test_what_needs_no_room_is_not_refused_with_what_does(
    library: str, journal: str, disk: Disk, new_store: Callable[..., SqliteStore]
) -> None:
    """One transaction takes all that waits, and must not make a logout wait for room that a login needs."""
    ended, kept = session(), session()

    async def work() -> None:
        chosen = library_named(library)
        async with new_store() as store:
            await store.create(ended)
            await store.create(kept)
            gate = disk.hold("BEGIN IMMEDIATE")
            disk.fail("INSERT", "SQLITE_FULL")
            writes = store._engine._writes
            assert writes is not None
            actions = [
                lambda: store.create(session()),
                lambda: store.delete(ended.session_id),
                lambda: store.get(kept.session_id),
                lambda: store.create(session()),
            ]

            async def together() -> list[Any]:
                await until(library, lambda: disk.statements[-1] == "BEGIN IMMEDIATE")
                return await chosen.gather(*actions, release)

            async def release() -> None:
                await until(library, lambda: writes.queue.qsize() == (3 if journal == "wal" else 4))
                gate.set()

            _, (refused, deleted, found, also, _) = await chosen.gather(
                lambda: store.delete(session().session_id), together
            )
            for each in (refused, also):
                assert isinstance(each, StoreFullError)
            assert not isinstance(deleted, Exception)
            assert isinstance(found, SessionData)
            assert await store.get(ended.session_id) is None

    run(library, work)


def test_a_read_without_space_is_told_and_not_tried_for_ever(
    library: str, journal: str, disk: Disk, new_store: Callable[..., SqliteStore]
) -> None:
    """A read may need room too, as for a temporary file of SQLite's."""

    async def work() -> None:
        async with new_store(deadline_seconds=2) as store:
            await store.create(session(user_id="alice"))
            disk.fail("SELECT digest", "SQLITE_FULL")
            with pytest.raises(UnavailableError, match="no space left"):
                await store.list_by_user("alice")

    run(library, work)


def test_a_file_that_cannot_be_made_on_a_full_disk_says_so(
    library: str, disk: Disk, new_store: Callable[..., SqliteStore]
) -> None:
    async def work() -> None:
        async with new_store() as store:
            disk.fail("CREATE", "SQLITE_FULL")
            for action in (lambda: store.get(session().session_id), lambda: store.create(session())):
                with pytest.raises(
                    UnavailableError, match="cannot be opened, there is no space left"
                ) as told:
                    await action()
                assert not isinstance(told.value, StoreFullError)
            disk.heal()
            await store.create(session())

    run(library, work)


@pytest.mark.parametrize(
    ("kept_bytes", "told"), [(0, "lacks the tables"), (50, "is damaged"), (4096, "is damaged")]
)
def test_a_file_cut_off_beneath_the_store_is_told(
    kept_bytes: int,
    told: str,
    library: str,
    new_store: Callable[..., SqliteStore],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "library_version", lambda: OLD_VERSION)
    made = session()

    async def work() -> None:
        async with new_store() as store:
            await store.create(made)
            os.truncate(tmp_path / "sessions.db", kept_bytes)
            for action in (lambda: store.create(session()), lambda: store.get(made.session_id)):
                with pytest.raises(UnavailableError, match=told):
                    await action()

    run(library, work)


def test_a_file_deleted_beneath_the_store_is_noticed(
    library: str, journal: str, new_store: Callable[..., SqliteStore], tmp_path: Path
) -> None:
    made = session()

    async def work() -> None:
        async with new_store() as store:
            await store.create(made)
            remove(tmp_path)
            for action in (lambda: store.create(session()), lambda: store.get(made.session_id)):
                with pytest.raises(UnavailableError, match="deleted or replaced"):
                    await action()
            assert not (tmp_path / "sessions.db").exists()

    run(library, work)


def test_closing_ends_although_the_disk_hangs(
    library: str, journal: str, disk: Disk, new_store: Callable[..., SqliteStore]
) -> None:
    async def work() -> None:
        store = new_store(deadline_seconds=0.3)
        await store.create(session())
        disk.hold("COMMIT")
        with pytest.raises(OutcomeUnknownError):
            await store.create(session())
        await store.aclose()

    run(library, work)
