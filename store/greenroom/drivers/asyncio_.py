"""The runner for asyncio and loops like it (uvloop).

It makes no task, so that no task is destroyed in flight when a loop ends. It uses bare sockets with
`add_reader` rather than transports, because a transport cannot be closed once its loop is. Loops get
descriptors, because not all of them take sockets.
"""

import asyncio
import contextvars
import socket
from collections import deque
from typing import Any

from greenroom import wire
from greenroom.addresses import parse_address
from greenroom.dialog import Dialog
from greenroom.dialog.operations import Kind, Single
from greenroom.drivers import Runner
from greenroom.drivers.security import Security
from greenroom.drivers.sockets import (
    RECEIVE_BYTES,
    Connection,
    close_descriptor,
    configured_socket,
    finish_connecting,
    numeric_address,
    reset_on_close,
    start_connecting,
)
from greenroom.errors import GreenroomError, UsageError
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.rereading import LOOK_SECONDS
from greenroom.tls.sockets import TlsSocket

_Targets = list[tuple[int, Any]]


class _Socket(Connection):
    """One connection. `targets` are left to try; with TLS `node` must answer."""

    __slots__ = ("node", "reading", "targets", "tls")

    def __init__(self, number: int, node: str) -> None:
        super().__init__(number)
        self.node = node
        self.tls: TlsSocket | None = None
        self.targets: deque[tuple[int, Any]] = deque()
        self.reading = False


