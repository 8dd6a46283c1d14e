"""Real processes read their certificates anew: on SIGHUP, and when the files change."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from greenroom_cluster.inspection import inspect_cluster
from tests.system.test_mistakes import CLUSTER, Command
from tests.system.test_tls import Secured, exchange, secured, uri

pytestmark = [pytest.mark.system, pytest.mark.trio]

PROCESSES = 2
"""A supervisor and its child, at the coordinator as at a node of one actor."""


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():
            await trio.lowlevel.checkpoint()


def serials(command: Command) -> list[int]:
    return [int(line["serial"], 16) for line in command.logged("tls_files_read")]


async def test_good_files_are_used_by_all_processes_and_bad_ones_by_none(tmp_path: Path) -> None:
    async with secured(tmp_path) as cluster:
        before = await members(cluster)
        await check_hangup(cluster, cluster.nodes["n1"], "node", "n1")
        await check_hangup(cluster, cluster.coordinator, "coordinator", "c1")
        await check_change(cluster, cluster.nodes["n2"], "n2")
        await check_bad(cluster, cluster.nodes["n3"], "n3", tmp_path)
        assert await exchange(cluster.url(cluster.client))
        assert await members(cluster) == before, "a SIGHUP has ended no process"


async def members(cluster: Secured) -> dict[str, int]:
    found = await inspect_cluster(cluster.addresses, CLUSTER, credentials=cluster.operator)
    return {actor.slot: actor.pid for actor in found.actors}


async def check_hangup(cluster: Secured, command: Command, role: str, name: str) -> None:
    renewed = cluster.authority.issue(uri(role, name))
    cluster.options_of(renewed, name)
    command.process.send_signal(signal.SIGHUP)
    await until(lambda: len(serials(command)) >= PROCESSES)
    assert set(serials(command)) == {renewed.serial}


async def check_change(cluster: Secured, command: Command, name: str) -> None:
    renewed = cluster.authority.issue(uri("node", name))
    cluster.options_of(renewed, name)
    await until(lambda: serials(command)[-PROCESSES:] == [renewed.serial] * PROCESSES)


async def check_bad(cluster: Secured, command: Command, name: str, folder: Path) -> None:
    """The former files stay in use, each process says why, and that it is mended."""
    key = folder / f"{name}.key"
    key.chmod(0o644)
    command.process.send_signal(signal.SIGHUP)
    await until(lambda: len(command.logged("tls_files_refused")) == PROCESSES)
    assert all("has the mode 0644" in line["reason"] for line in command.logged("tls_files_refused"))
    assert await exchange(cluster.url(cluster.client))
    for pid in (await members(cluster)).values():
        os.kill(pid, signal.SIGHUP)  # as at the end of a terminal, or by a manager that tells everybody
    key.chmod(0o600)
    await until(lambda: len(serials(command)) >= PROCESSES)
    assert len(command.logged("tls_files_refused")) == PROCESSES
