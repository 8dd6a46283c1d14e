"""What the coordinator notes of records on which actors die or hang, for whoever takes over."""

import msgspec
import pytest

from greenroom.cluster_map import ClusterMap, ShardEntry, SuspectRecord
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.rules import begin_lineage
from tests.cluster.coordination.builders import Desk, actor, cluster, inc, nonce, shard

A, B, C = inc("a"), inc("b"), inc("c")
PAIR = cluster((shard(A, (B,), epoch=3, wanted=("a/0", "b/0")),) * 2, (actor(A, "a/0"), actor(B, "b/0")))
POISON = SuspectRecord(A, 3, 17)


def heartbeat(name: str, *suspicions: m.Suspicion) -> m.Heartbeat:
    return m.Heartbeat(name, 1, 0, suspicions)


def test_a_death_and_its_suspect_are_published_in_one_map() -> None:
    desk = Desk(PAIR)
    outcome = desk.batch((A, m.ReportDead(1, (A,), (m.Suspicion(1, POISON),))))
    assert outcome.persist is not None
    assert outcome.persist.actors[A].state == "dead"
    assert [entry.suspect for entry in outcome.persist.shards] == [None, POISON]
    assert "shard 1: record 3/17 at a/0:612e2e2e ended or hangs that actor" in desk.warnings[0]


def test_a_takeover_carries_the_suspect_in_its_configuration() -> None:
    """It stays there until the shard begins anew."""
    desk = Desk(PAIR)
    desk.ask(m.ReportDead(1, (A,), (m.Suspicion(0, POISON),)))
    assert desk.propose(B, m.Proposal(0, 3, nonce(1), "takeover", B, ()))[0].applied
    assert desk.map.shards[0].suspect == POISON
    for message in (heartbeat("a"), heartbeat("b"), m.ReportDead(1, (B,))):
        desk.ask(message)
        assert desk.map.shards[0].suspect == POISON
    desk.node("c")
    desk.actor(C, "c/0")
    desk.want(0, "c/0")
    assert desk.propose(C, m.Proposal(0, 4, nonce(2), "start", C, ()))[0].applied
    assert desk.map.shards[0].suspect is None


def test_a_heartbeat_tells_on_what_an_actor_hangs_and_that_it_passed() -> None:
    desk = Desk(PAIR)
    desk.ask(heartbeat("a", m.Suspicion(0, POISON)))
    assert desk.map.shards[0].suspect == POISON
    version = desk.map.version
    for quiet in (heartbeat("a", m.Suspicion(0, POISON)), heartbeat("a"), heartbeat("b")):
        desk.ask(quiet)
    other = SuspectRecord(A, 3, 16)
    desk.ask(heartbeat("a", m.Suspicion(0, other, passed=True)))
    assert (desk.map.version, desk.map.shards[0].suspect) == (version, POISON)
    desk.ask(heartbeat("a", m.Suspicion(0, POISON, passed=True)))
    assert desk.map.shards[0].suspect is None


def test_only_who_saw_the_actor_pass_the_record_takes_the_suspicion_back() -> None:
    """A supervisor that was restarted knows nothing, and reports the death all the same."""
    desk = Desk(PAIR)
    desk.ask(heartbeat("a", m.Suspicion(0, POISON)))
    desk.ask(m.ReportDead(1, (A,)))
    assert desk.map.shards[0].suspect == POISON
    desk.ask(m.ReportDead(1, (A,), (m.Suspicion(0, POISON, passed=True),)))
    assert desk.map.shards[0].suspect is None


def test_a_suspicion_is_withdrawn_after_a_takeover_too() -> None:
    desk = Desk(PAIR)
    desk.ask(heartbeat("a", m.Suspicion(0, POISON)))
    assert desk.propose(B, m.Proposal(0, 3, nonce(1), "takeover", B, ()))[0].applied
    desk.ask(heartbeat("a", m.Suspicion(0, POISON, passed=True)))
    assert desk.map.shards[0].suspect is None


@pytest.mark.parametrize(
    "message",
    [
        heartbeat("b", m.Suspicion(0, POISON)),
        heartbeat("a", m.Suspicion(0, SuspectRecord(C, 3, 17))),
        heartbeat("a", m.Suspicion(2, POISON)),
        heartbeat("a", m.Suspicion(-1, POISON)),
        m.ReportDead(1, (B,), (m.Suspicion(0, POISON),)),
    ],
    ids=["another node's actor", "no member", "no such shard", "below all shards", "of one who lives"],
)
def test_a_node_accuses_only_what_stopped_its_own_actors(message: object) -> None:
    desk = Desk(PAIR)
    desk.ask(message)
    assert [entry.suspect for entry in desk.map.shards] == [None, None]


def test_a_new_lineage_knows_the_suspect_and_takes_it_back_too() -> None:
    desk = Desk(PAIR)
    desk.ask(heartbeat("a", m.Suspicion(0, POISON)))
    later = Desk(begin_lineage(desk.map))
    assert later.map.shards[0].suspect == POISON
    later.ask(m.Heartbeat("a", 2, 0, (m.Suspicion(0, POISON, passed=True),)))
    assert later.map.shards[0].suspect is None


class FormerShardEntry(msgspec.Struct, array_like=True, frozen=True):
    """A shard's configuration as 0.1.0's first clusters knew it."""

    epoch: int
    primary: bytes
    backups: tuple[bytes, ...]
    nonce: bytes
    wanted: tuple[str, ...]


def test_peers_without_suspects_and_we_understand_each_other() -> None:
    entry = shard(A, (B,), epoch=3, wanted=("a/0",))
    former = msgspec.msgpack.encode(FormerShardEntry(3, A, (B,), b"", ("a/0",)))
    assert msgspec.msgpack.decode(former, type=ShardEntry) == entry
    ours = msgspec.msgpack.encode(msgspec.structs.replace(entry, suspect=POISON))
    assert msgspec.msgpack.decode(ours, type=FormerShardEntry).wanted == ("a/0",)
    assert msgspec.msgpack.decode(b"\x94\x61\xa1a\x01\x02", type=m.Heartbeat) == m.Heartbeat("a", 1, 2)
    whole = msgspec.structs.replace(PAIR, shards=(msgspec.structs.replace(entry, suspect=POISON),))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(whole), type=ClusterMap) == whole
