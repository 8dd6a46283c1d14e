"""The demo from start to end: a cluster, a shop on it, customers, kills, the last look at every cart.

First an actor is killed, then a node. With the map in etcd, the coordinator that leads is killed next, and
another one takes over. With a durability the node is started again from its directory, and then every process
of the cluster is killed at once, coordinator included.
"""

import random
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import NamedTuple, Protocol

import httpx
import trio

import greenroom
from greenroom.errors import GreenroomError
from greenroom_cluster.config import CLUSTER, ActorOptions, NodeOptions, ProcessOptions
from greenroom_cluster.coordination.boot_note import BootNote
from greenroom_cluster.demo import faults
from greenroom_cluster.demo.browsers import Browser, DeadCookie, check_all
from greenroom_cluster.demo.settings import DemoSettings
from greenroom_cluster.demo.shopfront import PATIENCE_SECONDS, REQUEST_SECONDS, Shopfront
from greenroom_cluster.demo.verdict import DemoResult, Verdict
from greenroom_cluster.demo.workers import shop_workers
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.logs import LogSettings
from greenroom_cluster.runtime.etcd_reach import forget_cluster
from greenroom_cluster.runtime.local import LocalCluster, open_local_cluster
from greenroom_cluster.runtime.tasks import open_tasks

NODES = 3
ACTORS = 2
COORDINATORS = 2
# Of the time of shopping: before the first kill, and until the second at the earliest.
ACTOR_KILL_SHARE = 0.25
NODE_KILL_SHARE = 0.55
LEADER_KILL_SHARE = 0.65
ALL_KILL_SHARE = 0.8
# Shopping goes on at least so long after the last recovery.
AFTERMATH_SECONDS = 2.0
HEALTHY_SECONDS = 30.0
LEADER_SECONDS_MAX = 15.0
LEADER_POLL_SECONDS = 0.02
FORGET_SECONDS = 3.0
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
    verdict = Verdict()
    coordinators = f"{COORDINATORS} coordinators" if settings.store else "a coordinator"
    secured = ", with TLS" if settings.tls else ""
    stage.step(f"starting {coordinators} and {NODES} nodes of {ACTORS} actors{secured}")
    with _cluster_settings(settings) as cluster_settings:
        recoveries = await _on_a_cluster(cluster_settings, settings, verdict, stage)
    return verdict.result(
        recover_actor_seconds=recoveries.actor.seconds,
        recover_node_seconds=recoveries.node.seconds,
        browsers=settings.browsers,
        seed=settings.seed,
        seconds=trio.current_time() - begun,
        durability=settings.durability,
        recover_all_seconds=recoveries.everything.seconds,
        store=settings.store,
        tls=settings.tls,
        new_leader_seconds=recoveries.new_leader_seconds,
    )


class _Recoveries(NamedTuple):
    """How the kills went: of an actor, of a node, of everything, and of the coordinator that led."""

    actor: faults.Recovery
    node: faults.Recovery = faults.NO_RECOVERY
    everything: faults.Recovery = faults.NO_RECOVERY
    new_leader_seconds: float | None = None


@contextmanager
def _cluster_settings(settings: DemoSettings) -> Iterator[LocalClusterSettings]:
    """Yield the settings of the cluster. What it keeps on disk is in a temporary directory, if anything."""
    with ExitStack() as stack:
        data_dir = None
        if settings.durability != "none":
            data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="greenroom-demo-")))
            stack.callback(BootNote(data_dir).void)
        yield LocalClusterSettings(
            nodes=NODES,
            cluster=f"demo-{secrets.token_hex(4)}" if settings.store else CLUSTER,
            coordinators=COORDINATORS if settings.store else 1,
            etcd=settings.etcd,
            node=NodeOptions(actors=ACTORS, actor=ActorOptions(durability=settings.durability)),
            listen="127.0.0.1:0",
            coordinator_listen="127.0.0.1:0",
            data_dir=data_dir,
            tls=settings.tls,
            restart_nodes=False,
            process=ProcessOptions(logs=LogSettings(level="error")),
        )


