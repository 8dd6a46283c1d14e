"""A map that is moved from a coordinator's file to etcd: one transaction, and what its outcome means. Pure.

It is written only where nothing is: no leader, no map, no marks. So it can be sent again as it is.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.etcd.gateway import Compare, KeyValue, Operation, Put, Range, end_of
from greenroom_cluster.coordination.etcd.layout import map_of, places, values_of

Found: TypeAlias = Literal["nothing", "same", "continued", "other"]

_encode = msgspec.msgpack.Encoder().encode


class Move(NamedTuple):
    """A transaction; what it reads if something is there already is for `found`."""

    compares: tuple[Compare, ...]
    success: tuple[Operation, ...]
    failure: tuple[Operation, ...]


def reading(prefix: str) -> tuple[Operation, ...]:
    """Return what reads all that `found` wants to know."""
    leader, _, maps = places(prefix)
    return (Range(leader), Range(maps, end_of(maps)))


def move(prefix: str, cluster_map: ClusterMap, marks: Mapping[bytes, int]) -> Move:
    """Return the transaction that writes a map, with its marks, below a prefix."""
    leader, marks_key, maps = places(prefix)
    values = {maps + key.encode(): value for key, value in values_of(cluster_map).items()}
    values[marks_key] = _encode(dict(marks))
    free = tuple(Compare(key, "CREATE", 0) for key in (leader, *values))
    return Move(free, tuple(Put(key, value) for key, value in values.items()), reading(prefix))


def found(
    prefix: str, cluster_map: ClusterMap, leader: Sequence[KeyValue], keys: Sequence[KeyValue]
) -> tuple[Found, str]:
    """Return what lies below a prefix, compared to the map that is to be moved there, and which map it is.

    `continued`: the map was moved before, and coordinators have decided since. Raises LayoutError.
    """
    maps = places(prefix).maps
    there = map_of({each.key.removeprefix(maps).decode(): each.value for each in keys})
    if there is None:
        return ("other" if leader else "nothing"), "a coordinator that has just begun to lead"
    told = f"map {there.lineage}.{there.version}"
    if there == cluster_map:
        return "same", told
    if there.identity == cluster_map.identity and there.continues(cluster_map):
        return "continued", told
    return "other", told
