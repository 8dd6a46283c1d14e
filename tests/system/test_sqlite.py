"""A file of sessions among real processes: two that share it, and one that is killed again and again."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import trio
import trio.lowlevel

from greenroom import SqliteStore
from greenroom.sqlite import files
from simulations.checks.linearizability import Operation, assert_explained
from tests.system.load import REPOSITORY, Library, open_load
from tests.system.sqlite_writers import Told, Work, session_id_of

pytestmark = [pytest.mark.system, pytest.mark.trio]

# 300 were run once: docs/decisions/sqlite-store.md.
ROUNDS = int(os.environ.get("GREENROOM_SQLITE_KILLS", "10"))
ROUND_SECONDS = 60


def assert_sound(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_two_processes_share_a_file(tmp_path: Path) -> None:
    """One under asyncio and one under trio change the same sessions; some order explains every result."""
    path = tmp_path / "sessions.db"
    options = {
        "workers": 12,
        "fixed_sessions": 12,
        "operations_min": 1500,
        "pause_seconds": 0.002,
        "stores": 2,
    }
    async with open_load(f"sqlite:///{path}", tmp_path, **options) as load:
        await trio.lowlevel.checkpoint()
    assert_explained(load.history)
    assert not load.errors
    assert load.acknowledged_writes > 1000
    assert_sound(path)


class KilledWriter:
    """A process of callers that is killed in the middle of its work, and what it told until then."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.history: dict[int, Operation] = {}

    async def live_and_die(self, told_min: int, rng: random.Random) -> None:
        """Let it tell so much, and a little more; kill it, and read what it has told."""
        process = await trio.lowlevel.open_process(
            (sys.executable, "-m", "tests.system.sqlite_writers"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            await process.stdin.send_all(msgspec.json.encode(self._work) + b"\n")
            received, end = b"", float("inf")
            while trio.current_time() < end:
                with trio.move_on_at(end):
                    received += await self._more(process)
                if end == float("inf") and received.count(b"\n") > told_min:
                    end = trio.current_time() + rng.uniform(0, 0.05)
        finally:
            process.send_signal(signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()
        while chunk := await process.stdout.receive_some():
            received += chunk
        for line in received.splitlines():
            told = msgspec.json.decode(line, type=Told)
            self.history[told.number] = told.operation

    async def _more(self, process: trio.Process) -> bytes:
        assert process.stdout is not None
        chunk = await process.stdout.receive_some()
        if not chunk:
            raise RuntimeError("the writers ended by themselves; see their standard error")
        return bytes(chunk)


async def found_in(store: SqliteStore, work: Work) -> dict[str, Operation]:
    """Read every session as the next process finds it."""
    found = {}
    for number in range(work.sessions):
        name = f"session-{number:03}"
        begun = time.monotonic_ns()
        session = await store.get(session_id_of(name))
        found[name] = Operation(
            client="test",
            session=name,
            key=name,
            kind="get",
            invoked_ns=begun,
            completed_ns=time.monotonic_ns(),
            outcome="ok",
            version=None if session is None else session.version,
            result=None if session is None else session.data,
        )
    return found


def as_the_beginning(read: Operation, now_ns: int) -> Operation:
    """Return a creation that explains what a round finds when it begins."""
    return msgspec.structs.replace(
        read, kind="create", data=read.result, result=None, invoked_ns=now_ns, completed_ns=now_ns + 1
    )


@pytest.mark.timeout(120 + 4 * ROUNDS)
@pytest.mark.parametrize("journal", ["wal", "rollback"])
async def test_killed_writers_lose_nothing_acknowledged(
    journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each SIGKILL under load, some order of all operations explains what the file holds."""
    if journal == "wal":  # one process at a time, so that any library may
        monkeypatch.setattr(files, "library_version", lambda: (3, 51, 3))
    path, rng = tmp_path / "sessions.db", random.Random(7)
    libraries: tuple[Library, ...] = ("asyncio", "trio")
    found: dict[str, Operation] = {}
    acknowledged = 0
    for number in range(ROUNDS):
        work = Work(path=str(path), library=libraries[number % 2], wal=journal == "wal", round=number)
        began = [
            as_the_beginning(each, time.monotonic_ns()) for each in found.values() if each.result is not None
        ]
        writer = KilledWriter(work)
        with trio.fail_after(ROUND_SECONDS):
            await writer.live_and_die(rng.randrange(100, 1500), rng)
            async with SqliteStore(path) as store:
                found = await found_in(store, work)
        assert_explained([*began, *writer.history.values(), *found.values()])
        done = [each for each in writer.history.values() if each.outcome == "ok" and each.kind != "get"]
        acknowledged += len(done)
        assert_sound(path)
    assert acknowledged > 30 * ROUNDS
    print(f"{journal}: {ROUNDS} kills, {acknowledged} acknowledged writes, none lost")
