"""One TCP connection that carries frames, under trio.

A stdlib socket rather than a trio stream, for two reasons. A reader that may find more bytes takes them
without a trip through the scheduler, and `send` neither blocks nor awaits: it hands the kernel what it takes
at once and queues the rest, so that whoever acts on a message answers it in the same step. What is queued is
bounded: beyond some bytes messages wait unencoded, as references to what is stored anyway, and beyond some
messages a peer that does not read loses its connection (linger 0). Nothing else waits for it.

One task reads. The task that drains the queue exists only while something is queued.
"""

import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol, TypeVar

import msgspec
import trio

from greenroom import wire
from greenroom.errors import LocalProtocolError, RemoteProtocolError
from greenroom.framing import (
    FRAME_BYTES_MAX,
    FULL_FRAME_BYTES,
    HEADER_BYTES,
    MESSAGES_PER_FRAME,
    FrameBuffer,
    append_messages,
    encode_greeting,
    messages_decoder,
)
from greenroom.negotiation import Agreement
from greenroom_cluster.runtime.budget import BufferBudget
from greenroom_cluster.runtime.sockets import configure, remote_name, reset_on_close
from greenroom_cluster.runtime.unsendable import substitute

READ_BYTES = 256 * 1024
OUTBOUND_BYTES_MAX = 8 << 20
USER_TIMEOUT_SECONDS = 5.0
FIRST_FRAME_BYTES_MAX = 4096
# How long a silent connection waits before it asks whether the other side is there: ten thousand idle clients
# should cost few packets, a link should notice soon.
SERVED_KEEPALIVE_SECONDS = 15
LINK_KEEPALIVE_SECONDS = 2

# A reader that always finds bytes goes back to the scheduler after this much. A receive counts at least
# RECEIVE_COST_BYTES, so a trickle of tiny frames cannot keep the loop either.
_YIELD_BYTES = 256 * 1024
_RECEIVE_COST_BYTES = 16 * 1024
# Queued chunks cost memory beside their bytes, which counts against the bound too.
_CHUNK_COST_BYTES = 256
_CHUNKS_PER_WRITE = 64
_CHUNK_BYTES = 256 * 1024
WAITING_MESSAGES_MAX = 4096
_DISCARD_BYTES_MAX = 1 << 20
_NOT_SENDABLE = (LocalProtocolError, msgspec.MsgspecError, TypeError, ValueError, OverflowError)

# One for all connections: what a read brings is taken out of it in the same step. A fresh buffer of this size
# for each read would be mapped and unmapped by the kernel every time, which costs more than the read itself.
_scratch = memoryview(bytearray(READ_BYTES))

First = TypeVar("First")


class FrameDecoder(Protocol):
    """Decodes the payload of a frame; raises msgspec.MsgspecError if it may not come here."""

    def decode(self, payload: bytes, /) -> list[Any]:
        """Return its messages."""


class ConnectionEndedError(Exception):
    """The connection is over: closed by either side, reset, or aborted at a limit. Says which."""


