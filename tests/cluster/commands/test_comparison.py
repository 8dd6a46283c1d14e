"""What an operator is told between two looks at a cluster."""

from typing import Any

import pytest
from msgspec.structs import replace

from greenroom_cluster.comparison import changes, rates
from greenroom_cluster.coordinator_status import AWAY, UP, CoordinatorStatus
from greenroom_cluster.inspection import ActorStatus, ClusterStatus, NodeStatus, ShardStatus


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
        "actor b/0 was started again",
        "coordinator is away, was up",
        "shard 0, epoch 4: primary a/0 -> b/0; backup b/0 -> c/0; full -> joining",
        "shard 1, epoch 4: another configuration",
    ]
