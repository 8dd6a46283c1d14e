"""Drivers of a dialog: one runner per event loop, for asyncio and for trio.

A runner feeds its dialog and then settles: it hands out outcomes, performs actions, schedules one flush per
iteration of the loop, and sets one timer for all deadlines. The libraries differ in how a caller waits, how a
callback is scheduled and how a socket becomes readable.
"""

import errno
import logging
import os
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any

from greenroom import wire
from greenroom.dialog import Abort, Close, Dialog, Open
from greenroom.dialog.operations import Kind, Single
from greenroom.errors import GreenroomError

RECEIVE_BYTES = 256 * 1024
FLUSH_BYTES = 12 * 1024
"""Most bytes held until the iteration of the loop ends; beyond that, servers can start on them meanwhile."""

USER_TIMEOUT_MS = 5000
KEEPALIVE_IDLE_SECONDS = 5
KEEPALIVE_INTERVAL_SECONDS = 2
KEEPALIVE_PROBES = 3

_log = logging.getLogger("greenroom")

_RESET = struct.pack("ii", 1, 0)


def wall_us() -> int:
    """Return the time of this host's clock, in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def elapsed_ns() -> int | None:
    """Return a time that is never set and runs while the host is suspended; None without such a clock."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else None


class Runner(ABC):
    """One dialog in one event loop. Use it from that loop's thread only."""

    def __init__(self, dialog: Dialog) -> None:
        self.dialog = dialog
        self.closed = False
        self._timer_ns = 1 << 62
        self._flush_due = False
        self._lonely = True

    @abstractmethod
    def perform(self, request: Single, kind: Kind) -> Awaitable[Any]:
        """Submit an operation on one session; await its final reply, or its error."""

    @abstractmethod
    def gather(self, request: wire.Fanout, kind: Kind) -> Awaitable[Any]:
        """Submit an operation that every shard answers; await the merged reply, or its error."""

    @abstractmethod
    async def aclose(self) -> None:
        """Fail all pending operations truthfully and close the connections. Call it in its own loop."""

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether the event loop has ended."""

    @abstractmethod
    def discard(self) -> None:
        """Close the sockets and nothing else: the loop has ended, or belongs to the parent of a fork."""

    @abstractmethod
    def dismiss(self) -> None:
        """Make the runner close itself in its own loop. Call it from any thread; it does not wait."""

    # --- for the subclasses ------------------------------------------------------------------------------

    @abstractmethod
    def _now_ns(self) -> int: ...

    @abstractmethod
    def _hand_out(self, replies: list[tuple[Any, wire.Reply]]) -> None: ...

    @abstractmethod
    def _fail(self, token: Any, error: GreenroomError) -> None: ...

    @abstractmethod
    def _open(self, number: int, address: str) -> None: ...

    @abstractmethod
    def _drop(self, number: int, *, reset: bool) -> None: ...

    @abstractmethod
    def _schedule_flush(self) -> None: ...

    @abstractmethod
    def _schedule_tick(self, at_ns: int) -> None: ...

    @abstractmethod
    def _write(self, number: int, data: bytes) -> None: ...

    def _settle(self) -> None:
        """Carry out what the dialog asks for after it was fed."""
        dialog = self.dialog
        if dialog.replies:
            replies, dialog.replies = dialog.replies, []
            if dialog.clock.offset_us:
                replies = [(token, dialog.clock.received(reply)) for token, reply in replies]
            self._hand_out(replies)
        if dialog.failures:
            failures, dialog.failures = dialog.failures, []
            for token, error in failures:
                self._fail(token, error)
        board = dialog.board
        if dialog.notices:
            for notice in dialog.notices:
                _log.warning(notice)
            dialog.notices.clear()
        while board.actions:
            actions = board.actions[:]
            board.actions.clear()
            for action in actions:
                match action:
                    case Open():
                        self._open(action.link, action.address)
                    case Abort():
                        self._drop(action.link, reset=True)
                    case Close():
                        self._drop(action.link, reset=False)
        if board.dirty and not self._flush_due:
            self._flush_due = True
            self._schedule_flush()
        if dialog.wake_ns < self._timer_ns:
            self._timer_ns = dialog.wake_ns
            self._schedule_tick(dialog.wake_ns)

    def _submit(self, now_ns: int, request: Single, kind: Kind, token: object) -> None:
        """Submit an operation, and settle if more is needed than to send it.

        A request waits for others of this iteration of the loop, unless many bytes are queued already, or it
        is the only one in flight and the last one was too.
        """
        dialog = self.dialog
        if not dialog.submit(now_ns, request, kind, token):
            self._settle()
        elif dialog.board.queued_bytes >= FLUSH_BYTES:
            self._write_all()
        elif not self._flush_due:
            if self._lonely and dialog.pending_count == 1:
                self._flush()
                return
            self._flush_due = True
            self._schedule_flush()

    def _flush(self) -> None:
        """Send everything queued in this iteration, in one write per connection."""
        self._flush_due = False
        self._lonely = self.dialog.pending_count == 1
        self._write_all()

    def _opened(self, number: int) -> None:
        """Tell the dialog that a connection is established."""
        now_ns = self._now_ns()
        # The other side's hello will bring its clock, before any request is sent.
        self.dialog.clock.own(now_ns, wall_us(), elapsed_ns())
        self.dialog.opened(now_ns, number)

    def _write_all(self) -> None:
        for number, data in self.dialog.board.take_writes():
            self._write(number, data)

    def _tick(self) -> None:
        self._timer_ns = 1 << 62
        if not self.closed:
            now_ns = self._now_ns()
            self.dialog.clock.own(now_ns, wall_us(), elapsed_ns())
            self.dialog.tick(now_ns)
            self._settle()


def configured_socket(family: int) -> socket.socket:
    """Return a non-blocking TCP socket that sends at once and soon notices a lost peer."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
            ("TCP_KEEPIDLE", KEEPALIVE_IDLE_SECONDS),
            ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_SECONDS),
            ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ):
            if hasattr(socket, name):  # not on every system
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except BaseException:
        sock.close()
        raise
    return sock


def start_connecting(sock: socket.socket, address: Any) -> None:
    """Begin to connect; the socket becomes writable when it succeeds or fails. Raises OSError."""
    code = sock.connect_ex(address)
    if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
        raise OSError(code, os.strerror(code))


def finish_connecting(sock: socket.socket) -> None:
    """Raise OSError if the attempt to connect has failed."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def reset_on_close(sock: socket.socket) -> None:
    """Make `close` reset the connection, so that bytes still in its buffers never arrive."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def close_descriptor(sock: socket.socket) -> None:
    """Close the socket even if its event loop still counts it as used (as uvloop does)."""
    descriptor = sock.detach()
    if descriptor >= 0:
        os.close(descriptor)


def numeric_address(host: str, port: int) -> tuple[int, Any] | None:
    """Return (family, address) if the host needs no look-up, else None."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return family, (host, port)
    return None
