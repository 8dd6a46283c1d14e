"""The map without what only servers need."""

import random

import msgspec

from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry, delta_between
from greenroom_cluster.coordination.public_map import PublicMaps

KEYS = [bytes([number]) * 16 for number in range(1, 5)]


def actor(key: bytes, mark: int = 0) -> ActorEntry:
    return ActorEntry(key, "a", f"a/{key[0]}", "127.0.0.1:1", "up", "secret host", 31_337, 77_777, mark=mark)


def shard(epoch: int, key: bytes) -> ShardEntry:
    return ShardEntry(epoch, key, (KEYS[0],), b"secret nonce", ("a/1",))


def first() -> ClusterMap:
    actors = {key: actor(key) for key in KEYS[:2]}
    shards = tuple(shard(1, KEYS[1]) for _ in range(4))
    return ClusterMap("shop", 1, 1, 2, {"a": NodeEntry("a", "127.0.0.1:1", "up")}, actors, shards)


def test_nothing_of_a_process_is_left_and_all_else_is() -> None:
    whole = first()
    shown = PublicMaps().of(whole)
    encoded = msgspec.msgpack.encode(shown)
    for secret in (b"secret", msgspec.msgpack.encode(31_337), msgspec.msgpack.encode(77_777)):
        assert secret in msgspec.msgpack.encode(whole)
        assert secret not in encoded
    assert shown.nodes == whole.nodes
    assert [each.members for each in shown.shards] == [each.members for each in whole.shards]
    assert {each.address for each in shown.actors.values()} == {"127.0.0.1:1"}
    assert (shown.version, shown.identity, shown.replicas) == (whole.version, whole.identity, whole.replicas)


def test_changes_of_public_maps_lead_to_what_a_new_subscriber_gets() -> None:
    chance = random.Random(7)
    maps, whole = PublicMaps(), first()
    held = maps.of(whole)
    for version in range(2, 200):
        actors, shards = dict(whole.actors), list(whole.shards)
        for _ in range(chance.randrange(3)):
            key = chance.choice(KEYS)
            if key in actors and chance.random() < 0.3:
                del actors[key]
            else:
                actors[key] = actor(key, version)
        for _ in range(chance.randrange(3)):
            shards[chance.randrange(4)] = shard(version, chance.choice(KEYS))
        whole = msgspec.structs.replace(whole, version=version, actors=actors, shards=tuple(shards))
        held = held.apply(delta_between(held, maps.of(whole)))
        assert held == PublicMaps().of(whole)


def test_a_map_of_other_shards_is_made_anew() -> None:
    maps = PublicMaps()
    maps.of(first())
    other = msgspec.structs.replace(first(), lineage=2, shards=first().shards * 2)
    assert maps.of(other) == PublicMaps().of(other)
