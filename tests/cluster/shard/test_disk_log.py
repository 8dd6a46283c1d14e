"""What waits for an actor's disk, and what a disk that is slow or full leads to."""

import msgspec
import pytest

from greenroom import wire
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.disk.entries import (
    Configured,
    Proposed,
)
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.disk_log import DiskStalledError
from greenroom_cluster.shard.messages import (
    Beacon,
    BeaconOk,
    Prepare,
    ShardRecords,
    SnapshotOk,
)
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.records import Within
from tests.cluster.shard.durable_probe import (
    DurableProbe,
    acknowledged,
    recovered,
    replies,
    restart,
    update,
)
from tests.cluster.shard.probe import ALICE, CLIENT, FAR_US, ME, B, create, prepare, record


def test_a_lone_primary_answers_a_write_once_it_is_synced() -> None:
    probe = DurableProbe()
    probe.start_alone()
    assert probe.ask(create(1)) == []
    assert replies(probe.sync()) == 1


def test_a_primary_counts_its_own_sync_like_a_backups() -> None:
    probe = DurableProbe()
    probe.become_primary()
    probe.ask(create(1))
    (sent,) = probe.prepares()
    probe.acknowledge(sent)
    assert replies(probe.effects) == 0
    assert replies(probe.sync()) == 1
    probe.ask(create(2, digest=b"b" * 32))
    (sent,) = probe.prepares()
    assert replies(probe.sync()) == 0
    probe.acknowledge(sent)
    assert replies(probe.effects) == 1


def test_a_record_leaves_for_the_backup_before_it_is_synced_here() -> None:
    probe = DurableProbe()
    probe.become_primary()
    probe.ask(create(1))
    assert len(probe.prepares()) == 1


def test_a_backup_acknowledges_once_synced() -> None:
    probe = DurableProbe()
    probe.become_backup()
    probe.hear(B, prepare(11, 12))
    assert acknowledged(probe.effects) == []
    assert acknowledged(probe.sync()) == [1]


def test_a_repeat_waits_like_the_first() -> None:
    probe = DurableProbe()
    probe.become_backup()
    probe.hear(B, prepare(11))
    probe.hear(B, prepare(11, batch=2))
    assert acknowledged(probe.effects) == []
    assert acknowledged(probe.sync()) == [1, 2]
    probe.hear(B, prepare(11, batch=3))
    assert acknowledged(probe.effects) == [3]


def test_a_joiner_is_ready_once_its_copy_is_synced() -> None:
    probe = DurableProbe()
    probe.join()
    assert not any(isinstance(effect, fx.ReplyToPeer) for effect in probe.effects)
    (told,) = [effect for effect in probe.synced() if isinstance(effect, fx.ReplyToPeer)]
    assert isinstance(told.message, SnapshotOk)
    assert told.message.mark == probe.mark


def test_a_proposal_is_on_disk_before_it_is_sent() -> None:
    probe = DurableProbe()
    probe.become_backup()
    probe.after(1.3)
    assert probe.proposals() == []
    assert isinstance(probe.entries[-1], Proposed)
    probe.synced()
    assert probe.proposal("takeover").marks == ((ME, probe.mark),)


def test_a_proposal_sent_again_is_not_written_again() -> None:
    probe = DurableProbe()
    probe.become_backup()
    probe.after(1.3)
    probe.synced()
    written = len(probe.entries)
    probe.step(ins.CoordinationUp())
    assert probe.proposal("takeover").nonce
    assert len(probe.entries) == written


def test_adding_a_joiner_says_how_far_its_directory_has_come() -> None:
    probe = DurableProbe()
    probe.start_alone()
    probe.configure(1, (ME,), wanted="ab")
    probe.synced()
    probe.connect(B)
    probe.hear(B, SnapshotOk(0, 1, 1, 0, mark=9))
    probe.synced()
    assert probe.proposal("add").marks == ((B, 9), (ME, probe.mark))


def test_a_configuration_is_acted_on_once_it_is_on_disk() -> None:
    probe = DurableProbe()
    probe.become_backup()
    probe.hear(B, prepare(11))
    probe.synced()
    probe.after(1.3)
    probe.synced()
    probe.configure(3, (ME,), nonce=probe.proposal("takeover").nonce, wanted="ab")
    assert not probe.serves()
    assert probe.ask(wire.Get(1, 0, ALICE)) == []
    assert isinstance(probe.entries[-1], Configured)
    assert replies(probe.synced()) == 1
    assert probe.serves()


def test_a_takeover_commits_nothing_that_is_not_synced_here() -> None:
    probe = DurableProbe()
    probe.become_backup()
    probe.hear(B, prepare(11))
    probe.after(1.3)
    assert probe.replica is not None
    assert probe.replica.committed == 10
    probe.synced()
    probe.configure(3, (ME,), nonce=probe.proposal("takeover").nonce, wanted="ab")
    assert probe.replica.committed == 10
    probe.synced()
    assert probe.replica.committed == 11


