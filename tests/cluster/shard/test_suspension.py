"""A record that ends whoever applies it ends one replica: the successor stops before it and says so."""

import pytest

from greenroom import wire
from greenroom.cluster_map import SuspectRecord
from greenroom.errors import InvariantError
from greenroom.wire import FailureCode
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import Beacon, Prepare, ShardRecords, SnapshotOk
from greenroom_cluster.shard.roles.role import Role
from greenroom_cluster.shard.roles.suspension import DROPPED
from greenroom_cluster.shard.state.records import Record
from greenroom_cluster.shard.state.table import SessionTable
from greenroom_cluster.shard.step import MARK_SEQUENCE
from tests.cluster.shard.probe import ALICE, ME, NONCE, POISON, B, C, Probe, create, prepare, record

BOB = b"b" * 32


def suspended(probe: Probe | None = None, suspect: SuspectRecord = POISON) -> Probe:
    """Records 11 to 13 are logged and none is applied when the primary dies on record 12."""
    probe = probe or Probe()
    probe.suspend(suspect)
    return probe


class Marks:
    """A mark that remembers what it was, each time that a sequence number was set."""

    def __init__(self) -> None:
        self._now = [0, 0, 0]
        self.seen: list[tuple[int, ...]] = []

    def __setitem__(self, field: int, value: int) -> None:
        self._now[field] = value
        if field == MARK_SEQUENCE:
            self.seen.append(tuple(self._now) if value else ())


def drop(probe: Probe, sequence: int = 12, epoch: int = 2) -> wire.Reply:
    (reply,) = probe.ask(wire.DropRecord(1, 0, epoch, sequence))
    return reply


def copied(probe: Probe, *, acknowledges: bool = True) -> None:
    """Another actor becomes the second member."""
    probe.configure(3, (ME,), wanted="ac", dead="b", suspect=POISON)
    probe.after(0.3)
    probe.connect(C)
    probe.hear(C, SnapshotOk(0, 3, probe.chunks()[-1].join, 0))
    for sent in probe.prepares() if acknowledges else ():
        probe.acknowledge(sent, C)
    probe.configure(4, (ME, C), nonce=NONCE, wanted="ac", dead="b", suspect=POISON)


def test_a_successor_applies_what_comes_before_the_suspect_and_stops() -> None:
    probe = suspended()
    assert probe.replica is not None
    assert (probe.replica.role, probe.replica.committed) == (Role.SUSPENDED, 11)
    state = probe.replica.state(probe.now_ns)
    assert state.suspended == wire.SuspendedRecord(2, 12, "create", 161, 1)
    assert not state.serving


@pytest.mark.parametrize(
    "suspect", [SuspectRecord(B, 2, 10), SuspectRecord(B, 1, 12), SuspectRecord(B, 2, 14)]
)
def test_a_suspect_that_is_applied_or_not_in_the_log_changes_nothing(suspect: SuspectRecord) -> None:
    assert suspended(suspect=suspect).serves()


def test_what_the_primary_had_applied_itself_is_applied_by_the_backup_too() -> None:
    """A commit point beyond the suspect proves that the primary survived it."""
    probe = Probe()
    probe.become_backup()
    probe.hear(B, prepare(11, 12, 13))
    probe.configure(2, (B, ME), wanted="ba", suspect=POISON)
    probe.hear(B, Beacon(5, 0, ((0, 2, 12, 0),)))
    assert probe.replica is not None
    assert probe.replica.committed == 12


def test_a_committed_record_left_for_a_later_step_is_no_suspect() -> None:
    probe = Probe()
    probe.become_backup()
    probe.hear(B, prepare(11, 12, 13))
    assert probe.replica is not None
    probe.replica.known_committed = 12
    probe.configure(2, (B, ME), wanted="ba", dead="b", suspect=POISON)
    nonce = probe.proposal("takeover").nonce
    probe.configure(3, (ME,), nonce=nonce, wanted="ba", dead="b", suspect=POISON)
    assert probe.serves()


