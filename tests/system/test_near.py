"""Near caches of real processes: one changes and ends sessions, the other never shows what was before.

Both processes run on one host, so their times are of one clock.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from greenroom import ClusterStore, new_session_id, store_from_url
from tests.system.stage import HEALTHY_SECONDS, SETTINGS, SharedCluster, session, succeeded

pytestmark = [pytest.mark.system, pytest.mark.trio]

NEAR = "near_sessions=1000&near_eager=true"
LAPSED_SECONDS = 0.33
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
