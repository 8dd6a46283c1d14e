"""Shards whose members are all dead come back from the directories of those who kept them."""

import msgspec
import pytest

from greenroom.cluster_map import ClusterMap, delta_between
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.bounds import actor_objection, map_objection
from greenroom_cluster.coordination.exchange import Outcome
from greenroom_cluster.coordination.genesis import ClusterOptions, starting_map, with_patience
from greenroom_cluster.coordination.rules import begin_lineage
from tests.cluster.coordination.builders import SECOND, Desk, actor, cluster, durable, inc, node, nonce, shard

A, B, C = inc("a"), inc("b"), inc("c")
A2, B2, C2 = inc("a again"), inc("b again"), inc("c again")
NODES = (node("a"), node("b"), node("c"))


def desk_of(*shards: object, actors: tuple[object, ...] = (), **floors: int) -> Desk:
    found = cluster(
        shards or (shard(A, (B,), epoch=3, wanted=("a/0", "b/0")),),
        actors or (durable(A, "a/0", "da", 5), durable(B, "b/0", "db", 5), actor(C, "c/0")),
        NODES,
    )
    return Desk(msgspec.structs.replace(found, floors={inc(name): floor for name, floor in floors.items()}))


def powerless() -> Desk:
    """Two members in directories, whose hosts lost power and are back without actors."""
    desk = desk_of(da=5, db=5)
    desk.ask(m.ReportDead(1, (A, B)))
    return desk


def claim(claimant: bytes, *last: int, epoch: int = 3, number: int = 1) -> m.Proposal:
    return m.Proposal(0, epoch, nonce(number), "recover", claimant, (), last or (3, 9), ((claimant, 20),))


def claims(desk: Desk, claimant: bytes, *last: int, epoch: int = 3, number: int = 1) -> bool | None:
    """Claim; return whether it was applied, None without an answer."""
    decisions = desk.propose(claimant, claim(claimant, *last, epoch=epoch, number=number))
    return decisions[0].applied if decisions else None


def test_the_longest_log_of_all_heirs_recovers_the_shard() -> None:
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    assert claims(desk, A2, 3, 9) is None, "the other directory may hold more"
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, B2, 3, 8, number=2) is None, "it holds less, and the other will ask again"
    assert claims(desk, A2, 3, 9)
    assert (desk.map.shards[0].epoch, desk.map.shards[0].members) == (4, (A2,))
    assert claims(desk, B2, 3, 8, number=2) is False


def test_a_later_epoch_beats_a_longer_log() -> None:
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, A2, 2, 900) is None
    assert claims(desk, B2, 3, 1, number=2)


def test_of_equal_logs_that_of_the_former_primary_recovers() -> None:
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, A2) is None
    assert claims(desk, B2, number=2) is None
    assert claims(desk, A2)


def answers(outcome: Outcome, desk: Desk, claimant: bytes) -> list[bool]:
    """What a claimant is told of its claims by that outcome."""
    return [
        decision.applied
        for response in outcome.responses
        if isinstance(response.message, m.Decided) and response.connection == desk.connection(claimant)
        for decision in response.message.decisions
    ]


def test_the_best_claimant_is_answered_with_the_last_claim() -> None:
    """It would ask again only a second later, and the shard would wait for that."""
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, A2, 3, 9) is None
    desk.subscribe(B2)
    outcome = desk.batch((B2, m.Propose(9, B2, (claim(B2, 3, 8, number=2),))))
    assert answers(outcome, desk, A2) == [True]
    assert desk.map.shards[0].members == (A2,)
    assert claims(desk, A2, 3, 9), "it may ask again all the same"


def test_a_claim_is_answered_once_an_operator_gives_up_the_rest() -> None:
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    assert claims(desk, A2) is None
    desk.pass_seconds(5, "a", "c")
    desk.forget("b")
    assert desk.map.shards[0].members == (A2,)


def test_who_is_not_connected_is_not_answered_in_absence() -> None:
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, A2, 3, 9) is None
    desk.close(A2, desk.connection(A2))
    assert claims(desk, B2, 3, 8, number=2) is None
    assert desk.map.shards[0].members == (A, B)
    assert claims(desk, A2, 3, 9), "it is back"


def test_a_claim_that_is_refused_later_is_no_claim_any_more() -> None:
    """Its claimant has dropped it, and would not know what to do with a configuration made of it."""
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, A2, 3, 9) is None
    assert claims(desk, A2, 4, 1, number=3) is False, "of an epoch that the map does not know"
    assert claims(desk, B2, 3, 8, number=2) is None
    assert desk.map.shards[0].members == (A, B)


