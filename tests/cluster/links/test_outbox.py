"""Where what the core says goes: on which connection, with what else, and in which order."""

from typing import Any

import pytest

from greenroom import wire
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.links.outbox import CloseLink, OpenLink, Outbox, are_bulk
from greenroom_cluster.shard.effects import (
    Connect,
    Disconnect,
    Ignored,
    Persist,
    Propose,
    ReplyToClient,
    ReplyToPeer,
    Send,
    Transition,
)
from greenroom_cluster.shard.messages import Beacon, BeaconOk, Prepare, PrepareOk, SnapshotChunk, SnapshotOk

PEER = b"p" * 16
CHUNK = SnapshotChunk(0, 1, 1, 1, 1, 0, False, (), (), ())
RECORDS = Prepare(1, ())
BEACON = Beacon(5, 0)


class Line:
    """A connection that has something queued, or not."""

    def __init__(self, name: str, *, queued: bool = False) -> None:
        self.name = name
        self.queued = queued

    def __repr__(self) -> str:
        return self.name


def linked(*, queued: bool = False) -> tuple[Outbox[Line, str], Line, Line]:
    """An outbox with both links to a peer up."""
    outbox: Outbox[Line, str] = Outbox()
    outbox.sort([Connect(PEER, "p:1", False), Connect(PEER, "p:1", True)])
    main, bulk = Line("main", queued=queued), Line("bulk", queued=queued)
    outbox.link_up(PEER, main, bulk=False)
    outbox.link_up(PEER, bulk, bulk=True)
    return outbox, main, bulk


@pytest.mark.parametrize(
    ("queued", "urgent", "rest"),
    [(False, [], [RECORDS, BEACON]), (True, [BEACON], [RECORDS])],
)
def test_a_beacon_overtakes_what_is_queued(queued: bool, urgent: list[Any], rest: list[Any]) -> None:
    outbox, main, _ = linked(queued=queued)
    rare, to_peers, _ = outbox.sort([Send(PEER, RECORDS), Send(PEER, BEACON)])
    assert (rare.urgent if rare else []) == [(main, message) for message in urgent]
    assert to_peers == {main: rest}


def test_what_goes_to_one_connection_goes_together_in_order() -> None:
    outbox, main, bulk = linked()
    outbox.add_client(1, "one")
    outbox.add_client(2, "two")
    _, to_peers, to_clients = outbox.sort(
        [
            ReplyToClient(1, wire.Missing(1)),
            Send(PEER, RECORDS),
            ReplyToClient(2, wire.Missing(2)),
            Send(PEER, CHUNK, True),
            ReplyToClient(1, wire.Missing(3)),
            Send(PEER, Prepare(2, ())),
        ]
    )
    assert to_peers == {main: [RECORDS, Prepare(2, ())], bulk: [CHUNK]}
    assert to_clients == [("one", [wire.Missing(1), wire.Missing(3)]), ("two", [wire.Missing(2)])]


def test_what_has_no_connection_is_dropped() -> None:
    outbox, main, _ = linked()
    outbox.add_client(1, "one")
    outbox.drop_client(1)
    outbox.link_down(PEER, bulk=True)
    _, to_peers, to_clients = outbox.sort(
        [
            ReplyToClient(1, wire.Missing(1)),
            Send(PEER, CHUNK, True),
            Send(b"q" * 16, RECORDS),
            ReplyToPeer(PEER, PrepareOk(1)),
            Send(PEER, RECORDS),
        ]
    )
    assert to_peers == {main: [RECORDS]}
    assert to_clients == []


@pytest.mark.parametrize(
    ("effects", "changes"),
    [
        ([Connect(PEER, "p:1", False)], []),
        (
            [Connect(PEER, "p:2", False)],
            [CloseLink(PEER, False), OpenLink(PEER, False, "p:2")],
        ),
        ([Disconnect(PEER, False)], [CloseLink(PEER, False)]),
        ([Disconnect(PEER, False), Disconnect(PEER, False)], [CloseLink(PEER, False)]),
        (
            [Disconnect(PEER, False), Connect(PEER, "p:1", False)],
            [CloseLink(PEER, False), OpenLink(PEER, False, "p:1")],
        ),
    ],
)
def test_a_link_is_opened_once_an_address(effects: list[Any], changes: list[Any]) -> None:
    outbox, main, _ = linked()
    rare = outbox.sort(effects)[0]
    assert rare is not None
    assert rare.changes == changes
    kept = outbox.sort([Send(PEER, RECORDS)])[1]
    assert kept == ({} if changes else {main: [RECORDS]})


def test_a_link_that_was_closed_does_not_come_up() -> None:
    outbox, main, _ = linked()
    outbox.sort([Disconnect(PEER, False)])
    outbox.link_up(PEER, main, bulk=False)
    assert outbox.sort([Send(PEER, RECORDS)])[1] == {}


def test_a_peer_is_answered_on_its_newest_connection() -> None:
    outbox: Outbox[Line, str] = Outbox()
    first, second = Line("first"), Line("second")
    assert outbox.heard(PEER, 1, first, bulk=False) is None
    assert outbox.heard(PEER, 1, first, bulk=False) is None
    assert outbox.heard(PEER, 2, second, bulk=False) is first
    assert outbox.heard(PEER, 1, first, bulk=False) is first
    assert outbox.sort([ReplyToPeer(PEER, PrepareOk(1))])[1] == {second: [PrepareOk(1)]}


def test_snapshots_are_answered_where_they_come_from() -> None:
    outbox: Outbox[Line, str] = Outbox()
    main, bulk = Line("main"), Line("bulk")
    assert outbox.heard(PEER, 1, main, bulk=are_bulk([BEACON])) is None
    assert outbox.heard(PEER, 2, bulk, bulk=are_bulk([CHUNK])) is None
    answers = [BeaconOk(5, 0), SnapshotOk(0, 1, 1, 0)]
    _, to_peers, _ = outbox.sort([ReplyToPeer(PEER, answer) for answer in answers])
    assert to_peers == {main: answers[:1], bulk: answers[1:]}


@pytest.mark.parametrize(("number", "answered"), [(1, False), (2, True)])
def test_only_the_connection_in_use_takes_the_answers_along(number: int, answered: bool) -> None:
    outbox: Outbox[Line, str] = Outbox()
    line = Line("line")
    outbox.heard(PEER, 1, line, bulk=False)
    outbox.drop_peer(PEER, number)
    assert bool(outbox.sort([ReplyToPeer(PEER, PrepareOk(1))])[1]) == answered


def test_proposals_and_notes_are_kept_apart_in_order() -> None:
    proposals = [Proposal(0, 0, bytes([number]) * 8, "start", PEER, ()) for number in range(2)]
    notes = [Ignored("Get", "shard 1 is elsewhere"), Transition(0, 1, "primary", "it began")]
    rare = Outbox[Line, str]().sort([Propose(proposals[0]), *notes, Propose(proposals[1])])[0]
    assert rare is not None
    assert (rare.proposals, rare.notes) == (proposals, notes)


def test_what_follows_a_write_is_sorted_once_it_is_written() -> None:
    outbox, main, _ = linked()
    outbox.heard(PEER, 1, main, bulk=False)
    effects = [Send(PEER, RECORDS), Persist(1, ()), ReplyToPeer(PEER, PrepareOk(1)), Persist(2, ())]
    rare, to_peers, _ = outbox.sort(effects)
    assert rare is not None
    assert to_peers == {main: [RECORDS]}
    assert rare.writes == effects[1:2]
    assert rare.later == effects[2:]
