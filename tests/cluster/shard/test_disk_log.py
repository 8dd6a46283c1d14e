"""An actor with a disk: what it writes, what waits for that, and how it comes back from it."""

import msgspec
import pytest

from greenroom import wire
from greenroom.cluster_map import SuspectRecord
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.disk.entries import (
    Configured,
    Entry,
    Left,
    Proposed,
    decode_entries,
    encode_entries,
)
from greenroom_cluster.disk.replay import DiskCopy, Replay
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.disk_log import DiskStalledError, Durability, Stable
from greenroom_cluster.shard.messages import (
    Beacon,
    BeaconOk,
    PrepareOk,
    SnapshotChunk,
    SnapshotOk,
    SnapshotRefused,
)
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.records import heading
from tests.cluster.shard.probe import ALICE, FAR_US, ME, WALL_US, B, C, D, Probe, chunk, create, prepare

OURS, THEIRS = b"o" * 16, b"t" * 16
DIRECTORIES = {"a": OURS, "c": OURS, "b": THEIRS}
"""The directory of this actor is that of a former one, `c`."""


class DurableProbe(Probe):
    """A probe that keeps what is for the disk; nothing is synced unless told."""

    def __init__(
        self,
        durability: Durability = "fsync",
        copies: dict[int, DiskCopy] | None = None,
        settings: HostSettings | None = None,
    ) -> None:
        super().__init__(
            settings, disk=Stable(durability=durability, mark=40, stored_bytes=1, copies=copies or {})
        )
        self.entries: list[Entry] = []
        self.batches: dict[int, tuple[Entry, ...]] = {}
        self.position = 0
        self.mark = 40
        self.dropped: list[int] = []
        self.urgent = False

    def step(self, event: ins.HostInput) -> list[fx.HostEffect]:
        effects = super().step(event)
        for effect in effects:
            if isinstance(effect, fx.Persist):
                assert effect.position == self.position + 1
                self.position = effect.position
                self.entries += effect.entries
                self.batches[self.mark + 1] = (*self.batches.get(self.mark + 1, ()), *effect.entries)
                self.urgent = effect.at_once
            elif isinstance(effect, fx.DropBefore):
                self.dropped.append(effect.mark)
        return effects

    def sync(self) -> list[fx.HostEffect]:
        """Have everything synced, as one batch."""
        self.mark += 1
        return self.step(ins.Synced(self.position, self.mark, 1))

    def write(self) -> list[fx.HostEffect]:
        return self.step(ins.Written(self.position))

    def synced(self) -> list[fx.HostEffect]:
        """Have everything synced until nothing more is given out."""
        effects = self.sync()
        while self.host._disk is not None and self.host._disk.stable < self.position:
            effects += self.sync()
        self.effects = effects
        return effects

    def configure(self, *args: object, **named: object) -> list[fx.HostEffect]:
        named.setdefault("directories", DIRECTORIES)
        return super().configure(*args, **named)  # type: ignore[arg-type]  # passed on as they are

    def start_alone(self) -> None:
        self.configure(0, wanted="a")
        self.synced()
        self.configure(1, (ME,), nonce=self.proposal("start").nonce, wanted="a")
        self.synced()

    def become_primary(self, recipient: str = "b") -> None:
        assert recipient == "b"
        self.start_alone()
        self.configure(1, (ME,), wanted="ab")
        self.synced()
        self.connect(B)
        self.hear(B, SnapshotOk(0, 1, 1, 0, mark=9))
        self.synced()
        self.configure(2, (ME, B), nonce=self.proposal("add").nonce, wanted="ab")
        self.synced()

    def become_backup(self, primary: bytes = B, *, epoch: int = 2) -> None:
        super().become_backup(primary, epoch=epoch)
        self.synced()

    def entries_from(self, batch: int) -> list[Entry]:
        """Return what is left when all batches before one are dropped."""
        return [entry for number in self.batches if number >= batch for entry in self.batches[number]]

    def replayed(self) -> dict[int, DiskCopy]:
        """Return what a start would find after all that was given out."""
        replay = Replay()
        for entry in decode_entries(encode_entries(tuple(self.entries))):
            replay.take(entry)
        return replay.copies


