"""The runner for trio.

The user passes no nursery, so everything runs in system tasks, which must never raise: a failure in one ends
its connection, or the runner, and is logged. Sockets are the standard library's, so that a flush can send at
once, without a task switch.
"""

import logging
import math
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio

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
from greenroom.errors import GreenroomError
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.rereading import LOOK_SECONDS

_log = logging.getLogger("greenroom")


class _Waiter:
    """A caller. `task` is None once it is cancelled, or has not begun to wait."""

    __slots__ = ("done", "error", "reply", "task")

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task | None = None
        self.done = False
        self.reply: Any = None
        self.error: GreenroomError | None = None


class TrioRunner(Runner[Connection]):
    """A dialog in one trio run, made inside it; with `loopback_only` it connects to nothing beyond."""

    def __init__(
        self,
        dialog: Dialog,
        security: Security | None = None,
        secrets: LoopbackSecrets | None = None,
        *,
        loopback_only: bool = False,
    ) -> None:
        super().__init__(dialog, security, secrets, loopback_only=loopback_only)
        self._token = trio.lowlevel.current_trio_token()
        self._ended = False
        self._received = bytearray(RECEIVE_BYTES)
        self._received_view = memoryview(self._received)
        self._flusher: trio.lowlevel.Task | None = None
        self._timer = trio.CancelScope()
        self._spawn(self._flush_always)
        self._spawn(self._tick_always)
        self._judging = trio.CancelScope()
        if security is not None:
            self._spawn(self._judge_always, security)

    async def perform(self, request: Single, kind: Kind) -> Any:
        """Submit an operation on one session; return its final reply, or raise its error."""
        await trio.lowlevel.checkpoint_if_cancelled()
        waiter = _Waiter()
        self._submit(self._now_ns(), request, kind, waiter)
        return await _outcome(waiter)

    async def gather(self, request: wire.Fanout, kind: Kind) -> Any:
        """Submit an operation that every shard answers; return the merged reply, or raise its error."""
        await trio.lowlevel.checkpoint_if_cancelled()
        waiter = _Waiter()
        self.dialog.gather(self._now_ns(), request, kind, waiter)
        self._settle()
        return await _outcome(waiter)

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
        self._timer.cancel()
        self._judging.cancel()
        self._schedule_flush()

    @property
    def over(self) -> bool:
        """Whether the trio run has ended."""
        return self._ended

    def discard(self) -> None:
        """Close the sockets and nothing else: the run has ended, or belongs to the parent of a fork."""
        self.closed = self._ended = True
        for connection in self._sockets.values():
            if connection.sock is not None:
                close_descriptor(connection.sock)
        self._sockets.clear()

    def dismiss(self) -> None:
        """Make the runner close itself in its own run. Call it from any thread; it does not wait."""
        try:
            self._token.run_sync_soon(self._close)
        except trio.RunFinishedError:
            self.discard()

    # --- what Runner asks for ----------------------------------------------------------------------------

    def _now_ns(self) -> int:
        return int(trio.current_time() * 1e9)

    def _hand_out(self, replies: list[tuple[Any, wire.Reply]]) -> None:
        for token, reply in replies:
            self._finish(token, reply, None)

    def _fail(self, token: Any, error: GreenroomError) -> None:
        self._finish(token, None, error)

    def _finish(self, token: Any, reply: object, error: GreenroomError | None) -> None:
        token.done = True
        token.reply = reply
        token.error = error
        task, token.task = token.task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _schedule_flush(self) -> None:
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            trio.lowlevel.reschedule(flusher)

    def _schedule_tick(self, at_ns: int) -> None:
        self._timer.deadline = at_ns / 1e9

    # --- system tasks ------------------------------------------------------------------------------------

    def _spawn(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        trio.lowlevel.spawn_system_task(self._guarded, work, *arguments, name=f"greenroom.{work.__name__}")

    async def _guarded(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        try:
            await work(*arguments)
        except Exception:  # noqa: BLE001  what escaped would end the user's whole trio run
            _log.exception("a bug in greenroom: the connections of this event loop are closed")
            self._close()

    async def _flush_always(self) -> None:
        """Flush when woken, which is after the tasks that were ready then have run: once per tick."""
        try:
            while True:
                while self._flush_due:
                    self._flush()
                if self.closed:
                    return
                self._flusher = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._flush_cancelled)
        except trio.Cancelled:  # the run is ending
            self.discard()
            raise

    def _flush_cancelled(self, _: object) -> trio.lowlevel.Abort:
        self._flusher = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _tick_always(self) -> None:
        while True:
            with self._timer:
                await trio.sleep(math.inf)
            if self.closed:
                return
            self._timer = trio.CancelScope()
            self._tick()

    # --- connecting --------------------------------------------------------------------------------------

    def _open(self, number: int, address: str, node: str) -> None:
        connection = self._sockets[number] = Connection(number)
        self._spawn(self._serve, connection, address, node)

    async def _serve(self, connection: Connection, address: str, node: str) -> None:
        """Connect, then read until the connection ends."""
        try:
            await self._connect(connection, address)
            if self._security is not None:
                await self._secure(connection, self._security, node)
            if connection.sock is not None:
                self._opened(connection.number)
                self._settle()
                await self._read(connection)
        except trio.ClosedResourceError:  # dropped by this side
            return
        except OSError as error:
            self._lost(connection, error)

    async def _connect(self, connection: Connection, address: str) -> None:
        """Try each address of the name in turn. Raises OSError when none accepts."""
        host, port = parse_address(address)
        known = numeric_address(host, port)
        if known is None:
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            targets = [(int(info[0]), info[4]) for info in found]
        else:
            targets = [known]
        failure = OSError("its name has no address")
        for family, target in targets:
            if self._sockets.get(connection.number) is not connection:
                return
            try:
                self._reach(connection, target[0], target[1])
                sock = connection.sock = configured_socket(family)
                start_connecting(sock, target)
                await trio.lowlevel.wait_writable(sock.fileno())
                if connection.sock is not sock:  # dropped when it was writable already
                    return
                finish_connecting(sock)
                return
            except OSError as error:
                failure = error
                self._release(connection)
        raise failure

    async def _secure(self, connection: Connection, security: Security, node: str) -> None:
        """Put TLS around the connected socket, if it was not dropped. Raises OSError."""
        sock = connection.sock
        if not isinstance(sock, socket.socket):
            return
        tls = connection.sock = security.begin(sock)
        while connection.sock is tls:  # else it was dropped
            match security.advance(tls, node, self._received):
                case "done":
                    return
                case "read":
                    await trio.lowlevel.wait_readable(tls.fileno())
                case "write":
                    await trio.lowlevel.wait_writable(tls.fileno())

    async def _judge_always(self, security: Security) -> None:
        seconds = LOOK_SECONDS
        with self._judging:
            while True:
                await trio.sleep(seconds)
                seconds = self._end_untrusted(security)

    # --- reading and writing -----------------------------------------------------------------------------

    async def _read(self, connection: Connection) -> None:
        while (sock := connection.sock) is not None:
            await trio.lowlevel.wait_readable(sock.fileno())
            if connection.sock is not sock:
                return
            try:
                count = sock.recv_into(self._received)
            except (BlockingIOError, InterruptedError):
                continue
            if not count:
                self._lost(connection, "it closed the connection")
                return
            self.dialog.received(self._now_ns(), connection.number, self._received_view[:count])
            self._settle()

    def _write_later(self, connection: Connection) -> None:
        if not connection.writing:
            connection.writing = True
            self._spawn(self._write_rest, connection)

    async def _write_rest(self, connection: Connection) -> None:
        try:
            while connection.unsent and (sock := connection.sock) is not None:
                await trio.lowlevel.wait_writable(sock.fileno())
                if connection.sock is not sock:
                    return
                try:
                    sent = sock.send(connection.unsent)
                except (BlockingIOError, InterruptedError):
                    continue
                del connection.unsent[:sent]
        except trio.ClosedResourceError:
            return
        except OSError as error:
            self._lost(connection, error)
        finally:
            connection.writing = False

    # --- ending ------------------------------------------------------------------------------------------

    def _drop(self, number: int, *, reset: bool) -> None:
        connection = self._sockets.pop(number, None)
        if connection is None:
            return
        if reset and connection.sock is not None:
            reset_on_close(connection.sock)
        self._release(connection)

    def _release(self, connection: Connection) -> None:
        """Close the socket, if there is one."""
        sock, connection.sock = connection.sock, None
        if sock is not None:
            trio.lowlevel.notify_closing(sock.fileno())
            sock.close()


async def _outcome(waiter: _Waiter) -> Any:
    """Wait until the operation has ended. If the caller is cancelled, the dialog goes on with it."""

    def abandon(_: object) -> trio.lowlevel.Abort:
        waiter.task = None
        return trio.lowlevel.Abort.SUCCEEDED

    if not waiter.done:
        waiter.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abandon)
    if waiter.error is not None:
        raise waiter.error
    return waiter.reply
