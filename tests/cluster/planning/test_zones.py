"""What a placement keeps to where nodes have zones."""

from collections import Counter
from math import ceil, floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.planning.placement import node_of, plan
from greenroom_cluster.planning.shares import Sites, replica_averages
from greenroom_cluster.planning.zones import crowded_zone, zone_of
from tests.cluster.coordination.builders import actor, cluster, inc, node, shard
from tests.cluster.planning.zoned import Layout, crowded, planned, slots_of, with_zones, zones_wanted

NAMES = "abcdefgh"
zones_of_nodes = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from(["x", "y", "z", ""])), min_size=1, max_size=8
)
shard_counts = st.sampled_from([1, 2, 16, 64, 256])


def moves(before: ClusterMap, after: ClusterMap) -> int:
    """How many replicas must be copied to go from one to the other."""
    pairs = zip(before.shards, after.shards, strict=True)
    return sum(len(set(new.wanted) - set(old.wanted)) for old, new in pairs)


def check(cluster_map: ClusterMap, usable: list[str]) -> None:
    """Every shard has its replicas, in as many zones and on as many nodes as there can be."""
    replicas = min(cluster_map.replicas, len(usable))
    nodes = {node_of(slot) for slot in usable}
    zones = {zone_of(cluster_map, name) for name in nodes}
    for number, entry in enumerate(cluster_map.shards):
        assert len(entry.wanted) == len(set(entry.wanted)) == replicas
        assert set(entry.wanted) <= set(usable)
        assert len({node_of(slot) for slot in entry.wanted}) == min(replicas, len(nodes))
        assert len(zones_wanted(cluster_map, number)) == min(replicas, len(zones))
    assert plan(cluster_map, usable) == {}, "planning again moved something"


def sites_of(cluster_map: ClusterMap, usable: list[str]) -> Sites:
    nodes = sorted({node_of(slot) for slot in usable})
    zones = sorted({zone_of(cluster_map, name) for name in nodes})
    return Sites(
        [nodes.index(node_of(slot)) for slot in usable],
        [zones.index(zone_of(cluster_map, node_of(slot))) for slot in usable],
    )


def check_balance(cluster_map: ClusterMap, usable: list[str]) -> None:
    """Replicas are within bounds around each slot's fair share, primaries around that of all."""
    shares = replica_averages(sites_of(cluster_map, usable), cluster_map.shard_count, cluster_map.replicas)
    replicas = Counter(slot for entry in cluster_map.shards for slot in entry.wanted)
    primaries = Counter(entry.wanted[0] for entry in cluster_map.shards)
    for slot, share in zip(usable, shares, strict=True):
        for load, average in (
            (replicas[slot], share),
            (primaries[slot], cluster_map.shard_count / len(usable)),
        ):
            assert floor(average * 0.75 + 1e-9) <= load <= ceil(average * 1.25 - 1e-9)


@settings(max_examples=200, deadline=None)
@given(shard_counts, st.integers(1, 3), st.lists(zones_of_nodes, min_size=1, max_size=4))
def test_replicas_stand_in_different_zones_whatever_comes_and_goes(
    count: int, replicas: int, steps: list[list[tuple[int, str]]]
) -> None:
    """Nodes come, go and change their zones; planning again moves nothing."""
    current = first_map("test", count, replicas)
    for step in steps:
        layout: Layout = {name: slots for name, (slots, _) in zip(NAMES, step, strict=False)}
        current = with_zones(current, {name: zone for name, (_, zone) in zip(NAMES, step, strict=False)})
        current = planned(current, slots_of(layout))
        check(current, slots_of(layout))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([64, 256]), st.lists(st.integers(1, 5), min_size=2, max_size=3), st.integers(1, 2))
def test_lopsided_zones_are_loaded_as_evenly_as_they_can_be(
    count: int, sizes: list[int], per_node: int
) -> None:
    """Whatever the zones' sizes: replicas around a share that zones allow, primaries alike everywhere."""
    zones = {
        f"{zone}{number}": zone for zone, size in zip("xyz", sizes, strict=False) for number in range(size)
    }
    usable = slots_of(dict.fromkeys(zones, per_node))
    current = planned(with_zones(first_map("test", count, 2), zones), usable)
    check(current, usable)
    check_balance(current, usable)


def test_the_only_node_of_a_zone_has_a_replica_of_every_shard() -> None:
    zones = {"a": "x", "b": "y", "c": "y", "d": "y", "e": "y", "f": "y"}
    usable = slots_of(dict.fromkeys(zones, 1))
    current = planned(with_zones(first_map("test", 256, 2), zones), usable)
    check(current, usable)
    check_balance(current, usable)
    replicas = Counter(slot for entry in current.shards for slot in entry.wanted)
    primaries = Counter(entry.wanted[0] for entry in current.shards)
    assert replicas["a/0"] == 256
    assert max(replicas[f"{name}/0"] for name in "bcdef") <= ceil(256 / 5 * 1.25)
    assert primaries["a/0"] <= ceil(256 / 6 * 1.25), "what it serves is no more than what others do"


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([64, 256]),
    st.integers(1, 2),
    st.lists(st.sampled_from("xyz"), min_size=2, max_size=8),
)
def test_naming_zones_moves_what_stands_in_one_and_nothing_else(
    count: int, per_node: int, given_zones: list[str]
) -> None:
    """From an unzoned cluster; and what stands apart already stays where it is."""
    zones = dict(zip(NAMES, given_zones, strict=False))
    usable = slots_of(dict.fromkeys(zones, per_node))
    plain = planned(first_map("test", count, 2), usable)
    before = with_zones(plain, zones)
    after = planned(before, usable)
    check(after, usable)
    if len(set(given_zones)) == 1:
        assert moves(before, after) == 0
        return
    assert crowded(before) <= moves(before, after) <= crowded(before) * 1.1 + len(usable)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([64, 256]), st.integers(1, 2), st.integers(1, 4), st.integers(1, 4))