def acknowledged(effects: list[fx.HostEffect]) -> list[int]:
    """Return the batches that are acknowledged."""
    messages = [effect.message for effect in effects if isinstance(effect, fx.ReplyToPeer)]
    return [message.batch for message in messages if isinstance(message, PrepareOk)]


def update(request_id: int, digest: bytes, data: bytes) -> wire.Update:
    return wire.Update(request_id, 1, 0, 0, digest, None, FAR_US, "", data, None)


def replies(effects: list[fx.HostEffect]) -> int:
    return sum(isinstance(effect, fx.ReplyToClient) for effect in effects)


# --- what waits for the disk ------------------------------------------------------------------------------


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


# --- interval ---------------------------------------------------------------------------------------------


def test_interval_acknowledges_what_is_written() -> None:
    probe = DurableProbe("interval")
    probe.become_backup()
    probe.hear(B, prepare(11))
    assert not probe.urgent
    assert acknowledged(probe.write()) == [1]


def test_interval_waits_for_the_sync_of_an_ending() -> None:
    probe = DurableProbe("interval")
    probe.start_alone()
    probe.ask(create(1))
    assert replies(probe.write()) == 1
    probe.ask(wire.Delete(2, 1, 0, 1, ALICE))
    assert probe.urgent
    assert replies(probe.write()) == 0
    probe.ask(create(3, digest=b"b" * 32))
    assert replies(probe.write()) == 0
    assert replies(probe.sync()) == 2


def test_interval_acknowledges_nothing_while_a_sync_is_late() -> None:
    probe = DurableProbe("interval")
    probe.start_alone()
    probe.ask(create(1))
    assert replies(probe.write()) == 1
    probe.after(1.1)
    probe.ask(create(2, digest=b"b" * 32))
    assert replies(probe.write()) == 0
    assert replies(probe.sync()) == 1


# --- a disk that is nearly full -----------------------------------------------------------------------------


def test_a_nearly_full_disk_stops_writes_but_no_logouts_and_reads() -> None:
    probe = DurableProbe()
    probe.start_alone()
    probe.step(ins.DiskMeasured(1 << 20))
    (refusal, *_) = probe.ask(create(1))
    assert isinstance(refusal, wire.Failed)
    assert refusal.code is wire.FailureCode.FULL
    assert "disk of actor na/0" in refusal.detail
    assert probe.ask(wire.Get(2, 0, ALICE)) == [wire.Missing(2)]
    probe.ask(wire.Delete(3, 1, 0, 1, ALICE))
    assert replies(probe.synced()) == 1
    probe.step(ins.DiskMeasured(1 << 40))
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


# --- coming back ------------------------------------------------------------------------------------------


def restart(probe: DurableProbe, settings: HostSettings | None = None) -> DurableProbe:
    """Return the same actor after a power cut that lost nothing, as the heir of what it was."""
    after = DurableProbe(copies=probe.replayed(), settings=settings)
    after.entries = list(probe.entries)
    return after


def recovered(probe: DurableProbe, members: tuple[bytes, ...] = (C,), epoch: int = 1) -> Proposal:
    """Show a restarted actor that all members are dead; return its claim."""
    probe.configure(epoch, members, wanted="ab", dead="cb")
    probe.synced()
    return probe.proposal("recover")


def test_an_heir_recovers_all_that_was_acknowledged() -> None:
    before = DurableProbe()
    before.start_alone()
    before.ask(create(1), create(2, digest=b"b" * 32))
    before.synced()
    probe = restart(before)
    claim = recovered(probe)
    assert (claim.primary, claim.backups, claim.last) == (ME, (), (1, 2))
    probe.configure(2, (ME,), nonce=claim.nonce, wanted="ab", dead="cb")
    assert not probe.serves()
    probe.synced()
    (found,) = probe.ask(wire.Get(3, 0, ALICE))
    assert isinstance(found, wire.Session)


