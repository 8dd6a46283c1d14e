"""One connection to an HTTP port, with TLS or without, in the form in which Hypercorn uses it."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import trio

from greenroom.addresses import join_address
from greenroom.tls.channel import TlsError
from greenroom.tls.standing import Proven

SEND_SECONDS = 10.0
"""Whoever does not read what it asked for is not waited for longer."""
HANDSHAKE_SECONDS = 5.0
REQUEST_SECONDS = 10.0
"""Whoever asks for nothing is not waited for longer, whatever else it sends: pings of HTTP/2, for example."""
_FAREWELL_SECONDS = 1.0
_READ_BYTES = 4096


class Visitor:
    """A connection that was accepted. Hypercorn uses `socket`, `receive_some`, `send_all` and those that end.

    `abort` ends it at once. `proven` is who has shown a certificate, None if nobody has.
    """

    proven: Proven | None = None

    def __init__(self, sock: trio.socket.SocketType, remote: tuple[Any, ...]) -> None:
        self.socket = sock
        self.host = str(remote[0])
        self.remote = join_address(self.host, int(remote[1]))
        self.scope = trio.CancelScope()
        self._transport = trio.SocketStream(sock)
        self._tls: trio.SSLStream | None = None
        # Hypercorn sends within a shield, so only a deadline inside of it ends what is not read.
        self._patience = trio.CancelScope()
        self._send_seconds = SEND_SECONDS
        self._requests = 0
        self._rests_since = trio.current_time()

    @property
    def ended(self) -> bool:
        """Whether it was ended from here."""
        return self.scope.cancel_called

    def abort(self, reason: str = "") -> None:
        """End it."""
        del reason
        self.scope.cancel()
        self.socket.close()

    def hurry(self) -> None:
        """Give what is being sent, and what is sent from now on, no longer than a farewell may take."""
        self._send_seconds = _FAREWELL_SECONDS
        self._patience.deadline = min(self._patience.deadline, trio.current_time() + _FAREWELL_SECONDS)

    async def shake_hands(self, context: ssl.SSLContext) -> dict[str, Any]:
        """Speak TLS from here on; return the verified certificate of the other side, empty if it shows none.

        Raises TlsError.
        """
        # HTTP ends a connection without TLS's farewell, and waits for none.
        self._tls = trio.SSLStream(self._transport, context, server_side=True, https_compatible=True)
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                await self._tls.do_handshake()
        except trio.TooSlowError:
            raise TlsError(f"the TLS handshake took more than {HANDSHAKE_SECONDS:g} s") from None
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            reason = getattr(error.__cause__, "reason", None) or "it ended"
            raise TlsError(f"the TLS handshake failed ({str(reason).lower().replace('_', ' ')})") from None
        certificate: Any = self._tls.getpeercert()
        return {} if certificate is None else dict(certificate)

    @property
    def _stream(self) -> trio.SocketStream | trio.SSLStream:
        return self._transport if self._tls is None else self._tls

    @contextmanager
    def request(self) -> Iterator[None]:
        """Note that a request is answered in the body."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._rests_since = trio.current_time()

    @property
    def _request_deadline(self) -> float:
        return inf if self._requests else self._rests_since + REQUEST_SECONDS

    async def receive_some(self, bytes_max: int) -> bytes:
        """Return what has come, nothing at the end. Ends the connection if no request comes in time."""
        while True:
            with trio.CancelScope(deadline=self._request_deadline) as patience:
                # In small pieces: a head is refused for its length only if it comes in several.
                data = bytes(await self._stream.receive_some(min(bytes_max, _READ_BYTES)))
            if not patience.cancelled_caught:
                return data
            if trio.current_time() >= self._request_deadline:
                self.abort()
                return b""

    async def send_all(self, data: bytes) -> None:
        """Send all of this. Ends the connection, and raises BrokenResourceError, if it is not read."""
        self._patience = trio.CancelScope(deadline=trio.current_time() + self._send_seconds)
        with self._patience:
            await self._stream.send_all(data)
        if self._patience.cancelled_caught:
            self.abort()  # Hypercorn would go on reading
            raise trio.BrokenResourceError("the other side does not read")

    async def send_eof(self) -> None:
        """Say that nothing more comes."""
        if self._tls is None:
            await self._transport.send_eof()

    async def aclose(self) -> None:
        """Close it."""
        with trio.move_on_after(_FAREWELL_SECONDS):
            await self._stream.aclose()
        await trio.aclose_forcefully(self._transport)
