"""Shards whose members are all dead come back from the directories of those who kept them."""

import pytest

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.exchange import Outcome
from tests.cluster.coordination.builders import SECOND, Desk, cluster, durable, inc, nonce, shard
from tests.cluster.coordination.heirs import A2, B2, NODES, A, B, C, claim, claims, desk_of, powerless


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
