"""What callers are told of other processes, cancellations, clocks that go back, full and failing disks."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from greenroom import (
    OutcomeUnknownError,
    SessionNotFoundError,
    SqliteStore,
    StoreFullError,
    UnavailableError,
)
from greenroom.sqlite import lanes
from greenroom.testing import ManualClock, library_named
from tests.store.client.store_stage import run, until
from tests.store.sqlite.sqlite_stage import Disk, session

HOUR = timedelta(hours=1)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the file as another process does that has begun to write."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def remove(folder: Path) -> None:
    for path in folder.glob("sessions.db*"):
        path.unlink()


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM session").fetchone()[0])


# --- acknowledged is stored ----------------------------------------------------------------------------


def test_another_store_goes_on_with_what_is_there(
    library: str, journal: str, new_store: Callable[..., SqliteStore]
) -> None:
    made = session(data={"n": 0}, user_id="alice", absolute_expires=datetime.now(UTC) + 2 * HOUR)

    async def write() -> int:
        async with new_store() as store:
            await store.create(made)
            return (await store.patch(made.session_id, set={"n": 1})).version

    async def read() -> Any:
        async with new_store() as store:
            found = await store.get(made.session_id)
            await store.delete(made.session_id)
            return found, await store.create(made)

    before = run(library, write)
    found, after = run(library, read)
    assert (found.data, found.user_id, found.version) == ({"n": 1}, "alice", before)
    assert found.absolute_expires == made.absolute_expires
    assert after > before


def test_all_that_wait_share_a_sync(
    library: str, journal: str, disk: Disk, new_store: Callable[..., SqliteStore]
) -> None:
    async def work() -> int:
        async with new_store() as store:
            await store.check()
            gate = disk.hold("BEGIN IMMEDIATE")
            actions = [lambda: store.create(session()) for _ in range(50)]

            async def open_gate() -> None:
                await until(library, lambda: sum("BEGIN" in each for each in disk.statements) > 1)
                await library_named(library).sleep(0)
                gate.set()

            outcomes = await library_named(library).gather(*actions, open_gate)
            assert all(isinstance(each, int) for each in outcomes[:-1])
            return len({*outcomes})

    assert run(library, work) == 51
    assert disk.statements.count("COMMIT") <= 5


def test_closing_waits_for_what_was_asked(
    library: str, journal: str, new_store: Callable[..., SqliteStore], tmp_path: Path
) -> None:
    async def work() -> list[Any]:
        store = new_store()
        return await library_named(library).gather(
            *[lambda: store.create(session()) for _ in range(20)], store.aclose
        )

    outcomes = run(library, work)
    assert not any(isinstance(each, Exception) for each in outcomes)
    assert rows(tmp_path / "sessions.db") == 20


# --- other processes hold the file ---------------------------------------------------------------------


def test_a_file_that_is_held_is_waited_for_and_then_refused_unapplied(
    library: str, journal: str, new_store: Callable[..., SqliteStore], tmp_path: Path
) -> None:
    made = session(data={"n": 0})

    async def work() -> None:
        store = new_store(deadline_seconds=0.5)
        await store.create(made)
        begun = time.monotonic()
        with held(tmp_path / "sessions.db"):
            with pytest.raises(UnavailableError, match="another process holds"):
                await store.patch(made.session_id, set={"n": 1})
            assert time.monotonic() - begun < 0.6
        found = await store.get(made.session_id)
        assert found is not None
        assert found.data == {"n": 0}
        await store.patch(made.session_id, set={"n": 2})
        await store.aclose()

    run(library, work)


def test_reads_wait_for_no_writer_with_wal(
    library: str, new_store: Callable[..., SqliteStore], tmp_path: Path, wal: None
) -> None:
    made = session(data={"n": 0})

    async def work() -> None:
        async with new_store() as store:
            await store.create(made)
            with held(tmp_path / "sessions.db"):
                assert await store.get(made.session_id) is not None

    run(library, work)


def test_a_thousand_cancelled_at_once_leave_nothing_behind(
    library: str, journal: str, new_store: Callable[..., SqliteStore], tmp_path: Path
) -> None:
    async def work() -> None:
        chosen = library_named(library)
        async with new_store() as store:
            await store.check()
            with held(tmp_path / "sessions.db"):
                many = [lambda: store.create(session()) for _ in range(1000)]
                assert not await chosen.cancel_after(lambda: chosen.gather(*many), 0.1)
            await store.create(session())

    run(library, work)
    assert rows(tmp_path / "sessions.db") == 1


def test_cancelled_while_it_is_committed_it_is_applied_whole(
    library: str, journal: str, disk: Disk, new_store: Callable[..., SqliteStore]
) -> None:
    made = session(data={"a": 0, "b": 0})

    async def work() -> None:
        async with new_store() as store:
            await store.create(made)
            gate = disk.hold("COMMIT")
            patch = lambda: store.patch(made.session_id, set={"a": 1, "b": 1})  # noqa: E731  named once
            assert not await library_named(library).cancel_after(patch, 0.2)
            gate.set()
            await store.create(session())  # behind it
            found = await store.get(made.session_id)
            assert found is not None
            assert found.data == {"a": 1, "b": 1}

    run(library, work)


def test_more_operations_than_may_wait_are_refused(
    library: str, journal: str, new_store: Callable[..., SqliteStore], tmp_path: Path
) -> None:
    async def work() -> list[Any]:
        async with new_store(operations_max=10, deadline_seconds=0.5) as store:
            await store.check()
            with held(tmp_path / "sessions.db"):
                many = [lambda: store.create(session()) for _ in range(700)]
                return await library_named(library).gather(*many)

    outcomes = run(library, work)
    assert all(isinstance(each, UnavailableError) for each in outcomes)
    assert sum("raise operations_max" in str(each) for each in outcomes) > 400


# --- the disk ------------------------------------------------------------------------------------------


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


# --- time ----------------------------------------------------------------------------------------------


def test_what_expired_stays_so_when_the_clock_goes_back(
    library: str, journal: str, new_store: Callable[..., SqliteStore]
) -> None:
    clock = ManualClock()
    ends, other = session(expires=clock() + HOUR), session(expires=clock() + 9 * HOUR)

    async def before() -> None:
        async with new_store(clock=clock) as store:
            await store.create(ends)
            clock.advance(seconds=3600)
            await store.create(other)

    async def after() -> None:
        async with new_store(clock=lambda: clock() - 2 * HOUR) as store:  # another process, an hour ago
            assert await store.get(ends.session_id) is None
            with pytest.raises(SessionNotFoundError):
                await store.patch(ends.session_id, set={"n": 1})
            assert await store.get(other.session_id) is not None

    run(library, before)
    run(library, after)


def test_expired_sessions_are_removed_in_the_background(
    library: str,
    journal: str,
    new_store: Callable[..., SqliteStore],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("greenroom.sqlite_store.CLEAN_SECONDS", 0.05)
    monkeypatch.setattr(lanes, "CLEAN_AGAIN_SECONDS", 0.01)
    clock = ManualClock()

    async def work() -> None:
        async with new_store(clock=clock) as store:
            many = [
                lambda: store.create(session(expires=clock() + HOUR)) for _ in range(lanes.CLEAN_MAX + 50)
            ]
            await library_named(library).gather(*many)
            await store.create(session(expires=clock() + 3 * HOUR))
            clock.advance(seconds=3600)
            await until(library, lambda: rows(tmp_path / "sessions.db") == 1)

    run(library, work)


def test_clean_counts_all_in_small_steps(
    journal: str, disk: Disk, new_store: Callable[..., SqliteStore]
) -> None:
    clock = ManualClock()

    async def work() -> int:
        async with new_store(clock=clock) as store:
            many = [lambda: store.create(session(expires=clock() + HOUR)) for _ in range(450)]
            await library_named("asyncio").gather(*many)
            clock.advance(seconds=3600)
            disk.statements.clear()
            return await store.clean()

    assert run("asyncio", work) == 450
    assert disk.statements.count("COMMIT") == 3


# --- forks ---------------------------------------------------------------------------------------------


def test_parent_and_child_go_on_after_a_fork(
    journal: str, new_store: Callable[..., SqliteStore], tmp_path: Path
) -> None:
    store = new_store()
    before, of_child, of_parent = session(), session(), session()
    run("asyncio", lambda: store.create(before))
    run("asyncio", lambda: store.get(before.session_id))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert run("asyncio", lambda: store.get(before.session_id)) is not None
            run("asyncio", lambda: store.create(of_child))
            run("asyncio", store.aclose)
            code = 0
        finally:
            os._exit(code)
    run("asyncio", lambda: store.create(of_parent))
    run("asyncio", store.aclose)
    assert os.waitpid(child, 0)[1] == 0
    for made in (before, of_child, of_parent):
        assert run("asyncio", lambda made=made: store.get(made.session_id)) is not None
    run("asyncio", store.aclose)


def test_no_connection_is_open_at_a_fork(journal: str, new_store: Callable[..., SqliteStore]) -> None:
    store = new_store()
    run("asyncio", lambda: store.create(session()))
    child = os.fork()
    if child == 0:
        opened = [str(each.resolve()) for each in Path("/proc/self/fd").iterdir()]
        os._exit(any("sessions.db" in path for path in opened))
    assert os.waitpid(child, 0)[1] == 0
    run("asyncio", store.aclose)
