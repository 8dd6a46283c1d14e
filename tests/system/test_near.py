"""Near caches of real processes: nobody is shown what was before a change that was acknowledged.

All processes run on one host, so their times are of one clock.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from greenroom import ClusterStore, new_session_id, store_from_url
from tests.system.load import Load, Release
from tests.system.stage import (
    HEALTHY_SECONDS,
    SETTINGS,
    Probe,
    SharedCluster,
    loaded,
    session,
    stopped,
    succeeded,
)

pytestmark = [pytest.mark.system, pytest.mark.trio]

NEAR = "near_sessions=1000&near_eager=true"
LAPSED_SECONDS = 0.33
ROUNDS = int(os.environ.get("GREENROOM_NEAR_ROUNDS", "1"))
CHAOS_SECONDS = float(os.environ.get("GREENROOM_NEAR_CHAOS_SECONDS", "12"))
PATIENCE_SECONDS = 0.5
"""For a busy machine, beside what is promised."""


class Reader:
    """The other process, and what it was shown once it has ended."""

    def __init__(self, process: "trio.Process") -> None:
        self.process = process
        self.report: dict[str, Any] = {}


@asynccontextmanager
async def reading(url: str, ids: list[str]) -> AsyncIterator[Reader]:
    """Have another process read these sessions around the body."""
    command = [sys.executable, "-m", "tests.system.near_reader", url, *ids]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    reader = Reader(process)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        with trio.fail_after(HEALTHY_SECONDS):
            said = b""
            while b"\n" not in said:
                said += await process.stdout.receive_some(1000)
        yield reader
        await process.stdin.aclose()
        said = said.partition(b"\n")[2]
        with trio.fail_after(HEALTHY_SECONDS):
            while more := await process.stdout.receive_some(1 << 20):
                said += more
            await process.wait()
        reader.report = json.loads(said)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Book:
    """What was acknowledged when: (time, version) of each session; version 0 for its end."""

    def __init__(self, store: ClusterStore, ids: list[str]) -> None:
        self.store = store
        self.ids = ids
        self.said: dict[str, list[tuple[int, int]]] = {each: [] for each in ids}
        self.ended_from = 1 << 63

    async def patch_all(self, value: str) -> float:
        """Change all sessions, one after the other; return how many seconds the slowest took."""
        slowest = 0.0
        for each in self.ids:
            began = trio.current_time()
            found = await self.store.patch(each, set={"value": value})
            slowest = max(slowest, trio.current_time() - began)
            self.said[each].append((time.monotonic_ns(), found.version))
        return slowest

    async def delete_all(self) -> None:
        self.ended_from = time.monotonic_ns()
        for each in self.ids:
            await self.store.delete(each)
            self.said[each].append((time.monotonic_ns(), 0))

    def judge(self, shown: dict[str, list[list[int]]]) -> None:
        """Demand that no read that began after an acknowledgement shows what was before."""
        for each, reads in shown.items():
            said = iter([*self.said[each], (1 << 63, 0)])
            known, following = 0, next(said)
            for began, ended, version in reads:
                while following[0] < began:
                    known = following[1] or -1
                    following = next(said)
                if version:
                    assert 0 <= known <= version, (each, began, version, known)
                else:
                    assert ended > self.ended_from, "nobody has ended it yet"


async def test_no_process_shows_what_was_before_a_change(cluster: SharedCluster) -> None:
    url = f"{cluster.url}?{NEAR}"
    store = store_from_url(url)
    assert isinstance(store, ClusterStore)
    width = 65_536 // SETTINGS.shards
    ids = [new_session_id(index * width + 5) for index in range(0, SETTINGS.shards, 2)]
    async with store:
        for each in ids:
            await store.create(session(each, value="first"))
        book = Book(store, ids)
        async with reading(url, ids) as reader:
            for number in range(60):
                await book.patch_all(f"awake {number}")
                for each in ids:
                    await store.get(each)
            reader.process.send_signal(signal.SIGSTOP)
            try:
                stopped = await book.patch_all("stopped")
            finally:
                reader.process.send_signal(signal.SIGCONT)
            for number in range(20):
                await book.patch_all(f"again {number}")
            killed = await cluster.busiest_primary()
            os.kill(killed.pid, signal.SIGKILL)
            for number in range(40):
                await book.patch_all(f"killed {number}")
            await cluster.until(succeeded(killed))
            await book.delete_all()
        book.judge(reader.report["shown"])
        assert stopped < LAPSED_SECONDS + PATIENCE_SECONDS
        assert reader.report["hits"] > 100
        assert reader.report["invalidations"] > 50
        assert all(
            reads[-1][2] in (0, book.said[each][-2][1]) for each, reads in reader.report["shown"].items()
        )
    await cluster.healthy()


# --- loads under chaos -----------------------------------------------------------------------------------


class Chaos:
    """Has something happen all the time: to an actor, once all is whole, and meanwhile to some caller."""

    def __init__(self, cluster: SharedCluster, load: Load, probe: Probe, seed: int) -> None:
        self._cluster = cluster
        self._load = load
        self._probe = probe
        self._random = Random(seed)
        self.happened: Counter[str] = Counter()
        self.slowest_seconds = 0.0

    async def go_on(self, seconds: float) -> None:
        """Go on for so long."""
        over = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_callers, over)
            while trio.current_time() < over:
                await self._random.choice((self._kill_actor, self._pause_actor))()
                await self._cluster.healthy()

    async def _for(self, least: float, most: float) -> None:
        """Let a while pass, in which every shard is written and read."""
        took = await self._probe.throughout(self._random.uniform(least, most))
        self.slowest_seconds = max(self.slowest_seconds, took)

    async def _stop_callers(self, over: float) -> None:
        """Stop one of the processes of callers, again and again, for less and for more than its lease."""
        while trio.current_time() < over:
            with trio.move_on_after(self._random.uniform(0.0, 0.4)):
                await trio.sleep_forever()
            _, process = self._random.choice(self._load.processes)
            self.happened["caller stopped"] += 1
            with stopped(process.pid), trio.move_on_after(self._random.choice((0.1, 0.25, 0.4, 1.2))):
                await trio.sleep_forever()

    async def _kill_actor(self) -> None:
        victim = await self._cluster.busiest_primary()
        self.happened["actor killed"] += 1
        os.kill(victim.pid, signal.SIGKILL)
        await self._for(0.2, 0.6)
        await self._cluster.until(succeeded(victim))

    async def _pause_actor(self) -> None:
        victim = await self._cluster.busiest_primary()
        self.happened["actor paused"] += 1
        with stopped(victim.pid):
            await self._for(0.2, 2.0)


@pytest.mark.timeout(120 + ROUNDS * (CHAOS_SECONDS + 120))
async def test_no_hit_is_stale_whatever_happens(
    cluster: SharedCluster, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Half of the callers keep sessions; all block their loops now and then. Every result is judged."""
    for number in range(ROUNDS):
        directory = tmp_path / str(number)
        directory.mkdir()
        async with (
            store_from_url(f"{cluster.url}?{NEAR}") as store,
            loaded(
                cluster,
                directory,
                near=True,
                url=f"{cluster.url}?{NEAR}",
                others=[Release(sys.executable, cluster.url)],
                libraries=("asyncio", "trio", "uvloop"),
                workers=4,
                fixed_sessions=16,
                own_sessions=4,
                reads=150,
                pause_seconds=0.03,
                block_seconds=0.4,
            ) as load,
        ):
            probe = Probe(store)
            await probe.begin()
            chaos = Chaos(cluster, load, probe, number)
            await chaos.go_on(CHAOS_SECONDS)
            await probe.check()
        told = {name: sum(each[name] for each in load.near) for name in ("hits", "misses", "invalidations")}
        told |= {**chaos.happened, "operations": len(load.history), "longest": load.longest_seconds()}
        told |= {"slowest round": chaos.slowest_seconds}
        record_property(f"round_{number}", told)
        assert min(chaos.happened["caller stopped"], chaos.happened.total() - 1) > 0
        with_caches = [each for each in load.near if each["supported"]]
        assert len(with_caches) == 3
        assert all(each["hits"] and each["invalidations"] for each in with_caches)