async def _on_a_cluster(
    cluster_settings: LocalClusterSettings, settings: DemoSettings, verdict: Verdict, stage: Stage
) -> _Recoveries:
    async with _forgotten_by_etcd(cluster_settings), open_local_cluster(cluster_settings) as cluster:
        stage.done(f"{NODES} nodes run, every shard has its replicas")
        stage.step("starting the shop's two workers")
        async with shop_workers(cluster.url) as addresses, _http_client(settings.browsers) as client:
            stage.done(f"the shop is open at {' and '.join(addresses)}")
            stage.watch(verdict)
            shop = Shopfront(client, addresses, verdict, _patience_seconds(settings))
            recoveries = await _shopping(settings, cluster, shop, verdict, stage)
        stage.step("stopping everything")
    return recoveries


@asynccontextmanager
async def _forgotten_by_etcd(settings: LocalClusterSettings) -> AsyncIterator[None]:
    """Remove what etcd keeps of the cluster once that has ended; each demo has a cluster of its own there."""
    try:
        yield
    finally:
        if settings.etcd.store:
            shielded = trio.CancelScope(shield=True, deadline=trio.current_time() + FORGET_SECONDS)
            with shielded, suppress(GreenroomError):
                await forget_cluster(settings.etcd, settings.cluster)


def _patience_seconds(settings: DemoSettings) -> float:
    if settings.durability == "none":
        return PATIENCE_SECONDS
    return PATIENCE_SECONDS + faults.ALL_RECOVERY_SECONDS_MAX


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
) -> _Recoveries:
    """Let the browsers shop while the kills happen; check every cart."""
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
        recoveries = await _kills(settings, opened, cluster, store, stage)
        rest = opened + settings.seconds - trio.current_time()
        await trio.sleep(max(rest, AFTERMATH_SECONDS))
        closing.set()
        stage.step("the last requests are answered")
    stage.step(f"looking at every cart, trying {len(dead)} ended logins again")
    await check_all(shop, verdict, browsers, dead)
    return recoveries


async def _kills(
    settings: DemoSettings,
    opened: float,
    cluster: LocalCluster,
    store: greenroom.BaseSessionStore,
    stage: Stage,
) -> _Recoveries:
    """Kill an actor, a node and, if the sessions are on disk, everything, each when it is time."""
    await trio.sleep_until(opened + settings.seconds * ACTOR_KILL_SHARE)
    recoveries = _Recoveries(await _kill_actor(cluster, store, stage))
    # Two failures at once are more than is promised: every shard must have its two replicas again.
    if not await _replicated(cluster, stage, "no node is killed"):
        return recoveries
    stage.step("shopping goes on")
    await trio.sleep_until(opened + settings.seconds * NODE_KILL_SHARE)
    node = await _node_to_kill(cluster)
    recoveries = recoveries._replace(node=await _kill_node(node, cluster, store, stage))
    stage.step("shopping goes on with two nodes")
    if settings.store:
        await trio.sleep_until(opened + settings.seconds * LEADER_KILL_SHARE)
        recoveries = recoveries._replace(new_leader_seconds=await _kill_leader(cluster, stage))
    if settings.durability == "none":
        return recoveries
    await cluster.start_node(node)
    stage.done(f"node {node} is started again from its directory")
    if not await _replicated(cluster, stage, "not everything is killed"):
        return recoveries
    stage.step("shopping goes on with three nodes")
    await trio.sleep_until(opened + settings.seconds * ALL_KILL_SHARE)
    recoveries = recoveries._replace(everything=await _kill_everything(cluster, store, stage))
    stage.step("shopping goes on")
    return recoveries


async def _replicated(cluster: LocalCluster, stage: Stage, otherwise: str) -> bool:
    stage.step("every shard gets its second replica back")
    begun = trio.current_time()
    try:
        await cluster.wait_healthy(HEALTHY_SECONDS)
    except greenroom.UnavailableError as error:
        stage.done(f"{otherwise}: {error}")
        return False
    stage.done(f"every shard has its two replicas again after {trio.current_time() - begun:.1f} s more")
    return True


