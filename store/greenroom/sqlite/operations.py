"""What a caller of the store waits for, under asyncio and trio.

An operation waits in a lane, is taken into a transaction, and is done. Whoever moves it on holds the lock of
its lane: a thread that takes it, a caller that is cancelled, the watch at the deadline. So one that was given
up while it waited is never applied, and one that was taken has its outcome told, or is told to be unknown.
"""

import asyncio
import threading
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from greenroom import wire
from greenroom.drivers.registry import LoopKey


class Look(msgspec.Struct, frozen=True):
    """Ask which of these sessions there are. The reply is a `Seen`."""

    digests: tuple[bytes, ...]


class Seen(msgspec.Struct, frozen=True):
    """Which sessions there are: when each ends, and when it was created. `version` is the highest given."""

    version: int
    now_us: int
    found: dict[bytes, tuple[int, int]]


_READS = frozenset({wire.Get, wire.ListByUser, Look})


# How far an operation is. Plain numbers: an Enum's members take five times as long to look up.
WAITING: Final = 0
TAKEN: Final = 1
DONE: Final = 2


class Operation:
    """One command of one caller; `lock` is that of its lane.

    `reply` is set with DONE: a reply, or an error to raise.
    """

    __slots__ = ("command", "deadline", "home", "lock", "mutating", "progress", "reply", "waiter")

    def __init__(self, command: Any, home: LoopKey | None, deadline: float) -> None:
        self.lock: threading.Lock | None = None
        self.command = command
        self.home = home
        self.deadline = deadline
        self.mutating = type(command) not in _READS
        """Whether it may change what is stored."""
        self.progress: int = WAITING
        self.reply: Any = None
        self.waiter: Any = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {type(self.command).__name__} {self.progress}>"

    def withdraw(self) -> None:
        """Give it up, unless it was taken: then it is never applied."""
        assert self.lock is not None, "it was given to a lane"
        with self.lock:
            if self.progress is WAITING:
                self.progress = DONE

    @property
    def harmless(self) -> bool:
        """Whether it is safe to repeat one whose outcome is unknown."""
        match self.command:
            case wire.Create() | wire.Rotate():
                return False
            case wire.Update():
                return self.command.version is None
            case wire.Patch():
                return not self.command.expect
        return True


async def outcome_under_asyncio(operation: Operation) -> Any:
    """Wait for the reply, or raise the error."""
    future = operation.waiter
    try:
        reply = await future
    except BaseException:  # cancelled: nothing sets an exception
        operation.withdraw()
        raise
    if isinstance(reply, Exception):
        raise reply
    return reply


async def outcome_under_trio(operation: Operation, trio: Any) -> Any:
    """Wait for the reply, or raise the error."""

    def abort(_: object) -> Any:
        operation.waiter = None
        operation.withdraw()
        return trio.lowlevel.Abort.SUCCEEDED

    operation.waiter = trio.lowlevel.current_task()
    await trio.lowlevel.wait_task_rescheduled(abort)
    if isinstance(operation.reply, Exception):
        raise operation.reply
    return operation.reply


def deliver(operations: Iterable[Operation]) -> None:
    """Tell the callers, each in its own loop. Call it from any thread, with operations that are done."""
    homes: dict[LoopKey, list[Operation]] = {}
    for operation in operations:
        if operation.home is not None:
            homes.setdefault(operation.home, []).append(operation)
    for home, done in homes.items():
        try:
            if isinstance(home, asyncio.AbstractEventLoop):
                home.call_soon_threadsafe(_resolve, done)
            else:
                home.run_sync_soon(_reschedule, done)
        except RuntimeError:  # the loop has ended, and its callers with it; trio's error is a subclass
            continue


def _resolve(done: list[Operation]) -> None:
    for operation in done:
        if not operation.waiter.done():  # else its caller was cancelled
            operation.waiter.set_result(operation.reply)


def _reschedule(done: list[Operation]) -> None:
    import trio

    for operation in done:
        task, operation.waiter = operation.waiter, None
        if task is not None:  # else its caller was cancelled
            trio.lowlevel.reschedule(task)
