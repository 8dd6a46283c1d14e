"""A coordinator that cannot tell whether its map is the newest decides only what nobody could know better."""

import msgspec
import pytest

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.genesis import first_map, renumbered
from tests.cluster.coordination.builders import Desk, actor, cluster, inc, nonce, shard

A, B, C = inc("a"), inc("b"), inc("c")
SOLO = shard(A, epoch=5, wanted=("a/0", "b/0"))
ACTORS = (actor(A, "a/0"), actor(B, "b/0"), actor(C, "c/0"))
COPY = cluster((shard(A, (B,), epoch=3, wanted=("a/0", "b/0")), SOLO), ACTORS)
TAKEOVER = m.Proposal(0, 3, nonce(1), "takeover", B, ())


def copied(cluster_map: ClusterMap = COPY) -> Desk:
    return Desk(cluster_map, proven=False)


def decided(desk: Desk, proposer: bytes, *proposals: m.Proposal) -> list[bool]:
    """What was decided of these, in order; those that wait are missing."""
    answer = desk.ask(m.Propose(9, proposer, proposals), proposer)
    assert isinstance(answer, m.Decided), answer
    return [decision.applied for decision in answer.decisions]


def test_a_removed_backup_that_is_heard_first_does_not_take_over() -> None:
    desk = copied()
    desk.subscribe(B)
    desk.pass_seconds(30, "b", "c")
    assert decided(desk, B, TAKEOVER) == []
    assert desk.map.shards == COPY.shards


def test_a_shard_is_decided_once_all_its_members_were_heard() -> None:
    desk = copied()
    desk.subscribe(B)
    assert decided(desk, B, TAKEOVER) == []
    desk.subscribe(A)
    assert decided(desk, B, TAKEOVER) == [True], "the same proposal, which was not refused before"


@pytest.mark.parametrize("known", [wire.Subscribe(1, 2), wire.Subscribe(2, 1), wire.Subscribe(1, 1, (4, 5))])
def test_a_member_that_claims_to_know_better_was_not_heard(known: wire.Subscribe) -> None:
    desk = copied()
    desk.subscribe(B)
    desk.ask(known, A)
    assert decided(desk, B, TAKEOVER) == []


@pytest.mark.parametrize("role", [wire.ROLE_ADMIN, wire.ROLE_OPERATOR])
def test_who_only_looks_is_not_heard_in_the_place_of_an_actor(role: str) -> None:
    desk = copied()
    desk.subscribe(B)
    desk.ask(wire.Subscribe(1, 1), A, connection=77, role=role)
    assert decided(desk, B, TAKEOVER) == []


def test_shards_wait_each_for_their_own() -> None:
    desk = copied()
    desk.subscribe(A)
    add = m.Proposal(1, 5, nonce(2), "add", A, (C,))
    remove = m.Proposal(0, 3, nonce(3), "remove", A, ())
    assert decided(desk, A, remove, add) == [True]
    assert [entry.epoch for entry in desk.map.shards] == [3, 6]


@pytest.mark.parametrize("kind", ["takeover", "remove", "add", "handover", "reaffirm"])
def test_every_kind_of_decision_waits(kind: str) -> None:
    desk = copied()
    proposer, primary, backups = {
        "takeover": (B, B, ()),
        "remove": (A, A, ()),
        "add": (A, A, (B, C)),
        "handover": (A, B, (A,)),
        "reaffirm": (A, A, (B,)),
    }[kind]
    other = A if proposer == B else B
    desk.subscribe(proposer)
    proposal = m.Proposal(0, 3, nonce(1), kind, primary, backups)
    assert decided(desk, proposer, proposal) == []
    desk.subscribe(other)
    assert decided(desk, proposer, proposal) == [True]


def test_who_was_dead_in_the_copy_already_cannot_have_decided_since() -> None:
    dead = msgspec.structs.replace(COPY.actors[A], state="dead")
    desk = copied(msgspec.structs.replace(COPY, actors={**COPY.actors, A: dead}))
    desk.subscribe(B)
    assert decided(desk, B, TAKEOVER) == [True]