def test_more_than_memory_holds_is_served_and_refuses_writes() -> None:
    before = DurableProbe()
    before.start_alone()
    data = msgspec.msgpack.encode({"cart": "x" * 9000})
    for number in range(1, 9):
        before.ask(create(number, digest=bytes([number]) * 32, data=data))
    before.synced()
    probe = restart(before, HostSettings(memory_bytes_max=60_000))
    assert warnings(probe) == [], "nothing of it is in use yet"
    claim = recovered(probe)
    probe.configure(2, (ME,), nonce=claim.nonce, wanted="ab", dead="cb")
    probe.synced()
    [warned] = warnings(probe)
    assert "--memory-max" in warned
    assert warnings(probe) == [], "once a minute is enough"
    assert isinstance(probe.ask(wire.Get(20, 0, bytes([3]) * 32))[0], wire.Session)
    (refusal, *_) = probe.ask(create(21, digest=b"n" * 32))
    assert isinstance(refusal, wire.Failed)
    assert refusal.code is wire.FailureCode.FULL
    assert probe.host.memory.refusing(probe.now_ns) == ("na/0",)


def warnings(probe: DurableProbe) -> list[str]:
    """Measure the memory of the process; return what an operator is told."""
    measured = ins.MemoryMeasured(probe.host.memory.used_bytes + 1000)
    return [each.message for each in probe.step(measured) if isinstance(each, fx.Warned)]


def test_operators_see_what_an_heir_has_on_disk() -> None:
    before = DurableProbe()
    before.start_alone()
    before.ask(create(1), create(2, digest=b"b" * 32))
    before.synced()
    probe = restart(before)
    recovered(probe)
    (inspection,) = probe.ask(wire.Inspect(3))
    assert isinstance(inspection, wire.Inspection)
    [held] = inspection.replicas
    assert (held.role, held.epoch, held.appended, held.proposes) == ("none", 1, 2, "recover")
    assert not held.serving


def test_a_recovered_shard_goes_on_under_new_numbers() -> None:
    before = DurableProbe()
    before.start_alone()
    before.ask(create(1))
    before.synced()
    probe = restart(before)
    claim = recovered(probe)
    probe.configure(2, (ME,), nonce=claim.nonce, wanted="ab", dead="cb")
    probe.synced()
    probe.ask(create(2, digest=b"b" * 32))
    probe.synced()
    assert probe.replayed()[0].last == (2, 2)


def test_what_was_answered_is_not_carried_out_again() -> None:
    before = DurableProbe()
    before.start_alone()
    before.ask(create(1))
    (first,) = [effect.message for effect in before.synced() if isinstance(effect, fx.ReplyToClient)]
    probe = restart(before)
    claim = recovered(probe)
    probe.configure(2, (ME,), nonce=claim.nonce, wanted="ab", dead="cb")
    probe.synced()
    assert probe.ask(create(1)) == [first]


def test_no_claim_while_a_member_lives() -> None:
    before = DurableProbe()
    before.become_primary()
    probe = restart(before)
    probe.configure(2, (C, B), wanted="ab", dead="c")
    probe.synced()
    assert probe.proposals() == []
    assert len(probe.host.found) == 1


def test_a_copy_is_given_up_once_the_shard_went_on_without_it() -> None:
    before = DurableProbe()
    before.become_primary()
    probe = restart(before)
    probe.configure(3, (B,), wanted="b", dead="c")
    assert len(probe.host.found) == 1, "it may be wanted again"
    probe.configure(4, (B, D), wanted="bd", dead="c")
    probe.synced()
    assert probe.host.found == []
    assert probe.entries[-1] == Left(0)
    assert probe.replayed() == {}


