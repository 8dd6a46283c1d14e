"""What an operator is told between two looks at a cluster."""

from typing import Any

import pytest
from msgspec.structs import replace

from greenroom_cluster.cluster_status import ActorStatus, ClusterStatus, NodeStatus, ShardStatus
from greenroom_cluster.comparison import Transition, changes, rates, transitions
from greenroom_cluster.coordinator_status import AWAY, UP, CoordinatorStatus


def actor(slot: str, incarnation: str = "1", state: str = "up") -> ActorStatus:
    return ActorStatus(slot, incarnation, "h:1", state, 7, True, 1, 1, 10)


def shard(number: int, primary: str, **more: Any) -> ShardStatus:
    given = {"backups": ("b/0",), "sessions": 10, "state": "full", "appended": 100, "epoch": 3, **more}
    return ShardStatus(shard=number, primary=primary, **given)


BEFORE = ClusterStatus(
    cluster="shop",
    lineage=1,
    version=5,
    replicas=2,
    nodes=(NodeStatus("a", "h:1", "up", 1), NodeStatus("b", "h:2", "up", 1)),
    actors=(actor("a/0"), actor("b/0")),
    shards=(shard(0, "a/0"), shard(1, "a/0"), shard(2, "b/0")),
    coordinator=CoordinatorStatus(UP),
)


def test_rates_are_of_what_primaries_have_appended() -> None:
    shards = (
        shard(0, "a/0", appended=150, sessions=14),
        shard(1, "a/0", appended=110, sessions=9),
        BEFORE.shards[2],
    )
    found = rates(BEFORE, replace(BEFORE, shards=shards), 2.0)
    assert (found.records_per_second, found.sessions_per_second) == (30.0, 1.5)
    assert found.by_slot == {"a/0": 30.0, "b/0": 0.0}


@pytest.mark.parametrize("now", [shard(0, "b/0", epoch=4, appended=900), shard(0, "a/0", appended=0)])
def test_a_shard_that_changed_hands_or_is_silent_has_no_rate(now: ShardStatus) -> None:
    found = rates(BEFORE, replace(BEFORE, shards=(now, *BEFORE.shards[1:])), 1.0)
    assert (found.records_per_second, found.sessions_per_second) == (0.0, 0.0)


def test_another_cluster_has_no_rate_yet() -> None:
    other = replace(BEFORE, lineage=2, shards=(shard(0, "a/0", appended=900),))
    assert rates(BEFORE, other, 1.0) == rates(BEFORE, BEFORE, 0.0)
    assert rates(BEFORE, other, 1.0).by_slot == {}


def test_nothing_has_changed() -> None:
    assert changes(BEFORE, BEFORE) == []


def test_changes_name_who_and_what() -> None:
    now = replace(
        BEFORE,
        nodes=(NodeStatus("a", "h:1", "down", 0), NodeStatus("c", "h:3", "up", 1)),
        actors=(actor("a/0", state="dead"), actor("b/0", "2"), actor("c/0")),
        shards=(
            shard(0, "b/0", epoch=4, backups=("c/0",), state="joining"),
            shard(1, "a/0", epoch=4),
            BEFORE.shards[2],
        ),
        coordinator=CoordinatorStatus(AWAY, 3.0),
    )
    assert changes(BEFORE, now) == [
        "node a is down, was up",
        "node c is up",
        "node b has left",
        "actor a/0 is gone",
        "actor b/0 was started again",
        "actor c/0 is up",
        "coordinator is away, was up",
        "shard 0, epoch 4: primary a/0 -> b/0; backup b/0 -> c/0; whole -> joining",
        "shard 1, epoch 4: another configuration",
    ]


# --- why ---------------------------------------------------------------------------------------------------


def why(now: ClusterStatus, *lost: str) -> list[str]:
    return [each.why for each in transitions(BEFORE, now, lost)]


def with_shard(number: int, primary: str, **more: Any) -> ClusterStatus:
    shards = [*BEFORE.shards]
    shards[number] = shard(number, primary, epoch=4, **more)
    return replace(BEFORE, shards=tuple(shards))


def test_a_primary_that_is_lost_is_told_from_one_that_hands_over() -> None:
    moved = with_shard(0, "b/0", backups=("a/0",))
    assert why(moved) == ["a/0 handed over, to spread the load"]
    assert why(moved, "a/0") == ["a/0 was lost"]
    leaving = replace(moved, nodes=(NodeStatus("a", "h:1", "leaving", 1), BEFORE.nodes[1]))
    assert why(leaving) == ["it was asked to stop", "a/0 handed over: its node stops"]


def test_an_actor_that_is_lost_between_the_looks_is_the_reason() -> None:
    moved = replace(with_shard(0, "b/0", backups=()), actors=(actor("a/0", "2"), actor("b/0")))
    assert why(moved) == ["its former process is gone", "a/0 was lost"]


def test_a_backup_goes_and_comes_for_reasons() -> None:
    without = with_shard(0, "a/0", backups=(), state="alone")
    assert why(without, "b/0") == ["b/0 was lost"]
    assert why(without) == ["b/0 gave way, to spread the load"]
    assert transitions(without, with_shard(0, "a/0", backups=("b/0",))) == [
        Transition("shard 0, epoch 4: backup - -> b/0; alone -> whole", "b/0 has its copy")
    ]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"state": "joining", "joiner": "c/0"}, "c/0 is given a copy"),
        ({"state": "alone", "join_refusal": "no memory"}, "no memory"),
        ({"state": "unavailable", "waits_for": ("b",)}, "it waits for b"),
        ({"state": "unavailable"}, "its primary does not serve"),
        ({"state": "suspended"}, "a record ended its primary"),
        ({"state": "full"}, ""),
    ],
)
def test_a_state_has_its_reason(more: dict[str, Any], reason: str) -> None:
    assert why(with_shard(0, "a/0", **more)) == [reason]


def test_an_actor_goes_and_comes_back() -> None:
    gone = replace(BEFORE, actors=(actor("a/0", state="dead"), actor("b/0")))
    assert transitions(BEFORE, gone) == [Transition("actor a/0 is gone", "its process has ended, or hung")]
    again = replace(BEFORE, actors=(actor("a/0", "2"), actor("b/0")))
    assert transitions(gone, again) == [Transition("actor a/0 is up")]
    stopped = replace(gone, nodes=(NodeStatus("a", "h:1", "down", 0), BEFORE.nodes[1]))
    assert Transition("actor a/0 is gone", "node a is down") in transitions(BEFORE, stopped)