def slow_backup() -> DurableProbe:
    """Return a primary that has sent a record to its backup; neither has it on disk."""
    probe = DurableProbe()
    probe.become_primary()
    probe.ask(create(1))
    return probe


def pass_leased(probe: DurableProbe, seconds: float) -> list[Proposal]:
    """Let time pass while the backup grants its lease; return what is proposed."""
    proposals = []
    for _ in range(round(seconds / 0.2)):
        probe.after(0.2)
        proposals += probe.proposals()
        probe.grant(B)
    return proposals


def test_nobody_is_to_blame_while_neither_disk_has_a_record() -> None:
    probe = slow_backup()
    assert pass_leased(probe, 5) == []


def test_a_backup_whose_disk_alone_is_slow_is_removed() -> None:
    probe = slow_backup()
    probe.sync()
    pass_leased(probe, 1.4)
    probe.synced()
    assert probe.proposal("remove").backups == ()


def test_a_primary_whose_disk_alone_stalls_ends() -> None:
    probe = slow_backup()
    (sent,) = probe.prepares()
    probe.acknowledge(sent)
    with pytest.raises(DiskStalledError, match="own disk has not written for 3 s"):
        pass_leased(probe, 4)


# --- interval -----------------------------------------------------------------------------------------------


def behind_the_write(effects: list[fx.HostEffect]) -> list[fx.HostEffect]:
    """Return what is said once the last write of a step is done; nothing before it may be an answer."""
    (place,) = (number for number, effect in enumerate(effects) if isinstance(effect, fx.Persist))
    assert not acknowledged(effects[:place])
    assert not replies(effects[:place])
    return effects[place + 1 :]


def test_interval_acknowledges_behind_the_write() -> None:
    probe = DurableProbe("interval")
    probe.become_backup()
    probe.hear(B, prepare(11))
    assert not probe.urgent
    assert acknowledged(behind_the_write(probe.effects)) == [1]


def test_interval_sends_records_before_they_are_written_here() -> None:
    probe = DurableProbe("interval")
    probe.become_primary()
    probe.ask(create(1))
    assert [type(effect) for effect in probe.effects] == [fx.Send, fx.Persist]
    (sent,) = probe.prepares()
    probe.acknowledge(sent)
    assert replies(probe.effects) == 1


def test_interval_replies_alone_behind_the_write() -> None:
    probe = DurableProbe("interval")
    probe.start_alone()
    probe.ask(create(1), create(2, digest=b"b" * 32))
    assert replies(behind_the_write(probe.effects)) == 2


def test_interval_waits_for_the_sync_of_an_ending() -> None:
    probe = DurableProbe("interval")
    probe.start_alone()
    assert len(probe.ask(create(1))) == 1
    assert probe.ask(wire.Delete(2, 1, 0, 1, ALICE)) == []
    assert probe.urgent
    assert probe.ask(create(3, digest=b"b" * 32)) == []
    assert replies(probe.sync()) == 2


def test_interval_waits_for_the_sync_of_an_ending_in_a_namespace() -> None:
    probe = DurableProbe("interval")
    probe.start_alone()
    assert replies(behind_the_write(probe.step(asked_in_namespace(create(1))))) == 1
    assert replies(probe.step(asked_in_namespace(wire.Delete(2, 1, 0, 1, ALICE)))) == 0
    assert probe.urgent
    assert replies(probe.sync()) == 1


@pytest.mark.parametrize("namespace", ["", "shop"])
def test_interval_acknowledges_an_ending_once_it_is_synced(namespace: str) -> None:
    probe = DurableProbe("interval")
    probe.become_backup()
    ending = wire.Delete(2, 1, 0, 1, ALICE)
    sent = record(11, Within(namespace, ending) if namespace else ending)
    probe.hear(B, Prepare(1, (ShardRecords(0, 2, 10, (sent,)),)))
    assert probe.urgent
    assert acknowledged(probe.effects) == []
    assert acknowledged(probe.sync()) == [1]


def asked_in_namespace(request: wire.Request) -> ins.ClientRequests:
    return ins.ClientRequests(1, CLIENT, [request], namespace="shop")


def test_interval_acknowledges_nothing_while_a_sync_is_late() -> None:
    probe = DurableProbe("interval")
    probe.start_alone()
    assert len(probe.ask(create(1))) == 1
    probe.after(1.1)
    assert probe.ask(create(2, digest=b"b" * 32)) == []
    assert replies(probe.sync()) == 1


# --- a disk that is nearly full -----------------------------------------------------------------------------


def says_that_it_is_short(probe: DurableProbe) -> bool:
    (inspection,) = probe.ask(wire.Inspect(90))
    assert isinstance(inspection, wire.Inspection)
    return inspection.disk_short


