"""What a primary lets clients show without asking, and what waits until they show it no longer."""

from typing import Any

import msgspec
import pytest

from greenroom import wire
from greenroom.errors import UsageError
from greenroom.ids import listed_as
from greenroom.near_messages import (
    IN_ANY_CASE,
    EncodedHeld,
    GetNear,
    Invalidate,
    NearAck,
    NearBeacon,
    NearLease,
    Unhold,
)
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import Beacon, BeaconOk, SnapshotOk
from greenroom_cluster.shard.near import served
from greenroom_cluster.shard.near.leases import drifted
from greenroom_cluster.shard.settings import HostSettings, ns
from tests.cluster.shard.primary_stage import WRITER, PrimaryStage
from tests.cluster.shard.probe import ALICE, FAR_US, ME, POISON, WALL_US, B, C, Probe, create, prepare

NEAR_NS = ns(0.3)
SETTINGS = HostSettings(near_seconds=0.3)
HOLDER, OTHER = 1, 2


class Stage(PrimaryStage):
    """Its backup knows of leases; `HOLDER` holds the session of ALICE, under a lease."""

    def __init__(self, *, known: bool = True, holds: bool = True) -> None:
        super().__init__(SETTINGS)
        self.numbers = 100
        self.write(create(self.number(), low=1))
        self.get(HOLDER)
        if known:
            self.grant()
        if holds:
            assert self.get(HOLDER) == 1, "it is held"
            assert self.beacon(HOLDER) > 0

    def grant(self) -> None:
        """The backup answers a beacon sent now, and knows of the leases."""
        self.note(self.probe.step(ins.PeerMessages(B, [BeaconOk(self.probe.now_ns, 0, (), near_ns=NEAR_NS)])))

    def get(self, connection: int, seen: int = IN_ANY_CASE, digest: bytes = ALICE) -> int | str:
        """Read; return 1 if the session is held for the connection, else the kind of the answer."""
        (reply,) = self.ask(connection, GetNear(self.number(), 0, digest, seen))
        return 1 if isinstance(reply, EncodedHeld) else type(reply).__name__

    def beacon(self, connection: int) -> int:
        """Ask for a lease; return how long it is, in microseconds."""
        (*_, lease) = self.ask(connection, NearBeacon(5))
        assert isinstance(lease, NearLease)
        return lease.rem_us

    def wait(self, seconds: float) -> None:
        self.note(self.probe.after(seconds))

    def answered(self, number: int, connection: int = WRITER) -> Any:
        """The answer to a request, None if there is none yet."""
        found = [each for each in self.said.get(connection, []) if getattr(each, "request_id", 0) == number]
        return found[0] if found else None

    def told(self, connection: int = HOLDER) -> list[Invalidate]:
        return [each for each in self.said.get(connection, []) if isinstance(each, Invalidate)]

    def update(self, connection: int = WRITER, data: bytes = b"\x81\xa1a\x01") -> int:
        number = self.number()
        self.write(wire.Update(number, number, 0, 0, ALICE, None, FAR_US, "", data, None), connection)
        return number


def test_nothing_is_held_before_the_backup_knows_of_leases() -> None:
    stage = Stage(known=False, holds=False)
    assert stage.get(HOLDER) == "Session"
    assert stage.beacon(HOLDER) == 0
    stage.grant()
    assert stage.get(HOLDER) == 1


def test_a_backup_is_told_once_a_client_wants_to_hold_something() -> None:
    probe = Probe(SETTINGS)
    probe.become_primary()
    probe.after(0.3)
    assert [each.near_ns for each in beacons(probe)] == [0]
    probe.ask(create(1))
    probe.acknowledge(probe.prepares()[0])
    probe.step(ins.ClientRequests(1, b"c" * 16, [GetNear(2, 0, ALICE, IN_ANY_CASE)]))
    probe.after(0.3)
    assert [each.near_ns for each in beacons(probe)] == [NEAR_NS]


def beacons(probe: Probe) -> list[Beacon]:
    sent = [each.message for each in probe.effects if isinstance(each, fx.Send)]
    return [each for each in sent if isinstance(each, Beacon)]


