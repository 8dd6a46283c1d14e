"""The part of a driver that is the same in every event loop: settling in order, flushes and timers.

A runner feeds its dialog and then settles: it hands out outcomes, performs actions, schedules one flush per
iteration of the loop, and sets one timer for all deadlines. Subclasses define how a caller waits, how a
callback is scheduled, and what a socket is.
"""

from abc import ABC, abstractmethod
from typing import Any

from greenroom import wire
from greenroom.deadlines import NEVER_NS
from greenroom.dialog.clocks import TIMED
from greenroom.dialog.core import Dialog
from greenroom.dialog.links import Abort, Close, Open
from greenroom.dialog.operations import Kind, Single
from greenroom.dialog.watches import Outcome
from greenroom.endings import Tell
from greenroom.errors import GreenroomError, UsageError
from greenroom.tokens import Shown

FLUSH_BYTES = 12 * 1024
"""Most bytes held until the iteration of the loop ends; beyond that, servers can start on them meanwhile."""


class DialogWatch:
    """One caller who waits for the end of a session. See `endings.Watch`."""

    __slots__ = ("_digest", "_runner", "_stopped", "_tell")

    def __init__(self, runner: "DialogRunner", digest: bytes, tell: Tell) -> None:
        self._runner = runner
        self._digest = digest
        self._tell = tell
        self._stopped = False

    def stop(self) -> None:
        """Be told nothing any more, also while others are told of the same end."""
        self._stopped = True
        self._runner.unwatch(self._digest, self)

    def told(self, outcome: Outcome) -> str:
        """Tell the caller, unless it has stopped; return the kind of error that this raised."""
        if self._stopped:
            return ""
        try:
            self._tell(outcome)
        except Exception as error:  # noqa: BLE001  it is the caller's, and must not keep others from being told
            return type(error).__name__
        return ""


class DialogRunner(ABC):
    """One dialog in one event loop. Use it from that loop's thread only."""

    def __init__(self, dialog: Dialog) -> None:
        self.dialog = dialog
        self.closed = False
        self._timer_ns = NEVER_NS
        self._flush_due = False
        self._was_alone = True

    # --- for the subclasses ------------------------------------------------------------------------------

    @abstractmethod
    def _now_ns(self) -> int: ...

    @abstractmethod
    def _clocks(self) -> tuple[int, int | None]:
        """Return this host's wall clock in microseconds, and elapsed time as `ClusterClock.own` takes it."""

    def _challenge(self, number: int, address: str) -> Shown | None:
        """Return the proof to ask, or the token to show, on a connection to this address.

        Raises UsageError if none can be.
        """
        del number, address
        return None

    @abstractmethod
    def _warn(self, notice: str) -> None: ...

    @abstractmethod
    def _hand_out(self, replies: list[tuple[Any, wire.Reply]]) -> None: ...

    @abstractmethod
    def _fail(self, token: Any, error: GreenroomError) -> None: ...

    @abstractmethod
    def _open(self, number: int, address: str, node: str) -> None: ...

    @abstractmethod
    def _drop(self, number: int, *, reset: bool) -> None: ...

    @abstractmethod
    def _schedule_flush(self) -> None: ...

    @abstractmethod
    def _schedule_tick(self, at_ns: int) -> None: ...

    @abstractmethod
    def _write(self, number: int, data: bytes) -> None: ...

    # --- what they have in common ------------------------------------------------------------------------

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
        if dialog.watches.told:
            self._tell_of_endings()
        board = dialog.board
        if dialog.notices:
            for notice in dialog.notices:
                self._warn(notice)
            dialog.notices.clear()
        while board.actions:
            self._act()
        if board.dirty and not self._flush_due:
            self._flush_due = True
            self._schedule_flush()
        if dialog.wake_ns < self._timer_ns:
            self._timer_ns = dialog.wake_ns
            self._schedule_tick(dialog.wake_ns)

    def _act(self) -> None:
        board = self.dialog.board
        actions = board.actions[:]
        board.actions.clear()
        for action in actions:
            match action:
                case Open():
                    self._open(action.link, action.address, action.node)
                case Abort():
                    self._drop(action.link, reset=True)
                case Close():
                    self._drop(action.link, reset=False)

    def _tell_of_endings(self) -> None:
        watches = self.dialog.watches
        told, watches.told = watches.told, []
        for watch, outcome in told:
            if failure := watch.told(outcome):
                self._warn(f"who was told of the end of a session raised {failure}")

    def _submit(self, now_ns: int, request: Single, kind: Kind, token: object) -> None:
        """Submit an operation, and settle if more is needed than to send it.

        A request waits for others of this iteration of the loop, unless many bytes are queued already, or it
        is the only one in flight and the last one was too.
        """
        dialog = self.dialog
        if not self._flush_due or isinstance(request, TIMED):
            wall_us, elapsed_ns = self._clocks()
            if dialog.clock.was_set(now_ns, wall_us):
                dialog.clock.own(now_ns, wall_us, elapsed_ns)
        if not dialog.submit(now_ns, request, kind, token):
            self._settle()
        elif dialog.board.queued_bytes >= FLUSH_BYTES:
            self._write_all()
        elif not self._flush_due:
            if self._was_alone and dialog.pending_count == 1:
                self._flush()
                return
            self._flush_due = True
            self._schedule_flush()

    def hit(self, point: int, digest: bytes, *, looks_again: bool = False) -> wire.Session | None:
        """Return a session that is kept here and may be shown now, else None; see `Dialog.hit`."""
        dialog = self.dialog
        session = dialog.hit(point, digest, looks_again=looks_again)
        if dialog.board.dirty and not self._flush_due:  # it asks for the lease again
            self._flush_due = True
            self._schedule_flush()
        return session

    def watch(self, point: int, digest: bytes, tell: Tell) -> DialogWatch:
        """Have `tell` called in this event loop when a session has ended. Raises TooManyWatchesError."""
        watch = DialogWatch(self, digest, tell)
        self.dialog.watch(self._now_ns(), point, digest, watch)
        self._settle()
        return watch

    def unwatch(self, digest: bytes, watch: DialogWatch) -> None:
        """Tell a caller nothing any more."""
        if not self.closed:
            self.dialog.watches.remove(digest, watch)
            self._settle()

    def _flush(self) -> None:
        """Send everything queued in this iteration, in one write per connection."""
        self._flush_due = False
        self._was_alone = self.dialog.pending_count == 1
        self._write_all()

    def _opened(self, number: int) -> None:
        """Tell the dialog that a connection is established."""
        now_ns = self._now_ns()
        # The other side's hello will bring its clock, before any request is sent.
        self.dialog.clock.own(now_ns, *self._clocks())
        link = self.dialog.board.get(number)
        if link is None:
            return
        try:
            challenge = self._challenge(number, link.address)
        except UsageError as error:
            self.dialog.unproven(now_ns, number, str(error))
        else:
            self.dialog.opened(now_ns, number, challenge)

    def _write_all(self) -> None:
        for number, data in self.dialog.board.take_writes():
            self._write(number, data)

    def _tick(self) -> None:
        self._timer_ns = NEVER_NS
        if not self.closed:
            now_ns = self._now_ns()
            self.dialog.clock.own(now_ns, *self._clocks())
            self.dialog.tick(now_ns)
            self._settle()
