"""Requests over which an actor may have broken off the connection.

When a connection breaks, all its requests are repeated on the next one. If one of them caused the break (for
example, its reply cannot be sent, or cannot be read here), the next connection breaks too, and all requests
to that actor are stuck until the deadline of that one. So a request that was unanswered on two broken
connections to one actor becomes a suspect: from then on it is sent on a separate connection, one suspect at a
time, and no other request waits for it. An innocent suspect is answered there. If that connection breaks
three times over one request, the request is given up.

The death of an actor does not count: its successor has another lane.
"""

from greenroom.dialog.ledger import Ledger
from greenroom.dialog.links import Lane, Link
from greenroom.dialog.operations import AnyOperation, Gathering

BREAKS_SUSPECT = 2
BREAKS_ALONE_MAX = 3
BREAKS_MAX = BREAKS_SUSPECT + BREAKS_ALONE_MAX


def note_break(operation: AnyOperation, lane: Lane) -> bool:
    """Count a connection to this actor that broke over the operation; return whether to give it up."""
    if operation.breaks is None:
        operation.breaks = {}
    breaks = operation.breaks[lane.root] = operation.breaks.get(lane.root, 0) + 1
    return breaks >= BREAKS_MAX


def lane_for(operation: AnyOperation, lane: Lane) -> Lane:
    """Return the lane on which to send the operation to this actor; a suspect's is the one beside it."""
    if operation.breaks is None or operation.breaks.get(lane, 0) < BREAKS_SUSPECT:
        return lane
    if lane.side is None:
        lane.side = Lane(lane.actor, lane)
    return lane.side


def is_busy(link: Link, ledger: Ledger) -> bool:
    """Whether a suspect is unanswered on its link."""
    operation = ledger.pending.get(link.alone)
    if isinstance(operation, Gathering):
        return link in operation.asked
    return operation is not None and operation.link is link
