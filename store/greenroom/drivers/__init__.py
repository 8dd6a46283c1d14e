"""Drivers of a dialog: one runner per event loop, for asyncio and for trio.

What they have in common is decided in `greenroom.dialog.runner`. The libraries differ in how a caller waits,
how a callback is scheduled and how a socket becomes readable.
"""

import logging
import os
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, TypeVar

from greenroom import wire
from greenroom.addresses import join_address
from greenroom.dialog import Dialog
from greenroom.dialog.operations import Kind, Single
from greenroom.dialog.runner import DialogRunner
from greenroom.drivers.security import Security
from greenroom.drivers.sockets import BeyondLoopbackError, Connection, told
from greenroom.loopback import BEYOND_LOOPBACK, is_loopback
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.proofs import NONCE_BYTES
from greenroom.rereading import LOOK_SECONDS
from greenroom.tls.judging import SWEEP_SECONDS, Judge
from greenroom.tls.standing import Proven
from greenroom.tokens import Shown

_log = logging.getLogger("greenroom")


def wall_us() -> int:
    """Return the time of this host's clock, in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def elapsed_ns() -> int | None:
    """Return a clock that is never set and runs on while the host is suspended; None if there is none."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else None


def boot_clock() -> Callable[[], int] | None:
    """Return what reads such a clock for the near cache; None if there is none."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    return partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)


OneConnection = TypeVar("OneConnection", bound=Connection)


class Runner(DialogRunner, Generic[OneConnection]):
    """A dialog in a real event loop.

    With `security` its connections are of TLS; without, `secrets` are proven where they are to be. With
    `loopback_only` it connects to nothing beyond.
    """

    def __init__(
        self,
        dialog: Dialog,
        security: Security | None = None,
        secrets: LoopbackSecrets | None = None,
        *,
        loopback_only: bool = False,
    ) -> None:
        super().__init__(dialog)
        self._security = security
        self._secrets = secrets
        self._loopback_only = loopback_only
        self._sockets: dict[int, OneConnection] = {}
        self._judge: Judge[OneConnection, Proven] = Judge()

    def _challenge(self, number: int, address: str) -> Shown | None:
        del address  # a name may stand for anything
        if self._security is not None:
            return self._security.token
        if self._secrets is None:
            return None
        return self._secrets.challenge(self._sockets[number].reached, os.urandom(NONCE_BYTES))

    def _reach(self, connection: Connection, host: str, port: int) -> None:
        """Note which address is tried, with a number for its host. Raises BeyondLoopbackError."""
        connection.reached = join_address(host, port)
        if self._loopback_only and not is_loopback(host):
            raise BeyondLoopbackError

    def _write(self, number: int, data: bytes) -> None:
        connection = self._sockets.get(number)
        if connection is None or connection.sock is None:
            return
        if connection.unsent:
            connection.unsent += data
            return
        try:
            sent = connection.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._lost(connection, error)
            return
        if sent < len(data):
            connection.unsent += memoryview(data)[sent:]
            self._write_later(connection)

    @abstractmethod
    def _write_later(self, connection: OneConnection) -> None:
        """Send what is unsent once the socket takes it."""

    def _lost(self, connection: Connection, failure: OSError | str) -> None:
        """Drop a connection that has failed or ended, and tell the dialog why."""
        self._drop(connection.number, reset=False)
        refused = BEYOND_LOOPBACK if isinstance(failure, BeyondLoopbackError) else ""
        self.dialog.lost(self._now_ns(), connection.number, told(failure), refused=refused)
        self._settle()

    def _end_untrusted(self, security: Security) -> float:
        """End connections to whom is trusted no more; return in how many seconds to look again."""
        trusted = security.trusted()
        known = [(each, security.proven(each.sock)) for each in self._sockets.values()]
        proven = [(each, who) for each, who in known if who is not None]
        for connection, objection in self._judge.sweep(trusted, time.time(), proven):
            self._lost(connection, objection.reason)
        return SWEEP_SECONDS if self._judge.waiting else LOOK_SECONDS

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

    def _clocks(self) -> tuple[int, int | None]:
        return wall_us(), elapsed_ns()

    def _warn(self, notice: str) -> None:
        _log.warning(notice)
