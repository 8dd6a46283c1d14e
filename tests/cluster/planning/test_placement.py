"""What a placement keeps to, whatever the cluster looks like."""

import os
import subprocess
import sys
from collections import Counter
from math import ceil, floor

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.planning.placement import node_of, plan
from greenroom_cluster.planning.ring import Ring
from tests.cluster.coordination.builders import actor, cluster, inc, shard

Layout = dict[str, int]


def slots_of(layout: Layout) -> list[str]:
    return [f"{name}/{index}" for name, count in sorted(layout.items()) for index in range(count)]


def planned(before: ClusterMap, usable: list[str]) -> ClusterMap:
    """The map once this plan is written."""
    shards = list(before.shards)
    for number, wanted in plan(before, usable).items():
        assert wanted != shards[number].wanted
        shards[number] = msgspec.structs.replace(shards[number], wanted=wanted)
    return msgspec.structs.replace(before, shards=tuple(shards))


def replica_loads(cluster_map: ClusterMap) -> Counter[str]:
    return Counter(slot for entry in cluster_map.shards for slot in entry.wanted)


def primary_loads(cluster_map: ClusterMap) -> Counter[str]:
    return Counter(entry.wanted[0] for entry in cluster_map.shards)


def moves(before: ClusterMap, after: ClusterMap) -> int:
    """How many replicas must be copied to go from one to the other."""
    return sum(
        len(set(new.wanted) - set(old.wanted)) for old, new in zip(before.shards, after.shards, strict=True)
    )


def check(cluster_map: ClusterMap, usable: list[str]) -> None:
    """Every shard has its replicas, on as many nodes as there can be."""
    replicas = min(cluster_map.replicas, len(usable))
    nodes = min(replicas, len({node_of(slot) for slot in usable}))
    for entry in cluster_map.shards:
        assert len(entry.wanted) == len(set(entry.wanted)) == replicas
        assert set(entry.wanted) <= set(usable)
        assert len({node_of(slot) for slot in entry.wanted}) == nodes
    assert plan(cluster_map, usable) == {}, "planning again moved something"


def check_balance(cluster_map: ClusterMap, usable: list[str]) -> None:
    """Loads are within their bounds; only for layouts in which nothing prevents it."""
    for loads, total in (
        (replica_loads(cluster_map), sum(len(entry.wanted) for entry in cluster_map.shards)),
        (primary_loads(cluster_map), cluster_map.shard_count),
    ):
        average = total / len(usable)
        for slot in usable:
            assert floor(average * 0.75 + 1e-9) <= loads[slot] <= ceil(average * 1.25 - 1e-9)


layouts = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 4), min_size=1, max_size=8)
even_layouts = st.tuples(st.integers(2, 8), st.integers(1, 4)).map(
    lambda shape: dict.fromkeys("abcdefgh"[: shape[0]], shape[1])
)
shard_counts = st.sampled_from([1, 2, 16, 64, 256])


@settings(max_examples=150, deadline=None)
@given(shard_counts, st.integers(1, 3), st.lists(layouts, min_size=1, max_size=4))
def test_every_shard_is_placed_whatever_comes_and_goes(
    count: int, replicas: int, steps: list[Layout]
) -> None:
    current = first_map("test", count, replicas)
    for layout in steps:
        usable = slots_of(layout)
        current = planned(current, usable)
        check(current, usable)


@settings(max_examples=100, deadline=None)
@given(shard_counts, st.integers(1, 3), st.lists(even_layouts, min_size=1, max_size=4))
def test_like_nodes_are_loaded_alike_whatever_came_before(
    count: int, replicas: int, steps: list[Layout]
) -> None:
    current = first_map("test", count, replicas)
    for layout in steps:
        usable = slots_of(layout)
        current = planned(current, usable)
        check(current, usable)
        check_balance(current, usable)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([64, 256]), st.integers(3, 8), st.integers(1, 3), st.data())
def test_a_node_that_goes_moves_little_but_what_it_had(
    count: int, nodes: int, per_node: int, data: st.DataObject
) -> None:
    names = "abcdefgh"[:nodes]
    everyone = slots_of(dict.fromkeys(names, per_node))
    before = planned(first_map("test", count, 2), everyone)
    gone = data.draw(st.sampled_from(names))
    rest = [slot for slot in everyone if node_of(slot) != gone]
    after = planned(before, rest)
    had = sum(load for slot, load in replica_loads(before).items() if node_of(slot) == gone)
    assert had <= moves(before, after) <= had * 1.25 + len(rest)
    check(after, rest)
    check_balance(after, rest)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([64, 256]), st.integers(2, 7), st.integers(1, 3))
