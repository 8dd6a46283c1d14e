"""One TCP connection that carries frames, under trio.

It uses a stdlib socket rather than a trio stream, for two reasons. A reader that may find more bytes takes
them without a trip through the scheduler. And `send` neither blocks nor awaits: it hands the kernel what it
takes at once and queues the rest, so the handler of a message can reply in the same step. The queue is
bounded: beyond some bytes messages wait unencoded, as references to what is stored anyway, and beyond some
messages a peer that does not read loses its connection (linger 0). Nothing else waits for such a peer.

One task reads. The task that drains the queue exists only while something is queued.
"""

import socket
from collections import deque
from collections.abc import Sequence
from itertools import islice

import msgspec
import trio

from greenroom import wire
from greenroom.errors import LocalProtocolError
from greenroom.framing import (
    FULL_FRAME_BYTES,
    MESSAGES_PER_FRAME,
    append_messages,
    encode_greeting,
)
from greenroom.identities import Identity
from greenroom.negotiation import Agreement
from greenroom.silence import SERVED, Silence
from greenroom.tls.sockets import Stream
from greenroom.tls.standing import Proven
from greenroom_cluster.runtime.budget import BufferBudget
from greenroom_cluster.runtime.reading import ConnectionEndedError, FrameReader
from greenroom_cluster.runtime.sockets import configure, reset_on_close
from greenroom_cluster.runtime.unsendable import substitute
from greenroom_cluster.tokens.table import Bearer

OUTBOUND_BYTES_MAX = 8 << 20

# Memory that a queued chunk costs beside its bytes; it counts against the bound too.
_CHUNK_COST_BYTES = 256
_CHUNKS_PER_WRITE = 64
_CHUNK_BYTES = 256 * 1024
WAITING_MESSAGES_MAX = 4096
_DISCARD_BYTES_MAX = 1 << 20
_NOT_SENDABLE = (LocalProtocolError, msgspec.MsgspecError, TypeError, ValueError, OverflowError)


class FramedConnection(FrameReader):
    """A connected socket that sends and receives messages.

    `nursery` runs the task that drains the outbound queue; it must live as long as the connection is used.
    Messages are decoded by the decoder set by `speak`. `agreement` is the outcome of the hellos; `proven` is
    who is at the other end, with TLS. Only one task may receive.
    """

    __slots__ = (
        "_charges_queued",
        "_crowded_bytes",
        "_draining",
        "_idle",
        "_nursery",
        "_outbound",
        "_outbound_bytes",
        "_outbound_bytes_max",
        "_room",
        "_together",
        "_urgent",
        "_waiting",
        "agreement",
        "proven",
    )

    def __init__(
        self,
        sock: Stream,
        nursery: trio.Nursery,
        *,
        outbound_bytes_max: int = OUTBOUND_BYTES_MAX,
        silence: Silence = SERVED,
    ) -> None:
        configure(sock, silence)
        super().__init__(sock)
        self._nursery = nursery
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
        self.agreement = Agreement(wire.PROTOCOL_VERSION)
        self._charges_queued = False
        self.proven: Proven | Bearer | None = None

    def __repr__(self) -> str:
        return f"<FramedConnection {self.remote}{' ended' if self._ended is not None else ''}>"

    @property
    def holder(self) -> Identity | None:
        """Who has proven to be at the other end, by a certificate; None if nobody has."""
        return None if self.proven is None else self.proven.identity

    @property
    def outbound_bytes(self) -> int:
        """The bytes that the kernel has not taken yet, with the cost of queueing them."""
        return self._outbound_bytes

    @property
    def queued(self) -> bool:
        """Whether messages sent now would wait behind others in this process."""
        return self._outbound_bytes > 0

    @property
    def crowded(self) -> bool:
        """Whether much is queued: the other side reads more slowly than it asks."""
        return bool(self._waiting) or self._outbound_bytes >= self._crowded_bytes

    def account(self, budget: BufferBudget, source: str, *, queued: bool) -> None:
        """Charge `source` for what is held here from now on; for queued bytes only if `queued`."""
        self._shared = budget
        self._charges_queued = queued
        self.source = source

    # --- sending -----------------------------------------------------------------------------------------

    def greet(self, greeting: wire.Hello | wire.Goodbye) -> None:
        """Send the first message of this side, before anything else."""
        self.send_encoded(encode_greeting(greeting))

    def send(self, messages: Sequence[wire.Frame], *, urgent: bool = False) -> None:
        """Send `messages`, without ever blocking; dropped if the connection has ended.

        `urgent` ones overtake the queue. If the queue exceeds its bound, or a message is too long for a
        frame, the connection is aborted, and the reader gets a ConnectionEndedError.
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
        """Send whole frames, encoded already, as `send` does; do not change them afterwards."""
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
        """Encode messages; False if they must be encoded one by one, or if one ended the connection."""
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
        """Encode and queue; once much is queued, leave the rest unencoded."""
        chunk = bytearray()
        first, count = 0, len(messages)
        # The usual, without the bookkeeping: one frame that holds them all.
        if count <= self._together == MESSAGES_PER_FRAME:
            if self._append(chunk, messages):
                self._queue(chunk)
                return
            if self._ended is not None:
                return
            self._together = 1
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
            # Partly sent, so it must stay first.
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
        """Encode waiting messages as far as there is room."""
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
                # Only to the next frame boundary, at which urgent messages go first.
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
        """End; the kernel still delivers what it has taken, and what is queued here is dropped."""
        if self._ended is None:
            self._end(reason)

    async def finish(self, seconds: float = 1.0) -> None:
        """Deliver what is queued, for at most `seconds`, then close.

        Until then, what the other side sends is read and dropped: closing with unread bytes would make the
        kernel send a reset, and the last frame (a `Goodbye`) could be lost.
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
        """End the sending direction; the queue is dropped, and reading goes on."""
        if self._ended is not None:
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._end(f"the connection broke: {error.strerror or error}")

    def _note_held(self) -> None:
        if self._shared is not None:
            queued_bytes = self._outbound_bytes if self._charges_queued else 0
            self._shared.hold(self, self._frames.incomplete_bytes + queued_bytes)

    def _end(self, reason: str) -> None:
        self._outbound.clear()
        self._urgent.clear()
        self._waiting.clear()
        self._outbound_bytes = 0
        super()._end(reason)
        if self._room is not None:
            self._room.set()
