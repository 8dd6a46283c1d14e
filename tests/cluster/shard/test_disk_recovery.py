"""An actor comes back from what it has on disk."""

import msgspec
import pytest

from greenroom import wire
from greenroom.cluster_map import SuspectRecord
from greenroom_cluster.disk.entries import (
    Left,
)
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.near.leases import drifted
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.settings import HostSettings, ns
from tests.cluster.shard.durable_probe import (
    OURS,
    DurableProbe,
    recovered,
    replies,
    restart,
    update,
)
from tests.cluster.shard.probe import ALICE, ME, WALL_US, B, C, D, chunk, create, prepare


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


def ended_at_its_start() -> tuple[DurableProbe, bytes]:
    """Return who is back, having ended when it was to begin a shard, and the nonce of that start."""
    before = DurableProbe()
    before.configure(0, wanted="a")
    before.synced()
    nonce = before.proposal("start").nonce
    return restart(before), nonce


def test_a_shard_that_was_to_begin_when_its_only_member_ended_begins() -> None:
    """Its disk knows that it has asked for that, and nobody can have written anything."""
    probe, nonce = ended_at_its_start()
    probe.configure(1, (C,), nonce=nonce, wanted="ab", dead="cb")
    assert not probe.proposals(), "it is not on disk yet that the copy begins empty"
    probe.synced()
    claim = probe.proposal("recover")
    assert (claim.primary, claim.backups, claim.last) == (ME, (), (0, 0))
    probe.configure(2, (ME,), nonce=claim.nonce, wanted="ab", dead="cb")
    probe.synced()
    probe.ask(create(1))
    probe.synced()
    assert probe.replayed()[0].last == (2, 1)


def test_who_ended_again_after_that_claims_the_same() -> None:
    probe, nonce = ended_at_its_start()
    probe.configure(1, (C,), nonce=nonce, wanted="ab", dead="cb")
    probe.synced()
    again = restart(probe)
    again.configure(1, (C,), nonce=nonce, wanted="ab", dead="cb")
    again.synced()
    assert again.proposal("recover").last == (0, 0)


def test_a_shard_that_began_otherwise_is_not_claimed_without_a_copy() -> None:
    """Who came in by a join had a copy: without one the directory is not what it was."""
    probe, _ = ended_at_its_start()
    probe.configure(1, (C,), wanted="ab", dead="cb")
    probe.synced()
    assert not probe.proposals()


def test_a_copy_that_was_given_up_does_not_come_back_in_place_of_a_start() -> None:
    """An operator gave its directory up, and the shard was to begin empty."""
    before = DurableProbe()
    before.start_alone()
    before.ask(create(1))
    before.synced()
    again = restart(before)
    again.configure(1, (C,), wanted="a", dead="c", directories={"a": OURS})
    again.synced()
    start = again.proposal("start")
    probe = restart(again)
    probe.configure(2, (C,), nonce=start.nonce, wanted="ab", dead="cb")
    probe.synced()
    assert probe.proposal("recover").last == (0, 0)
    assert probe.replayed()[0].records == []


NEAR = HostSettings(near_seconds=0.3)
QUIET_NS = drifted(ns(0.3))


def back(opened_ns: int, members: tuple[bytes, ...] = (C,), *, later_ns: int = 0) -> DurableProbe:
    """Return who recovers a shard of these members, and opened its directory at that time of the probe."""
    before = DurableProbe()
    before.start_alone()
    before.ask(create(1))
    before.synced()
    probe = restart(before, NEAR, opened_ns)
    claim = recovered(probe, members)
    probe.now_ns += later_ns
    probe.configure(2, (ME,), nonce=claim.nonce, wanted="ab", dead="cb")
    probe.synced()
    return probe


def quiet_ns(probe: DurableProbe) -> int:
    """Return for how long a recovered shard answers nothing."""
    assert isinstance(probe.replica, Replica)
    begun_ns = probe.now_ns
    while not probe.serves():
        probe.now_ns = max(probe.host.next_deadline(), probe.now_ns + 1)
        assert probe.now_ns < begun_ns + ns(1)
        probe.step(ins.Tick())
    assert isinstance(probe.ask(wire.Get(3, 0, ALICE))[0], wire.Session)
    return probe.now_ns - begun_ns


@pytest.mark.parametrize("ago", [0.0, 0.1, 0.32])
def test_who_is_back_soon_waits_for_the_leases_of_whom_it_was(ago: float) -> None:
    """Who had its directory was dead when it was opened; until then it may have given some."""
    assert quiet_ns(back(ns(1000) - ns(ago))) >= QUIET_NS - ns(ago)