class FramedConnection:
    """A connected socket that sends and receives messages.

    `nursery` runs the task that drains the outbound queue; it must live as long as the connection is used.
    Messages are decoded with what `speak` set. `agreement` is what hellos have settled. Only one task may
    receive.
    """

    __slots__ = (
        "_budget",
        "_charges_queued",
        "_crowded_bytes",
        "_decode",
        "_draining",
        "_emptied",
        "_ended",
        "_frame_bytes_max",
        "_frames",
        "_idle",
        "_leftover",
        "_nursery",
        "_outbound",
        "_outbound_bytes",
        "_outbound_bytes_max",
        "_read_bytes",
        "_room",
        "_shared",
        "_socket",
        "_together",
        "_unfinished",
        "_urgent",
        "_waiting",
        "agreement",
        "on_end",
        "remote",
        "source",
    )

    def __init__(
        self,
        sock: socket.socket,
        nursery: trio.Nursery,
        *,
        outbound_bytes_max: int = OUTBOUND_BYTES_MAX,
        user_timeout_seconds: float = USER_TIMEOUT_SECONDS,
        keepalive_seconds: int = SERVED_KEEPALIVE_SECONDS,
    ) -> None:
        configure(sock, user_timeout_seconds, keepalive_seconds)
        self._socket = sock
        self._nursery = nursery
        self._decode: Any = messages_decoder(wire.Goodbye).decode
        self._frame_bytes_max = FRAME_BYTES_MAX
        self._frames = FrameBuffer(FRAME_BYTES_MAX)
        self._leftover = b""
        self._read_bytes = FIRST_FRAME_BYTES_MAX
        self._budget = _YIELD_BYTES
        self._emptied = False
        self._outbound: deque[memoryview] = deque()
        self._urgent: deque[memoryview] = deque()
        self._waiting: deque[wire.Frame | bytes | bytearray] = deque()
        # How many messages are likely to fit into one frame.
        self._together = MESSAGES_PER_FRAME
        self._outbound_bytes = 0
        self._outbound_bytes_max = outbound_bytes_max
        self._crowded_bytes = outbound_bytes_max // 4
        self._draining = False
        self._idle: trio.Event | None = None
        self._room: trio.Event | None = None
        self._ended: str | None = None
        self.agreement = Agreement(wire.PROTOCOL_VERSION)
        self.on_end: Callable[[], None] | None = None
        self._shared: BufferBudget | None = None
        self._charges_queued = False
        self._unfinished = False
        self.remote = remote_name(sock)
        self.source = self.remote

    def __repr__(self) -> str:
        return f"<FramedConnection {self.remote}{' ended' if self._ended is not None else ''}>"

    @property
    def ended(self) -> bool:
        """Whether nothing can be sent or received any more."""
        return self._ended is not None

    @property
    def outbound_bytes(self) -> int:
        """Bytes queued because the kernel did not take them yet, with what queueing them costs."""
        return self._outbound_bytes

    @property
    def queued(self) -> bool:
        """Whether what is sent now waits behind something in this process."""
        return self._outbound_bytes > 0

    @property
    def crowded(self) -> bool:
        """Whether much is queued: the other side reads more slowly than it asks."""
        return bool(self._waiting) or self._outbound_bytes >= self._crowded_bytes

    def speak(
        self,
        decoder: FrameDecoder,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        read_bytes: int = READ_BYTES,
    ) -> None:
        """Decode what comes from here on with `decoder`, and hold both sides to `frame_bytes_max`.

        At most `read_bytes` are taken at once. Only right after the first frame, or before anything was
        received.
        """
        self._read_bytes = read_bytes
        self._decode = decoder.decode
        self._frame_bytes_max = frame_bytes_max
        self._frames = FrameBuffer(frame_bytes_max)

    def account(self, budget: BufferBudget, source: str, *, queued: bool) -> None:
        """Charge `source` with what is held here from now on, with what is `queued` only if so."""
        self._shared = budget
        self._charges_queued = queued
        self.source = source

    # --- receiving ---------------------------------------------------------------------------------------

    async def receive_first(self, decoder: "msgspec.msgpack.Decoder[First]") -> First:
        """Return the first message, a greeting, which must be small; what came with it waits for `receive`.

        Raises ConnectionEndedError, and RemoteProtocolError if it is too long or not what `decoder` takes.
        """
        buffer = bytearray()
        while True:
            buffer += await self._read()
            if len(buffer) < HEADER_BYTES:
                continue
            length = int.from_bytes(buffer[:HEADER_BYTES], "big")
            if length > FIRST_FRAME_BYTES_MAX:
                raise RemoteProtocolError(
                    f"a first frame of {length} bytes was announced, over the limit of "
                    f"{FIRST_FRAME_BYTES_MAX}; is the other side speaking the greenroom protocol?"
                )
            end = HEADER_BYTES + length
            if len(buffer) >= end:
                self._leftover = bytes(buffer[end:])
                return _decoded(decoder.decode, bytes(buffer[HEADER_BYTES:end]))  # type: ignore[no-any-return]

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
            payloads = self._cut(data)
            if payloads:
                return self._messages(payloads)

    def receive_nowait(self) -> list[Any]:
        """Return every message that one read completes now, perhaps none. Raises as `receive` does."""
        data: bytes | memoryview | None
        if self._leftover:
            data, self._leftover = self._leftover, b""
        else:
            data = self._take()
        if data is None:
            return []
        payloads = self._cut(data)
        return self._messages(payloads) if payloads else []

    def _cut(self, data: bytes | memoryview) -> list[bytes]:
        frames = self._frames
        payloads = frames.feed(data)
        if self._shared is not None and (self._unfinished or frames.incomplete_bytes):
            self._note_incomplete(self._shared, begun=bool(payloads) or not self._unfinished)
        return payloads

    def _note_incomplete(self, budget: BufferBudget, *, begun: bool) -> None:
        self._unfinished = self._frames.incomplete_bytes > 0
        if not self._unfinished:
            budget.end_frame(self)
        elif begun:
            budget.begin_frame(self)
        self._note_held()

    def _note_held(self) -> None:
        if self._shared is not None:
            queued_bytes = self._outbound_bytes if self._charges_queued else 0
            self._shared.hold(self, self._frames.incomplete_bytes + queued_bytes)

    def _messages(self, payloads: list[bytes]) -> list[Any]:
        if len(payloads) == 1:
            return _decoded(self._decode, payloads[0])  # type: ignore[no-any-return]
        return [message for payload in payloads for message in _decoded(self._decode, payload)]

    def fileno(self) -> int:
        """Return the descriptor of the socket; the connection must not have ended."""
        return self._socket.fileno()

    def _take(self) -> memoryview | None:
        """Return what has come, None if nothing has; the next read of any connection overwrites it."""
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
        """Return what has come, in a buffer that the next read of any connection overwrites."""
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
            # Asking again only to hear that there is nothing more costs as much as a small read.
            self._emptied = len(data) < self._read_bytes
            self._budget -= max(len(data), _RECEIVE_COST_BYTES)
            return data

    async def _wait_readable(self) -> None:
        self._budget = _YIELD_BYTES
        # Ended here while waiting: the caller finds the reason in `_ended`.
        with suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_readable(self._socket.fileno())

    # --- sending -----------------------------------------------------------------------------------------

    def greet(self, greeting: wire.Hello | wire.Goodbye) -> None:
        """Send the first message, before anything else, or the answer to the other side's."""
        self.send_encoded(encode_greeting(greeting))

    def send(self, messages: Sequence[wire.Frame], *, urgent: bool = False) -> None:
        """Send `messages`, without ever blocking; dropped if the connection has ended.

        `urgent` ones overtake what is queued. If more waits than is allowed, or a message is longer than a
        frame may be, the connection is aborted: the reader learns it as ConnectionEndedError.
        """
        if self._ended is not None:
            return
        if urgent:
            chunk = bytearray()
            if all(self._append(chunk, [message]) for message in messages):
                self._queue(chunk, urgent=True)
        elif self._waiting:
            self._wait(messages)
        else:
            self._encode(messages)

    def send_encoded(self, frames: bytes | bytearray) -> None:
        """Send whole frames that are encoded already, as `send` does; they must not be changed afterwards."""
        if self._ended is not None:
            return
        if self._waiting:
            self._wait((frames,))
        else:
            self._queue(frames)

    async def room(self) -> None:
        """Wait until the connection is not `crowded`, or has ended."""
        while self.crowded and self._ended is None:
            if self._room is None or self._room.is_set():
                self._room = trio.Event()
            await self._room.wait()

    def _wait(self, messages: Sequence[wire.Frame | bytes | bytearray]) -> None:
        waiting = self._waiting
        waiting.extend(messages)
        if len(waiting) > WAITING_MESSAGES_MAX:
            self.abort(
                f"the other side does not read: {len(waiting)} messages wait for it, over the limit of "
                f"{WAITING_MESSAGES_MAX}"
            )

    def _append(self, chunk: bytearray, messages: Sequence[wire.Frame]) -> bool:
        """Encode messages; False if that has to be done one by one, or one cannot be sent: that ends it."""
        try:
            return append_messages(chunk, messages, self._frame_bytes_max)
        except _NOT_SENDABLE as error:
            if len(messages) > 1:
                return False
            instead = substitute(messages[0], error, self.remote)
            if instead is not None:
                return append_messages(chunk, [instead], self._frame_bytes_max)
            self.abort(f"a {type(messages[0]).__name__} could not be sent")
            return False

    def _encode(self, messages: Sequence[wire.Frame]) -> None:
        """Encode and queue; once much is queued, let the rest wait as it is."""
        chunk = bytearray()
        first, count = 0, len(messages)
        while first < count:
            together = messages[first : first + self._together]
            before = len(chunk)
            if not self._append(chunk, together):
                if self._ended is not None:
                    return
                self._together = 1
                continue
            first += len(together)
            if self._together < MESSAGES_PER_FRAME and len(chunk) - before <= FULL_FRAME_BYTES // 2:
                self._together *= 2
            if len(chunk) >= _CHUNK_BYTES:
                self._queue(chunk)
                chunk = bytearray()
                if self._ended is not None:
                    return
                if self._outbound_bytes >= self._crowded_bytes:
                    self._wait(messages[first:])
                    return
        if chunk:
            self._queue(chunk)

    def _queue(self, frames: bytes | bytearray, *, urgent: bool = False) -> None:
        """Hand frames to the kernel, or queue what it does not take."""
        rest = memoryview(frames)
        if not self._outbound and not self._urgent:
            try:
                sent = self._socket.send(frames)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._end(f"sending failed: {error.strerror or error}")
                return
            if sent == len(frames):
                return
            rest = rest[sent:]
            # Partly sent, so it stays first whatever comes.
            self._outbound.append(rest)
        else:
            (self._urgent if urgent else self._outbound).append(rest)
        self._outbound_bytes += len(rest) + _CHUNK_COST_BYTES
        if self._outbound_bytes > self._outbound_bytes_max:
            self.abort(
                f"the other side does not read: {self._outbound_bytes} bytes are queued for it, over the "
                f"limit of {self._outbound_bytes_max}"
            )
            return
        self._note_held()
        if not self._draining and self._ended is None:
            self._draining = True
            self._nursery.start_soon(self._drain)

    async def _drain(self) -> None:
        try:
            while self._outbound and self._ended is None:
                try:
                    await trio.lowlevel.wait_writable(self._socket.fileno())
                except trio.ClosedResourceError:
                    return
                self._write()
                self._refill()
                self._note_held()
        finally:
            self._draining = False
            if self._idle is not None:
                self._idle.set()

    def _refill(self) -> None:
        """Encode what waits, as far as there is room now."""
        waiting = self._waiting
        while waiting and self._ended is None and self._outbound_bytes < self._crowded_bytes:
            chunk = bytearray()
            while waiting and len(chunk) < _CHUNK_BYTES:
                message = waiting.popleft()
                if not isinstance(message, wire.Frame):
                    chunk += message
                elif not self._append(chunk, [message]):
                    return
            self._queue(chunk)
        if self._room is not None and not self.crowded:
            self._room.set()

    def _write(self) -> None:
        """Hand the kernel what it takes of the queue; the chunk at its head may be partly sent."""
        outbound = self._outbound
        try:
            if self._urgent:
                # Only to the next frame boundary: then what is urgent goes.
                sent = self._socket.send(outbound[0])
            else:
                sent = self._socket.sendmsg(list(islice(outbound, _CHUNKS_PER_WRITE)))
        except BlockingIOError:
            return
        except OSError as error:
            self._end(f"sending failed: {error.strerror or error}")
            return
        while sent:
            head = outbound[0]
            if sent < len(head):
                outbound[0] = head[sent:]
                self._outbound_bytes -= sent
                break
            sent -= len(head)
            self._outbound_bytes -= len(head) + _CHUNK_COST_BYTES
            outbound.popleft()
            if self._urgent:
                # One at a time, to keep their order.
                outbound.appendleft(self._urgent.popleft())

    # --- ending ------------------------------------------------------------------------------------------

    def abort(self, reason: str = "aborted on this side") -> None:
        """End at once, dropping what is queued on either side (linger 0): the other side sees a reset."""
        if self._ended is None:
            reset_on_close(self._socket)
            self._end(reason)

    def close(self, reason: str = "closed on this side") -> None:
        """End; what the kernel took already is still delivered, what is queued here is dropped."""
        if self._ended is None:
            self._end(reason)

    async def finish(self, seconds: float = 1.0) -> None:
        """Deliver what is queued, for at most `seconds`, then close.

        What the other side still sends is read and dropped meanwhile: closing with unread bytes would make
        the kernel send a reset, and the last frame (a `Goodbye`) could be lost.
        """
        with trio.move_on_after(seconds):
            while self._draining and self._ended is None:
                self._idle = trio.Event()
                await self._idle.wait()
            self.end_sending()
            discarded = 0
            while self._ended is None and discarded < _DISCARD_BYTES_MAX:
                try:
                    discarded += len(await self._read())
                except ConnectionEndedError:
                    break
        self.close()

    def end_sending(self) -> None:
        """Tell the other side that nothing more comes; what is queued here is dropped, reading goes on."""
        if self._ended is not None:
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._end(f"the connection broke: {error.strerror or error}")

    def _end(self, reason: str) -> None:
        self._ended = reason
        self._outbound.clear()
        self._urgent.clear()
        self._waiting.clear()
        self._outbound_bytes = 0
        if self._shared is not None:
            self._frames = FrameBuffer(self._frame_bytes_max)
            self._shared.drop(self)
            self._shared = None
        if self._room is not None:
            self._room.set()
        if self.on_end is not None:
            self.on_end()
        trio.lowlevel.notify_closing(self._socket.fileno())
        self._socket.close()


def _decoded(decode: Any, payload: bytes) -> Any:
    try:
        return decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # The text of a UnicodeDecodeError would show what was sent; its type says enough. `from None` for the
        # same reason: the error itself holds the bytes.
        detail = str(error) if isinstance(error, msgspec.MsgspecError) else type(error).__name__
        raise RemoteProtocolError(f"a frame is not a message that may come here: {detail[:200]}") from None
