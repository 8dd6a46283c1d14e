"""Directories and copies of them: who opens which, and how far each was seen to come."""

import msgspec

from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.bounds import actor_objection, map_objection
from greenroom_cluster.coordination.genesis import ClusterOptions, starting_map
from greenroom_cluster.coordination.rules import begin_lineage
from tests.cluster.coordination.builders import Desk, actor, cluster, durable, inc, nonce, shard
from tests.cluster.coordination.heirs import A2, A, B, C, desk_of, powerless


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
    later = Desk(desk.map, marks={A: 70, inc("gone"): 3})
    assert isinstance(later.durable(A2, "a/0", "da", 69), m.Rejected)
    assert later.durable(A2, "a/0", "da", 70) == m.Accepted(2)
    assert later.coordinator.marks.known == {inc("da"): 70}, "nobody is left of the other directory"


def test_marks_from_before_a_directory_left_the_map_count_no_more() -> None:
    """Whoever opened it since was not judged by them, nor are its successors, also in the next run."""
    desk = desk_of(shard(B, epoch=3), da=5)
    desk.batch((b"supervisor", m.Heartbeat("a", 1, 0, marks=((A, 70),))))
    on_disk = desk.coordinator.marks.rest()
    assert on_disk == {A: 70}
    desk.ask(m.ReportDead(1, (A,)))
    assert desk.durable(A2, "a/0", "da", 40) == m.Accepted(2)
    later = Desk(desk.map, marks=on_disk)
    assert later.durable(inc("a third"), "a/0", "da", 41) == m.Accepted(2)


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
