"""What is asked of many shards at once: bounded in bytes and in work, whatever a client sends."""

import msgspec
import pytest

from greenroom import wire
from greenroom.framing import FRAME_BYTES_MAX, encode_frames
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.stored import encoded
from tests.cluster.shard.probe import ALICE, FAR_US, WALL_US, Probe, create

LONG = "\U0001f3ad" * 256
"""As many characters as the protocol takes, and four times as many bytes."""


def alone() -> Probe:
    probe = Probe()
    probe.start_alone()
    return probe


@pytest.mark.parametrize(
    "command",
    [
        msgspec.structs.replace(create(2), label=LONG),
        msgspec.structs.replace(create(2), user_id=LONG),
        msgspec.structs.replace(create(2), user_id=""),
        wire.Update(2, 1, 0, 0, ALICE, "u", FAR_US, LONG, b"\x80", None),
        wire.Update(2, 1, 0, 0, ALICE, LONG, FAR_US, "", b"\x80", None),
        wire.Patch(2, 1, 0, 0, ALICE, (), (), (), (LONG,), None),
        wire.Rotate(2, 1, 0, 0, ALICE, b"n" * 32, (), (), (LONG,), None),
    ],
    ids=lambda command: type(command).__name__,
)
def test_labels_and_users_are_bounded_in_bytes_before_anything_is_logged(command: wire.Mutation) -> None:
    probe = alone()
    probe.ask(create(1))
    appended = probe.replica.log.appended
    (reply,) = probe.ask(command)
    assert isinstance(reply, wire.Failed)
    assert reply.code == wire.FailureCode.INVALID
    assert "256 bytes" in reply.detail
    assert probe.replica.log.appended == appended
    (kept,) = probe.ask(wire.Get(3, 0, ALICE))
    assert isinstance(kept, wire.Session)


def test_the_longest_texts_that_are_admitted_are_stored() -> None:
    probe = alone()
    label = "\U0001f3ad" * 64
    (reply,) = probe.ask(msgspec.structs.replace(create(1), label=label, user_id=label))
    assert isinstance(reply, wire.Written)


def test_a_listing_fits_into_a_frame_whatever_labels_are_stored() -> None:
    """Versions before this one admitted labels of 1,024 bytes; the newest sessions are listed."""
    probe = alone()
    table = probe.replica.table
    for number in range(1300):
        digest = number.to_bytes(32, "big")
        state = wire.SessionState(1, FAR_US, WALL_US + number, None, "u", LONG, 0, b"\x80")
        table._store(digest, state, WALL_US)
    assert len(encoded(state)) > 1024
    (listing,) = probe.ask(wire.ListByUser(1, "u", 2000, (0,)))
    assert isinstance(listing, wire.Listing)
    assert len(encode_frames([listing])) <= FRAME_BYTES_MAX
    assert 900 < len(listing.sessions) < 1300
    assert [each.created_us for each in listing.sessions] == [
        WALL_US + 1299 - number for number in range(len(listing.sessions))
    ]


def test_one_step_asks_a_bounded_number_of_shards() -> None:
    probe = alone()
    everywhere = tuple(range(4096))
    replies = probe.ask(*(wire.ListByUser(number, "u", 10, everywhere) for number in range(1, 90)))
    listed = [reply for reply in replies if isinstance(reply, wire.Listing)]
    refused = [reply for reply in replies if isinstance(reply, wire.Overloaded)]
    assert len(listed) == HostSettings().fanned_out_max // 4096
    assert len(listed) + len(refused) == 89
    (later,) = probe.ask(wire.ListByUser(99, "u", 10, everywhere))
    assert isinstance(later, wire.Listing)


def test_a_held_listing_keeps_no_list_of_shards() -> None:
    probe = Probe()
    probe.hand_over()
    assert probe.ask(wire.ListByUser(1, "u", 10, tuple(range(4096)))) == []
    ((gather, _, held),) = probe.replica.primary.held
    assert held.shards == ()
    assert gather._request.shards == ()


def test_operators_who_ask_again_and_again_are_shown_one_look() -> None:
    probe = alone()
    replies = probe.ask(*(wire.Inspect(number) for number in range(1, 257)))
    assert [reply.request_id for reply in replies] == list(range(1, 257))
    assert all(reply.replicas is replies[0].replicas for reply in replies)
    probe.ask(create(1))
    (later,) = probe.ask(wire.Inspect(300))
    assert later.replicas[0].sessions == 1
