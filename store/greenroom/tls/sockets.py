"""A socket with TLS around it, used like the socket itself, which does not block.

The drivers and the servers read and write both kinds by the same calls, so plaintext costs nothing more.
"""

import socket
import ssl
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

from greenroom.tls.channel import RECORD_BYTES_MAX, Channel, TlsError

Want: TypeAlias = Literal["read", "write", "done"]

CHUNK_BYTES = 64 * 1024
"""How much is encrypted at once: no more waits here for the kernel."""
READ_BYTES = RECORD_BYTES_MAX
"""How much is decrypted at once: it completes a record of any size."""
OVERHEAD_BYTES_MAX = RECORD_BYTES_MAX
"""After so much ciphertext that brought no plaintext a read ends, though there is more.

A record of one byte costs as much work as one of a thousand, and 22 bytes beside. So a read is bounded by
those, however the other side cuts what it sends. A record that is not complete yet has to be within the
bound, or a long one would end each read. What an earlier read had of a record hides as much of the next.
"""


class Stream(Protocol):
    """What drivers and servers use of a connected socket."""

    def recv_into(self, buffer: Any, nbytes: int = 0, /) -> int:
        """Read into the buffer."""

    def send(self, data: Any, /) -> int:
        """Send as much as goes; return how much that is."""

    def sendmsg(self, buffers: Any, /) -> int:
        """Send as much of these as goes, in order; return how much that is."""

    def fileno(self) -> int:
        """Return the descriptor."""

    def setsockopt(self, level: int, name: int, value: Any, /) -> None:
        """Set an option of the socket."""

    def settimeout(self, value: float | None, /) -> None:
        """Set the timeout."""

    def getpeername(self) -> Any:
        """Return the address of the other side."""

    def getsockname(self) -> Any:
        """Return the address of this side."""

    def shutdown(self, how: int, /) -> None:
        """End a direction."""

    def detach(self) -> int:
        """Give up the descriptor."""

    def close(self) -> None:
        """Close it."""


