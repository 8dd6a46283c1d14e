"""Other clients' sessions during an attack: all there afterwards, served as fast as before, no process ended.

Canaries live in a process of their own, `python -m tests.system.canaries`, so that the attacker's work in the
test's process does not count as their delay. It takes a `Flock` as one line of JSON on stdin, makes the
sessions, works on them until it knows how fast they are served in peace, and writes "ready". It goes on until
stdin is closed, then reads every session once more and writes a `Report` as one line of JSON.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import trio

from greenroom import BaseSessionStore, SessionData, new_session_id, store_from_url
from greenroom.errors import GreenroomError
from greenroom.ids import POINT_BITS
from greenroom_cluster.runtime.local import LocalCluster
from greenroom_cluster.runtime.processes import ProcessHandle
from tests.system.load import REPOSITORY

LIFETIME = timedelta(hours=1)
USER_ID = "canary"
# Each of a few callers waits between operations, so that canaries are no load of their own.
CALLERS = 4
PAUSE_SECONDS = 0.002
OPERATIONS_MIN = 1000
# The longest that one step of an actor may take; and where tests share a machine, peace is no better.
NOISE_SECONDS = 0.1
READY_SECONDS = 60.0
FINISH_SECONDS = 60.0


class Flock(msgspec.Struct, frozen=True):
    """What a process of canaries is told."""

    url: str
    sessions: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the canaries. `errors` counts failed operations by the name of the error."""

    calm_median_seconds: float
    median_seconds: float
    calm_p99_seconds: float
    p99_seconds: float
    slowest_seconds: float
    operations: int
    lost: int
    errors: dict[str, int]


class Canaries:
    """What the body of `canaries` may look at; `report` is there once the block is over."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._processes = {pid: ProcessHandle(pid) for pid in cluster.pids()}
        self._cluster = cluster
        self.report: Report | None = None

    @property
    def ended(self) -> set[int]:
        """Process ids of the cluster that are gone or new since the canaries came."""
        gone = {pid for pid, process in self._processes.items() if process.exited()}
        return gone | (set(self._processes) ^ set(self._cluster.pids()))


@asynccontextmanager
async def canaries(
    cluster: LocalCluster, *, sessions: int = 64, slowdown_max: float = 2.0
) -> AsyncIterator[Canaries]:
    """Keep canaries while the body attacks; fail if one is lost, slow or refused, or if a process ended.

    Slow: their p99 is over `slowdown_max` times what it was before the body, and over `NOISE_SECONDS`. The
    cluster must be whole and stay so.
    """
    watched = Canaries(cluster)
    process = await trio.lowlevel.open_process(
        (sys.executable, "-m", "tests.system.canaries"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdin is not None
    try:
        await process.stdin.send_all(msgspec.json.encode(Flock(cluster.url, sessions)) + b"\n")
        with trio.fail_after(READY_SECONDS):
            assert await _line(process) == b"ready", "the canaries did not begin; see their standard error"
        yield watched
        await process.stdin.aclose()
        with trio.fail_after(FINISH_SECONDS):
            report = watched.report = msgspec.json.decode(await _line(process), type=Report)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
    assert not watched.ended, f"processes {sorted(watched.ended)} of the cluster ended or are new"
    assert report.lost == 0, report
    assert not report.errors, report
    assert report.p99_seconds <= max(slowdown_max * report.calm_p99_seconds, NOISE_SECONDS), report


async def _line(process: trio.Process) -> bytes:
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        chunk = await process.stdout.receive_some()
        assert chunk, "the canaries ended; see their standard error"
        line += chunk
    return line.strip()


# --- the canaries' own process ---------------------------------------------------------------------------


class _LostError(Exception):
    """A canary, or what was written to it, is gone."""


class _Canary:
    """One session. `possible` are the rounds that it may be at: more than one after a failed write."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.possible = {0}

    async def sing(self, store: BaseSessionStore) -> None:
        """Read what was written last and write the next round. Raises _LostError if it is not there."""
        found = await store.get(self.session_id)
        if found is None or found.data["round"] not in self.possible:
            raise _LostError
        self.possible.add(found.data["round"] + 1)
        written = await store.patch(self.session_id, set={"round": found.data["round"] + 1})
        self.possible = {written.data["round"]}

    async def is_lost(self, store: BaseSessionStore) -> bool:
        """Whether it, or its last write, is not there any more."""
        found = await store.get(self.session_id)
        return found is None or found.data["round"] not in self.possible


class _Keeper:
    """Works on all canaries of the process, and measures."""

    def __init__(self, store: BaseSessionStore, flock: Flock) -> None:
        self._store = store
        points = 1 << POINT_BITS
        self._canaries = [
            _Canary(new_session_id(number * points // flock.sessions)) for number in range(flock.sessions)
        ]
        self._seconds: list[float] = []
        self._errors: Counter[str] = Counter()

    async def begin(self) -> None:
        """Make the sessions."""
        for canary in self._canaries:
            await self._store.create(
                SessionData(
                    session_id=canary.session_id,
                    expires=datetime.now(UTC) + LIFETIME,
                    user_id=USER_ID,
                    data={"round": 0},
                )
            )

    async def work(self, over: trio.Event) -> list[float]:
        """Work until `over` and until there are enough figures; return how long each round took."""
        self._seconds = []
        async with trio.open_nursery() as nursery:
            for caller in range(CALLERS):
                nursery.start_soon(self._call, self._canaries[caller::CALLERS], over)
        return self._seconds

    async def _call(self, mine: list[_Canary], over: trio.Event) -> None:
        while True:
            for canary in mine:
                if over.is_set() and len(self._seconds) >= OPERATIONS_MIN:
                    return
                began = trio.current_time()
                try:
                    await canary.sing(self._store)
                except (GreenroomError, _LostError) as error:
                    self._errors[type(error).__name__] += 1
                self._seconds.append(trio.current_time() - began)
                await trio.sleep(PAUSE_SECONDS)

    async def report(self, calm: list[float], attacked: list[float]) -> Report:
        """Look at all canaries once more."""
        return Report(
            calm_median_seconds=_percentile(calm, 50),
            median_seconds=_percentile(attacked, 50),
            calm_p99_seconds=_percentile(calm, 99),
            p99_seconds=_percentile(attacked, 99),
            slowest_seconds=max(attacked),
            operations=len(attacked),
            lost=sum([await canary.is_lost(self._store) for canary in self._canaries]),
            errors=dict(self._errors),
        )


def _percentile(seconds: list[float], percent: int) -> float:
    return sorted(seconds)[len(seconds) * percent // 100]


async def _main(flock: Flock) -> None:
    async with store_from_url(flock.url) as store:
        keeper = _Keeper(store, flock)
        await keeper.begin()
        over = trio.Event()
        over.set()
        calm = await keeper.work(over)
        over = trio.Event()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        attacked: list[float] = []
        async with trio.open_nursery() as nursery:

            async def work() -> None:
                attacked.extend(await keeper.work(over))

            nursery.start_soon(work)
            await trio.to_thread.run_sync(sys.stdin.read)
            over.set()
        report = await keeper.report(calm, attacked)
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(_main, msgspec.json.decode(sys.stdin.readline(), type=Flock))