def test_a_suspended_shard_answers_what_each_request_may_rest_on() -> None:
    probe = suspended()
    applied, poison, behind, fresh, read = probe.ask(
        create(11), create(12), create(13), create(14), wire.Get(15, 0, ALICE)
    )
    assert isinstance(applied, wire.Written)
    assert poison == wire.Redirect(12, probe.version, appended=True)
    assert behind == wire.Redirect(13, probe.version, appended=True)
    for reply in (fresh, read):
        assert isinstance(reply, wire.Overloaded)
        assert "shard 0 is suspended: a create of 161 bytes ended its primary" in reply.reason
        assert "`greenroom drop-record 0`" in reply.reason


def test_a_suspended_shard_takes_nobody_in_and_proposes_nothing() -> None:
    probe = suspended()
    probe.configure(3, (ME,), wanted="ac", dead="b", suspect=POISON)
    probe.after(5)
    assert probe.proposals() == []
    assert probe.chunks() == []


def test_a_dropped_record_is_refused_for_good() -> None:
    """The rest of the log is applied."""
    probe = suspended()
    assert drop(probe) == wire.Written(1, 0)
    copied(probe)
    assert probe.serves()
    assert probe.replica is not None
    assert probe.replica.committed == 13
    dropped, behind = probe.ask(create(12), create(13))
    assert dropped == wire.Failed(12, FailureCode.INVALID, DROPPED)
    assert isinstance(behind, wire.Failed)
    assert behind.code == FailureCode.EXISTS
    assert isinstance(drop(probe), wire.Failed)


def test_what_follows_a_dropped_record_waits_for_another_member() -> None:
    probe = suspended()
    drop(probe)
    assert probe.replica is not None
    assert (probe.replica.role, probe.replica.committed) == (Role.PRIMARY, 12)
    assert not probe.serves()
    assert probe.ask(wire.Get(15, 0, ALICE)) == []
    copied(probe)
    assert probe.replica.committed == 13
    assert probe.serves()


def test_a_shard_of_one_copy_goes_on_alone_after_a_drop() -> None:
    probe = suspended()
    drop(probe)
    probe.configure(3, (ME,), wanted="a", dead="b", suspect=POISON)
    probe.after(0.3)
    assert probe.replica is not None
    assert probe.replica.committed == 13
    assert probe.serves()


def test_a_copy_that_is_lost_before_the_rest_is_applied_is_waited_for_anew() -> None:
    probe = suspended()
    drop(probe)
    copied(probe, acknowledges=False)
    probe.configure(4, (ME, C), wanted="ac", dead="bc", suspect=POISON)
    proposal = probe.proposal("remove")
    probe.configure(5, (ME,), nonce=proposal.nonce, wanted="ad", dead="bc", suspect=POISON)
    assert probe.replica is not None
    assert probe.replica.committed == 12


def test_what_comes_before_the_suspect_is_applied_in_steps() -> None:
    probe = Probe()
    probe.become_backup()
    records = tuple(record(10 + n, create(n, n.to_bytes(32, "big"))) for n in range(1, 3001))
    probe.hear(B, Prepare(1, (ShardRecords(0, 2, 10, records),)))
    suspect = SuspectRecord(B, 2, 2990)
    probe.configure(2, (B, ME), wanted="ba", dead="b", suspect=suspect)
    nonce = probe.proposal("takeover").nonce
    probe.configure(3, (ME,), nonce=nonce, wanted="ba", dead="b", suspect=suspect)
    replica = probe.replica
    assert replica is not None
    assert replica.role is Role.SUSPENDED
    assert replica.committed < 1000
    shown = replica.state(probe.now_ns).suspended
    assert shown is not None
    assert (shown.sequence, shown.following) == (2990, 20)
    (repeated,) = probe.ask(create(2000, (2000).to_bytes(32, "big")))
    assert repeated == wire.Redirect(2000, probe.version, appended=True), "it will be applied"
    early = drop(probe, 2990)
    assert isinstance(early, wire.Failed)
    assert "try again" in early.detail
    while replica.committed < 2989:
        assert probe.host.next_deadline() <= probe.now_ns
        probe.step(ins.Tick())
    probe.step(ins.Tick())
    assert replica.committed == 2989
    assert drop(probe, 2990) == wire.Written(1, 0)


