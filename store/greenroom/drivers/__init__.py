"""Drivers of a dialog: one runner per event loop, for asyncio and for trio.

What they have in common is decided in `greenroom.dialog.runner`. The libraries differ in how a caller waits,
how a callback is scheduled and how a socket becomes readable.
"""

import logging
import os
import time
from abc import abstractmethod
from collections.abc import Awaitable
from typing import Any

from greenroom import wire
from greenroom.dialog import Dialog
from greenroom.dialog.operations import Kind, Single
from greenroom.dialog.runner import DialogRunner
from greenroom.drivers.security import Security
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.proofs import NONCE_BYTES
from greenroom.tokens import Shown

_log = logging.getLogger("greenroom")


def wall_us() -> int:
    """Return the time of this host's clock, in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def elapsed_ns() -> int | None:
    """Return a clock that is never set and runs on while the host is suspended; None if there is none."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else None


class Runner(DialogRunner):
    """A dialog in a real event loop.

    With `security` connections are of TLS; without, `secrets` are proven where they are to be.
    """

    def __init__(
        self, dialog: Dialog, security: Security | None = None, secrets: LoopbackSecrets | None = None
    ) -> None:
        super().__init__(dialog)
        self._security = security
        self._secrets = secrets

    def _challenge(self, number: int, address: str) -> Shown | None:
        del address  # a name may stand for anything
        if self._security is not None:
            return self._security.token
        if self._secrets is None:
            return None
        return self._secrets.challenge(self._reached(number), os.urandom(NONCE_BYTES))

    @abstractmethod
    def _reached(self, number: int) -> str:
        """Return the address that a connection has reached, with a number for its host."""

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
