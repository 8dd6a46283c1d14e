"""A record that ends whoever applies it ends one actor, and suspends one shard until an operator drops it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import trio

from greenroom import SessionData, UnavailableError, new_session_id, store_from_url
from greenroom.errors import OutcomeUnknownError
from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.config import ActorOptions, NodeOptions, ProcessOptions
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.logs import LogSettings
from greenroom_cluster.runtime.local import LocalCluster, open_local_cluster
from greenroom_cluster.shard_states import FULL, SUSPENDED
from tests.system.load import LIFETIME

pytestmark = [pytest.mark.system, pytest.mark.trio]

SHARDS = 8
SHARD = 3
SETTINGS = LocalClusterSettings(
    nodes=2,
    shards=SHARDS,
    listen="127.0.0.1:0",
    coordinator_listen="127.0.0.1:0",
    # A bound that does not depend on what else fills the machine.
    node=NodeOptions(actors=1, actor=ActorOptions(memory_max="256MiB")),
    process=ProcessOptions(hang_seconds=3.0, logs=LogSettings(level="error")),
)


@pytest.fixture
async def poisoned(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalCluster]:
    """A cluster on whose actors some labels are poison."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "poisoned"), prepend=os.pathsep)
    async with open_local_cluster(SETTINGS) as cluster:
        await cluster.wait_healthy()
        yield cluster


def session(shard: int, label: str = "") -> SessionData:
    width = 65_536 // SHARDS
    expires = datetime.now(UTC) + LIFETIME
    return SessionData(session_id=new_session_id(shard * width), expires=expires, label=label)


async def until_suspended(cluster: LocalCluster) -> ClusterStatus:
    """Wait until the shard is suspended and all others have both replicas again."""
    with trio.fail_after(60):
        while True:
            with contextlib.suppress(UnavailableError):
                status = await cluster.status()
                if status.states()[SUSPENDED] == 1 and status.states()[FULL] == SHARDS - 1:
                    return status
            await trio.sleep(0.05)


async def greenroom(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = (sys.executable, "-m", "greenroom_cluster", *arguments)
    return await trio.run_process(command, check=False, capture_stdout=True, capture_stderr=True)


@pytest.mark.parametrize("poison", ["crash", "hang", "fail", "fill memory"])
async def test_poisonous_record_ends_one_actor_and_suspends_its_shard(
    poisoned: LocalCluster, poison: str
) -> None:
    cluster = poisoned
    canaries = [session(shard % SHARDS) for shard in range(4 * SHARDS)]
    before = {actor.incarnation: actor for actor in (await cluster.actors()).values()}
    async with store_from_url(cluster.url) as store:
        for canary in canaries:
            await store.create(canary)
        deadly = session(SHARD, f"poison: {poison}")
        with pytest.raises(OutcomeUnknownError):
            await store.create(deadly)
        status = await until_suspended(cluster)

        after = {actor.incarnation for actor in (await cluster.actors()).values()}
        assert len(before.keys() & after) == 1, "one of the two actors ended, and only one"
        [shard] = [each for each in status.shards if each.state == SUSPENDED]
        assert shard.shard == SHARD
        assert shard.suspended is not None
        assert (shard.suspended.kind, shard.suspended.following) == ("create", 0)
        assert not status.healthy
        for canary in canaries:
            if canary.session_id in {each.session_id for each in canaries[SHARD::SHARDS]}:
                continue
            found = await store.get(canary.session_id)
            assert found is not None
        with pytest.raises(UnavailableError, match=f"shard {SHARD} is suspended: a create of") as refused:
            await store.get(canaries[SHARD].session_id)
        assert f"`greenroom drop-record {SHARD}`" in str(refused.value)

        health = await greenroom("health", "--connect", cluster.seeds[0])
        assert health.returncode == 1
        assert f"shard {SHARD} is suspended on n".encode() in health.stdout
        assert b"1 suspended" in health.stdout
        shown = await greenroom("status", "--json", "--connect", cluster.seeds[0])
        document = msgspec.json.decode(shown.stdout)
        assert document["states"]["suspended"] == 1
        assert document["shards"][SHARD]["suspended"]["kind"] == "create"
        assert b"poison" not in health.stdout + shown.stdout

        dropped = await greenroom("drop-record", str(SHARD), "--connect", cluster.seeds[0])
        assert dropped.returncode == 0, dropped.stderr
        assert f"shard {SHARD} goes on without record".encode() in dropped.stdout
        again = await greenroom("drop-record", str(SHARD), "--connect", cluster.seeds[0])
        assert again.returncode == 2
        assert b"is not suspended" in again.stderr

        for canary in canaries:
            found = await store.get(canary.session_id)
            assert found is not None
        assert await store.get(deadly.session_id) is None
    await cluster.wait_healthy()
    assert len(before.keys() & {actor.incarnation for actor in (await cluster.actors()).values()}) == 1
