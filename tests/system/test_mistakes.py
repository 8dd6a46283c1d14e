"""Mistakes in how processes are started: each is told in one line, soon, and harms nobody who runs."""

import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from greenroom.errors import UnavailableError
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom_cluster.inspection import inspect_cluster
from greenroom_cluster.orders import forget_node_at
from greenroom_cluster.questions import fetch_map
from greenroom_cluster.runtime.ports import free_port

pytestmark = [pytest.mark.system, pytest.mark.trio]

CLUSTER = "shop"


class Command:
    """A running `greenroom` command with JSON logs. `events` are its log lines, `lines` the others."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self._read_all = trio.Event()

    async def read(self) -> None:
        """Take in what it writes on stderr, to the end."""
        rest = b""
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.startswith(b"{"):
                    self.events.append(msgspec.json.decode(line))
                else:
                    self.lines.append(line.decode())
        self._read_all.set()

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.events if line["event"] == event]

    async def until_logged(self, event: str) -> dict[str, Any]:
        """Return the first such log line."""
        with trio.fail_after(30):
            while not self.logged(event):
                await trio.lowlevel.checkpoint()
        return self.logged(event)[0]

    async def exit(self) -> int:
        """Wait until it has ended and everything it wrote was read."""
        with trio.move_on_after(30):
            status = await self.process.wait()
            await self._read_all.wait()
            return status
        raise AssertionError(f"it goes on after saying {self.events} and {self.lines}")


class Host:
    """Starts commands, and ends them all at the end."""

    def __init__(self, nursery: trio.Nursery, directory: Path) -> None:
        self._nursery = nursery
        self.options = ("--shards", "4", "--cluster", CLUSTER, "--data-dir", str(directory))
        self.coordinator = f"127.0.0.1:{free_port()}"

    async def start(self, *arguments: str) -> Command:
        command = [sys.executable, "-m", "greenroom_cluster", *arguments, "--log-format", "json"]
        process = await self._nursery.start(
            partial(trio.run_process, command, stdin=None, stderr=subprocess.PIPE, check=False)
        )
        started = Command(process)
        self._nursery.start_soon(started.read)
        return started

    async def start_coordinator(self) -> Command:
        coordinator = await self.start("coordinator", "--listen", self.coordinator, *self.options)
        await coordinator.until_logged("coordinator_serves")
        return coordinator

    async def start_node(self, name: str, coordinator: str = "", cluster: str = CLUSTER) -> Command:
        return await self.start(
            *("node", "--name", name, "--listen", f"127.0.0.1:{free_port()}", "--actors", "1"),
            *("--coordinator", coordinator or self.coordinator, "--cluster", cluster),
        )

    async def until_map(self, condition: Callable[[Any], bool]) -> None:
        with trio.fail_after(30):
            while True:
                try:
                    if condition(
                        await fetch_map([self.coordinator], CLUSTER, credentials=LoopbackSecrets(CLUSTER))
                    ):
                        return
                except UnavailableError:
                    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def host(directory: Path) -> AsyncIterator[Host]:
    async with trio.open_nursery() as nursery:
        yield Host(nursery, directory)
        nursery.cancel_scope.cancel()


def told(command: Command) -> str:
    """The one line that is not a log line."""
    (line,) = command.lines
    assert line.startswith("greenroom: ")
    return line


async def test_second_node_of_a_name_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async with host(tmp_path) as here:
        coordinator = await here.start_coordinator()
        first = await here.start_node("a")
        address = (await first.until_logged("node_joined"))["address"]
        second = await here.start_node("a")
        assert await second.exit() == 2
        assert told(second) == f"greenroom: node a is alive at {address}: give this one another --name"
        await here.until_map(lambda found: found.nodes["a"].address == address)
        assert first.process.returncode is None
        assert not first.logged("name_taken_over")
        assert len(coordinator.logged("coordinator_warning")) == 0


async def test_node_whose_name_was_taken_over_stops(tmp_path: Path) -> None:
    async with host(tmp_path) as here:
        await here.start_coordinator()
        first = await here.start_node("a")
        await first.until_logged("node_joined")
        first.process.send_signal(signal.SIGSTOP)
        try:
            second = await here.start_node("a")
            address = (await second.until_logged("node_joined"))["address"]
        finally:
            first.process.send_signal(signal.SIGCONT)
        assert await first.exit() == 1
        assert len(first.logged("name_taken_over")) == 1
        assert "taken over" in told(first)
        assert address in told(first)
        assert second.process.returncode is None


async def test_node_restarted_after_a_kill_has_its_name_at_once(tmp_path: Path) -> None:
    async with host(tmp_path) as here:
        await here.start_coordinator()
        first = await here.start_node("a")
        await first.until_logged("node_joined")
        first.process.kill()
        second = await here.start_node("a")
        await second.until_logged("node_joined")
        assert not second.logged("name_refused")


async def test_node_with_another_cluster_name_ends_with_one_line(tmp_path: Path) -> None:
    async with host(tmp_path) as here:
        await here.start_coordinator()
        node = await here.start_node("a", cluster="another")
        assert await node.exit() == 2
        assert "--cluster" in told(node)
        assert here.coordinator in told(node)


@pytest.mark.parametrize("name", ["map.bin", "marks.bin"])
async def test_a_coordinator_with_a_damaged_file_ends_with_one_line(name: str, tmp_path: Path) -> None:
    async with host(tmp_path) as here:
        first = await here.start_coordinator()
        first.process.send_signal(signal.SIGTERM)
        assert await first.exit() == 0
        (tmp_path / name).write_bytes(bytes(60))
        again = await here.start("coordinator", "--listen", here.coordinator, *here.options)
        assert await again.exit() == 2
        assert "damaged" in told(again)
        assert name in told(again)
        assert not again.logged("process_failed")


async def test_node_sent_to_another_node_ends_with_one_line(tmp_path: Path) -> None:
    async with host(tmp_path) as here:
        await here.start_coordinator()
        first = await here.start_node("a")
        address = (await first.until_logged("node_joined"))["address"]
        second = await here.start_node("b", coordinator=address)
        assert await second.exit() == 2
        assert "--coordinator" in told(second)


async def test_a_node_without_a_coordinator_stops_as_one_that_never_joined(tmp_path: Path) -> None:
    """It says what is missing."""
    async with host(tmp_path) as here:
        node = await here.start_node("a")
        warning = await node.until_logged("coordinator_unreachable")
        assert here.coordinator in warning["reason"]
        assert "--coordinator" in warning["hint"]
        node.process.send_signal(signal.SIGTERM)
        assert await node.exit() == 0
        assert (await node.until_logged("node_stopped"))["removed"] is False
        assert len(node.logged("coordinator_unreachable")) == 1


async def test_first_sight_of_a_coordinator_that_starts_later_is_no_alarm(tmp_path: Path) -> None:
    async with host(tmp_path) as here:
        node = await here.start_node("a")
        await node.until_logged("coordinator_unreachable")
        await here.start_coordinator()
        reached = await node.until_logged("coordinator_reached")
        assert (reached["level"], "away_seconds" in reached) == ("info", False)


async def test_last_node_says_what_its_leaving_costs(tmp_path: Path) -> None:
    async with host(tmp_path) as here:
        await here.start_coordinator()
        node = await here.start_node("a")
        await here.until_map(lambda found: all(shard.members for shard in found.shards))
        node.process.send_signal(signal.SIGTERM)
        told = await node.until_logged("not_all_handed_over")
        assert (told["shards"], told["others_up"]) == (4, False)
        assert "no other node is up" in told["hint"]
        assert await node.exit() == 0


async def test_node_tells_when_its_coordinator_goes_and_comes_back(tmp_path: Path) -> None:
    async with host(tmp_path) as here:
        coordinator = await here.start_coordinator()
        node = await here.start_node("a")
        await node.until_logged("node_joined")
        coordinator.process.kill()
        await node.until_logged("coordinator_unreachable")
        await here.start_coordinator()
        assert (await node.until_logged("coordinator_reached"))["level"] == "warning", "as the alarm was"
        assert node.process.returncode is None


async def test_shards_that_wait_for_a_lost_node_are_told_with_the_ways_out(tmp_path: Path) -> None:
    async with host(tmp_path) as here:
        coordinator = await here.start_coordinator()
        nodes = [await here.start_node(name) for name in ("a", "b")]
        await here.until_map(lambda found: all(len(shard.members) == 2 for shard in found.shards))
        for node in nodes:
            node.process.kill()
        await (await here.start_node("a")).until_logged("node_joined")

        def told() -> list[str]:
            messages = [line["message"] for line in coordinator.logged("coordinator_warning")]
            return [message for message in messages if message.startswith("4 shards wait for node b,")]

        with trio.fail_after(30):
            while not told():
                await trio.lowlevel.checkpoint()
            status = await inspect_cluster([here.coordinator], CLUSTER, credentials=LoopbackSecrets(CLUSTER))
            while not status.waiting:
                status = await inspect_cluster(
                    [here.coordinator], CLUSTER, credentials=LoopbackSecrets(CLUSTER)
                )
        assert [each.told() for each in status.waiting] == told()
        assert "`greenroom forget-node b`" in told()[0]
        await forget_node_at(here.coordinator, CLUSTER, "b", credentials=LoopbackSecrets(CLUSTER))
        await here.until_map(lambda found: all(shard.members for shard in found.shards))
        with trio.fail_after(30):
            while not all(shard.state == "alone" for shard in status.shards):
                status = await inspect_cluster(
                    [here.coordinator], CLUSTER, credentials=LoopbackSecrets(CLUSTER)
                )
        assert len(told()) == 1


@contextmanager
def few_files() -> Iterator[None]:
    """What is started meanwhile begins with a lower limit of open files than it may have.

    This process has the lower limit too, and enough for what other tests have left open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_node_opens_as_many_files_as_the_host_allows(tmp_path: Path) -> None:
    """A node serves as many clients as an actor does, so it too raises what it started with."""
    async with host(tmp_path) as here:
        with few_files():
            node = await here.start_node("a")
        await node.until_logged("node_started")
        soft, hard = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
        assert soft == hard
