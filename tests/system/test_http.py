"""The HTTP ports of a real cluster's processes."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from greenroom.loopback_secrets import LoopbackSecrets
from tests.system.stage import SharedCluster, loaded, stopped

HEALTHY_SECONDS = 120.0

pytestmark = [pytest.mark.system, pytest.mark.trio]


class Asker:
    """Asks every process of a cluster, as a scraper of the same user may."""

    def __init__(self, cluster: SharedCluster, client: httpx.AsyncClient) -> None:
        self._cluster = cluster
        self._client = client
        self._last_urls: dict[str, str] = {}
        name = cluster.settings.cluster
        self._token = LoopbackSecrets(name).http_token()

    @property
    def names(self) -> list[str]:
        return list(self._cluster.cluster.http_urls)

    async def get(self, name: str, path: str, *, shown: bool = True) -> httpx.Response:
        headers = {"authorization": f"Bearer {self._token}"} if shown else {}
        # A process that has ended is asked where it was.
        self._last_urls |= self._cluster.cluster.http_urls
        return await self._client.get(self._last_urls[name] + path, headers=headers)

    async def status(self, name: str, path: str) -> int:
        """Return the status of an answer, 0 for none."""
        try:
            return (await self.get(name, path)).status_code
        except httpx.TransportError:
            return 0

    async def until(self, name: str, path: str, wanted: Callable[[int], bool]) -> None:
        with trio.fail_after(HEALTHY_SECONDS):
            while not wanted(await self.status(name, path)):
                await a_while()


async def a_while() -> None:
    """Leave the processors to those who are asked."""
    await trio.sleep(0.1)


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, timeout=20)


async def test_every_process_of_a_cluster_answers(small_cluster: SharedCluster) -> None:
    await small_cluster.healthy()
    async with client() as each:
        ask = Asker(small_cluster, each)
        assert ask.names == ["coordinator", "n1", "n2"]
        for name in ask.names:
            assert await ask.status(name, "/livez") == 200
            assert await ask.status(name, "/readyz") == 200
            assert await ask.status(name, "/readyz?cluster") == 200
            assert (await ask.get(name, "/status.json", shown=False)).status_code == 401


async def test_what_is_shown_is_what_the_command_prints(small_cluster: SharedCluster) -> None:
    await small_cluster.healthy()
    seeds = ",".join(small_cluster.cluster.seeds)
    command = [sys.executable, "-m", "greenroom_cluster", "status", "--json", "--connect", seeds]
    async with client() as each:
        ask = Asker(small_cluster, each)
        # Sessions of other tests expire meanwhile: at some look all agree.
        with trio.fail_after(60):
            differs = ["unknown"]
            while differs:
                done = await trio.run_process(command, capture_stdout=True)
                printed: dict[str, Any] = json.loads(done.stdout)
                differs = []
                for name in ask.names:
                    shown = (await ask.get(name, "/status.json")).json()
                    assert shown.keys() == printed.keys()
                    keys = ("cluster", "version", "replicas", "nodes", "shards", "states", "healthy")
                    differs += [key for key in keys if shown[key] != printed[key]]


async def test_the_token_is_what_the_command_prints(small_cluster: SharedCluster) -> None:
    name = small_cluster.settings.cluster
    command = [sys.executable, "-m", "greenroom_cluster", "http-token", "--cluster", name]
    done = await trio.run_process(command, capture_stdout=True)
    assert done.stdout.decode().strip() == LoopbackSecrets(name).http_token()


async def test_a_node_without_one_of_its_actors_is_live_and_not_ready(small_cluster: SharedCluster) -> None:
    await small_cluster.healthy()
    victim = await small_cluster.busiest_primary()
    async with client() as each:
        ask = Asker(small_cluster, each)
        os.kill(victim.pid, signal.SIGKILL)
        with trio.fail_after(30):
            while await ask.status(victim.node, "/readyz") == 200:
                assert await ask.status(victim.node, "/livez") == 200
        while (await ask.status(victim.node, "/readyz")) != 200:
            assert await ask.status(victim.node, "/livez") == 200
            await a_while()
        await ask.until(victim.node, "/readyz?cluster", lambda status: status == 200)
        assert (await small_cluster.status()).healthy


async def test_an_actor_that_hangs_does_not_hang_its_nodes_port(small_cluster: SharedCluster) -> None:
    await small_cluster.healthy()
    victim = await small_cluster.busiest_primary()
    async with client() as each:
        ask = Asker(small_cluster, each)
        with stopped(victim.pid), trio.fail_after(15):
            assert await ask.status(victim.node, "/livez") == 200
            assert await ask.status(victim.node, "/readyz?cluster") == 503
            shown = (await ask.get(victim.node, "/status.json")).json()
    told = {actor["slot"]: actor["reachable"] for actor in shown["actors"] if actor["state"] == "up"}
    assert told.get(victim.slot) in {False, None}
    await small_cluster.healthy()


async def test_readiness_alone_leads_through_a_rolling_restart(
    slim_cluster: SharedCluster, tmp_path: Path
) -> None:
    """Whoever restarts them asks nothing but the node that was started last; no caller meets an error."""
    await slim_cluster.healthy()
    async with client() as each, loaded(slim_cluster, tmp_path):
        ask = Asker(slim_cluster, each)
        for name in ("n1", "n2", "n3"):
            assert await ask.status(name, "/livez") == 200
            assert await slim_cluster.stop_node(name) == 0
            assert await ask.status(name, "/livez") == 0
            await slim_cluster.start_node(name)
            await ask.until(name, "/readyz?cluster", lambda status: status == 200)


async def test_a_node_refuses_an_http_port_beyond_loopback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "greenroom_cluster", "node", "--name", "a", "--http", "0.0.0.0:0"]
    command += ["--listen", "127.0.0.1:0"]
    with trio.fail_after(60):
        done = await trio.run_process(command, capture_stderr=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    told = done.stderr.decode()
    assert "--http" in told
    assert "beyond loopback" in told


async def test_a_node_that_has_left_is_not_named(small_cluster: SharedCluster) -> None:
    name = await small_cluster.cluster.start_node()
    try:
        assert name in small_cluster.cluster.http_urls
        await small_cluster.healthy()
    finally:
        assert await small_cluster.cluster.stop_node(name) == 0
    assert name not in small_cluster.cluster.http_urls
    await small_cluster.healthy()
