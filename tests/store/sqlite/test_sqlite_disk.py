"""What callers are told when the disk fails, hangs or is full, or when the file is taken away."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from greenroom import (
    OutcomeUnknownError,
    SqliteStore,
    StoreFullError,
    UnavailableError,
)
from tests.store.client.store_stage import run
from tests.store.sqlite.sqlite_stage import Disk, remove, session


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