def test_a_backup_says_what_it_was_told() -> None:
    probe = Probe(SETTINGS)
    probe.become_backup()
    assert [each.near_ns for each in probe.hear(B, Beacon(1, 0, near_ns=NEAR_NS))] == [NEAR_NS]
    assert [each.near_ns for each in probe.hear(B, Beacon(1, 0))] == [NEAR_NS], "for good"


def test_a_session_is_held_only_if_it_is_what_was_seen() -> None:
    stage = Stage(holds=False)
    assert stage.get(HOLDER, seen=1) == "Session"
    (shown,) = stage.ask(HOLDER, wire.Get(stage.number(), 0, ALICE))
    assert stage.get(HOLDER, seen=shown.state.version) == 1


def test_a_write_waits_until_its_holder_has_dropped_it() -> None:
    stage = Stage()
    number = stage.update()
    assert stage.answered(number) is None
    (told,) = stage.told()
    assert told.digests == (ALICE,)
    stage.ask(HOLDER, NearAck(told.number))
    assert isinstance(stage.answered(number), wire.Written)


def test_a_write_waits_no_longer_than_a_holder_may_be_alive() -> None:
    stage = Stage()
    number = stage.update()
    stage.wait(0.32)
    assert stage.answered(number) is None
    stage.wait(0.02)
    assert isinstance(stage.answered(number), wire.Written)


def test_a_closed_connection_proves_nothing() -> None:
    stage = Stage()
    stage.note(stage.probe.step(ins.ConnectionClosed(HOLDER)))
    number = stage.update()
    assert stage.answered(number) is None
    stage.wait(0.34)
    assert isinstance(stage.answered(number), wire.Written)


def test_who_has_no_lease_is_told_but_not_waited_for() -> None:
    stage = Stage()
    stage.wait(0.4)
    number = stage.update()
    assert isinstance(stage.answered(number), wire.Written)
    assert len(stage.told()) == 1


def test_a_writer_does_not_wait_for_its_own_connection() -> None:
    stage = Stage()
    number = stage.update(HOLDER)
    assert isinstance(stage.answered(number, HOLDER), wire.Written)
    assert stage.told() == []


def test_reads_show_what_was_while_a_change_waits() -> None:
    stage = Stage()
    number = stage.update()
    (before,) = stage.ask(OTHER, wire.Get(stage.number(), 0, ALICE))
    assert before.state.data == b"\x80"
    assert stage.get(OTHER) == "Session", "and it is not held"
    stage.ask(HOLDER, NearAck(stage.told()[0].number))
    (after,) = stage.ask(OTHER, wire.Get(stage.number(), 0, ALICE))
    assert after.state.data == b"\x81\xa1a\x01"
    assert stage.answered(number) is not None


def test_a_refusal_waits_as_what_it_tells_of_does() -> None:
    stage = Stage()
    delete, update = stage.number(), stage.number()
    stage.write(wire.Delete(delete, delete, 0, 0, ALICE))
    stage.write(wire.Update(update, delete, 0, 0, ALICE, None, FAR_US, "", b"\x80", None))
    assert (stage.answered(delete), stage.answered(update)) == (None, None)
    stage.ask(HOLDER, NearAck(stage.told()[0].number))
    assert isinstance(stage.answered(delete), wire.Written)
    assert isinstance(stage.answered(update), wire.Failed)


def test_a_kept_reply_waits_too() -> None:
    stage = Stage()
    number = stage.update()
    again = wire.Update(number, number, 5, 0, ALICE, None, FAR_US, "", b"\x81\xa1a\x01", None)
    assert stage.ask(OTHER, again, client=bytes([WRITER]) * 16) == []
    stage.ask(HOLDER, NearAck(stage.told()[0].number))
    assert isinstance(stage.answered(number, OTHER), wire.Written)


def test_a_deletion_by_handle_that_finds_nothing_waits() -> None:
    stage = Stage()
    delete, again = stage.number(), stage.number()
    stage.write(wire.Delete(delete, delete, 0, 0, ALICE))
    stage.write(wire.DeleteByHandle(again, delete, 0, 0, listed_as(ALICE), "alice"))
    assert stage.answered(again) is None
    stage.ask(HOLDER, NearAck(stage.told()[0].number))
    assert isinstance(stage.answered(again), wire.Written)