class TlsSocket:
    """A connected socket and its channel. Call `advance` until it is done before anything else.

    What goes wrong in TLS is an OSError, like all that goes wrong with a socket. An end without TLS's own
    farewell is an error too: somebody between may have cut it.

    `recv_into` reads at most so many bytes of ciphertext and returns all that they complete, so the buffer
    must have room for a record more. If their records are small, it reads less of them, and the socket stays
    readable: nobody keeps others waiting by sending a byte a record. `send` may encrypt more than the kernel
    takes. It then reports a byte less than it has encrypted: as with any stream the caller sends the rest
    once the socket is writable, and what was encrypted goes first.
    """

    __slots__ = ("__weakref__", "_channel", "_encrypted", "_resets", "_sock", "_unsent")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._sock = sock
        self._channel = Channel(context, server_side=server_side)
        self._unsent = b""
        # How many bytes at the beginning of the next `send` are encrypted already.
        self._encrypted = 0
        self._resets = False

    @property
    def certificate(self) -> dict[str, Any]:
        """The verified certificate of the other side, once the handshake is done."""
        return self._channel.certificate

    @property
    def context(self) -> ssl.SSLContext:
        """What this side verifies the other by."""
        return self._channel.context

    @property
    def established(self) -> bool:
        """Whether the handshake is done."""
        return self._channel.established

    @property
    def heard(self) -> bool:
        """Whether anything has come from the other side."""
        return self._channel.heard

    # --- the handshake -----------------------------------------------------------------------------------

    def advance(self, buffer: memoryview) -> Want:
        """Go on with the handshake as far as possible; return what to wait for. Raises OSError.

        What is read passes through the buffer.
        """
        channel = self._channel
        try:
            while True:
                done = channel.handshake()
                if not self._flush():
                    return "write"
                if done:
                    return "done"
                try:
                    count = self._sock.recv_into(buffer)
                except BlockingIOError:
                    return "read"
                if count:
                    channel.feed(buffer[:count])
                else:
                    channel.feed_end()
        except TlsError:
            self._try_to_flush()  # the alert that says why
            raise

    def meets_plaintext(self) -> bool:
        """Whether the other side begins with a frame instead of TLS. Raises OSError, also BlockingIOError.

        Every length of a frame begins with a zero, and no record of TLS does.
        """
        return self._sock.recv(1, socket.MSG_PEEK) == b"\0"

    def answer_plaintext(self, answer: bytes) -> None:
        """Send this as it is. Raises OSError, also BlockingIOError."""
        self._sock.send(answer)

    def without_tls(self) -> socket.socket:
        """Return the socket itself, of which nothing was read; this object must not be used any more."""
        return self._sock

    # --- reading and writing -----------------------------------------------------------------------------

    def recv_into(self, buffer: Any, nbytes: int = 0) -> int:
        """Return how much plaintext was read, 0 at the end. Raises OSError, BlockingIOError for none."""
        channel, view = self._channel, memoryview(buffer)
        room = len(view) - RECORD_BYTES_MAX
        bytes_max = nbytes if 0 < nbytes < room else room
        at_once = min(bytes_max, READ_BYTES)
        try:
            count = self._sock.recv_into(view, at_once)
            if not count:
                channel.feed_end()
        except BlockingIOError:
            if not channel.holds:
                raise
            count = 0
        try:
            filled = channel.decrypt(view, count) if count else channel.read_into(view)
            if count == READ_BYTES:
                filled = self._read_on(view, bytes_max, filled)
        except TlsError:
            self._try_to_flush()
            raise
        if channel.speaks and not self._unsent:
            self._flush()  # what TLS answers by itself
        if filled or channel.ended:
            return filled
        raise BlockingIOError

    def _read_on(self, view: memoryview, bytes_max: int, filled: int) -> int:
        """Go on after a first part of what may be read; return how much plaintext it is with that."""
        taken = count = READ_BYTES
        while count == READ_BYTES and taken < bytes_max and taken - filled <= OVERHEAD_BYTES_MAX:
            rest = view[filled:]
            try:
                count = self._sock.recv_into(rest, min(bytes_max - taken, READ_BYTES))
            except OSError:  # if it is more than that there is nothing, the next read tells
                break
            if count:  # else it has ended, which the next read tells too
                filled += self._channel.decrypt(rest, count)
                taken += count
        return filled

    def send(self, data: Any) -> int:
        """Encrypt and send as much as goes; return how much that is. Raises OSError, also BlockingIOError."""
        if self._unsent or self._encrypted or not 0 < len(data) <= CHUNK_BYTES:
            return self._send_on(memoryview(data))
        # The usual: nothing waits, and the kernel takes all.
        ciphertext = self._channel.encrypt(data)
        try:
            sent = self._sock.send(ciphertext)
        except BlockingIOError:
            sent = 0
        if sent == len(ciphertext):
            return len(data)
        self._unsent, self._encrypted = ciphertext[sent:], 1
        if len(data) == 1:
            raise BlockingIOError
        return len(data) - 1

    def _send_on(self, view: memoryview) -> int:
        """Send what is left of before, and of this as much as goes, in parts; return how much that is."""
        if not self._flush():
            raise BlockingIOError
        sent, self._encrypted = self._encrypted, 0
        while sent < len(view):
            self._channel.write(view[sent : sent + CHUNK_BYTES])
            sent = min(sent + CHUNK_BYTES, len(view))
            if not self._flush():
                self._encrypted = 1
                if sent == 1:
                    raise BlockingIOError
                return sent - 1
        return sent

    def sendmsg(self, buffers: Sequence[Any]) -> int:
        """Send as much of these as goes, as `send` does."""
        together = bytearray()
        for each in buffers:
            if together and len(together) + len(each) > CHUNK_BYTES:
                break
            together += each
        return self.send(together)

    def _flush(self) -> bool:
        """Hand the kernel what is encrypted; return whether it took all."""
        self._unsent += self._channel.take()
        if not self._unsent:
            return True
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return False
        self._unsent = self._unsent[sent:]
        return not self._unsent

    def _try_to_flush(self) -> None:
        try:
            self._flush()
        except OSError:
            self._unsent = b""

    # --- ending ------------------------------------------------------------------------------------------

    def shutdown(self, how: int) -> None:
        """Say that nothing more comes, then end this direction. Raises OSError."""
        self._channel.close()
        self._try_to_flush()
        self._sock.shutdown(how)

    def close(self) -> None:
        """Close the socket, with TLS's farewell unless it is reset."""
        if not self._resets and self._channel.established:
            self._channel.close()
            self._try_to_flush()
        self._sock.close()

    def detach(self) -> int:
        """Give up the descriptor, without a word to the other side."""
        return self._sock.detach()

    # --- as the socket has it ----------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._sock.fileno()

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        """Set an option of the socket; after SO_LINGER `close` says nothing."""
        if (level, name) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._resets = True
        self._sock.setsockopt(level, name, value)

    def settimeout(self, value: float | None) -> None:
        """Set the timeout of the socket."""
        self._sock.settimeout(value)

    def getpeername(self) -> Any:
        """Return the address of the other side."""
        return self._sock.getpeername()

    def getsockname(self) -> Any:
        """Return the address of this side."""
        return self._sock.getsockname()
