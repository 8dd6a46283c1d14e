"""A map under keys: it comes back as it was, a change touches few keys, and what is not whole is refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.cluster_map import SHARDS_MAX, ClusterMap
from greenroom_cluster.coordination.etcd.gateway import OPERATIONS_MAX, REQUEST_BYTES_MAX
from greenroom_cluster.coordination.etcd.layout import FORMAT, LayoutError, map_of, values_of
from greenroom_cluster.coordination.genesis import first_map
from tests.cluster.coordination.builders import cluster, durable, inc, node, shard


def grown(shards: int, nodes: int) -> ClusterMap:
    """Return a map of so many nodes of one actor, which takes each its share of the shards."""
    actors = [durable(bytes([n % 251]) + inc(f"a{n}")[:15], f"n{n}/0", f"{n:x}dir", n) for n in range(nodes)]
    primaries = [actors[number % nodes].incarnation for number in range(shards)]
    backups = [(actors[(number + 1) % nodes].incarnation,) for number in range(shards)]
    entries = tuple(
        shard(primary, backup, epoch=number + 1, wanted=("n0/0", "n1/0"), made_by=inc(str(number)))
        for number, (primary, backup) in enumerate(zip(primaries, backups, strict=True))
    )
    floors = {each.directory: each.mark for each in actors}
    zoned = tuple(node(f"n{n}", zone=("", "x", "y")[n % 3]) for n in range(nodes))
    whole = cluster(entries, actors, zoned, version=7)
    return msgspec.structs.replace(whole, identity=inc("identity"), floors=floors, recover_alone_seconds=2.5)


@given(power=st.integers(0, 9), nodes=st.integers(1, 40))
def test_a_map_comes_back_as_it_was(power: int, nodes: int) -> None:
    whole = grown(1 << power, nodes)
    assert map_of(values_of(whole)) == whole


def test_there_is_no_map_without_keys() -> None:
    assert map_of({}) is None


def test_the_largest_map_fits_into_one_transaction() -> None:
    values = values_of(grown(SHARDS_MAX, 500))
    assert len(values) < OPERATIONS_MAX, "one is left for the leader's key"
    assert sum(map(len, values.values())) < REQUEST_BYTES_MAX // 2


def test_a_change_of_a_shard_touches_its_part_and_the_version() -> None:
    before = grown(4096, 10)
    entries = list(before.shards)
    entries[100] = msgspec.structs.replace(entries[100], epoch=9)
    after = msgspec.structs.replace(before, version=8, shards=tuple(entries))
    old, new = values_of(before), values_of(after)
    assert old.keys() == new.keys()
    assert {key for key in new if new[key] != old[key]} == {"meta", "shards/01"}


def test_the_last_of_a_part_leaves_no_key() -> None:
    lonely = first_map("test", 64, 2)
    assert values_of(lonely).keys() == {"meta", *(f"shards/{part:02x}" for part in range(64))}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("meta", None, "`meta` is missing"),
        ("shards/03", None, "63 of 64 shards"),
        ("shards/03", b"", "format none"),
        ("shards/03", bytes((FORMAT + 1,)), "start the release that wrote it"),
        ("nodes/0", bytes((FORMAT,)) + b"\xc1", "no map of this release"),
        ("nodes/0", bytes((FORMAT,)) + b"\x91\x93\xa1n\xa1a\xa2up", "malformed"),
    ],
)
def test_what_is_not_whole_is_refused(key: str, value: bytes | None, told: str) -> None:
    values = values_of(grown(64, 3))
    if value is None:
        del values[key]
    else:
        values[key] = value
    with pytest.raises(LayoutError, match=told):
        map_of(values)