def test_the_coordinators_time_goes_with_a_recovery_only() -> None:
    desk = powerless()
    desk.wall_us = 1_700_000_000_000_000
    desk.durable(A2, "a/0", "da", 6)
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, A2) is None
    desk.wall_us += 1
    assert claims(desk, B2, 3, 1, number=2) is None
    assert desk.map.shards[0].recovered_us == 1_700_000_000_000_001
    assert desk.propose(A2, m.Proposal(0, 4, nonce(7), "add", A2, (B2,)))[0].applied
    assert desk.map.shards[0].recovered_us == 0


def test_a_claim_ends_with_its_claimant() -> None:
    """The next incarnation in the directory claims anew, and may have to rest on less."""
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, A2, 3, 9) is None
    desk.ask(m.ReportDead(1, (A2,)))
    assert claims(desk, B2, 3, 8, number=2) is None
    desk.durable(inc("a third"), "a/0", "da", 7)
    assert claims(desk, B2, 3, 8, number=2) is None
    assert claims(desk, inc("a third"), 3, 7, number=3) is None
    assert claims(desk, B2, 3, 8, number=2)


def test_a_claim_ends_with_the_epoch() -> None:
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, B2, 3, 8) is None
    assert claims(desk, A2, 3, 9, number=2)
    desk.ask(m.ReportDead(1, (A2,)))
    desk.durable(inc("a third"), "a/0", "da", 21)
    assert claims(desk, B2, 3, 8, epoch=4, number=3) is False, "only the directory of A2 counts now"
    assert claims(desk, inc("a third"), 4, 1, epoch=4, number=4)


def test_nobody_claims_while_a_member_may_be_alive() -> None:
    desk = desk_of()
    desk.ask(m.ReportDead(1, (A,)))
    desk.durable(A2, "a/0", "da", 6)
    assert claims(desk, A2) is False
    desk.ask(m.ReportDead(1, (B,)))
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, B2, 3, 99, number=2) is None, "what was refused is no claim"
    assert claims(desk, A2, 3, 9, number=3) is None
    assert claims(desk, B2, 3, 99, number=2)


@pytest.mark.parametrize("claimant", [C, B2])
def test_only_heirs_of_members_claim(claimant: bytes) -> None:
    desk = desk_of(shard(A, epoch=3, wanted=("c/0",)))
    desk.ask(m.ReportDead(1, (A, B)))
    desk.durable(B2, "b/0", "db", 6)
    desk.durable(A2, "a/0", "da", 6)
    assert claims(desk, claimant, 3, 99) is False
    assert claims(desk, A2, 3, 1, number=2)


def test_a_shard_does_not_start_empty_over_a_directory() -> None:
    desk = desk_of(shard(A, (B,), epoch=3, wanted=("c/0", "a/0")))
    desk.ask(m.ReportDead(1, (A, B)))
    start = m.Proposal(0, 3, nonce(1), "start", C, ())
    [refused] = desk.propose(C, start)
    assert not refused.applied
    assert "waits" in refused.reason


def test_who_kept_nothing_is_not_waited_for() -> None:
    desk = desk_of(shard(C, (A,), epoch=3))
    desk.ask(m.ReportDead(1, (A, C)))
    desk.durable(A2, "a/0", "da", 6)
    assert claims(desk, A2)


def test_a_forgotten_node_gives_its_directories_up() -> None:
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    assert claims(desk, A2) is None
    desk.pass_seconds(5, "a", "c")
    told = "shard 0 goes on from the directory of a/0, up to record 3/9"
    assert desk.forget("b") == m.Accepted(1, (told,))
    assert inc("db") not in desk.map.floors
    assert claims(desk, A2)


def test_a_lost_directory_is_given_up_while_its_node_runs_again() -> None:
    """Its machine came back with an empty disk, before anybody had said that the former one is gone."""
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    desk.durable(B2, "b/0", "empty", 1)
    assert claims(desk, A2) is None
    assert isinstance(desk.forget("b"), m.Accepted)
    assert desk.map.actors[B2].state == "up"
    assert claims(desk, A2)


