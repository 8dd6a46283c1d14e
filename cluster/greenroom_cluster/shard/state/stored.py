"""Sessions as replicas keep them: each encoded as it is sent, in one piece of exactly its size.

A Struct with its ints and bytes would take a third more memory, and would be encoded again for every read.
"""

import msgspec

from greenroom import wire

_encode_into = msgspec.msgpack.Encoder().encode_into
_buffer = bytearray(1024)


class _Expiry(wire.Frame, frozen=True):
    """The beginning of a `wire.SessionState`: as much as a read needs."""

    version: int
    expires_us: int


class _Creation(wire.Frame, frozen=True):
    """The beginning of a `wire.SessionState`, up to the time that orders a user's sessions."""

    version: int
    expires_us: int
    created_us: int


def encoded(state: wire.SessionState | tuple[object, ...]) -> bytes:
    """Encode a session for storing: a state, or a tuple of its fields, which takes less time to make.

    Not thread-safe, like all of the core.
    """
    # The result of `encode` keeps its whole buffer in memory, and this is kept for weeks.
    _encode_into(state, _buffer)
    return bytes(_buffer)


decoded = msgspec.msgpack.Decoder(wire.SessionState).decode
heading_of = msgspec.msgpack.Decoder(wire.SessionHeading).decode
_decoded_expiry = msgspec.msgpack.Decoder(_Expiry).decode
_decoded_creation = msgspec.msgpack.Decoder(_Creation).decode


def expiry_of(stored: bytes) -> int:
    """Return when a stored session expires, in microseconds of shard time."""
    return _decoded_expiry(stored).expires_us


def created_of(stored: bytes) -> int:
    """Return when a stored session was created, in microseconds."""
    return _decoded_creation(stored).created_us


def reply_with(request_id: int, stored: bytes) -> wire.EncodedSession:
    """Return the reply that shows a stored session."""
    return wire.EncodedSession(request_id, msgspec.Raw(stored))


def as_received(reply: wire.EncodedReply) -> wire.Reply:
    """Return a reply as its client decodes it; for simulations, which are both sides."""
    if isinstance(reply, wire.EncodedSession):
        return wire.Session(reply.request_id, decoded(reply.state))
    return reply