def test_a_copy_that_is_later_than_the_map_is_kept() -> None:
    """The coordinator has an older map, or none: this may be the only copy of the sessions."""
    before = DurableProbe()
    before.start_alone()
    probe = restart(before)
    probe.configure(0, wanted="a")
    probe.synced()
    assert probe.proposals() == []
    assert len(probe.host.found) == 1


def test_a_snapshot_takes_the_place_of_what_the_disk_had() -> None:
    before = DurableProbe()
    before.become_primary()
    probe = restart(before)
    probe.configure(2, (C, B), wanted="ba", dead="c")
    probe.configure(3, (B,), wanted="ba", dead="c")
    probe.hear(B, chunk(epoch=3))
    probe.synced()
    assert probe.host.found == []
    assert probe.replayed()[0].from_sequence == 10


def test_a_recovered_copy_stops_before_a_suspect() -> None:
    before = DurableProbe()
    before.become_backup()
    before.hear(B, prepare(11, 12))
    before.synced()
    probe = restart(before)
    claim = recovered(probe, (B, C), epoch=2)
    suspect = SuspectRecord(B, 2, 12)
    probe.configure(3, (ME,), nonce=claim.nonce, wanted="ab", dead="cb", suspect=suspect)
    probe.synced()
    assert probe.replica is not None
    assert (probe.replica.role.value, probe.replica.committed) == ("suspended", 11)


def test_a_record_that_was_dropped_is_not_read_again() -> None:
    before = DurableProbe()
    before.become_backup()
    before.hear(B, prepare(11, 12, 13))
    before.synced()
    suspect = SuspectRecord(B, 2, 12)
    before.configure(2, (B, ME), wanted="ba", dead="b", suspect=suspect)
    before.synced()
    nonce = before.proposal("takeover").nonce
    before.configure(3, (ME,), nonce=nonce, wanted="ba", dead="b", suspect=suspect)
    before.synced()
    before.ask(wire.DropRecord(9, 0, 2, 12))
    before.synced()
    probe = restart(before)
    claim = recovered(probe, (C,), epoch=3)
    probe.configure(4, (ME,), nonce=claim.nonce, wanted="ab", dead="cb", suspect=suspect)
    probe.synced()
    assert probe.replica is not None
    assert (probe.replica.role.value, probe.replica.committed) == ("primary", 13)
    assert len(probe.replica.table.sessions) == 1


@pytest.mark.parametrize(("offset_us", "shown_us"), [(3_600_000_000, 3_600_000_000), (-20_000_000, 0)])
def test_time_goes_on_from_what_was_seen(offset_us: int, shown_us: int) -> None:
    """However long the host has been up, and whatever its wall clock shows."""
    before = DurableProbe()
    before.start_alone()
    before.ask(create(1))
    before.synced()
    probe = restart(before)
    probe.wall_us += offset_us
    claim = recovered(probe)
    probe.configure(2, (ME,), nonce=claim.nonce, wanted="ab", dead="cb")
    probe.synced()
    assert probe.host.clock_us(probe.now_ns, probe.wall_us) == WALL_US + shown_us


def test_a_refused_claim_is_made_again_under_another_nonce() -> None:
    before = DurableProbe()
    before.start_alone()
    probe = restart(before)
    claim = recovered(probe)
    probe.refuse(claim)
    probe.after(0.3)
    probe.synced()
    assert probe.proposal("recover").nonce != claim.nonce


# --- going on with what the directory has ------------------------------------------------------------------


def offer(kept_from: int, *rungs: tuple[int, int], epoch: int = 3) -> SnapshotChunk:
    """The primary's offer to go on, at join 7."""
    return SnapshotChunk(0, epoch, 7, 0, WALL_US, 0, True, (), (), (), continues=(kept_from, rungs))


def returned(*sequences: int) -> DurableProbe:
    """Return a former backup that is back from its disk, which holds these records after a snapshot at 10."""
    before = DurableProbe()
    before.become_backup()
    before.hear(B, prepare(*sequences))
    before.synced()
    probe = restart(before)
    probe.configure(3, (B,), wanted="ba", dead="c")
    probe.synced()
    return probe