def test_a_directory_is_not_given_up_while_its_node_may_be_opening_it() -> None:
    """The node runs again, and an actor registers only once it has read its directory."""
    desk = powerless()
    desk.node("b")
    desk.durable(A2, "a/0", "da", 6)
    assert claims(desk, A2) is None
    refused = desk.forget("b")
    assert isinstance(refused, m.Rejected)
    assert "the directory of b/0: " in refused.reason
    assert "stop the node" in refused.reason
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, B2, 3, 10, number=2), "it has the longest log"


def test_one_of_two_directories_is_given_up_once_both_actors_are_there() -> None:
    actors = (durable(A, "b/1", "da", 5), durable(B, "b/0", "db", 5))
    desk = desk_of(actors=actors)
    desk.ask(m.ReportDead(1, (A, B)))
    desk.durable(B2, "b/0", "empty", 1)
    refused = desk.forget("b")
    assert isinstance(refused, m.Rejected)
    assert "the directory of b/1: " in refused.reason
    assert desk.map.actors[B].directory == inc("db")
    desk.durable(A2, "b/1", "da", 6)
    assert isinstance(desk.forget("b"), m.Accepted)
    assert desk.map.actors[B].directory == b""
    assert claims(desk, A2)


def test_who_never_comes_back_is_forgotten_once_its_node_is_stopped() -> None:
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    assert claims(desk, A2) is None
    assert isinstance(desk.forget("b"), m.Rejected)
    desk.pass_seconds(3, "a", "c")
    assert isinstance(desk.forget("b"), m.Accepted)
    assert claims(desk, A2)


def test_when_all_directories_were_given_up_the_shard_starts_empty() -> None:
    desk = desk_of(shard(A, (B,), epoch=3, wanted=("c/0", "a/0")))
    desk.pass_seconds(5, "c")
    told = [desk.forget(name) for name in ("a", "b")]
    lost = "shard 0 starts empty: the sessions that only these members held are lost"
    assert told == [m.Accepted(1), m.Accepted(1, (lost,))], "while b may be alive, nothing is lost"
    [started] = desk.propose(C, m.Proposal(0, 3, nonce(1), "start", C, ()))
    assert started.applied


def test_a_directory_that_runs_elsewhere_is_not_given_up() -> None:
    desk = powerless()
    desk.durable(A2, "c/1", "da", 6)
    desk.pass_seconds(5, "b", "c")
    assert isinstance(desk.forget("a"), m.Accepted)
    assert claims(desk, A2) is None
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, B2, 3, 8, number=2) is None
    assert claims(desk, A2)


def test_a_normal_start_is_quiet_and_what_waits_longer_is_told() -> None:
    desk = powerless()
    assert desk.coordinator.next_deadline() <= 5 * SECOND
    desk.pass_seconds(4.5, "a", "b", "c")
    assert desk.warnings == []
    desk.durable(A2, "a/0", "da", 6)
    desk.pass_seconds(1, "a", "b", "c")
    [told] = desk.warnings
    assert told.startswith("1 shard waits for the directory of b/0")
    quick = powerless()
    quick.durable(A2, "a/0", "da", 6)
    quick.durable(B2, "b/0", "db", 6)
    quick.pass_seconds(10, "a", "b", "c")
    assert quick.warnings == []


def test_shards_that_wait_for_a_directory_are_reported_once() -> None:
    desk = powerless()
    desk.pass_seconds(6, "a", "b", "c")
    told = [warning for warning in desk.warnings if "directories of a/0 and b/0" in warning]
    assert len(told) == 1
    assert told[0].startswith("1 shard waits for")
    desk.durable(A2, "a/0", "da", 6)
    assert desk.warnings[-1].startswith("1 shard waits for the directory of b/0")
    desk.durable(B2, "b/0", "db", 6)
    assert desk.warnings[-1] == "no shard waits for a directory any longer"


def test_who_is_declared_dead_leaves_the_directories() -> None:
    desk = desk_of()
    desk.durable(A2, "a/0", "da", 6)
    desk.pass_seconds(5, "a", "c")
    assert claims(desk, A2) is False
    answer = desk.declare_dead("b")
    assert answer == m.Accepted(1, ("shard 0 waits for the directory of b/0",))
    assert desk.map.actors[B].state == "dead"
    assert "b" in desk.map.nodes
    assert "node b was declared dead by an operator, with 1 actors" in desk.warnings
    assert isinstance(desk.durable(B, "b/0", "db", 7), m.Rejected), "that is final"
    assert claims(desk, A2, number=2) is None
    desk.pass_seconds(5, "a", "c")
    held = "shard 0 waits for the directory of b/0; the best that is there is that of a/0, up to record 3/9"
    assert desk.declare_dead("b") == m.Accepted(1, (held,))
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, B2, number=3) is None
    assert claims(desk, A2, number=2)


