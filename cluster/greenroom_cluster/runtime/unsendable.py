"""Substitutes for messages that cannot be sent: too long for a frame, or not encodable.

Replies are bounded so that this does not happen. If it does, it must cost only that request, not the
connection: a store whose connection is reset repeats its unanswered requests, and all others on that
connection wait for it.
"""

import structlog

from greenroom import wire
from greenroom.errors import LocalProtocolError
from greenroom.near_messages import EncodedHeld
from greenroom_cluster.runtime.log_limits import LimitedLog

_limited_log = LimitedLog(structlog.get_logger(__name__))


def substitute(message: wire.Frame, error: Exception, remote: str) -> wire.Frame | None:
    """Log that a message cannot be sent; return the substitute for `remote`, None if there is none."""
    # Only our own errors are sure not to quote the message.
    reason = str(error) if isinstance(error, LocalProtocolError) else type(error).__name__
    kind = type(message).__name__
    _limited_log.error("message_not_sendable", remote=remote, kind=kind, error=reason)
    match message:
        case wire.EncodedSession(request_id=request_id) | EncodedHeld(request_id=request_id):
            # The change that it reports may have been made.
            return wire.Unknowable(request_id, f"the answer cannot be sent: {reason}")
        case wire.Failed(request_id=request_id, code=code):
            return wire.Failed(request_id, code)
        case (
            wire.Listing(request_id=request_id)
            | wire.Counted(request_id=request_id)
            | wire.Inspection(request_id=request_id)
        ):
            return wire.Failed(request_id, wire.FailureCode.INVALID, f"the answer cannot be sent: {reason}")
        case wire.Redirect(request_id=request_id) | wire.Overloaded(request_id=request_id):
            return wire.Overloaded(request_id, "the answer cannot be sent")
        case _:
            return None
