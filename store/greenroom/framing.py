"""Frames: a 4-byte big-endian length, then that many bytes of msgpack.

A length over the limit is refused when its four bytes are read, before anything is allocated for it.
"""

from collections.abc import Iterable
from struct import Struct

import msgspec

from greenroom.errors import LocalProtocolError, RemoteProtocolError
from greenroom.wire import Frame

HEADER_BYTES = 4
FRAME_BYTES_MAX = (1 << 20) + (1 << 16)

_encode = msgspec.msgpack.Encoder().encode
_header = Struct(">I")
_header_of = _header.pack
_length_at = _header.unpack_from


def encode_frames(messages: Iterable[Frame], frame_bytes_max: int = FRAME_BYTES_MAX) -> bytearray:
    """Return the frames of `messages`, one after another.

    Raises LocalProtocolError if one is longer than `frame_bytes_max`.
    """
    out = bytearray()
    for message in messages:
        append_frame(out, message, frame_bytes_max)
    return out


def append_frame(out: bytearray, message: Frame, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
    """Append the frame of `message` to `out`; on error `out` is as before.

    Raises LocalProtocolError if it is longer than `frame_bytes_max`.
    """
    # Encoding in place (`encode_into`) would save a copy, and takes twice as long for small messages.
    payload = _encode(message)
    length = len(payload)
    if length > frame_bytes_max:
        raise LocalProtocolError(
            f"a {type(message).__name__} of {length} bytes is over the frame limit of {frame_bytes_max} bytes"
        )
    out += _header_of(length)
    out += payload


class FrameBuffer:
    """Cuts received bytes into frames.

    `feed` returns the payloads that are complete; what is left waits for more. At most one incomplete frame
    and what was fed with it is held, so memory is bounded by `frame_bytes_max` plus one read.
    """

    __slots__ = ("_buffer", "_frame_bytes_max")

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._frame_bytes_max = frame_bytes_max

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take received bytes and return the payload of every frame that they complete.

        Raises RemoteProtocolError if a length is over the limit; the connection must then be closed.
        """
        buffer = self._buffer
        if buffer:
            buffer += data
            source: bytes | bytearray = buffer
        else:
            source = data if isinstance(data, bytes) else bytes(data)
        payloads = []
        position = 0
        last = len(source) - HEADER_BYTES
        limit = self._frame_bytes_max
        while position <= last:
            (length,) = _length_at(source, position)
            if length > limit:
                raise RemoteProtocolError(
                    f"a frame of {length} bytes was announced, over the limit of {limit}; "
                    "is the other side speaking the greenroom protocol?"
                )
            end = position + length
            if end > last:
                break
            payloads.append(bytes(source[position + HEADER_BYTES : end + HEADER_BYTES]))
            position = end + HEADER_BYTES
        if source is buffer:
            del buffer[:position]
        elif position < len(source):
            buffer += source[position:]
        return payloads

    @property
    def pending_bytes(self) -> int:
        """Bytes of the frame that is not complete yet."""
        return len(self._buffer)
