"""Frames: a 4-byte big-endian length, then that many bytes of msgpack.

After the handshake a frame holds an array of at most MESSAGES_PER_FRAME_MAX messages: messages that are sent
together are encoded and decoded by one call. The greetings, a `Hello` and the `Hello` or `Goodbye` that
answers it, are alone in their frames and in no array, so that sides of different versions can still
understand them.

A length over the limit is refused when its four bytes are read, before anything is allocated, and an overlong
array before its messages are decoded.
"""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Annotated, Any

import msgspec

from greenroom import wire
from greenroom.errors import LocalProtocolError, RemoteProtocolError

HEADER_BYTES = 4
FRAME_BYTES_MAX = (1 << 20) + (1 << 16)
MESSAGES_PER_FRAME_MAX = 256
MESSAGES_PER_FRAME = 16
"""How many are sent in one frame: more would save little."""
FULL_FRAME_BYTES = 64 * 1024
"""A frame with several messages is not longer: large ones gain nothing and would wait for each other."""

ARRAY_BYTES_MAX = 3
"""What the array of a frame adds to its messages."""

encode = msgspec.msgpack.Encoder().encode
_header = Struct(">I")
_header_of = _header.pack
_length_at = _header.unpack_from


def messages_decoder(kind: Any) -> "msgspec.msgpack.Decoder[list[Any]]":
    """Return a decoder of frames with messages of this type (or union of types)."""
    bounds = msgspec.Meta(min_length=1, max_length=MESSAGES_PER_FRAME_MAX)
    return msgspec.msgpack.Decoder(Annotated[list[kind], bounds])


def encode_frames(messages: Iterable[wire.Frame], frame_bytes_max: int = FRAME_BYTES_MAX) -> bytearray:
    """Return the frames of `messages`, in order; a leading `Hello` has a frame of its own.

    Raises LocalProtocolError if one message is longer than `frame_bytes_max` allows.
    """
    rest = list(messages)
    out = bytearray()
    if rest and isinstance(rest[0], wire.Hello):
        out += encode_greeting(rest.pop(0))
    for first in range(0, len(rest), MESSAGES_PER_FRAME):
        together = rest[first : first + MESSAGES_PER_FRAME]
        if not append_messages(out, together, frame_bytes_max):
            for message in together:
                append_messages(out, [message], frame_bytes_max)
    return out


def encode_greeting(greeting: wire.Frame) -> bytes:
    """Return the frame of a `Hello`, or of the `Goodbye` that answers one."""
    payload = encode(greeting)
    return _header_of(len(payload)) + payload


def append_messages(
    out: bytearray, messages: Sequence[wire.Frame], frame_bytes_max: int = FRAME_BYTES_MAX
) -> bool:
    """Append one frame with `messages` to `out`.

    If several are longer than FULL_FRAME_BYTES together, append nothing and return False: append them one by
    one. Raises LocalProtocolError if a single one is longer than `frame_bytes_max`.
    """
    # Encoding in place (`encode_into`) would save a copy, and takes twice as long for small messages.
    payload = encode(messages)
    length = len(payload)
    if length > FULL_FRAME_BYTES or length > frame_bytes_max:
        if len(messages) > 1:
            return False
        if length > frame_bytes_max:
            raise too_long(messages[0], length, frame_bytes_max)
    out += _header_of(length)
    out += payload
    return True


def encode_message(message: wire.Frame, frame_bytes_max: int = FRAME_BYTES_MAX) -> msgspec.Raw:
    """Return an encoded message for `join_frames`.

    Raises LocalProtocolError if it is longer than `frame_bytes_max` allows.
    """
    encoded = encode(message)
    if len(encoded) > frame_bytes_max - ARRAY_BYTES_MAX:
        raise too_long(message, len(encoded), frame_bytes_max)
    return msgspec.Raw(encoded)


def join_frames(messages: Sequence[wire.Frame | msgspec.Raw]) -> bytes:
    """Return frames with `messages` in order, none longer than FULL_FRAME_BYTES if it holds several.

    Encode a message that may be too long for a frame with `encode_message`, which refuses it.
    """
    payload = encode(messages)
    count = len(messages)
    if count > 1 and (len(payload) > FULL_FRAME_BYTES or count > MESSAGES_PER_FRAME_MAX):
        # In frames about half full: so few are too long because their messages are longer than others.
        parts = max(2, len(payload) * 2 // FULL_FRAME_BYTES)
        step = min(-(-count // parts), MESSAGES_PER_FRAME_MAX)
        return b"".join(join_frames(messages[first : first + step]) for first in range(0, count, step))
    return _header_of(len(payload)) + payload


def too_long(message: wire.Frame, length: int, frame_bytes_max: int) -> LocalProtocolError:
    """Return the error of a message that takes so many bytes alone."""
    kind = type(message).__name__
    return LocalProtocolError(
        f"a {kind} of {length} bytes is over the frame limit of {frame_bytes_max} bytes"
    )


class FrameBuffer:
    """Cuts received bytes into frames.

    `feed` returns the payloads that are complete; what is left waits for more. At most one incomplete frame
    and what was fed with it is held, so memory is bounded by `frame_bytes_max` plus one read.
    """

    __slots__ = ("_buffer", "_frame_bytes_max")

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._frame_bytes_max = frame_bytes_max

    @property
    def incomplete_bytes(self) -> int:
        """How much is held of a frame that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take received bytes and return the payload of every frame that they complete.

        Raises RemoteProtocolError if a length is over the limit; the connection must then be closed.
        """
        buffer = self._buffer
        size = len(data)
        if not buffer and size >= HEADER_BYTES:
            # Most often a read brings exactly one frame.
            (length,) = _length_at(data)
            if length == size - HEADER_BYTES and length <= self._frame_bytes_max:
                return [bytes(data[HEADER_BYTES:])]
        payloads: list[bytes] = []
        if buffer:
            buffer += data
            with memoryview(buffer) as view:
                position = self._cut(view, payloads)
            del buffer[:position]
        else:
            position = self._cut(data, payloads)
            if position < len(data):
                buffer += data[position:]
        return payloads

    def _cut(self, source: bytes | bytearray | memoryview, payloads: list[bytes]) -> int:
        """Add the payload of each whole frame; return where the incomplete one begins."""
        position = 0
        last = len(source) - HEADER_BYTES
        limit = self._frame_bytes_max
        while position <= last:
            (length,) = _length_at(source, position)
            if length > limit:
                raise RemoteProtocolError(
                    f"a frame of {length} bytes was announced, over the limit of {limit}; "
                    "the other side may not speak the greenroom protocol"
                )
            end = position + length
            if end > last:
                break
            payloads.append(bytes(source[position + HEADER_BYTES : end + HEADER_BYTES]))
            position = end + HEADER_BYTES
        return position
