"""Sessions as replicas keep them: each in one piece of exactly its size, encoded as it goes out.

A Struct with its ints and its bytes takes a third more memory, and would be encoded anew for every read.
"""

import msgspec

from greenroom import wire

_encode_into = msgspec.msgpack.Encoder().encode_into
_buffer = bytearray(1024)


class _Expiry(wire.Frame, frozen=True):
    """The beginning of a `wire.SessionState`, which is all that a read looks at."""

    version: int
    expires_us: int


class _Creation(wire.Frame, frozen=True):
    """The beginning of a `wire.SessionState`, up to what orders a user's sessions."""

    version: int
    expires_us: int
    created_us: int


def encoded(state: wire.SessionState | tuple[object, ...]) -> bytes:
    """Return what is stored of a session: a state, or a tuple of its fields, which takes less time to make.

    Like all of the core, for one thread.
    """
    # What `encode` returns holds on to the rest of its buffer; what is kept for weeks must not.
    _encode_into(state, _buffer)
    return bytes(_buffer)


decoded = msgspec.msgpack.Decoder(wire.SessionState).decode
heading_of = msgspec.msgpack.Decoder(wire.SessionHeading).decode
_decoded_expiry = msgspec.msgpack.Decoder(_Expiry).decode
_decoded_creation = msgspec.msgpack.Decoder(_Creation).decode


def expiry_of(stored: bytes) -> int:
    """Return until when a stored session lives, microseconds of shard time."""
    return _decoded_expiry(stored).expires_us


def created_of(stored: bytes) -> int:
    """Return when a stored session was created, microseconds."""
    return _decoded_creation(stored).created_us


def reply_with(request_id: int, stored: bytes) -> wire.EncodedSession:
    """Return the reply that shows a stored session."""
    return wire.EncodedSession(request_id, msgspec.Raw(stored))


def as_received(reply: wire.EncodedReply) -> wire.Reply:
    """Return a reply as its client gets it, for who stands on both sides: simulations."""
    if isinstance(reply, wire.EncodedSession):
        return wire.Session(reply.request_id, decoded(reply.state))
    return reply