def test_a_listing_waits_for_all_changes() -> None:
    stage = Stage()
    number = stage.number()
    stage.write(wire.Update(number, number, 0, 0, ALICE, "alice", FAR_US, "", b"\x80", None))
    asked = stage.number()
    assert stage.ask(OTHER, wire.ListByUser(asked, "alice", 10, (0,))) == []
    stage.ask(HOLDER, NearAck(stage.told()[0].number))
    assert len(stage.answered(asked, OTHER).sessions) == 1


def test_a_rotation_shows_by_neither_id_before_all_know() -> None:
    stage = Stage()
    number, new = stage.number(), b"n" * 32
    stage.write(wire.Rotate(number, number, 0, 0, ALICE, new, (), (), None, None))
    assert stage.answered(number) is None
    old_read, new_read = stage.ask(OTHER, wire.Get(901, 0, ALICE), wire.Get(902, 0, new))
    assert isinstance(old_read, wire.Session)
    assert isinstance(new_read, wire.Missing)
    stage.ask(HOLDER, NearAck(stage.told()[0].number))
    old_read, new_read = stage.ask(OTHER, wire.Get(903, 0, ALICE), wire.Get(904, 0, new))
    assert isinstance(old_read, wire.Missing)
    assert isinstance(new_read, wire.Session)


def test_the_end_of_a_session_waits_and_so_do_its_reads() -> None:
    stage = Stage()
    stage.probe.wall_us = FAR_US + 1
    stage.probe.now_ns += ns((FAR_US - WALL_US) / 1e6)
    stage.grant()
    stage.beacon(HOLDER)
    asked = stage.number()
    assert stage.ask(OTHER, wire.Get(asked, 0, ALICE)) == []
    stage.commit()
    assert stage.answered(asked, OTHER) is None
    assert len(stage.told()) == 1
    stage.ask(HOLDER, NearAck(stage.told()[0].number))
    assert isinstance(stage.answered(asked, OTHER), wire.Missing)


def test_a_log_out_everywhere_waits_for_all_it_ends() -> None:
    stage = Stage()
    number = stage.number()
    stage.write(wire.Update(number, number, 0, 0, ALICE, "alice", FAR_US, "", b"\x80", None))
    stage.ask(HOLDER, NearAck(stage.told()[0].number))
    assert stage.get(HOLDER) == 1
    asked = stage.number()
    stage.write(wire.DeleteByUser(asked, asked, 0, "alice", b"", (0,)))
    assert stage.answered(asked) is None
    stage.ask(HOLDER, NearAck(stage.told()[-1].number))
    assert stage.answered(asked).counts == ((0, 1),)


def test_an_older_acknowledgement_does_not_count() -> None:
    stage = Stage()
    stage.update()
    stage.ask(HOLDER, NearAck(stage.told()[0].number))
    assert stage.get(HOLDER) == 1
    second = stage.update()
    stage.ask(HOLDER, NearAck(stage.told()[0].number))
    assert stage.answered(second) is None
    stage.ask(HOLDER, NearAck(stage.told()[1].number))
    assert stage.answered(second) is not None


def test_who_let_others_wait_holds_nothing_before_it_acknowledges() -> None:
    stage = Stage()
    stage.update()
    stage.wait(0.4)
    stage.grant()
    assert stage.get(HOLDER) == "Session"
    stage.ask(HOLDER, NearAck(stage.told()[0].number))
    assert stage.get(HOLDER) == 1


def test_what_was_let_go_is_not_waited_for() -> None:
    stage = Stage()
    stage.ask(HOLDER, Unhold((ALICE,)))
    assert stage.answered(stage.update()) is not None
    assert stage.told() == []


def test_a_lease_is_no_longer_than_the_rest_of_the_primarys() -> None:
    stage = Stage()
    stage.wait(0.9)
    assert stage.beacon(HOLDER) <= 100_000


def test_without_a_lease_of_its_own_a_primary_revokes() -> None:
    stage = Stage()
    stage.wait(0.9)
    stage.wait(0.2)
    assert stage.beacon(HOLDER) == 0
    assert stage.told()[0].shards == (0,)


def test_who_has_yet_to_drop_a_shard_is_waited_for() -> None:
    stage = Stage()
    stage.probe.now_ns += ns(0.95)
    stage.probe.wall_us += 950_000
    stage.beacon(HOLDER)
    stage.probe.now_ns += ns(0.052)
    assert stage.beacon(HOLDER) == 0, "and it is told to drop the shard"
    number = stage.update()
    assert stage.answered(number) is None, "by a slower clock its lease runs"


