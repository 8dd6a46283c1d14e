"""The demo from start to end: a cluster, a shop on it, customers, two kills, the last look at every cart."""

import random
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Protocol

import httpx
import trio

import greenroom
from greenroom_cluster.config import LocalClusterSettings, NodeOptions, ProcessOptions
from greenroom_cluster.demo import faults
from greenroom_cluster.demo.browsers import Browser, DeadCookie, check_all
from greenroom_cluster.demo.settings import DemoSettings
from greenroom_cluster.demo.shopfront import REQUEST_SECONDS, Shopfront
from greenroom_cluster.demo.verdict import DemoResult, Verdict
from greenroom_cluster.demo.workers import shop_workers
from greenroom_cluster.logs import LogSettings
from greenroom_cluster.runtime.local import LocalCluster, open_local_cluster
from greenroom_cluster.runtime.tasks import open_tasks

NODES = 3
ACTORS = 2
# Of the time of shopping: before the first kill, and until the second at the earliest.
ACTOR_KILL_SHARE = 0.25
NODE_KILL_SHARE = 0.55
# Shopping goes on at least so long after the second recovery.
AFTERMATH_SECONDS = 2.0
HEALTHY_SECONDS = 15.0
FULL_BROWSER_CONNECTIONS = 4


class Stage(Protocol):
    """Where the scenario tells what it is doing."""

    def step(self, what: str) -> None:
        """Show what is being done now."""

    def done(self, what: str) -> None:
        """Show what has happened."""

    def watch(self, verdict: Verdict) -> None:
        """Show the running figures from now on."""


async def play(settings: DemoSettings, stage: Stage) -> DemoResult:
    """Run the whole demo and return its figures. Nothing that it started is left, however it ends.

    Raises UnavailableError if the cluster does not start, WorkerFailedError if the shop does not.
    """
    begun = trio.current_time()
    cluster_settings = LocalClusterSettings(
        nodes=NODES,
        node=NodeOptions(actors=ACTORS),
        listen="127.0.0.1:0",
        coordinator_listen="127.0.0.1:0",
        restart_nodes=False,
        process=ProcessOptions(logs=LogSettings(level="error")),
    )
    verdict = Verdict()
    stage.step(f"starting a coordinator and {NODES} nodes of {ACTORS} actors")
    async with open_local_cluster(cluster_settings) as cluster:
        stage.done(f"{NODES} nodes run, every shard has its replicas")
        stage.step("starting the shop's two workers")
        async with shop_workers(cluster.url) as addresses, _http_client(settings.browsers) as client:
            stage.done(f"the shop is open at {' and '.join(addresses)}")
            stage.watch(verdict)
            shop = Shopfront(client, addresses, verdict)
            recoveries = await _shopping(settings, cluster, shop, verdict, stage)
        stage.step("stopping everything")
    return verdict.result(
        recover_actor_seconds=recoveries[0].seconds,
        recover_node_seconds=recoveries[1].seconds,
        browsers=settings.browsers,
        seed=settings.seed,
        seconds=trio.current_time() - begun,
    )


def _http_client(browsers: int) -> httpx.AsyncClient:
    connections = browsers * FULL_BROWSER_CONNECTIONS
    return httpx.AsyncClient(
        timeout=REQUEST_SECONDS,
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        # Browsers share connections, so they must not share cookies.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        trust_env=False,
    )


async def _shopping(
    settings: DemoSettings, cluster: LocalCluster, shop: Shopfront, verdict: Verdict, stage: Stage
) -> tuple[faults.Recovery, faults.Recovery]:
    """Let the browsers shop while first an actor and then a node is killed; check every cart."""
    dead: list[DeadCookie] = []
    browsers = [
        Browser(number, shop, verdict, random.Random(f"{settings.seed}/{number}"), dead)  # noqa: S311  a dice
        for number in range(settings.browsers)
    ]
    opened = trio.current_time()
    stage.step(f"{settings.browsers} browsers shop")
    closing = trio.Event()
    async with greenroom.store_from_url(cluster.url) as store, open_tasks() as nursery:
        for browser in browsers:
            nursery.start_soon(browser.run, closing.is_set)
        await trio.sleep_until(opened + settings.seconds * ACTOR_KILL_SHARE)
        first = await _kill_actor(cluster, store, stage)
        # Two failures at once are more than is promised: every shard must have its two replicas again.
        if await _replicated(cluster, stage):
            stage.step("shopping goes on")
            await trio.sleep_until(opened + settings.seconds * NODE_KILL_SHARE)
            second = await _kill_node(cluster, store, stage)
            stage.step("shopping goes on with two nodes")
        else:
            second = faults.NO_RECOVERY
        rest = opened + settings.seconds - trio.current_time()
        await trio.sleep(max(rest, AFTERMATH_SECONDS))
        closing.set()
        stage.step("the last requests are answered")
    stage.step(f"looking at every cart, trying {len(dead)} ended logins again")
    await check_all(shop, verdict, browsers, dead)
    return first, second


async def _replicated(cluster: LocalCluster, stage: Stage) -> bool:
    stage.step("every shard gets its second replica back")
    begun = trio.current_time()
    try:
        await cluster.wait_healthy(HEALTHY_SECONDS)
    except greenroom.UnavailableError as error:
        stage.done(f"no node is killed: {error}")
        return False
    stage.done(f"every shard has its two replicas again after {trio.current_time() - begun:.1f} s more")
    return True


async def _kill_actor(
    cluster: LocalCluster, store: greenroom.BaseSessionStore, stage: Stage
) -> faults.Recovery:
    cluster_map = await cluster.fetch_map()
    victim = faults.actor_victim(await faults.busiest_actor(cluster_map))
    shards = faults.shards_on(cluster_map, victim)
    stage.step(f"SIGKILL to {victim.name}, with {len(shards)} shards on it")
    recovery = await faults.kill_and_measure(victim, store, shards, cluster_map.shard_count)
    stage.done(_told(victim, recovery))
    return recovery


async def _kill_node(
    cluster: LocalCluster, store: greenroom.BaseSessionStore, stage: Stage
) -> faults.Recovery:
    cluster_map = await cluster.fetch_map()
    node = faults.busiest_node(cluster_map)
    victim = faults.node_victim(cluster_map, node, cluster.node_pid(node))
    shards = faults.shards_on(cluster_map, victim)
    stage.step(f"SIGKILL to {victim.name}, with {len(shards)} shards on it")
    recovery = await faults.kill_and_measure(victim, store, shards, cluster_map.shard_count)
    stage.done(_told(victim, recovery))
    return recovery


def _told(victim: faults.Victim, recovery: faults.Recovery) -> str:
    if recovery.seconds is None:
        return f"{victim.name} killed: not all of its {recovery.shards} shards answered again"
    told = f"{victim.name} killed: all of its {recovery.shards} shards answered again "
    told += f"after {recovery.seconds * 1000:.0f} ms"
    return f"{told} ({recovery.probe_errors} probes got an error)" if recovery.probe_errors else told
