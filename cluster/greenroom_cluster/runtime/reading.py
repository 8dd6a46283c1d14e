"""Reading the frames of one TCP connection, under trio.

It uses a stdlib socket rather than a trio stream, so that a reader that may find more bytes takes them
without a trip through the scheduler. Only one task may read.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import msgspec
import trio

from greenroom import wire
from greenroom.errors import RemoteProtocolError
from greenroom.framing import FRAME_BYTES_MAX, HEADER_BYTES, FrameBuffer, messages_decoder
from greenroom.tls.channel import RECORD_BYTES_MAX
from greenroom.tls.sockets import Stream
from greenroom_cluster.runtime.budget import BufferBudget
from greenroom_cluster.runtime.sockets import local_name, remote_name

READ_BYTES = 256 * 1024
FIRST_FRAME_BYTES_MAX = 4096

# After this much a reader that always finds bytes yields to the scheduler. Each receive counts as at least
# RECEIVE_COST_BYTES, so that a trickle of tiny frames cannot occupy the loop either.
_YIELD_BYTES = 256 * 1024
_RECEIVE_COST_BYTES = 16 * 1024

# Shared by all connections: what a read brings is taken out of it in the same step. The kernel would map and
# unmap a fresh buffer of this size for each read, which costs more than the read itself. With TLS a read may
# complete a record more than it brings.
_scratch = memoryview(bytearray(READ_BYTES + RECORD_BYTES_MAX))

_TLS_HANDSHAKE = 0x16

Message = TypeVar("Message")


class FrameDecoder(Protocol):
    """Decodes the payload of a frame; raises msgspec.MsgspecError if it is not allowed here."""

    def decode(self, payload: bytes, /) -> list[Any]:
        """Return its messages."""


class ConnectionEndedError(Exception):
    """The connection is over: closed by either side, reset, or aborted at a limit. The text says which."""


class FrameReader(ABC):
    """A connected socket whose frames are read, and decoded by the decoder set by `speak`.

    `on_end` is called when it ends. The memory of incomplete frames is charged to `source`, if there is a
    budget.
    """

    __slots__ = (
        "_budget",
        "_decode",
        "_emptied",
        "_ended",
        "_frame_bytes_max",
        "_frames",
        "_leftover",
        "_read_bytes",
        "_shared",
        "_socket",
        "_unfinished",
        "on_end",
        "remote",
        "source",
    )

    def __init__(self, sock: Stream) -> None:
        self._socket = sock
        self._decode: Callable[[bytes], list[Any]] = messages_decoder(wire.Goodbye).decode
        self._frame_bytes_max = FRAME_BYTES_MAX
        self._frames = FrameBuffer(FRAME_BYTES_MAX)
        self._leftover = b""
        self._read_bytes = FIRST_FRAME_BYTES_MAX
        self._budget = _YIELD_BYTES
        self._emptied = False
        self._ended: str | None = None
        self._shared: BufferBudget | None = None
        self._unfinished = False
        self.on_end: Callable[[], None] | None = None
        self.remote = remote_name(sock)
        self.source = self.remote

    @property
    def ended(self) -> bool:
        """Whether the connection is over: nothing can be sent or received."""
        return self._ended is not None

    def came_in_at(self) -> str:
        """Return our end of it, as `host:port`. Raises ConnectionEndedError."""
        try:
            return local_name(self._socket)
        except (OSError, ValueError):
            raise ConnectionEndedError("it has ended") from None

    def speak(
        self,
        decoder: FrameDecoder,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        read_bytes: int = READ_BYTES,
    ) -> None:
        """Decode the following frames by `decoder`, and hold both sides to `frame_bytes_max`.

        At most `read_bytes` are read at once. Call this right after the first frame, or before anything was
        received.
        """
        self._read_bytes = read_bytes
        self._decode = decoder.decode
        self._frame_bytes_max = frame_bytes_max
        self._frames = FrameBuffer(frame_bytes_max)

    async def receive_first(self, decoder: "msgspec.msgpack.Decoder[Message]") -> Message:
        """Return the first message, a greeting, which must be small; what follows it waits for `receive`.

        A side that proves itself has two of them. Raises ConnectionEndedError, and RemoteProtocolError if it
        is too long or `decoder` refuses it.
        """
        buffer, self._leftover = bytearray(self._leftover), b""
        begun = len(buffer)
        while True:
            if not begun:
                buffer += await self._read()
            begun = 0
            if len(buffer) < HEADER_BYTES:
                continue
            if buffer[0] == _TLS_HANDSHAKE:
                raise RemoteProtocolError(
                    "the other side speaks TLS, and this one does not: give it --tls-cert, --tls-key and "
                    "--tls-ca, or connect without TLS"
                )
            length = int.from_bytes(buffer[:HEADER_BYTES], "big")
            if length > FIRST_FRAME_BYTES_MAX:
                raise RemoteProtocolError(
                    f"a first frame of {length} bytes was announced, over the limit of "
                    f"{FIRST_FRAME_BYTES_MAX}; the other side may not speak the greenroom protocol"
                )
            end = HEADER_BYTES + length
            if len(buffer) >= end:
                self._leftover = bytes(buffer[end:])
                return _decoded(decoder.decode, bytes(buffer[HEADER_BYTES:end]))

    async def receive(self) -> list[Any]:
        """Return every message that one read completed, at least one.

        Raises ConnectionEndedError, and RemoteProtocolError if the bytes are not what the protocol allows:
        the connection must then be ended.
        """
        while True:
            data: bytes | memoryview
            if self._leftover:
                data, self._leftover = self._leftover, b""
            else:
                data = await self._read()
            if messages := self._messages_in(data):
                return messages

    def receive_nowait(self) -> list[Any]:
        """Return every message that one read completes now, perhaps none. Raises as `receive` does."""
        data: bytes | memoryview | None
        if self._leftover:
            data, self._leftover = self._leftover, b""
        else:
            data = self._take()
        return [] if data is None else self._messages_in(data)

    def _messages_in(self, data: bytes | memoryview) -> list[Any]:
        """Return every message that this completes."""
        frames = self._frames
        payloads = frames.feed(data)
        if self._shared is not None and (self._unfinished or frames.incomplete_bytes):
            self._note_incomplete(self._shared, begun=bool(payloads) or not self._unfinished)
        if len(payloads) == 1:
            return _decoded(self._decode, payloads[0])
        return [message for payload in payloads for message in _decoded(self._decode, payload)]

    def _note_incomplete(self, budget: BufferBudget, *, begun: bool) -> None:
        self._unfinished = self._frames.incomplete_bytes > 0
        if not self._unfinished:
            budget.end_frame(self)
        elif begun:
            budget.begin_frame(self)
        self._note_held()

    def go_on_with(self, sock: Stream) -> None:
        """Use this, which is the same socket in another form, from now on. Nothing was received yet."""
        self._socket = sock

    def fileno(self) -> int:
        """Return the descriptor of the socket; the connection must not have ended."""
        return self._socket.fileno()

    def _take(self) -> memoryview | None:
        """Return what has arrived, None if nothing has; the next read of any connection overwrites it."""
        if self._ended is None:
            try:
                count = self._socket.recv_into(_scratch, self._read_bytes)
            except BlockingIOError:
                return None
            except OSError as error:
                self._end(f"receiving failed: {error.strerror or error}")
            else:
                if count:
                    return _scratch[:count]
                self._end("the other side closed the connection")
        raise ConnectionEndedError(self._ended)

    async def _read(self) -> memoryview:
        """Return what has arrived, in a buffer that the next read of any connection overwrites."""
        while True:
            if self._ended is not None:
                raise ConnectionEndedError(self._ended)
            if self._emptied:
                self._emptied = False
                await self._wait_readable()
                continue
            if self._budget <= 0:
                self._budget = _YIELD_BYTES
                await trio.lowlevel.checkpoint()
                continue
            data = self._take()
            if data is None:
                self._emptied = True
                continue
            # Asking again only to learn that there is nothing more costs as much as a small read.
            self._emptied = len(data) < self._read_bytes
            self._budget -= max(len(data), _RECEIVE_COST_BYTES)
            return data

    async def _wait_readable(self) -> None:
        self._budget = _YIELD_BYTES
        # Ended on this side while waiting; the caller finds the reason in `_ended`.
        with suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_readable(self._socket.fileno())

    # --- for the half that sends -------------------------------------------------------------------------

    @property
    @abstractmethod
    def crowded(self) -> bool:
        """Whether much is queued: the other side reads more slowly than it asks."""

    @abstractmethod
    def abort(self, reason: str = "aborted on this side") -> None:
        """End at once, dropping what is queued on either side (linger 0): the other side sees a reset."""

    @abstractmethod
    def _note_held(self) -> None:
        """Charge the budget with what is held now."""

    def _end(self, reason: str) -> None:
        self._ended = reason
        if self._shared is not None:
            self._frames = FrameBuffer(self._frame_bytes_max)
            self._shared.drop(self)
            self._shared = None
        if self.on_end is not None:
            self.on_end()
        trio.lowlevel.notify_closing(self._socket.fileno())
        self._socket.close()


def _decoded(decode: Callable[[bytes], Message], payload: bytes) -> Message:
    try:
        return decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # The text of a UnicodeDecodeError would show what was sent; its type says enough. `from None` for the
        # same reason: the error itself holds the bytes.
        detail = str(error) if isinstance(error, msgspec.MsgspecError) else type(error).__name__
        raise RemoteProtocolError(f"a frame is not a message that may come here: {detail[:200]}") from None