def test_the_rest_of_a_takeover_is_quiet_if_clients_may_show_sessions() -> None:
    probe = Probe(SETTINGS)
    probe.become_backup()
    probe.hear(B, Beacon(1, 0, near_ns=NEAR_NS))
    probe.configure(2, (B, ME), wanted="ba", dead="b")
    probe.configure(3, (ME,), nonce=probe.proposal("takeover").nonce, wanted="ba", dead="b")
    assert not probe.serves()
    assert probe.ask(create(1), wire.Get(2, 0, ALICE)) == []
    due = probe.host.next_deadline()
    while probe.now_ns < ns(1000) + drifted(NEAR_NS):
        probe.now_ns = max(due, probe.now_ns + 1)
        probe.step(ins.Tick())
        due = probe.host.next_deadline()
    assert probe.serves()


def test_what_a_closed_connection_asked_in_the_quiet_time_is_not_counted() -> None:
    probe = Probe(SETTINGS)
    probe.become_backup()
    probe.hear(B, Beacon(1, 0, near_ns=NEAR_NS))
    probe.configure(2, (B, ME), wanted="ba", dead="b")
    probe.configure(3, (ME,), nonce=probe.proposal("takeover").nonce, wanted="ba", dead="b")
    before = probe.host.memory.used_bytes
    probe.ask(create(1, data=b"\x81\xa1a\xc5\x10\x00" + bytes(4096)))
    assert probe.host.memory.used_bytes > before
    probe.step(ins.ConnectionClosed(1))
    assert probe.host.memory.used_bytes == before


def test_a_takeover_is_not_quiet_if_nobody_holds_anything() -> None:
    probe = Probe(SETTINGS)
    probe.become_backup()
    probe.configure(2, (B, ME), wanted="ba", dead="b")
    probe.configure(3, (ME,), nonce=probe.proposal("takeover").nonce, wanted="ba", dead="b")
    assert probe.serves()


def test_a_takeover_by_grace_is_not_quiet() -> None:
    probe = Probe(SETTINGS)
    probe.become_backup()
    probe.hear(B, Beacon(1, 0, near_ns=NEAR_NS))
    probe.after(1.3)
    probe.configure(3, (ME,), nonce=probe.proposal("takeover").nonce, wanted="ba")
    assert probe.serves()


def test_a_hand_over_waits_until_nobody_shows_anything() -> None:
    stage = Stage()
    probe = stage.probe
    stage.note(probe.configure(2, (ME, B), wanted="ba"))
    assert probe.proposals() == []
    assert [each.shards for each in stage.told()] == [(0,)]
    assert stage.get(OTHER) == "Session", "nothing more is held"
    assert stage.get(HOLDER) == "Session"
    stage.ask(HOLDER, NearAck(stage.told()[0].number))
    stage.note(probe.after(0.001))
    assert probe.proposal("handover").primary == B


def test_a_hand_over_waits_no_longer_than_leases_run() -> None:
    stage = Stage()
    stage.note(stage.probe.configure(2, (ME, B), wanted="ba"))
    stage.wait(0.32)
    assert stage.probe.proposals() == []
    stage.wait(0.02)
    assert stage.probe.proposal("handover").primary == B


def test_who_stops_being_primary_revokes_and_redirects() -> None:
    stage = Stage()
    number = stage.update()
    stage.note(stage.probe.configure(3, (B,), wanted="ba"))
    assert isinstance(stage.answered(number), wire.Redirect)
    assert stage.answered(number).appended


def test_a_suspended_shard_tells_no_kept_reply_in_the_quiet_time() -> None:
    probe = Probe(SETTINGS)
    probe.become_backup()
    probe.hear(B, Beacon(1, 0, near_ns=NEAR_NS))
    probe.hear(B, prepare(11, 12, 13))
    probe.configure(2, (B, ME), wanted="ba", dead="b", suspect=POISON)
    nonce = probe.proposal("takeover").nonce
    probe.configure(3, (ME,), nonce=nonce, wanted="ba", dead="b", suspect=POISON)
    again = wire.Create(11, 1, 5, 0, ALICE, None, WALL_US, FAR_US, None, "", b"\x80")
    (reply,) = probe.ask(again)
    assert isinstance(reply, wire.Overloaded)
    probe.after(0.34)
    (reply,) = probe.ask(again)
    assert isinstance(reply, wire.Written)


