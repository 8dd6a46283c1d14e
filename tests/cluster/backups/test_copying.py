"""What keeps a cluster from being copied is told by the shard that it keeps back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio.testing

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, ShardEntry
from greenroom.errors import UnavailableError, UsageError
from greenroom_cluster.backups import copying
from greenroom_cluster.backups.copying import copy_shards, freeze_actors
from greenroom_cluster.links.handshake import NOT_ALLOWED
from greenroom_cluster.runtime.dialing import DialFailedError
from greenroom_cluster.shard.clients.operations import CopyShard, Freeze, ShardPart

pytestmark = pytest.mark.trio


@pytest.mark.parametrize("primary", [b"", b"g" * 16], ids=["not yet started", "gone from the map"])
async def test_a_shard_without_a_primary_is_named(primary: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ShardEntry(0, primary, (), b"", ())
    cluster_map = ClusterMap("greenroom", 1, 1, 2, {}, {}, (entry, entry))

    async def fetch_map(*_: object, **__: object) -> ClusterMap:
        await trio.lowlevel.checkpoint()
        return cluster_map

    monkeypatch.setattr(copying, "fetch_map", fetch_map)
    with pytest.raises(UnavailableError, match=r"shard 0 could not be copied.*it has no primary"):
        await copy_shards(["127.0.0.1:1"], "greenroom", lambda _: None, seconds=0.0, credentials=None)


@pytest.mark.parametrize("freeze", [False, True])
async def test_an_actor_is_frozen_before_its_last_copies(
    freeze: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have started anew since all were frozen."""
    me = b"m" * 16
    entry = ShardEntry(1, me, (), b"", ())
    actor = ActorEntry(me, "n1", "n1/0", "127.0.0.1:1", "up", "", 1, 1)
    cluster_map = ClusterMap("greenroom", 1, 1, 2, {}, {me: actor}, (entry, entry))
    asked: list[type] = []

    async def fetch_map(*_: object, **__: object) -> ClusterMap:
        return cluster_map

    @asynccontextmanager
    async def connected(*_: object, **__: object) -> AsyncIterator[None]:
        yield

    async def ask(_connection: object, operation: CopyShard | Freeze) -> object:
        asked.append(type(operation))
        if isinstance(operation, Freeze):
            return wire.Written(1, 0)
        return ShardPart(1, operation.shard, 0, True, 1, 1, ())

    monkeypatch.setattr(copying, "fetch_map", fetch_map)
    monkeypatch.setattr(copying, "_connected", connected)
    monkeypatch.setattr(copying, "_ask", ask)
    await copy_shards(["127.0.0.1:1"], "greenroom", lambda _: None, freeze=freeze, credentials=None)
    assert asked == [Freeze] * freeze + [CopyShard, CopyShard]


async def test_every_actor_that_may_serve_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    actors = {
        name * 16: ActorEntry(name * 16, "n1", "n1/0", state, state, "", 1, 1)
        for name, state in ((b"a", "up"), (b"b", "replaced"), (b"c", "dead"))
    }
    frozen: list[str] = []

    async def fetch_map(*_: object, **__: object) -> ClusterMap:
        return ClusterMap("greenroom", 1, 1, 2, {}, actors, ())

    @asynccontextmanager
    async def connected(actor: ActorEntry, *_: object) -> AsyncIterator[None]:
        frozen.append(actor.state)
        yield

    async def ask(*_: object, **__: object) -> object:
        return wire.Written(1, 0)

    monkeypatch.setattr(copying, "fetch_map", fetch_map)
    monkeypatch.setattr(copying, "_connected", connected)
    monkeypatch.setattr(copying, "_ask", ask)
    await freeze_actors(["127.0.0.1:1"], "greenroom", None)
    assert sorted(frozen) == ["replaced", "up"]


async def test_who_may_not_copy_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask again changes nothing: it takes the certificate of an operator."""
    me = b"m" * 16
    actor = ActorEntry(me, "n1", "n1/0", "127.0.0.1:1", "up", "", 1, 1)
    entry = ShardEntry(1, me, (), b"", ())
    cluster_map = ClusterMap("greenroom", 1, 1, 2, {}, {me: actor}, (entry,))

    async def fetch_map(*_: object, **__: object) -> ClusterMap:
        await trio.lowlevel.checkpoint()
        return cluster_map

    async def dial(*_: object, **__: object) -> None:
        await trio.lowlevel.checkpoint()
        raise DialFailedError("127.0.0.1:1 does not allow this", NOT_ALLOWED.code)

    monkeypatch.setattr(copying, "fetch_map", fetch_map)
    monkeypatch.setattr(copying, "dial", dial)
    with trio.fail_after(5), pytest.raises(UsageError, match=r"operator.*--tls-cert"):
        await copy_shards(["127.0.0.1:1"], "greenroom", lambda _: None, credentials=None)