class AsyncioRunner(Runner[_Socket]):
    """A dialog in one asyncio loop, made inside it; with `loopback_only` it connects to nothing beyond."""

    def __init__(
        self,
        dialog: Dialog,
        security: Security | None = None,
        secrets: LoopbackSecrets | None = None,
        *,
        loopback_only: bool = False,
    ) -> None:
        super().__init__(dialog, security, secrets, loopback_only=loopback_only)
        self._loop = asyncio.get_running_loop()
        if not hasattr(self._loop, "add_reader") or type(self._loop).__name__ == "ProactorEventLoop":
            raise UsageError(
                "ClusterStore needs an event loop with add_reader; on Windows use asyncio.SelectorEventLoop"
            )
        # Callbacks must not run in the context of the request that first needed them.
        self._context = contextvars.Context()
        self._timer: asyncio.TimerHandle | None = None
        self._received = bytearray(RECEIVE_BYTES)
        self._received_view = memoryview(self._received)
        self._judging: asyncio.TimerHandle | None = None
        if security is not None:
            self._judge_later(security, LOOK_SECONDS)

    def perform(self, request: Single, kind: Kind) -> asyncio.Future[Any]:
        """Submit an operation on one session; return an awaitable of its final reply, or its error."""
        loop = self._loop
        future: asyncio.Future[Any] = loop.create_future()
        # The time is read here without `_now_ns`: this is done for every operation.
        self._submit(int(loop.time() * 1e9), request, kind, future)
        return future

    def gather(self, request: wire.Fanout, kind: Kind) -> asyncio.Future[Any]:
        """Submit an operation that every shard answers; the future brings the merged reply, or its error."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.dialog.gather(self._now_ns(), request, kind, future)
        self._settle()
        return future

    async def aclose(self) -> None:
        """Fail all pending operations truthfully and close the connections."""
        self._close()

    def _close(self) -> None:
        if self.closed:
            return
        self.dialog.close(self._now_ns())
        self._settle()
        self.closed = True
        for number in list(self._sockets):
            self._drop(number, reset=False)
        for timer in (self._timer, self._judging):
            if timer is not None:
                timer.cancel()

    @property
    def over(self) -> bool:
        """Whether the event loop has ended."""
        return self._loop.is_closed()

    def discard(self) -> None:
        """Close the sockets and nothing else: the loop has ended, or belongs to the parent of a fork."""
        self.closed = True
        for connection in self._sockets.values():
            if connection.sock is not None:
                close_descriptor(connection.sock)
        self._sockets.clear()

    def dismiss(self) -> None:
        """Make the runner close itself in its own loop. Call it from any thread; it does not wait."""
        if not self._loop.is_running():
            self._close()
            return
        try:
            self._loop.call_soon_threadsafe(self._close)
        except RuntimeError:  # the loop has closed by now
            self.discard()

    # --- what Runner asks for ----------------------------------------------------------------------------

    def _now_ns(self) -> int:
        return int(self._loop.time() * 1e9)

    def _hand_out(self, replies: list[tuple[Any, wire.Reply]]) -> None:
        for future, reply in replies:
            if not future.done():  # else its caller was cancelled
                future.set_result(reply)

    def _fail(self, token: Any, error: GreenroomError) -> None:
        if not token.done():
            token.set_exception(error)

    def _schedule_flush(self) -> None:
        self._loop.call_soon(self._flush, context=self._context)

    def _schedule_tick(self, at_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at_ns / 1e9, self._tick, context=self._context)

    # --- connecting --------------------------------------------------------------------------------------

    def _open(self, number: int, address: str, node: str) -> None:
        connection = self._sockets[number] = _Socket(number, node)
        host, port = parse_address(address)
        known = numeric_address(host, port)
        if known is not None:
            connection.targets.append(known)
            self._loop.call_soon(self._connect_next, connection, None, context=self._context)
            return
        lookup = self._loop.run_in_executor(None, _look_up, host, port)
        lookup.add_done_callback(lambda future: self._resolved(connection, future), context=self._context)

    def _resolved(self, connection: _Socket, lookup: asyncio.Future[_Targets]) -> None:
        if lookup.cancelled():
            self._connect_next(connection, "looking up its name was cancelled")
        elif (error := lookup.exception()) is not None:
            self._connect_next(connection, f"its name cannot be looked up: {error}")
        else:
            connection.targets.extend(lookup.result())
            self._connect_next(connection, None)

    def _connect_next(self, connection: _Socket, failure: OSError | str | None) -> None:
        """Try the next address; `failure` is why the last one failed."""
        while self._sockets.get(connection.number) is connection:
            if not connection.targets:
                self._lost(connection, failure or "its name has no address")
                return
            family, address = connection.targets.popleft()
            try:
                self._reach(connection, address[0], address[1])
                connection.sock = sock = configured_socket(family)
                start_connecting(sock, address)
            except OSError as error:
                failure = error
                self._release(connection)
                continue
            self._watch_writable(connection, self._connected, sock)
            return

    def _connected(self, connection: _Socket, sock: socket.socket) -> None:
        if connection.sock is not sock or self._sockets.get(connection.number) is not connection:
            return
        self._unwatch_writable(connection)
        try:
            finish_connecting(sock)
        except OSError as error:
            self._release(connection)
            self._connect_next(connection, error)
            return
        if self._security is None:
            self._established(connection)
        else:
            connection.sock = connection.tls = self._security.begin(sock)
            self._watch_readable(connection, self._shake_hands)
            self._shake_hands(connection)

    def _shake_hands(self, connection: _Socket) -> None:
        """Go on with the handshake of TLS, whenever the socket is ready for it."""
        tls, security = connection.tls, self._security
        if connection.sock is not tls or tls is None or security is None:
            return
        self._unwatch_writable(connection)
        try:
            want = security.advance(tls, connection.node, self._received)
        except OSError as error:
            self._release(connection)
            self._connect_next(connection, error)
            return
        if want == "write":
            self._watch_writable(connection, self._shake_hands)
        elif want == "done":
            self._established(connection)

    def _established(self, connection: _Socket) -> None:
        self._watch_readable(connection, self._readable)
        self._opened(connection.number)
        self._settle()

    def _judge_later(self, security: Security, seconds: float) -> None:
        self._judging = self._loop.call_later(seconds, self._judge_now, security, context=self._context)

    def _judge_now(self, security: Security) -> None:
        seconds = self._end_untrusted(security)
        if not self.closed:
            self._judge_later(security, seconds)

    # --- reading and writing -----------------------------------------------------------------------------

    def _readable(self, connection: _Socket) -> None:
        if connection.sock is None:
            return
        try:
            count = connection.sock.recv_into(self._received)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(connection, error)
            return
        if not count:
            self._lost(connection, "it closed the connection")
            return
        self.dialog.received(self._now_ns(), connection.number, self._received_view[:count])
        self._settle()

    def _write_later(self, connection: _Socket) -> None:
        self._watch_writable(connection, self._writable)

    def _writable(self, connection: _Socket) -> None:
        if connection.sock is None:
            return
        try:
            sent = connection.sock.send(connection.unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(connection, error)
            return
        del connection.unsent[:sent]
        if not connection.unsent:
            self._unwatch_writable(connection)

    # --- ending ------------------------------------------------------------------------------------------

    def _drop(self, number: int, *, reset: bool) -> None:
        connection = self._sockets.pop(number, None)
        if connection is None:
            return
        if reset and connection.sock is not None:
            reset_on_close(connection.sock)
        self._release(connection)

    def _release(self, connection: _Socket) -> None:
        """Close the socket, if there is one."""
        sock = connection.sock
        if sock is None:
            return
        if connection.reading:
            self._loop.remove_reader(sock.fileno())
            connection.reading = False
        self._unwatch_writable(connection)
        connection.sock = connection.tls = None
        sock.close()

    def _watch_readable(self, connection: _Socket, callback: Any) -> None:
        if connection.sock is not None:
            contextvars.Context().run(self._loop.add_reader, connection.sock.fileno(), callback, connection)
            connection.reading = True

    def _watch_writable(self, connection: _Socket, callback: Any, *more: Any) -> None:
        if connection.sock is not None:
            descriptor = connection.sock.fileno()
            contextvars.Context().run(self._loop.add_writer, descriptor, callback, connection, *more)
            connection.writing = True

    def _unwatch_writable(self, connection: _Socket) -> None:
        if connection.writing and connection.sock is not None:
            self._loop.remove_writer(connection.sock.fileno())
            connection.writing = False


def _look_up(host: str, port: int) -> _Targets:
    """Return (family, address) for each address of a name; blocks, so it is called in a thread."""
    return [(info[0], info[4]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
