"""What callers are told of other processes, cancellations and clocks that go back."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from greenroom import (
    OutcomeUnknownError,
    SessionData,
    SessionNotFoundError,
    SqliteStore,
    UnavailableError,
)
from greenroom.sqlite import files, lanes
from greenroom.sqlite import rows as table
from greenroom.testing import ManualClock, library_named
from tests.store.client.store_stage import run, until
from tests.store.sqlite.sqlite_stage import OLD_VERSION, Disk, rows, session

HOUR = timedelta(hours=1)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the file as another process does that has begun to write."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


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
    assert not any(isinstance(each, Exception) for each in outcomes), outcomes
    assert rows(tmp_path / "sessions.db") == 20


def test_any_text_that_is_allowed_comes_back(
    library: str, journal: str, new_store: Callable[..., SqliteStore]
) -> None:
    user_id, label = 'a\0b"\\\x1f\u2028', "\0 \x7f ' \U0001f36a"
    made = session(user_id=user_id, label=label, data={"\0": b"\0\xff", 7: "'"})

    async def work() -> None:
        async with new_store() as store:
            await store.create(made)
            found = await store.get(made.session_id)
            assert found is not None
            assert (found.user_id, found.label, found.data) == (user_id, label, made.data)
            assert [each.label for each in await store.list_by_user(user_id)] == [label]
            assert await store.delete_by_user(user_id) == 1

    run(library, work)


def test_large_sessions_come_back_however_many_are_asked_for_at_once(
    library: str, journal: str, new_store: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (lanes, table):
        monkeypatch.setattr(module, "LOADED_BYTES_MAX", 1 << 20)
    made = [session(data={"text": chr(97 + n) * size}) for n, size in enumerate((900_000, 20_000, 300) * 4)]

    async def work() -> None:
        async with new_store(deadline_seconds=30) as store:
            await library_named(library).gather(*[partial(store.create, each) for each in made])
            patches = [partial(store.patch, each.session_id, set={"n": 1}) for each in made]
            for outcome, each in zip(await library_named(library).gather(*patches), made, strict=True):
                assert outcome.data == {**each.data, "n": 1}
            reads = [partial(store.get, each.session_id) for each in made]
            for outcome, each in zip(await library_named(library).gather(*reads), made, strict=True):
                assert outcome.data == {**each.data, "n": 1}

    run(library, work)


def test_a_write_that_changes_nothing_costs_no_sync(
    journal: str, disk: Disk, new_store: Callable[..., SqliteStore]
) -> None:
    async def work() -> None:
        async with new_store() as store:
            await store.create(session())
            disk.statements.clear()
            await store.delete("nobody")
            with pytest.raises(SessionNotFoundError):
                await store.patch("nobody", set={"n": 1})

    run("asyncio", work)
    assert not [each for each in disk.statements if each.startswith(("UPDATE", "DELETE", "INSERT"))]


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


def test_a_reader_that_holds_up_a_commit_is_named(
    library: str, new_store: Callable[..., SqliteStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without WAL a commit waits for those who read, and may succeed after the deadline."""
    monkeypatch.setattr(files, "library_version", lambda: OLD_VERSION)
    made = session()

    async def work() -> None:
        async with new_store(deadline_seconds=0.5) as store:
            await store.create(made)
            with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
                other.execute("BEGIN")
                other.execute("SELECT count(*) FROM session").fetchall()
                with pytest.raises(OutcomeUnknownError, match="another process holds"):
                    await store.patch(made.session_id, set={"n": 1})

    run(library, work)


def test_who_holds_a_file_that_is_to_be_opened_is_named(
    library: str, journal: str, new_store: Callable[..., SqliteStore], tmp_path: Path
) -> None:
    async def work() -> None:
        async with new_store() as store:
            await store.check()
        with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
            # So that readers are kept out too, also with WAL.
            other.execute("PRAGMA locking_mode = exclusive")
            other.execute("BEGIN EXCLUSIVE")
            late = new_store(deadline_seconds=0.5)
            with pytest.raises(UnavailableError, match="another process holds"):
                await late.get(session().session_id)
            with pytest.raises(UnavailableError, match="another process holds"):
                await late.create(session())
        await late.aclose()

    run(library, work)


def test_a_long_wait_for_another_process_is_told_in_the_log(
    library: str,
    journal: str,
    new_store: Callable[..., SqliteStore],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(lanes, "HELD_SECONDS", 0.0)

    async def work() -> None:
        async with new_store() as store:
            await store.check()
            for _ in range(2):
                with held(tmp_path / "sessions.db"):
                    waiting = partial(store.create, session())
                    assert not await library_named(library).cancel_after(waiting, 0.1)
                await store.create(session())

    run(library, work)
    (told,) = [line for line in caplog.records if "for another process that held" in line.getMessage()]
    assert told.levelname == "WARNING"


def test_of_two_stores_that_rotate_one_session_one_wins(
    library: str, journal: str, new_store: Callable[..., SqliteStore]
) -> None:
    made = session(data={"n": 0})

    async def work() -> None:
        async with new_store() as first, new_store() as second:
            await first.create(made)
            rotations = [partial(each.rotate, made.session_id) for each in (first, second) * 10]
            outcomes = await library_named(library).gather(*rotations)
            [winner] = [each for each in outcomes if isinstance(each, SessionData)]
            assert sum(isinstance(each, SessionNotFoundError) for each in outcomes) == 19
            for store in (first, second):
                assert await store.get(made.session_id) is None
                found = await store.get(winner.session_id)
                assert found is not None
                assert found.version == winner.version

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


def test_cleaning_gives_up_on_a_file_that_is_held(
    wal: None, new_store: Callable[..., SqliteStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greenroom.sqlite_store.CLEAN_SECONDS", 0.02)
    monkeypatch.setattr(lanes, "CLEANING_SECONDS", 0.05)
    clock = ManualClock()

    async def work() -> None:
        store = new_store(clock=clock, deadline_seconds=60)
        await store.create(session(expires=clock() + HOUR))
        writes = store._engine._writes
        assert writes is not None
        with held(tmp_path / "sessions.db"):
            clock.advance(seconds=3600)
            await until("asyncio", lambda: bool(writes.reason))
            await store.aclose()  # it can end what nobody waits for

    run("asyncio", work)


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