def test_a_zone_that_is_lost_and_comes_back_moves_the_least(
    count: int, per_node: int, here: int, there: int
) -> None:
    zones = {f"x{number}": "x" for number in range(here)} | {f"y{number}": "y" for number in range(there)}
    everyone = slots_of(dict.fromkeys(zones, per_node))
    before = planned(with_zones(first_map("test", count, 2), zones), everyone)
    left = [slot for slot in everyone if slot.startswith("x")]
    alone = planned(before, left)
    check(alone, left)
    assert moves(before, alone) == (count if len(left) > 1 else 0), "each shard lacks one replica"
    back = planned(alone, everyone)
    check(back, everyone)
    check_balance(back, everyone)
    # What is copied is what the zone has to have; who is primary there stays, or is handed over.
    assert moves(alone, back) == count


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 6), st.integers(1, 3), st.permutations(NAMES[:6]))
def test_zones_that_are_named_one_by_one_cost_no_more(nodes: int, per_node: int, order: list[str]) -> None:
    """A rolling restart that adds --zone: each plan moves a little, and nothing is moved to and fro."""
    names = NAMES[:nodes]
    final = {name: "xy"[number % 2] for number, name in enumerate(names)}
    usable = slots_of(dict.fromkeys(names, per_node))
    current = planned(first_map("test", 64, 2), usable)
    named: dict[str, str] = dict.fromkeys(names, "")
    at_once = moves(current, planned(with_zones(current, final), usable))
    cost = 0
    for name in order:
        if name in final:
            named[name] = final[name]
            before = with_zones(current, named)
            current = planned(before, usable)
            check(current, usable)
            cost += moves(before, current)
    assert at_once <= cost + len(usable)
    assert cost <= 2 * at_once + nodes * len(usable)


def test_a_node_without_a_zone_stands_for_itself() -> None:
    """So a cluster in which some have none yet is planned as before, as far as it can be."""
    usable = slots_of({"a": 2, "b": 2, "c": 2})
    plain = planned(first_map("test", 64, 2), usable)
    one = with_zones(plain, {"a": "x", "b": "", "c": ""})
    assert plan(one, usable) == {}
    same_name = with_zones(plain, {"a": "b", "b": "", "c": ""})
    assert plan(same_name, usable) == {}, "a zone that is called like a node is another thing"


def test_three_replicas_in_two_zones_are_on_three_nodes() -> None:
    zones = {"a": "x", "b": "y", "c": "y", "d": "y"}
    usable = slots_of(dict.fromkeys(zones, 2))
    current = planned(with_zones(first_map("test", 64, 3), zones), usable)
    check(current, usable)
    assert all(sum(slot.startswith("a/") for slot in entry.wanted) == 1 for entry in current.shards)


@settings(max_examples=200, deadline=None)
@given(zones_of_nodes, st.integers(1, 3))
def test_fair_shares_add_up_and_can_be_had(nodes: list[tuple[int, str]], replicas: int) -> None:
    zones = {name: zone for name, (_, zone) in zip(NAMES, nodes, strict=False)}
    usable = slots_of({name: slots for name, (slots, _) in zip(NAMES, nodes, strict=False)})
    replicas = min(replicas, len(usable))
    sites = sites_of(with_zones(first_map("test", 1, replicas), zones), usable)
    shares = replica_averages(sites, 64, replicas)
    assert sum(shares) == pytest.approx(64 * replicas)
    assert all(0 <= share <= 64 + 1e-9 for share in shares)
    zone_count = max(sites.zone) + 1
    most = max(1, replicas - zone_count + 1)
    for zone in range(zone_count):
        inside = sum(share for share, its in zip(shares, sites.zone, strict=True) if its == zone)
        assert inside <= 64 * most + 1e-6
        assert inside >= (64 - 1e-6 if zone_count <= replicas else 0)


ONE, TWO = inc("one"), inc("two")


@pytest.mark.parametrize(
    ("members", "zones", "found"),
    [
        ((ONE, TWO), {"a": "x", "b": "x", "c": "y"}, "x"),
        ((ONE, TWO), {"a": "x", "b": "y", "c": "y"}, ""),
        ((ONE, TWO), {"a": "x", "b": "x", "c": ""}, "x"),
        ((ONE, TWO), {"a": "x", "b": "x", "c": "x"}, ""),
        ((ONE, TWO), {"a": "", "b": "", "c": "y"}, ""),
        ((ONE, TWO), {"a": "x", "b": "", "c": "y"}, ""),
        ((ONE,), {"a": "x", "b": "x", "c": "y"}, ""),
        ((ONE, inc("unknown")), {"a": "x", "b": "x", "c": "y"}, ""),
    ],
)
def test_which_shards_are_within_one_zone(
    members: tuple[bytes, ...], zones: dict[str, str], found: str
) -> None:
    entry = shard(members[0], members[1:], epoch=1)
    nodes = tuple(node(name, zone=zone) for name, zone in zones.items())
    assert crowded_zone(cluster((entry,), (actor(ONE, "a/0"), actor(TWO, "b/0")), nodes), entry) == found


def test_a_node_elsewhere_counts_until_it_leaves_for_good() -> None:
    entry = shard(ONE, (TWO,), epoch=1)
    actors = (actor(ONE, "a/0"), actor(TWO, "b/0"))
    for state, found in (("up", "x"), ("down", "x"), ("leaving", "")):
        nodes = (node("a", zone="x"), node("b", zone="x"), node("c", state, zone="y"))
        assert crowded_zone(cluster((entry,), actors, nodes), entry) == found