def test_sessions_are_held_by_namespace() -> None:
    stage = Stage()
    probe = stage.probe
    made = create(stage.number(), low=1)
    stage.note(probe.step(ins.ClientRequests(7, b"t" * 16, [made], namespace="shop")))
    stage.commit()
    asked = GetNear(stage.number(), 0, ALICE, IN_ANY_CASE)
    stage.note(probe.step(ins.ClientRequests(7, b"t" * 16, [asked, NearBeacon(1)], namespace="shop")))
    assert isinstance(stage.said[7][-2], EncodedHeld)
    assert stage.answered(stage.update(HOLDER), HOLDER) is not None
    assert stage.told(7) == [], "that was another session"
    number = stage.number()
    gone = wire.Delete(number, 1, 0, 0, ALICE)
    stage.note(probe.step(ins.ClientRequests(8, b"u" * 16, [gone], namespace="shop")))
    stage.commit()
    assert [each.digests for each in stage.told(7)] == [(ALICE,)]
    assert stage.answered(number, 8) is None
    stage.note(
        probe.step(ins.ClientRequests(7, b"t" * 16, [NearAck(stage.told(7)[0].number)], namespace="shop"))
    )
    assert isinstance(stage.answered(number, 8), wire.Written)


def test_a_joiner_that_does_not_know_of_leases_is_added_after_them() -> None:
    stage = Stage()
    probe = stage.probe
    stage.note(probe.configure(2, (ME, B), wanted="abc"))
    for event in (ins.LinkUp(C, bulk=False), ins.PeerMessages(C, [BeaconOk(probe.now_ns, 0)])):
        stage.note(probe.step(event))
    stage.note(probe.step(ins.LinkUp(C, bulk=True)))
    join = probe.chunks()[-1].join
    stage.note(probe.step(ins.PeerMessages(C, [SnapshotOk(0, 2, join, 0)])))
    assert probe.proposals() == []
    assert stage.get(OTHER) == "Session", "it counts already"
    for _ in range(2):
        assert probe.proposals() == []
        probe.now_ns += ns(0.17)
        stage.note(probe.step(ins.PeerMessages(C, [BeaconOk(probe.now_ns, 0)])))
    assert probe.proposal("add").backups == (B, C)


def test_one_connection_holds_no_more_than_it_can_let_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "HELD_MAX", 1)
    stage = Stage()
    other = b"o" * 32
    stage.write(create(stage.number(), other))
    assert stage.get(HOLDER, digest=other) == "Session"
    assert stage.get(OTHER, digest=other) == 1
    assert stage.get(HOLDER) == 1, "what it holds it may read again"


def test_an_operator_is_told_what_is_held_and_how_often_it_is_shown() -> None:
    stage = Stage()
    for _ in range(3):
        stage.ask(HOLDER, NearBeacon(5, 7))
    (told,) = stage.ask(OTHER, wire.Inspect(94))
    assert told.near.hits == 21
    assert told.replicas[0].held == 1
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(NearBeacon(5, 1 << 33)), type=NearBeacon)


def test_settings_of_leases_must_fit() -> None:
    with pytest.raises(UsageError, match="near_seconds"):
        HostSettings(near_seconds=1.1)
    with pytest.raises(UsageError, match="--near-seconds"):
        HostSettings(near_seconds=-0.1)
    assert HostSettings(near_seconds=1.0).near_seconds == 1.0


def test_without_leases_everything_is_as_without_near_caches() -> None:
    probe = Probe()
    probe.become_primary()
    probe.ask(create(1))
    probe.acknowledge(probe.prepares()[0])
    effects = probe.step(ins.ClientRequests(1, b"c" * 16, [GetNear(2, 0, ALICE, IN_ANY_CASE), NearBeacon(9)]))
    replies = [each.message for each in effects if isinstance(each, fx.ReplyToClient)]
    assert [type(each) for each in replies] == [wire.EncodedSession, NearLease]
    assert replies[1] == NearLease(9, 0)
    assert probe.replica is not None
    assert probe.replica.primary is not None
    assert probe.replica.primary.near is None