def told(probe: DurableProbe) -> SnapshotOk | SnapshotRefused:
    (message,) = [effect.message for effect in probe.effects if isinstance(effect, fx.ReplyToPeer)]
    assert isinstance(message, SnapshotOk | SnapshotRefused)
    return message


def test_a_former_backup_goes_on_with_what_it_has() -> None:
    probe = returned(11, 12)
    probe.hear(B, offer(10, (2, 13)))
    taken = told(probe)
    assert isinstance(taken, SnapshotOk)
    assert (taken.sequence, taken.mark) == (12, probe.mark)
    probe.hear(B, prepare(13, epoch=3, committed=12))
    assert acknowledged(probe.synced()) == [1]
    probe.configure(4, (B, ME), wanted="ba", dead="c")
    probe.synced()
    assert probe.replica is not None
    assert (probe.replica.role.value, probe.replica.committed) == ("backup", 12)
    assert (probe.replayed()[0].from_sequence, probe.replayed()[0].appended) == (10, 13)


def test_what_the_others_went_on_without_is_cut_off() -> None:
    """It was never acknowledged: the former primary had not sent it."""
    probe = returned(11, 12, 13)
    probe.hear(B, offer(10, (2, 11), (3, 20)))
    probe.synced()
    taken = told(probe)
    assert isinstance(taken, SnapshotOk)
    assert taken.sequence == 11
    probe.hear(B, prepare(12, epoch=3, committed=11))
    probe.synced()
    kept = map(heading, probe.replayed()[0].records)
    assert [(each.epoch, each.sequence) for each in kept] == [(2, 11), (3, 12)]


@pytest.mark.parametrize(
    "offered",
    [
        pytest.param(offer(13, (2, 20)), id="the tail is gone"),
        pytest.param(offer(0, (2, 9), (3, 20)), id="applied beyond"),
        pytest.param(offer(0, (3, 20)), id="nothing in common"),
    ],
)
def test_who_cannot_go_on_asks_for_a_snapshot(offered: SnapshotChunk) -> None:
    probe = returned(11, 12)
    probe.hear(B, offered)
    assert isinstance(told(probe), SnapshotRefused)
    probe.hear(B, chunk(epoch=3, join=8, sequence=20))
    probe.synced()
    assert isinstance(told(probe), SnapshotOk)
    assert probe.replayed()[0].from_sequence == 20


def test_nobody_goes_on_through_a_record_that_ended_an_actor() -> None:
    """Its primary is past that record, and a snapshot does not have it applied again."""
    probe = returned(11, 12)
    probe.configure(4, (B,), wanted="ba", dead="c", suspect=SuspectRecord(C, 2, 12))
    probe.hear(B, offer(10, (2, 13), epoch=4))
    assert isinstance(told(probe), SnapshotRefused)


def removed_backup() -> DurableProbe:
    """Return a primary whose backup was removed with record 1 unacknowledged, after which 2 followed."""
    probe = DurableProbe()
    probe.become_primary()
    probe.ask(create(1))
    probe.synced()
    probe.configure(2, (ME, B), wanted="ab", dead="b")
    probe.synced()
    probe.configure(3, (ME,), nonce=probe.proposal("remove").nonce, wanted="ab", dead="b")
    probe.ask(create(2, digest=b"b" * 32))
    probe.synced()
    return probe


def come_back(probe: DurableProbe) -> SnapshotChunk:
    """Have actor d come back with the directory of b; return what it is sent first."""
    probe.configure(3, (ME,), wanted="ad", dead="b", directories={**DIRECTORIES, "d": THEIRS})
    probe.connect(D)
    (first,) = probe.chunks()
    return first


def test_a_primary_keeps_what_a_former_backup_lacks() -> None:
    probe = removed_backup()
    first = come_back(probe)
    assert first.continues == (0, ((2, 1), (3, 2)))
    probe.hear(D, SnapshotOk(0, 3, first.join, 0, mark=9, sequence=1))
    (sent,) = probe.prepares()
    assert [record.sequence for record in sent.entries[0].records] == [2]