def test_who_opened_its_directory_a_lease_ago_waits_no_longer() -> None:
    assert quiet_ns(back(ns(1000) - QUIET_NS)) == 0


def test_the_start_of_a_backups_heir_says_nothing_of_the_primary() -> None:
    """That may have lived on for a while; so it counts when its death was known."""
    assert quiet_ns(back(ns(990), (B, C))) >= QUIET_NS
    assert quiet_ns(back(ns(990), (B, C), later_ns=ns(0.1))) == pytest.approx(QUIET_NS - ns(0.1), abs=10)


def claims_beside(probe: DurableProbe, members: tuple[bytes, ...], seconds: float) -> bool:
    """Whether an heir claims a shard within that time though a member on a node that is down may live."""
    until_ns = probe.now_ns + ns(seconds)
    effects = probe.configure(1, members, wanted="ab", dead="c", down="b") + probe.synced()
    while probe.now_ns < until_ns:
        probe.now_ns = min(max(probe.host.next_deadline(), probe.now_ns + 1), until_ns)
        effects += probe.step(ins.Tick()) + probe.synced()
    return any(isinstance(each, fx.Propose) and each.proposal.kind == "recover" for each in effects)


def test_beside_a_primary_that_may_live_its_lease_has_to_end_first() -> None:
    """Who had this directory may have granted one until it was opened."""
    before = DurableProbe()
    before.start_alone()
    before.ask(create(1))
    before.synced()
    grace = HostSettings().grace_seconds
    assert not claims_beside(restart(before, opened_ns=ns(1000)), (B, C), grace - 0.01)
    assert claims_beside(restart(before, opened_ns=ns(1000)), (B, C), grace + 0.2)
    assert claims_beside(restart(before, opened_ns=ns(1000)), (C, B), 0.0), "a backup serves nobody"


def test_more_than_memory_holds_is_served_and_refuses_writes() -> None:
    before = DurableProbe()
    before.start_alone()
    data = msgspec.msgpack.encode({"cart": "x" * 9000})
    for number in range(1, 9):
        before.ask(create(number, digest=bytes([number]) * 32, data=data))
    before.synced()
    probe = restart(before, HostSettings(memory_bytes_max=60_000))
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
    (replica,) = probe.ask(wire.Inspect(22))
    assert isinstance(replica, wire.Inspection)
    assert 10_000 < replica.excess_bytes < 60_000
    assert probe.ask(update(23, bytes([3]) * 32, data)) == [], "what does not grow goes on"
    assert replies(probe.sync()) == 1
    for number in range(1, 9):
        probe.ask(wire.Delete(23 + number, 23, 0, 0, bytes([number]) * 32))
    probe.synced()
    assert warnings(probe) == []
    (reply,) = probe.ask(wire.Inspect(40))
    assert isinstance(reply, wire.Inspection)
    assert reply.excess_bytes == 0


def test_what_is_yet_to_be_applied_is_charged_until_it_is() -> None:
    before = DurableProbe()
    before.start_alone()
    data = msgspec.msgpack.encode({"cart": "x" * 50_000})
    for number in range(1, 9):
        before.ask(create(number, digest=bytes([number]) * 32, data=data))
    before.synced()
    probe = restart(before, HostSettings(memory_bytes_max=10_000_000, step_bytes=7000))
    [found] = probe.host.found
    assert found.table.charged_bytes == 0
    assert 400_000 < probe.host.memory.used_bytes < 405_000
    claim = recovered(probe)
    probe.configure(2, (ME,), nonce=claim.nonce, wanted="ab", dead="cb")
    probe.synced()
    assert 0 < found.committed < 8
    assert 400_000 < probe.host.memory.used_bytes < 415_000
    while found.committed < 8:
        probe.step(ins.Tick())
    table = found.table
    kept = found.log.charged_bytes
    assert probe.host.memory.used_bytes == table.charged_bytes + table.clients.charged_bytes + kept
    probe.after(100.0)
    assert found.log.charged_bytes == 0, "nobody came back for it"


def test_a_start_beyond_the_bound_shows_before_all_is_applied() -> None:
    before = DurableProbe()
    before.start_alone()
    data = msgspec.msgpack.encode({"cart": "x" * 9000})
    for number in range(1, 9):
        before.ask(create(number, digest=bytes([number]) * 32, data=data))
    before.synced()
    probe = restart(before, HostSettings(memory_bytes_max=60_000))
    [warned] = warnings(probe)
    assert "--memory-max" in warned
    assert probe.host.memory.free_bytes < 0


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