def test_only_the_record_at_which_the_shard_is_suspended_is_dropped() -> None:
    probe = suspended()
    for reply in (drop(probe, 13), drop(probe, epoch=1)):
        assert isinstance(reply, wire.Failed)
        assert (reply.code, reply.detail) == (FailureCode.NOT_FOUND, "shard 0 is suspended at record 2/12")
    (reply,) = probe.ask(wire.DropRecord(1, 7, 2, 12))
    assert isinstance(reply, wire.Failed)
    assert reply.detail == "shard 7 is not suspended on this actor"


def test_nothing_is_dropped_while_the_hung_primary_may_acknowledge() -> None:
    probe = Probe()
    probe.become_backup()
    probe.hear(B, prepare(11, 12))
    probe.configure(2, (B, ME), wanted="ba", suspect=POISON)
    probe.after(1.3)
    probe.configure(3, (ME,), nonce=probe.proposal("takeover").nonce, wanted="ba", suspect=POISON)
    reply = drop(probe)
    assert isinstance(reply, wire.Failed)
    assert (reply.code, reply.detail.partition(",")[0]) == (FailureCode.CONFLICT, "nb/0")
    probe.configure(3, (ME,), wanted="ba", dead="b", suspect=POISON)
    assert drop(probe) == wire.Written(1, 0)


def test_a_shard_goes_on_once_the_record_was_passed_after_all() -> None:
    """What it has applied it may have acknowledged."""
    probe = Probe()
    probe.become_backup()
    probe.hear(B, prepare(11, 12, 13))
    probe.configure(2, (B, ME), wanted="ba", suspect=POISON)
    probe.after(1.3)
    probe.configure(3, (ME,), nonce=probe.proposal("takeover").nonce, wanted="ba", suspect=POISON)
    assert not probe.serves()
    probe.configure(3, (ME,), wanted="ba")
    assert probe.serves()
    assert probe.replica is not None
    assert probe.replica.committed == 13


def test_a_new_lineage_without_the_suspect_leaves_it_suspended() -> None:
    probe = suspended()
    assert probe.host.map is not None
    probe.configure(9, (ME,), nonce=probe.host.map.shards[0].nonce, wanted="ba", dead="b", lineage=2)
    assert probe.replica is not None
    assert (probe.replica.role, probe.replica.epoch) == (Role.SUSPENDED, 9)


def test_every_record_is_marked_before_it_is_applied() -> None:
    """None is marked afterwards."""
    marks = Marks()
    probe = Probe(mark=marks)
    suspended(probe)
    assert marks.seen == [(0, 2, 11), ()]
    drop(probe)
    assert marks.seen[2:] == [], "a second such record must not end the only copy"
    copied(probe)
    assert marks.seen[2:] == [(0, 2, 13), ()]
    marks.seen.clear()
    probe.ask(create(20, BOB))
    probe.acknowledge(*probe.prepares(), C)
    assert marks.seen == [(0, 4, 14), ()]


def test_a_record_that_raises_stays_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = Marks()
    probe = Probe(mark=marks)
    probe.become_backup()
    probe.hear(B, prepare(11))

    def fail(table: SessionTable, record: Record) -> None:
        raise InvariantError("an impossible state")

    monkeypatch.setattr(SessionTable, "apply", fail)
    with pytest.raises(InvariantError):
        probe.hear(B, Beacon(5, 0, ((0, 2, 11, 0),)))
    assert marks.seen == [(0, 2, 11)]
