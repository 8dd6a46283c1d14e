"""Requests over which an actor may have broken off the connection.

A connection that breaks takes all its requests along, and all are repeated on the next one. If one of them is
why it broke (its answer cannot be sent, say, or cannot be read here), the next one breaks too, and everything
that is asked of that actor stands still until the deadline of that one request. So a request that was
unanswered on two broken connections to one actor is a suspect: from then on it is sent on a connection of its
own, one suspect at a time, and nobody else waits for it. Suspects that are innocent are answered there. One
over which that connection breaks three times is given up.

An actor that has died is counted apart: what takes its place is another lane.
"""

from greenroom.dialog.ledger import Ledger
from greenroom.dialog.links import Lane, Link
from greenroom.dialog.operations import AnyOperation, Gathering

BREAKS_SUSPECT = 2
BREAKS_ALONE_MAX = 3
BREAKS_MAX = BREAKS_SUSPECT + BREAKS_ALONE_MAX


def note_break(operation: AnyOperation, lane: Lane) -> bool:
    """Count a connection to this actor that broke over the operation; whether that is to be given up."""
    if operation.breaks is None:
        operation.breaks = {}
    breaks = operation.breaks[lane.root] = operation.breaks.get(lane.root, 0) + 1
    return breaks >= BREAKS_MAX


def lane_for(operation: AnyOperation, lane: Lane) -> Lane:
    """Return the lane on which to send the operation to this actor: for a suspect, the one beside it."""
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
