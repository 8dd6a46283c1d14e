"""Members that an operator has given up beforehand: shards go on without them after a while."""

import msgspec
import pytest

from greenroom.cluster_map import delta_between
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.bounds import map_objection
from greenroom_cluster.coordination.genesis import with_patience
from tests.cluster.coordination.builders import Desk, durable, shard
from tests.cluster.coordination.heirs import A2, B2, A, B, C, claims, desk_of


def patient(seconds: float, mode: str = "fsync") -> Desk:
    """A shard whose primary is dead, with an heir, and whose backup is not heard any more."""
    desk = desk_of(actors=(durable(A, "a/0", "da", 5, mode=mode), durable(B, "b/0", "db", 5, mode=mode)))
    desk = Desk(msgspec.structs.replace(desk.map, recover_alone_seconds=seconds))
    desk.ask(m.RegisterActor(2, durable(A2, "a/0", "da", 6, mode=mode)))
    desk.pass_seconds(5, "a")
    assert desk.map.nodes["b"].state == "down"
    return desk


def test_a_shard_goes_on_without_whoever_is_silent_for_that_long() -> None:
    desk = patient(30)
    assert claims(desk, A2) is None
    desk.pass_seconds(24, "a")
    assert desk.map.shards[0].members == (A, B)
    desk.pass_seconds(2, "a")
    assert desk.map.shards[0].members == (A2,)
    assert desk.map.actors.get(B, durable(B, "b/0", "db")).state != "dead", "nobody knows that"


def test_nobody_is_passed_over_unless_an_operator_said_so() -> None:
    desk = patient(0)
    assert claims(desk, A2) is False
    desk.pass_seconds(300, "a")
    assert desk.map.shards[0].members == (A, B)


def test_a_directory_that_need_not_have_all_is_not_enough() -> None:
    """With interval the other may hold acknowledged writes that this one lacks."""
    desk = patient(30, mode="interval")
    assert claims(desk, A2) is None
    desk.pass_seconds(300, "a")
    assert desk.map.shards[0].members == (A, B)


def test_who_is_heard_again_is_not_passed_over() -> None:
    desk = patient(30)
    assert claims(desk, A2) is None
    desk.pass_seconds(20, "a")
    desk.pass_seconds(40, "a", "b")
    assert desk.map.shards[0].members == (A, B)
    assert claims(desk, A2) is False, "it may be alive: it takes over itself"


def test_a_directory_that_does_not_come_back_is_passed_over() -> None:
    """Its node runs, and the former process is dead, so the time runs from the first claim."""
    desk = patient(30)
    desk.pass_seconds(60, "a", "b")
    desk.durable(B2, "b/0", "empty", 1)
    desk.ask(m.ReportDead(1, (B,)))
    assert claims(desk, A2) is None
    desk.pass_seconds(29, "a", "b")
    assert claims(desk, A2) is None, "claiming again does not begin anew, nor hasten it"
    assert desk.map.shards[0].members == (A, B)
    desk.pass_seconds(2, "a", "b")
    assert desk.map.shards[0].members == (A2,)


def test_the_best_of_those_who_are_there_goes_on() -> None:
    actors = (durable(A, "a/0", "da", 5), durable(B, "b/0", "db", 5), durable(C, "c/0", "dc", 5))
    desk = desk_of(shard(A, (B, C), epoch=3), actors=actors)
    desk = Desk(msgspec.structs.replace(desk.map, recover_alone_seconds=30.0))
    desk.durable(A2, "a/0", "da", 6)
    desk.durable(B2, "b/0", "db", 6)
    desk.pass_seconds(10, "a", "b")
    assert claims(desk, A2, 3, 8) is None
    assert claims(desk, B2, 3, 9, number=2) is None
    desk.pass_seconds(31, "a", "b")
    assert desk.map.shards[0].members == (B2,)


def fallen_silent(seconds: float, mode: str = "fsync") -> Desk:
    """A shard whose members are dead; the heir of one has claimed, and is not heard any more."""
    desk = desk_of(actors=(durable(A, "a/0", "da", 5, mode=mode), durable(B, "b/0", "db", 5, mode=mode)))
    desk = Desk(msgspec.structs.replace(desk.map, recover_alone_seconds=seconds))
    desk.ask(m.ReportDead(1, (A, B)))
    desk.ask(m.RegisterActor(2, durable(A2, "a/0", "da", 6, mode=mode)))
    desk.pass_seconds(1, "a", "b")
    assert claims(desk, A2, 3, 9) is None
    desk.pass_seconds(5, "b")
    desk.ask(m.RegisterActor(2, durable(B2, "b/0", "db", 6, mode=mode)))
    assert desk.map.nodes["a"].state == "down"
    return desk


def test_who_claimed_and_fell_silent_is_passed_over() -> None:
    """It holds no less than the one that is there, which has all that was acknowledged."""
    desk = fallen_silent(30)
    assert claims(desk, B2, 3, 8, number=2) is None
    desk.pass_seconds(24, "b")
    assert desk.map.shards[0].members == (A, B)
    desk.pass_seconds(2, "b")
    assert desk.map.shards[0].members == (B2,)


def test_who_claimed_and_is_heard_again_is_not_passed_over() -> None:
    desk = fallen_silent(30)
    assert claims(desk, B2, 3, 8, number=2) is None
    desk.pass_seconds(20, "b")
    desk.pass_seconds(40, "a", "b")
    assert desk.map.shards[0].members == (A2,), "its claim still stood"


@pytest.mark.parametrize(("seconds", "mode"), [(30, "interval"), (0, "fsync")])
def test_who_claimed_and_fell_silent_is_waited_for_else(seconds: float, mode: str) -> None:
    desk = fallen_silent(seconds, mode)
    assert claims(desk, B2, 3, 8, number=2) is None
    desk.pass_seconds(300, "b")
    assert desk.map.shards[0].members == (A, B)


def test_who_waits_is_told_for_how_long() -> None:
    desk = patient(30)
    [told] = [warning for warning in desk.warnings if "waits for node b" in warning]
    assert "After 30 s (--recover-alone-after) shards go on without" in told


def test_a_run_with_another_patience_is_another_version_of_the_map() -> None:
    stored = desk_of().map
    assert with_patience(stored, 0.0) is stored
    patient_map = with_patience(stored, 30.0)
    assert (patient_map.version, patient_map.recover_alone_seconds) == (stored.version + 1, 30.0)
    changed = Desk(patient_map)
    changed.ask(m.ReportDead(1, (A,)))
    assert patient_map.apply(delta_between(patient_map, changed.map)) == changed.map
    assert with_patience(patient_map, 0.0).recover_alone_seconds == 0.0
    for seconds in (-1.0, float("inf"), float("nan")):
        assert map_objection(msgspec.structs.replace(stored, recover_alone_seconds=seconds))