def test_a_node_that_comes_takes_its_share_and_nothing_else_moves(
    count: int, nodes: int, per_node: int
) -> None:
    names = "abcdefgh"[: nodes + 1]
    few = slots_of(dict.fromkeys(names[:-1], per_node))
    many = slots_of(dict.fromkeys(names, per_node))
    before = planned(first_map("test", count, 2), few)
    after = planned(before, many)
    got = sum(load for slot, load in replica_loads(after).items() if node_of(slot) == names[-1])
    share = count * 2 / (nodes + 1)
    assert got >= 0.75 * share - per_node
    assert moves(before, after) <= 1.25 * share + per_node
    check(after, many)
    check_balance(after, many)


def test_actors_of_one_node_share_until_a_second_comes() -> None:
    alone = planned(first_map("test", 64, 2), ["a/0", "a/1"])
    check(alone, ["a/0", "a/1"])
    two = planned(alone, ["a/0", "a/1", "b/0", "b/1"])
    check(two, ["a/0", "a/1", "b/0", "b/1"])
    assert moves(alone, two) == 64


def test_without_a_usable_slot_everything_stays() -> None:
    current = planned(first_map("test", 16, 2), ["a/0", "b/0"])
    assert plan(current, []) == {}


def test_pairing_wins_over_balance() -> None:
    """One node with one actor beside a node with eight: it must take a replica of every shard."""
    usable = slots_of({"a": 8, "b": 1})
    current = planned(first_map("test", 256, 2), usable)
    check(current, usable)
    assert replica_loads(current)["b/0"] == 256
    spread = [replica_loads(current)[f"a/{index}"] for index in range(8)]
    assert max(spread) <= ceil(32 * 1.25)
    assert primary_loads(current)["b/0"] <= ceil(256 / 9 * 1.25)


def restarted(before: ClusterMap, victim: str) -> ClusterMap:
    """Every shard runs as wanted; then the victim's actor died, backups took over, and it came back empty."""
    up = {slot: inc(slot) for slot in replica_loads(before)}
    entries = []
    for entry in before.shards:
        members = [up[slot] for slot in entry.wanted if slot != victim]
        entries.append(shard(members[0], tuple(members[1:]), epoch=5, wanted=entry.wanted, made_by=b"n" * 16))
    actors = [actor(one, slot) for slot, one in up.items() if slot != victim]
    return cluster(tuple(entries), (*actors, actor(inc("again"), victim)))


def test_after_an_actors_restart_primaries_are_wanted_back_in_balance() -> None:
    usable = slots_of({"a": 2, "b": 2, "c": 2})
    before = planned(first_map("test", 64, 2), usable)
    now = restarted(before, "b/1")
    after = planned(now, usable)
    check(after, usable)
    check_balance(after, usable)
    assert moves(before, after) == 0


def test_who_is_primary_already_stays_so_when_the_former_is_gone_for_good() -> None:
    usable = slots_of({"a": 2, "b": 2, "c": 2, "d": 2})
    now = restarted(planned(first_map("test", 64, 3), usable), "b/1")
    rest = [slot for slot in usable if slot != "b/1"]
    after = planned(now, rest)
    slot_of = {one.incarnation: one.slot for one in now.actors.values()}
    handed_over = sum(slot_of[entry.primary] != entry.wanted[0] for entry in after.shards)
    healthy = sum(entry.wanted[0] != slot_of[entry.primary] for entry in now.shards)
    assert handed_over < healthy
    check(after, rest)


def test_the_largest_cluster_is_planned_in_seconds() -> None:
    """4,096 shards, 100 nodes of four actors; bounded by the test's time limit, not by a stop-watch."""
    everyone = slots_of({f"n{number}": 4 for number in range(100)})
    current = planned(first_map("test", 4096, 2), everyone)
    check(current, everyone)
    check_balance(current, everyone)
    fewer = everyone[4:]
    after = planned(current, fewer)
    check(after, fewer)
    check_balance(after, fewer)


def test_a_plan_is_the_same_in_every_process() -> None:
    code = (
        "from greenroom_cluster.planning.placement import plan;"
        "from greenroom_cluster.coordination.genesis import first_map;"
        "print(sorted(plan(first_map('t', 64, 2), {'a/0', 'b/0', 'c/0', 'c/1'}).items()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
    assert "a/0" in outputs.pop()


@pytest.mark.parametrize("shard_number", range(8))
def test_a_slot_that_goes_leaves_the_order_of_the_others(shard_number: int) -> None:
    names = ["a/0", "b/0", "c/0", "d/0"]
    order = [names[slot] for slot in Ring(names).preference(shard_number)]
    fewer = ["a/0", "c/0", "d/0"]
    assert [fewer[slot] for slot in Ring(fewer).preference(shard_number)] == [s for s in order if s != "b/0"]