def test_only_a_silent_node_is_declared_dead() -> None:
    desk = desk_of()
    desk.pass_seconds(1, "a", "b", "c")
    for name in ("b", "nobody"):
        assert isinstance(desk.declare_dead(name), m.Rejected)
    assert desk.map.actors[B].state == "up"
    desk.pass_seconds(5, "a", "c")
    assert isinstance(desk.ask(m.DeclareDead(1, "b"), b"somebody"), m.Rejected), (
        "an operator's word is needed"
    )
    assert desk.map.actors[B].state == "up"


@pytest.mark.parametrize(("count", "last"), [(20, 19), (64, None)])
def test_what_becomes_of_many_shards_is_told_in_few_lines(count: int, last: int | None) -> None:
    shards = tuple(shard(A if number % 2 else C, epoch=3) for number in range(count))
    desk = desk_of(*shards)
    desk.pass_seconds(5, "b")
    desk.declare_dead("a")
    desk.forget("c")
    told = desk.forget("a").told
    assert len(told) == (10 if last else 21)
    assert told[0].startswith("shard 1 starts empty")
    if last is None:
        assert told[-1] == "and so on: of 32 shards, 32 start empty"


# --- members that an operator has given up beforehand -------------------------------------------------------


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


# --- directories, and copies of them -----------------------------------------------------------------------


def test_who_opens_a_directory_proves_its_former_owners_dead() -> None:
    desk = desk_of()
    desk.durable(A2, "a/0", "da", 6)
    assert desk.map.actors[A].state == "dead"
    again = desk.durable(A, "a/0", "da", 7)
    assert isinstance(again, m.Rejected)
    assert "final" in again.reason


def test_who_is_in_the_slot_without_the_directory_proves_nothing() -> None:
    desk = desk_of()
    desk.actor(A2, "a/0")
    assert desk.map.actors[A].state == "replaced"
    desk.durable(inc("a third"), "a/0", "another", 1)
    assert desk.map.actors[A].state == "replaced"


def test_an_older_copy_of_a_directory_is_rejected_by_name() -> None:
    desk = powerless()
    for mark in (0, 3, 4):
        answer = desk.durable(A2, "a/0", "da", mark)
        assert isinstance(answer, m.Rejected)
        assert answer.code == m.DIRECTORY_OLDER
        assert "a/0" in answer.reason
        assert inc("da").hex()[:8] in answer.reason
        assert A2 not in desk.map.actors
    assert desk.durable(A2, "a/0", "da", 5) == m.Accepted(2)


def test_registering_the_same_again_is_no_older_copy() -> None:
    desk = desk_of()
    for _ in range(2):
        assert desk.durable(A2, "a/0", "da", 6) == m.Accepted(2)
    assert isinstance(desk.durable(A2, "a/0", "da", 7), m.Rejected)
    assert isinstance(desk.durable(A2, "a/0", "other", 6), m.Rejected)


def test_what_was_decided_on_a_directory_makes_copies_from_before_older() -> None:
    """A copy from within the run that is put back would have lost what counts since then."""
    desk = desk_of(da=5, db=5)
    takeover = m.Proposal(0, 3, nonce(1), "takeover", B, (), marks=((B, 40), (A, 90)))
    assert desk.propose(B, takeover)[0].applied
    assert desk.map.floors == {inc("da"): 5, inc("db"): 40}, "A is no member any longer"
    add = m.Proposal(0, 4, nonce(2), "add", B, (A,), marks=((A, 80), (C, 7)))
    assert desk.propose(B, add)[0].applied
    assert desk.map.floors == {inc("da"): 80, inc("db"): 40}
    refused = m.Proposal(0, 5, nonce(3), "takeover", C, (), marks=((C, 99), (B, 99)))
    assert not desk.propose(C, refused)[0].applied
    lower = m.Proposal(0, 5, nonce(4), "reaffirm", B, (A,), marks=((B, 3),))
    assert desk.propose(B, lower)[0].applied
    assert desk.map.floors == {inc("da"): 80, inc("db"): 40}
    assert isinstance(desk.durable(A2, "a/0", "da", 79), m.Rejected)
    assert desk.durable(A2, "a/0", "da", 80) == m.Accepted(2)


