"""Stores that live through a cluster's end and the start of another on its ports."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import pytest
import trio

from greenroom import ClusterStore, GreenroomError, UsageError, new_session_id
from greenroom_cluster.runtime.ports import free_port
from tests.system.stage import HEALTHY_SECONDS, session

pytestmark = [pytest.mark.system, pytest.mark.trio]

HEALED_SECONDS = 30.0


class Up:
    """`greenroom up` at the same ports, again and again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: subprocess.Popen[bytes] | None = None
        while True:
            port = free_port()
            if not {port, port + 1} & {10_000, 65_535}:
                break
        self.listen = f"127.0.0.1:{port}"
        self.coordinator = f"127.0.0.1:{free_port()}"

    def _spawn(self, *options: str) -> subprocess.Popen[bytes]:
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "greenroom_cluster", "up", "--json"),
                    *("--nodes", "2", "--actors", "1", "--listen", self.listen),
                    *("--coordinator-listen", self.coordinator, *options),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "GREENROOM_LOG_LEVEL": "warning"},
            )

    async def start(self, *options: str) -> None:
        """Start it, and wait until it says that it is complete."""
        self._running = self._spawn(*options)
        assert self._running.stdout is not None
        with trio.fail_after(HEALTHY_SECONDS):
            told = await trio.to_thread.run_sync(self._running.stdout.readline, abandon_on_cancel=True)
        assert told, (self._directory / "log").read_text()
        assert json.loads(told)["event"] == "ready"

    async def interrupt(self) -> None:
        """What Ctrl-C does."""
        assert self._running is not None
        self._running.send_signal(signal.SIGINT)
        await trio.to_thread.run_sync(self._running.communicate, None, HEALTHY_SECONDS)

    def end(self) -> None:
        if self._running is not None and self._running.poll() is None:
            self._running.send_signal(signal.SIGINT)
            try:
                self._running.wait(10)
            except subprocess.TimeoutExpired:
                self._running.kill()
                self._running.wait()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    started = Up(tmp_path)
    try:
        yield started
    finally:
        started.end()


async def eventually_serves(store: ClusterStore) -> None:
    """Demand that a session can be made and read again before long."""
    with trio.fail_after(HEALED_SECONDS):
        while True:
            session_id = new_session_id()
            try:
                await store.create(session(session_id))
            except UsageError:
                raise
            except GreenroomError:
                continue
            found = await store.get(session_id)
            assert found is not None
            return


@pytest.mark.parametrize(
    ("shards", "kept"),
    [((8, 8, 32, 1), False), ((8, 16), True)],
    ids=["temporary directory", "directory wiped"],
)
async def test_a_store_lives_through_a_cluster_started_anew(
    up: Up, tmp_path: Path, shards: tuple[int, ...], *, kept: bool
) -> None:
    """With as many shards as before, with more and with fewer."""
    data = tmp_path / "data"
    options = ("--data-dir", str(data)) if kept else ()
    async with ClusterStore(up.listen, deadline_seconds=2) as store, ClusterStore(up.listen) as idle:
        former = ""
        for count in shards:
            await up.start("--shards", str(count), *options)
            await eventually_serves(store)
            await eventually_serves(idle)
            if former:
                assert await store.get(former) is None
            former = new_session_id()
            await store.create(session(former))
            await up.interrupt()
            if kept:
                shutil.rmtree(data)


class AsyncioApp:
    """A store in an asyncio loop of its own, which is asked nothing unless a test has it."""

    def __init__(self, nodes: str) -> None:
        self._nodes = nodes
        self._asked: SimpleQueue[bool] = SimpleQueue()
        self._answers: SimpleQueue[GreenroomError | None] = SimpleQueue()
        self._thread = Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        async with ClusterStore(self._nodes, deadline_seconds=2) as store:
            while await loop.run_in_executor(None, self._asked.get):
                try:
                    await store.check(every_shard=True)
                    self._answers.put(None)
                except GreenroomError as error:
                    self._answers.put(error)

    async def ask(self) -> GreenroomError | None:
        """Have it ask every shard; return the error, if it is one."""
        self._asked.put(True)
        return await trio.to_thread.run_sync(self._answers.get)

    def end(self) -> None:
        self._asked.put(False)
        self._thread.join()


@pytest.fixture
def app(up: Up) -> Iterator[AsyncioApp]:
    started = AsyncioApp(up.listen)
    try:
        yield started
    finally:
        started.end()


async def test_a_cluster_of_another_name_is_a_mistake_of_whoever_started_it(up: Up, app: AsyncioApp) -> None:
    """Which ends when the mistake does."""
    await up.start("--shards", "8")
    assert await app.ask() is None
    await up.interrupt()
    await up.start("--shards", "8", "--cluster", "other")
    with trio.fail_after(HEALED_SECONDS):
        while not isinstance(error := await app.ask(), UsageError):
            pass
    assert "cluster='greenroom'" in str(error)
    await up.interrupt()
    await up.start("--shards", "16")
    with trio.fail_after(HEALED_SECONDS):
        while await app.ask() is not None:
            pass
