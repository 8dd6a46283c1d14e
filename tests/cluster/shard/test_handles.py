"""Handles: they end a session of their user, exactly once, and let nobody read it."""

import msgspec

from greenroom import wire
from greenroom.ids import listed_as
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import PrepareOk
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.stored import as_received
from tests.cluster.shard.probe import CLIENT, B, Probe, create

ALICE, BOB = b"a" * 32, b"b" * 32


def of_user(request_id: int, digest: bytes, user_id: str) -> wire.Create:
    return msgspec.structs.replace(create(request_id, digest), user_id=user_id)


def ask(probe: Probe, *requests: wire.Request) -> list[wire.Reply]:
    """Have a primary serve these, and its backup acknowledge; return the replies."""
    effects = probe.step(ins.ClientRequests(1, CLIENT, list(requests)))
    for prepare in probe.prepares():
        effects += probe.step(ins.PeerMessages(B, [PrepareOk(prepare.batch)]))
    return [as_received(each.message) for each in effects if isinstance(each, fx.ReplyToClient)]


def serving(settings: HostSettings | None = None) -> Probe:
    probe = Probe(settings)
    probe.start_alone()
    ask(probe, of_user(1, ALICE, "alice"), of_user(2, BOB, "bob"))
    return probe


def by_handle(request_id: int, named: bytes, user_id: str) -> wire.DeleteByHandle:
    return wire.DeleteByHandle(request_id, 1, 0, 0, named, user_id)


def listed(probe: Probe, user_id: str) -> tuple[wire.SessionHandle, ...]:
    (listing,) = ask(probe, wire.ListByUser(90, user_id, 9, (0,)))
    assert isinstance(listing, wire.Listing)
    return listing.sessions


def test_what_is_listed_cannot_be_read_or_rotated() -> None:
    probe = serving()
    (entry,) = listed(probe, "alice")
    assert ask(probe, wire.Get(3, 0, entry.listed)) == [wire.Missing(3)]
    (reply,) = ask(probe, wire.Rotate(4, 1, 0, 0, entry.listed, b"n" * 32, (), (), None, None))
    assert reply == wire.Failed(4, wire.FailureCode.NOT_FOUND)


def test_what_is_listed_ends_the_session_of_its_user_alone() -> None:
    probe = serving()
    (entry,) = listed(probe, "alice")
    assert ask(probe, by_handle(3, entry.listed, "bob")) == [wire.Written(3, 0)]
    assert len(listed(probe, "alice")) == 1
    assert ask(probe, by_handle(4, entry.listed, "alice")) == [wire.Written(4, 0)]
    assert listed(probe, "alice") == ()
    assert len(listed(probe, "bob")) == 1


def test_a_handle_of_a_release_before_ends_its_session() -> None:
    """It is the digest: who has it can end the session anyway, and pages that show it may be open."""
    probe = serving()
    ask(probe, by_handle(3, ALICE, "alice"))
    assert listed(probe, "alice") == ()


def test_a_log_holds_the_digest_that_every_release_understands() -> None:
    probe = Probe()
    probe.become_primary()
    ask(probe, of_user(1, ALICE, "alice"))
    probe.step(ins.ClientRequests(1, CLIENT, [by_handle(2, listed_as(ALICE), "alice")]))
    (prepare,) = probe.prepares()
    (record,) = [record for part in prepare.entries for record in part.records]
    assert record.command == by_handle(2, ALICE, "alice")


def test_a_repeat_gets_the_kept_reply_though_the_session_is_gone() -> None:
    probe = serving()
    (entry,) = listed(probe, "alice")
    asked = by_handle(3, entry.listed, "alice")
    assert ask(probe, asked) == [wire.Written(3, 0)]
    assert ask(probe, asked) == [wire.Written(3, 0)]
    (other,) = ask(probe, by_handle(3, listed_as(BOB), "bob"))
    assert isinstance(other, wire.Unknowable)
    assert len(listed(probe, "bob")) == 1


def test_a_repeat_of_one_under_way_is_no_other_command() -> None:
    probe = Probe()
    probe.become_primary()
    ask(probe, of_user(1, ALICE, "alice"))
    asked = by_handle(3, listed_as(ALICE), "alice")
    probe.step(ins.ClientRequests(1, CLIENT, [wire.Delete(2, 1, 0, 0, ALICE), asked]))
    (prepare,) = probe.prepares()
    again = probe.step(ins.ClientRequests(1, CLIENT, [asked]))
    assert not [each for each in again if isinstance(each, fx.ReplyToClient)]
    effects = probe.step(ins.PeerMessages(B, [PrepareOk(prepare.batch)]))
    replies = [each.message for each in effects if isinstance(each, fx.ReplyToClient)]
    assert replies == [wire.Written(2, 0), wire.Written(3, 0)]


def test_what_one_step_looks_up_is_bounded() -> None:
    """Each look-up may go through all sessions of its user."""
    probe = serving(HostSettings(listed_max=3))
    ask(probe, *(of_user(number, bytes([number]) * 32, "crowd") for number in range(3, 9)))
    entries = listed(probe, "crowd")
    replies = ask(probe, *(by_handle(20 + n, entry.listed, "crowd") for n, entry in enumerate(entries[:3])))
    assert [type(each) for each in replies] == [wire.Overloaded, wire.Written, wire.Written]