def test_a_refused_offer_is_followed_by_a_snapshot() -> None:
    probe = removed_backup()
    first = come_back(probe)
    probe.hear(D, SnapshotRefused(0, 3, first.join, "a test"))
    probe.after(0.4)
    probe.connect(D)
    (second,) = probe.chunks()
    assert (second.continues, second.sequence) == (None, 2)


@pytest.mark.parametrize("refused", [False, True], ids=["link broken", "no map yet"])
def test_an_offer_that_did_not_arrive_is_made_again(refused: bool) -> None:
    probe = removed_backup()
    first = come_back(probe)
    if refused:
        probe.hear(D, SnapshotRefused(0, 3, first.join, "a test", waits=True))
    else:
        probe.step(ins.LinkDown(D, bulk=True))
    probe.after(0.4)
    probe.connect(D)
    (second,) = probe.chunks()
    assert second.join > first.join
    assert second.continues == first.continues


def test_who_has_no_map_yet_may_be_offered_to_go_on_again() -> None:
    before = DurableProbe()
    before.become_backup()
    probe = restart(before)
    (refusal,) = probe.hear(B, offer(10, (2, 10)))
    assert isinstance(refusal, SnapshotRefused)
    assert refusal.waits


def test_an_offer_takes_no_turn_from_a_snapshot() -> None:
    probe = removed_backup()
    first = come_back(probe)
    assert probe.host._joins.taken == 0
    probe.hear(D, SnapshotRefused(0, 3, first.join, "a test"))
    probe.after(0.4)
    assert probe.host._joins.taken == 1


def recovered_beside_another(count: int = 1) -> tuple[DurableProbe, SnapshotChunk]:
    """Return an heir that goes on while that of the other member runs, and what it sends that one."""
    before = DurableProbe()
    before.start_alone()
    before.ask(*[create(1)][:count])
    before.synced()
    probe = restart(before)
    claim = recovered(probe, (C, B))
    directories = {**DIRECTORIES, "d": THEIRS}
    probe.configure(2, (ME,), nonce=claim.nonce, wanted="ad", dead="cb", directories=directories)
    probe.synced()
    probe.effects = probe.step(ins.LinkUp(D, bulk=True))
    (first,) = probe.chunks()
    return probe, first


@pytest.mark.parametrize("count", [0, 1])
def test_who_recovers_has_the_others_go_on_at_once(count: int) -> None:
    _, first = recovered_beside_another(count)
    assert first.continues == (0, ((1, 1),)[:count])


def test_who_goes_on_is_added_with_its_lease() -> None:
    probe, first = recovered_beside_another()
    probe.step(ins.LinkUp(D, bulk=False))
    probe.hear(D, SnapshotOk(0, 2, first.join, 0, mark=9, sequence=1))
    assert probe.replica is not None
    assert probe.replica.proposal is None, "it has granted no lease yet"
    probe.grant(D)
    assert probe.replica.proposal is not None
    assert probe.replica.proposal.proposal.backups == (D,)


def test_nothing_is_kept_for_long() -> None:
    probe = removed_backup()
    assert probe.replica is not None
    assert probe.replica.log.first == 1
    probe.after(61)
    assert probe.replica.log.first == 3
    assert come_back(probe).continues is None


def test_who_took_over_keeps_what_a_former_primary_lacks() -> None:
    probe = DurableProbe()
    probe.become_backup()
    probe.hear(B, prepare(11, 12))
    probe.synced()
    probe.after(1.3)
    probe.synced()
    probe.configure(3, (ME,), nonce=probe.proposal("takeover").nonce, wanted="ab", dead="b")
    probe.synced()
    first = come_back(probe)
    assert first.continues == (10, ((1, 10), (2, 12)))


# --- keeping it short -------------------------------------------------------------------------------------


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