def test_a_nearly_full_disk_stops_writes_but_no_logouts_and_reads() -> None:
    probe = DurableProbe()
    probe.start_alone()
    probe.step(ins.DiskMeasured(1 << 20))
    (refusal, *_) = probe.ask(create(1))
    assert isinstance(refusal, wire.Failed)
    assert refusal.code is wire.FailureCode.FULL
    assert "disk of actor na/0" in refusal.detail
    assert says_that_it_is_short(probe)
    assert probe.ask(wire.Get(2, 0, ALICE)) == [wire.Missing(2)]
    probe.ask(wire.Delete(3, 1, 0, 1, ALICE))
    assert replies(probe.synced()) == 1
    probe.step(ins.DiskMeasured(1 << 40))
    assert not says_that_it_is_short(probe)
    probe.ask(create(4))
    assert replies(probe.synced()) == 1


def test_a_backups_disk_stops_writes_too() -> None:
    probe = DurableProbe()
    probe.become_primary()
    probe.hear(B, BeaconOk(probe.now_ns, 0, disk_short=True))
    (refusal,) = probe.ask(create(1))
    assert isinstance(refusal, wire.Failed)
    assert "disk of actor nb/0" in refusal.detail


def test_a_backup_tells_that_its_disk_is_nearly_full() -> None:
    probe = DurableProbe()
    probe.become_backup()
    probe.step(ins.DiskMeasured(1))
    (told,) = probe.hear(B, Beacon(2, 0))
    assert isinstance(told, BeaconOk)
    assert told.disk_short


# --- keeping it short ---------------------------------------------------------------------------------------


def test_the_log_is_dropped_behind_a_snapshot_that_is_synced() -> None:
    settings = HostSettings(log_bytes_min=1 << 20, chunk_bytes=16 << 10)
    probe = DurableProbe(settings=settings)
    probe.start_alone()
    data = msgspec.msgpack.encode({"cart": bytes(8 << 10)})
    for number in range(400):
        digest = bytes([number % 10]) * 32
        probe.ask(create(number + 1, digest, data) if number < 10 else update(number + 1, digest, data))
        probe.sync()
    probe.synced()
    assert len(probe.dropped) > 1
    # Batches are numbered from 41, and each holds what one position does.
    probe.entries = probe.entries_from(probe.dropped[-1])
    probe = restart(probe, settings)
    claim = recovered(probe)
    probe.configure(2, (ME,), nonce=claim.nonce, wanted="ab", dead="cb")
    probe.synced()
    assert probe.replica is not None
    assert len(probe.replica.table.sessions) == 10


def test_an_open_proposal_stays_on_disk_when_the_log_is_dropped() -> None:
    """It may be decided at any later time, and then nobody else need know who was added."""
    probe = DurableProbe(settings=HostSettings(log_bytes_min=1 << 20, chunk_bytes=16 << 10))
    probe.start_alone()
    probe.configure(1, (ME,), wanted="ab")
    probe.synced()
    probe.connect(B)
    probe.hear(B, SnapshotOk(0, 1, 1, 0, mark=9))
    probe.synced()
    assert probe.proposal("add").backups == (B,)
    data = msgspec.msgpack.encode({"cart": bytes(8 << 10)})
    for number in range(400):
        digest = bytes([number % 10]) * 32
        probe.ask(create(number + 1, digest, data) if number < 10 else update(number + 1, digest, data))
        probe.sync()
    probe.synced()
    assert len(probe.dropped) > 1
    probe.entries = probe.entries_from(probe.dropped[-1])
    assert list(probe.replayed()[0].proposals) == [(B,)]


def test_a_configuration_is_written_with_what_makes_it_known_elsewhere() -> None:
    probe = DurableProbe()
    probe.become_primary()
    written = [entry for entry in probe.entries if isinstance(entry, Configured)][-1]
    known = probe.host.map
    assert known is not None
    assert (written.holder, written.shards) == (ME, known.shard_count)
    assert written.slots == tuple(known.actors[member].slot for member in (ME, B))


def test_kept_replies_alone_do_not_keep_the_disk_busy() -> None:
    settings = HostSettings(log_bytes_min=1 << 20, chunk_bytes=16 << 10)
    probe = DurableProbe(settings=settings)
    probe.start_alone()
    cart = msgspec.msgpack.encode(bytes(8 << 10))
    probe.ask(create(1, ALICE))
    for number in range(200):
        # Each reply shows the whole session, and the client does not say that it has got any.
        probe.ask(wire.Patch(number + 2, 1, 0, 0, ALICE, ((("cart",), cart),), (), (), None, FAR_US))
        probe.sync()
    given, log = probe.position, probe.host._disk
    assert log is not None
    while log.stable < probe.position < given + 1000:
        probe.sync()
    assert probe.position < given + 1000, "snapshots are written again and again, though nobody writes"
