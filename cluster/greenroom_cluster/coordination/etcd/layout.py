"""How a cluster map lies in etcd: under few keys, so that one transaction can change all of it. Pure.

    PREFIX/leader            who leads
    PREFIX/marks             the marks of directories, by incarnation
    PREFIX/map/meta          all but the nodes, actors, shards and floors
    PREFIX/map/nodes/0..f    the nodes, by a hash of their names
    PREFIX/map/actors/00..1f the actors and the floors of directories, by their first byte
    PREFIX/map/shards/00..3f the shards, in order, a 64th of them each

Values are msgpack behind a byte that says the format. Every version of the map writes `meta`. A single key
would do for the rules, but then each change would write the whole map into etcd's log and history.
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry
from greenroom.errors import GreenroomError
from greenroom_cluster.coordination.bounds import map_objection

FORMAT = 1
_NODE_PARTS, _ACTOR_PARTS, _SHARD_PARTS = 16, 32, 64

_encode = msgspec.msgpack.Encoder().encode


class LayoutError(GreenroomError):
    """What lies in etcd is not a cluster map of this release; the text says what is wrong."""


class Places(NamedTuple):
    """The keys of one cluster; those of the map begin with `maps`."""

    leader: bytes
    marks: bytes
    maps: bytes


def places(prefix: str) -> Places:
    """Return the keys below a prefix."""
    root = prefix.rstrip("/").encode()
    return Places(root + b"/leader", root + b"/marks", root + b"/map/")


class _Meta(msgspec.Struct, array_like=True, frozen=True):
    cluster: str
    lineage: int
    version: int
    replicas: int
    shards: int
    identity: bytes
    recover_alone_seconds: float


class _Actors(msgspec.Struct, array_like=True, frozen=True):
    actors: list[ActorEntry]
    floors: dict[bytes, int]


_decode_meta = msgspec.msgpack.Decoder(_Meta).decode
_decode_nodes = msgspec.msgpack.Decoder(list[NodeEntry]).decode
_decode_actors = msgspec.msgpack.Decoder(_Actors).decode
_decode_shards = msgspec.msgpack.Decoder(list[ShardEntry]).decode
_decode_marks = msgspec.msgpack.Decoder(dict[bytes, int]).decode


def values_of(cluster_map: ClusterMap) -> dict[str, bytes]:
    """Return what lies under each key, without its prefix; nothing lies under a key that is not there."""
    meta = _Meta(
        cluster_map.cluster,
        cluster_map.lineage,
        cluster_map.version,
        cluster_map.replicas,
        len(cluster_map.shards),
        cluster_map.identity,
        cluster_map.recover_alone_seconds,
    )
    nodes: dict[int, list[NodeEntry]] = {}
    for name, node in sorted(cluster_map.nodes.items()):
        nodes.setdefault(zlib.crc32(name.encode()) % _NODE_PARTS, []).append(node)
    actors: dict[int, _Actors] = {}
    for incarnation, actor in sorted(cluster_map.actors.items()):
        actors.setdefault(_part(incarnation), _Actors([], {})).actors.append(actor)
    for directory, mark in sorted(cluster_map.floors.items()):
        actors.setdefault(_part(directory), _Actors([], {})).floors[directory] = mark
    each = -(-len(cluster_map.shards) // _SHARD_PARTS)
    shards = {part: cluster_map.shards[part * each : (part + 1) * each] for part in range(_SHARD_PARTS)}
    found: dict[str, object] = {"meta": meta}
    found |= {f"nodes/{part:x}": entries for part, entries in nodes.items()}
    found |= {f"actors/{part:02x}": entries for part, entries in actors.items()}
    found |= {f"shards/{part:02x}": entries for part, entries in shards.items() if entries}
    return {key: bytes((FORMAT,)) + _encode(value) for key, value in found.items()}


def _part(identity: bytes) -> int:
    return identity[0] % _ACTOR_PARTS if identity else 0


def map_of(values: Mapping[str, bytes]) -> ClusterMap | None:
    """Return the map that lies under these keys, None if none does. Raises LayoutError if it is not whole."""
    if not values:
        return None
    try:
        return _map_of(values)
    except LayoutError as error:
        raise LayoutError(
            f"what etcd holds below .../map/ is no map of this release ({error}): start the release that "
            "wrote it, or, if anything else has written there, go on as where etcd has lost the map"
        ) from None


def marks_of(value: bytes) -> dict[bytes, int]:
    """Return the marks of directories that are kept so. Raises LayoutError."""
    try:
        return _decode_marks(value)
    except msgspec.MsgspecError:
        raise LayoutError(
            "what etcd holds at .../marks is not the marks of directories: if anything else has written "
            "there, go on as where etcd has lost the map"
        ) from None


def _map_of(values: Mapping[str, bytes]) -> ClusterMap:
    if "meta" not in values:
        raise LayoutError("its key `meta` is missing")
    try:
        meta = _decode_meta(_payload("meta", values["meta"]))
        nodes = [each for part in _parts(values, "nodes/") for each in _decode_nodes(part)]
        actors = [_decode_actors(part) for part in _parts(values, "actors/")]
        shards = [each for part in _parts(values, "shards/") for each in _decode_shards(part)]
    except msgspec.MsgspecError as error:
        raise LayoutError(str(error)) from None
    if len(shards) != meta.shards:
        raise LayoutError(f"{len(shards)} of {meta.shards} shards are there")
    cluster_map = ClusterMap(
        cluster=meta.cluster,
        lineage=meta.lineage,
        version=meta.version,
        replicas=meta.replicas,
        nodes={node.name: node for node in nodes},
        actors={actor.incarnation: actor for part in actors for actor in part.actors},
        shards=tuple(shards),
        identity=meta.identity,
        floors={directory: mark for part in actors for directory, mark in part.floors.items()},
        recover_alone_seconds=meta.recover_alone_seconds,
    )
    if objection := map_objection(cluster_map):
        raise LayoutError(objection)
    return cluster_map


def _parts(values: Mapping[str, bytes], kind: str) -> Iterable[bytes]:
    return [_payload(key, values[key]) for key in sorted(values) if key.startswith(kind)]


def _payload(key: str, value: bytes) -> bytes:
    if value[:1] != bytes((FORMAT,)):
        raise LayoutError(
            f"its key `{key}` has format {value[0] if value else 'none'}, this release reads {FORMAT}"
        )
    return value[1:]