def test_who_died_unheard_may_have_decided_so_every_node_is_awaited() -> None:
    desk = copied()
    desk.subscribe(B)
    desk.ask(m.ReportDead(1, (A,)), b"supervisor of a")
    desk.pass_seconds(3, "b")
    assert decided(desk, B, TAKEOVER) == []
    desk.pass_seconds(0.25, "a", "b", "c")
    assert decided(desk, B, TAKEOVER) == [], "a and b are owned by others than this supervisor"
    for name in ("a", "c"):
        desk.ask(m.Heartbeat(name, 1, 1), b"supervisor of " + name.encode())
    assert decided(desk, B, TAKEOVER) == [True]


def test_a_dead_shard_begins_empty_once_every_node_was_heard() -> None:
    """Another may have begun it since the copy was made."""
    dead = {key: msgspec.structs.replace(COPY.actors[key], state="dead") for key in (A, B)}
    shards = (shard(A, (B,), epoch=3, wanted=("c/0",)),) * 2
    desk = copied(msgspec.structs.replace(COPY, actors={**COPY.actors, **dead}, shards=shards))
    start = m.Proposal(0, 3, nonce(1), "start", C, ())
    desk.subscribe(C)
    desk.pass_seconds(5, "a", "b")
    assert decided(desk, C, start) == []
    desk.beat("c")
    assert decided(desk, C, start) == [True]


def test_a_cluster_that_never_began_starts_after_a_moment() -> None:
    desk = Desk(first_map("test", 4, 2), proven=False)
    desk.node("c")
    desk.actor(C, "c/0")
    desk.want(0, "c/0")
    start = m.Proposal(0, 0, nonce(1), "start", C, ())
    desk.subscribe(C)
    assert decided(desk, C, start) == []
    desk.pass_seconds(2, "c")
    assert decided(desk, C, start) == [True]


def test_an_operator_gives_up_what_a_node_might_have_said() -> None:
    desk = copied()
    desk.subscribe(B)
    desk.pass_seconds(3, "b", "c")
    assert decided(desk, B, TAKEOVER) == []
    assert isinstance(desk.forget("a"), m.Accepted)
    assert decided(desk, B, TAKEOVER) == [True]


def test_of_a_node_that_is_back_an_operator_forgets_those_who_ran_before() -> None:
    """Its host booted, so they will never be heard, and what the node runs now goes on."""
    desk = copied()
    desk.subscribe(B)
    desk.node("a")
    successor = inc("a again")
    desk.actor(successor, "a/0")
    desk.pass_seconds(3, "a", "b", "c")
    assert decided(desk, B, TAKEOVER) == []
    assert isinstance(desk.forget("a"), m.Accepted)
    assert desk.map.actors[A].state == "dead"
    assert desk.map.actors[successor].state == "up"
    assert "a" in desk.map.nodes
    assert decided(desk, B, TAKEOVER) == [True]
    assert isinstance(desk.forget("a"), m.Rejected), "there is nobody left to be forgotten"


def test_what_waits_is_told_once_and_when_it_no_longer_does() -> None:
    desk = copied()
    for one in (B, C):
        desk.subscribe(one)
    decided(desk, B, TAKEOVER)
    assert desk.warnings == [], "those who are connected are given a moment"
    desk.pass_seconds(10, "a", "b", "c")
    [told] = [warning for warning in desk.warnings if "until their members were heard" in warning]
    assert told.startswith("decisions of 1 shard wait")
    assert "greenroom forget-node a" in told
    desk.subscribe(A)
    desk.pass_seconds(0.25)
    assert desk.warnings[-1].startswith("all members have been heard")


def test_once_all_were_heard_it_is_proven_for_good() -> None:
    desk = copied()
    for one in (A, B):
        desk.subscribe(one)
    desk.pass_seconds(0.25, "a", "b", "c")
    assert not desk.coordinator.proven(desk.now_ns), "those who are connected are given a moment"
    desk.pass_seconds(2, "a", "b", "c")
    assert desk.coordinator.proven(desk.now_ns)


def test_a_proven_one_decides_at_once() -> None:
    desk = Desk(COPY)
    desk.subscribe(B)
    assert decided(desk, B, TAKEOVER) == [True]


def test_no_two_runs_use_one_version() -> None:
    """An older copy that ran for a while, and the newest directory put back after that."""
    newest = msgspec.structs.replace(COPY, version=900)
    older, restored = renumbered(COPY, 1_700_000_000_000), renumbered(newest, 1_700_000_060_000)
    assert older.version > newest.version
    assert restored.version > older.version + 10_000
    assert renumbered(older, 5).version == older.version + 1
