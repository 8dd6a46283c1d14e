"""What a coordinator makes of a peer whose map is newer than its own by the version alone."""

import msgspec
import pytest

from greenroom import wire
from greenroom_cluster.coordination import messages as m
from tests.cluster.coordination.builders import SECOND, Desk, actor, cluster, inc, shard

A, B, C = inc("a"), inc("b"), inc("c")
PAIR = cluster((shard(A, (B,), epoch=3, wanted=("a/0", "b/0")),) * 2, (actor(A, "a/0"), actor(B, "b/0")))


def test_versions_go_on_after_one_that_a_peer_alone_has() -> None:
    """Its node follows this coordinator, and has nothing to show; no shard of the peer's map is ahead."""
    desk = Desk(PAIR)
    known = wire.Subscribe(1, 40, (3, 2))
    assert isinstance(desk.ask(known, B), wire.Goodbye)
    outcome = desk.coordinator.shown(desk.now_ns, [PAIR, PAIR])
    assert desk.map == msgspec.structs.replace(PAIR, version=41)
    assert PAIR.apply(outcome.delta) == desk.map
    assert desk.ask(known, B) == wire.MapFull(desk.map)


@pytest.mark.parametrize(
    "known",
    [
        wire.Subscribe(1, 40),
        wire.Subscribe(1, 40, (3, 4)),
        wire.Subscribe(1, 40, (3, 3, 3)),
        wire.Subscribe(2, 40, (3, 3)),
        wire.Subscribe(1, 1 << 50, (3, 3)),
        m.Heartbeat("b", 1, 40),
    ],
)
def test_what_a_peer_says_of_decisions_is_not_counted_past(known: object) -> None:
    desk = Desk(PAIR)
    desk.ask(known, B)
    assert desk.coordinator.shown(desk.now_ns, [PAIR, PAIR]).persist is None
    assert desk.map is PAIR


def test_a_version_is_not_counted_past_while_no_node_answers() -> None:
    desk = Desk(PAIR)
    desk.ask(wire.Subscribe(1, 40, (3, 3)), B)
    assert desk.coordinator.shown(desk.now_ns, []).persist is None
    assert desk.map is PAIR


def test_a_later_map_counts_before_a_version_that_is_only_claimed() -> None:
    desk = Desk(PAIR)
    later = msgspec.structs.replace(PAIR, version=2, shards=(shard(A, epoch=4), PAIR.shards[1]))
    desk.ask(wire.Subscribe(1, 40, (3, 3)), B)
    assert desk.coordinator.shown(desk.now_ns, [later]).persist is None
    assert desk.coordinator.refusal


def test_versions_that_are_claimed_again_and_again_are_told_once() -> None:
    desk = Desk(PAIR)
    told: list[str] = []
    for _ in range(30):
        desk.now_ns += SECOND
        desk.ask(wire.Subscribe(1, desk.map.version + 7, (3, 3)), C)
        told += desk.coordinator.shown(desk.now_ns, [PAIR]).warnings
    assert desk.map.version == 1 + 30 * 8
    assert len(told) == 1


def test_an_actor_that_knows_later_decisions_is_told_of_with_what_to_do() -> None:
    """It may be the only trace of them: its directory has them, and this map is an older copy."""
    desk = Desk(PAIR)
    told: list[str] = []
    for _ in range(30):
        desk.now_ns += SECOND
        assert isinstance(desk.ask(wire.Subscribe(1, 7, (3, 4)), C), wire.Goodbye)
        told += desk.coordinator.shown(desk.now_ns, [PAIR]).warnings
    assert desk.map.epochs == PAIR.epochs
    (warning,) = told
    assert "If this map is an older copy" in warning
    assert "--adopt-from-directories" in warning
    assert "ignored" not in warning
