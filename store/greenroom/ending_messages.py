"""The messages of endings: how a client learns that sessions have ended which it watches.

They are used if both have the feature `endings` (`greenroom.wire.FEATURE_ENDINGS`). A watch is a registration
of a connection at the session's primary, which says `SessionEnded` on it once the end is committed. It lives
as long as the connection and the primary do. Whoever registers is told at that moment whether the session is
there, so nothing is missed by one that registers again: at another primary, or on another connection.

A watch asks for nothing more, and no lease covers it. So once a second the client says a `WatchBeacon` on
each connection on which it watches anything: silence, a newer map, or a primary that may be none any more
make it look for the primary anew.
"""

from typing import TypeAlias

from greenroom import wire
from greenroom.endings import UNKNOWN, Ended, EndReason
from greenroom.near_messages import Digests

REASONS: tuple[EndReason, ...] = (
    "unknown",
    "logout",
    "logout_everywhere",
    "rotation",
    "expiry",
    "eviction",
)
"""By their numbers on the wire; a later release may have more."""


class WatchSession(wire.Frame, frozen=True, tag=30):
    """Tell this connection when the session has ended. Answered by `Watching` or `Missing`."""

    request_id: int
    point: int
    digest: wire.Digest


class Unwatch(wire.Frame, frozen=True, tag=31):
    """The sender watches these no longer."""

    digests: Digests


class WatchBeacon(wire.Frame, frozen=True, tag=32):
    """Asks whether what this connection watches is still watched here. `WatchEcho` answers."""

    number: int


class Watching(wire.Frame, frozen=True, tag=54):
    """There is such a session. Its end will be told, unless `is_full`: then this is to be asked again."""

    request_id: int
    is_full: bool


class SessionEnded(wire.Frame, frozen=True, tag=55):
    """A session that this connection watched is over. `reason` is a place in `REASONS`."""

    digest: wire.Digest
    reason: int


class Unwatched(wire.Frame, frozen=True, tag=56):
    """Nothing in these shards is watched for this connection any longer."""

    shards: wire.Shards


class WatchEcho(wire.Frame, frozen=True, tag=57):
    """Answers a beacon. `is_sure`: this is the primary, now, of all that the connection watches here."""

    number: int
    map_version: int
    is_sure: bool


def told(reason: EndReason, digest: bytes) -> SessionEnded:
    """Return what a server says of the end of a session."""
    return SessionEnded(digest, REASONS.index(reason))


def heard(message: SessionEnded) -> Ended:
    """Return what a client makes of that."""
    return Ended(REASONS[message.reason]) if 0 < message.reason < len(REASONS) else UNKNOWN


WatchRequest: TypeAlias = WatchSession | Unwatch | WatchBeacon
WatchReply: TypeAlias = Watching | SessionEnded | Unwatched | WatchEcho