def test_marks_in_heartbeats_make_copies_from_before_older() -> None:
    desk = desk_of(da=5, db=5)
    desk.batch((b"supervisor", m.Heartbeat("a", 1, 0, marks=((A, 70), (B, 90), (C, 9)))))
    assert desk.coordinator.marks.known == {inc("da"): 70}, "it speaks for its own node only"
    assert desk.map.floors == {inc("da"): 5, inc("db"): 5}, "the map stays as it is"
    answer = desk.durable(A2, "a/0", "da", 69)
    assert isinstance(answer, m.Rejected)
    assert "70 was seen of it" in answer.reason
    assert desk.durable(A2, "a/0", "da", 70) == m.Accepted(2)


def test_marks_that_were_kept_count_in_the_next_run() -> None:
    desk = desk_of(da=5)
    later = Desk(desk.map, marks={inc("da"): 70, inc("gone"): 3})
    assert isinstance(later.durable(A2, "a/0", "da", 69), m.Rejected)
    assert later.durable(A2, "a/0", "da", 70) == m.Accepted(2)
    assert later.coordinator.marks.known == {inc("da"): 70}, "nobody is left of the other directory"


def test_an_exit_raises_the_floor_to_where_the_directory_ended() -> None:
    desk = desk_of(da=5, db=5)
    desk.ask(m.ReportDead(1, (A,), marks=((A, 80), (B, 90))))
    assert desk.map.floors == {inc("da"): 80, inc("db"): 5}


def test_floors_go_with_the_last_actor_of_their_directory() -> None:
    desk = desk_of(shard(B, epoch=3), da=5, db=5)
    desk.ask(m.ReportDead(1, (A,)))
    assert desk.map.floors == {inc("db"): 5}


def test_a_new_lineage_keeps_the_floors() -> None:
    desk = desk_of(da=5)
    assert begin_lineage(desk.map).floors == {inc("da"): 5}


def test_maps_that_are_merged_keep_who_opened_a_directory_last() -> None:
    """One of two maps saw its heir, the other made more decisions: both count."""
    stored = msgspec.structs.replace(desk_of(da=5, db=9).map, identity=bytes(16))
    ahead = msgspec.structs.replace(
        stored, shards=(shard(A, (B,), epoch=8, wanted=("a/0", "b/0")),), version=7, floors={inc("da"): 6}
    )
    other = Desk(stored)
    other.durable(A2, "a/0", "da", 12)
    merged = starting_map(ahead, ClusterOptions("test", new_lineage=True), [other.map])
    assert merged.floors == {inc("da"): 12, inc("db"): 9}
    assert merged.actors[A].state == "dead"
    assert merged.actors[A2].state == "up"
    assert Desk(merged).durable(A2, "a/0", "da", 12) == m.Accepted(2)
    assert map_objection(merged) == ""


def test_the_entry_of_an_actor_with_a_directory_is_checked() -> None:
    good = durable(A, "a/0", "da", 1)
    assert actor_objection(good) == ""
    for changes in (
        {"durability": "none"},
        {"durability": ""},
        {"directory": b""},
        {"directory": b"short"},
        {"mark": -1},
        {"mark": 1 << 63},
    ):
        assert actor_objection(msgspec.structs.replace(good, **changes)), changes
    assert actor_objection(msgspec.structs.replace(actor(C, "c/0"), mark=1))


def test_a_map_with_impossible_floors_is_rejected() -> None:
    for floors in ({b"short": 1}, {inc("da"): -1}):
        assert map_objection(msgspec.structs.replace(cluster((shard(),)), floors=floors))


# --- a coordinator that may have an older copy --------------------------------------------------------------


def dead_copy() -> ClusterMap:
    entries = (durable(A, "a/0", "da", 5, "dead"), durable(B, "b/0", "db", 5, "dead"))
    return cluster((shard(A, (B,), epoch=3),), entries, NODES)


def test_unproven_it_recovers_once_every_node_was_heard() -> None:
    desk = Desk(dead_copy(), proven=False)
    desk.durable(A2, "a/0", "da", 6)
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, A2) is None
    assert claims(desk, B2, 3, 1, number=2) is None
    desk.pass_seconds(5, "a", "b")
    assert desk.map.shards[0].members == (A, B)
    desk.beat("c")
    assert desk.map.shards[0].members == (A2,)


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