async def _kill_actor(
    cluster: LocalCluster, store: greenroom.BaseSessionStore, stage: Stage
) -> faults.Recovery:
    cluster_map = await cluster.fetch_map()
    victim = faults.actor_victim(await faults.busiest_actor(cluster_map, cluster.credentials))
    shards = faults.shards_on(cluster_map, victim)
    stage.step(f"SIGKILL to {victim.name}, with {len(shards)} shards on it")
    recovery = await faults.kill_and_measure(victim, store, shards, cluster_map.shard_count)
    stage.done(_told(victim, recovery))
    return recovery


async def _node_to_kill(cluster: LocalCluster) -> str:
    return faults.busiest_node(await cluster.fetch_map())


async def _kill_node(
    node: str, cluster: LocalCluster, store: greenroom.BaseSessionStore, stage: Stage
) -> faults.Recovery:
    cluster_map = await cluster.fetch_map()
    victim = faults.node_victim(cluster_map, node, cluster.node_pid(node))
    shards = faults.shards_on(cluster_map, victim)
    stage.step(f"SIGKILL to {victim.name}, with {len(shards)} shards on it")
    recovery = await faults.kill_and_measure(victim, store, shards, cluster_map.shard_count)
    stage.done(_told(victim, recovery))
    return recovery


async def _kill_leader(cluster: LocalCluster, stage: Stage) -> float | None:
    """Kill the coordinator that leads; return the seconds until another one does, None if none did."""
    leader = await cluster.leader()
    if leader is None:
        stage.done("no coordinator leads, so none is killed")
        return None
    name = f"the coordinator at {cluster.coordinator_addresses[leader]}"
    stage.step(f"SIGKILL to {name}, which leads")
    # Else it may be back, and lead again, when its lease ends. The other one is not killed.
    cluster.restart_coordinators = False
    victim = faults.Victim(name, (cluster.coordinator_pid(leader), cluster.coordinator_child_pid(leader)), ())
    killed_at = trio.current_time()
    victim.kill()
    other = leader
    with trio.move_on_after(LEADER_SECONDS_MAX) as waiting:
        other = await _leader_other_than(leader, cluster)
    if waiting.cancelled_caught:
        stage.done(f"{name} killed: no other one leads after {LEADER_SECONDS_MAX:.0f} s")
        return None
    seconds = trio.current_time() - killed_at
    address = cluster.coordinator_addresses[other]
    stage.done(f"{name} killed: the one at {address} leads after {seconds:.2f} s")
    return seconds


async def _leader_other_than(former: int, cluster: LocalCluster) -> int:
    while True:
        leader = await cluster.leader()
        if leader is not None and leader != former:
            return leader
        await trio.sleep(LEADER_POLL_SECONDS)


async def _kill_everything(
    cluster: LocalCluster, store: greenroom.BaseSessionStore, stage: Stage
) -> faults.Recovery:
    cluster_map = await cluster.fetch_map()
    shards = range(cluster_map.shard_count)
    victim = faults.everything_victim(cluster.pids(), cluster_map)
    stage.step(f"SIGKILL to {victim.name} of the cluster at once, {len(victim.pids)} with the coordinator's")
    cluster.restart_nodes = cluster.restart_coordinators = True
    recovery = await faults.kill_and_measure(
        victim, store, shards, cluster_map.shard_count, faults.ALL_RECOVERY_SECONDS_MAX
    )
    stage.done(_told(victim, recovery))
    return recovery


def _told(victim: faults.Victim, recovery: faults.Recovery) -> str:
    if recovery.seconds is None:
        return f"{victim.name} killed: not all of its {recovery.shards} shards answered again"
    told = f"{victim.name} killed: all of its {recovery.shards} shards answered again "
    told += f"after {recovery.seconds * 1000:.0f} ms"
    return f"{told} ({recovery.probe_errors} probes got an error)" if recovery.probe_errors else told
