"""SIGSTOP of a primary for twice the grace, then SIGCONT: it wakes up and must not lie.

Requests are put into its socket while it stands still, so that it answers them first thing when it wakes, at
a time when another actor has long served in its place.
"""

from pathlib import Path

import pytest
import trio

from greenroom import ClusterStore, new_session_id, wire
from greenroom.cluster_map import ActorEntry
from greenroom.ids import digest_of, point_of
from greenroom.patching import encode_changes
from greenroom_cluster.shard.settings import HostSettings
from tests.system.raw import RawConnection, greeted, hello
from tests.system.stage import Probe, SharedCluster, loaded, session, stopped

pytestmark = [pytest.mark.system, pytest.mark.trio]

PAUSE_SECONDS = 2 * HostSettings().grace_seconds


def store_of(cluster: SharedCluster) -> ClusterStore:
    return ClusterStore(",".join(cluster.cluster.seeds), cluster=cluster.settings.cluster)


async def sessions_at(store: ClusterStore, cluster: SharedCluster, actor: ActorEntry) -> list[str]:
    """Make a session on each shard of which this actor is the primary; return their ids."""
    cluster_map = await cluster.map()
    width = 65_536 // cluster_map.shard_count
    ids = [
        new_session_id(index * width + 1)
        for index, shard in enumerate(cluster_map.shards)
        if shard.primary == actor.incarnation
    ]
    for session_id in ids:
        await store.create(session(session_id, value="before"))
    return ids


def get(number: int, session_id: str) -> wire.Get:
    return wire.Get(number, point_of(session_id), digest_of(session_id))


def patch(number: int, session_id: str, value: str) -> wire.Patch:
    changes = encode_changes({"direct": value}, (), {})
    return wire.Patch(number, 1, 0, point_of(session_id), digest_of(session_id), *changes, None, None)


async def replies(connection: RawConnection, count: int) -> dict[int, wire.Reply]:
    found: dict[int, wire.Reply] = {}
    with trio.fail_after(20):
        while len(found) < count:
            message = await connection.receive()
            assert message is not None, "the actor ended the connection"
            found[message.request_id] = message
    return found


async def test_paused_primary_neither_reads_stale_nor_acknowledges_falsely(
    cluster: SharedCluster, tmp_path: Path
) -> None:
    async with store_of(cluster) as store, loaded(cluster, tmp_path):
        probe = Probe(store)
        await probe.begin()
        paused = await cluster.busiest_primary()
        ids = await sessions_at(store, cluster, paused)
        assert ids
        opening = hello(wire.ROLE_CLIENT, target=paused.incarnation)
        async with greeted(paused.address, opening) as direct:
            versions: dict[str, int] = {}
            with stopped(paused.pid):
                await direct.send([get(1_000 + index, each) for index, each in enumerate(ids)])
                # The others take over and go on; what follows is acknowledged by them.
                for each in ids:
                    versions[each] = (await store.patch(each, set={"value": "after"})).version
                await direct.send([get(2_000 + index, each) for index, each in enumerate(ids)])
                await direct.send([patch(3_000 + index, each, "ghost") for index, each in enumerate(ids)])
                await probe.throughout(PAUSE_SECONDS)
            answers = await replies(direct, 3 * len(ids))
            for index, each in enumerate(ids):
                early, late, written = (answers[base + index] for base in (1_000, 2_000, 3_000))
                # The early read may be answered with what was true when it was sent, for it was under way
                # ever since; the late one was sent after the change was acknowledged.
                assert isinstance(early, wire.Redirect | wire.Session)
                assert isinstance(late, wire.Redirect) or late.version >= versions[each]
                found = await store.get(each)
                assert found is not None
                assert found.data["value"] == "after"
                assert isinstance(written, wire.Redirect) or "direct" in found.data
                if isinstance(written, wire.Redirect) and not written.appended:
                    assert "direct" not in found.data
        # The same incarnation, not a successor of it.
        await cluster.until(
            lambda cluster_map: any(paused.incarnation in shard.backups for shard in cluster_map.shards)
        )
        await cluster.healthy()
        await probe.check()
    assert (await cluster.map()).actors[paused.incarnation].state == "up"


async def test_paused_backup_comes_back(cluster: SharedCluster, tmp_path: Path) -> None:
    async with store_of(cluster) as store, loaded(cluster, tmp_path):
        probe = Probe(store)
        await probe.begin()
        paused = await cluster.busiest_backup()
        with stopped(paused.pid):
            await probe.throughout(PAUSE_SECONDS)
        await cluster.until(
            lambda cluster_map: any(paused.incarnation in shard.members for shard in cluster_map.shards)
        )
        await cluster.healthy()
        await probe.check()


async def test_paused_coordinator_costs_nobody_anything(cluster: SharedCluster, tmp_path: Path) -> None:
    async with store_of(cluster) as store, loaded(cluster, tmp_path):
        probe = Probe(store)
        await probe.begin()
        before = await cluster.map()
        with stopped(cluster.cluster.coordinator_child_pid()):
            await probe.throughout(PAUSE_SECONDS)
        await cluster.healthy()
        after = await cluster.map()
        assert [shard.members for shard in after.shards] == [shard.members for shard in before.shards]
        await probe.check()
