"""The core of an actor's process: its clock, its timer, its log, and its end.

`CoreRunner` decides what a step takes and in which order its effects go out. There is no task, timer, lock or
cancel scope per request: one task wakes for the core's next deadline.

Any exception of the core ends the process at once, because a replica that may contradict itself must not
serve.
"""

import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

import structlog
import trio

from greenroom.errors import InvariantError
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.disk.journal import DiskFailedError
from greenroom_cluster.links.core_runner import Core, CoreRunner
from greenroom_cluster.links.outbox import CloseLink, DiskEffect, LinkChange, OpenLink
from greenroom_cluster.links.sync_news import SyncNews
from greenroom_cluster.metrics.readings import Spread
from greenroom_cluster.runtime.clocks import now_ns, wall_us
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.disk_writer import end_for_disk
from greenroom_cluster.runtime.role_report import RoleReport
from greenroom_cluster.runtime.slow_steps import SLOW_NS, log_slow_step
from greenroom_cluster.shard.disk_log import DiskStalledError
from greenroom_cluster.shard.effects import (
    HostEffect,
    Ignored,
    MemoryFull,
    Transition,
    Warned,
)
from greenroom_cluster.shard.inputs import (
    ClientRequests,
    DiskMeasured,
    HostInput,
    PeerMessages,
    Synced,
    Tick,
)
from greenroom_cluster.suspect_records import EXIT_CORE_FAILED

# The sleep until a deadline is cut into pieces: while the machine is suspended, the event loop's clock stands
# still and the core's does not.
_SLEEP_SECONDS_MAX = 0.5

_log = structlog.get_logger(__name__)


class Links(Protocol):
    """The connections to peers; see `PeerLinks`."""

    def open(self, peer: bytes, address: str, *, bulk: bool) -> None:
        """Keep a connection open."""

    def close(self, peer: bytes, *, bulk: bool) -> None:
        """End it."""


class Writer(Protocol):
    """Writes what the core persists; see `DiskWriter`."""

    news: SyncNews
    syncs: Spread
    free_bytes: int

    @property
    def log_bytes(self) -> int:
        """How large the log is."""

    def write(self, effects: list[DiskEffect]) -> None:
        """Do these. Raises DiskFailedError."""


class Driver(CoreRunner[FramedConnection]):
    """Steps one core in this process. `connect_with` must be called before the first step.

    `leave(status)` ends the process at once; should it return, nothing is stepped afterwards.
    """

    def __init__(self, core: Core, leave: Callable[[int], None] = os._exit) -> None:
        super().__init__(core, now_ns, wall_us)
        self._leave = leave
        self._links: Links | None = None
        self._make_proposals: Callable[[list[Proposal]], None] | None = None
        self.roles = RoleReport()
        self._directory = Path()
        self.writer: Writer | None = None
        """What writes to the disk, if anything does."""
        self._armed_ns = -math.inf
        self._wake = trio.Event()

    def connect_with(self, links: Links, propose: Callable[[list[Proposal]], None]) -> None:
        """Set where effects for peers and for the coordinator go."""
        self._links = links
        self._make_proposals = propose

    def keep_with(self, writer: Writer, directory: Path) -> None:
        """Write what the core persists, which is below this directory."""
        self._directory, self.writer = directory, writer
        self.write_with(writer.write, writer.news)

    def take_report(self, event: Synced | DiskMeasured) -> None:
        """Take in what the writer tells."""
        if isinstance(event, Synced):
            self.wake()
        else:
            self.step(event)

    def _perform(self, effects: list[HostEffect]) -> None:
        """Perform effects, of which a write comes last; end the process if that fails."""
        try:
            super()._perform(effects)
        except DiskFailedError as error:
            self._failed = True
            end_for_disk(self._directory, error, self._leave)

    async def tick_forever(self) -> NoReturn:
        """Give the core a Tick at each of its deadlines."""
        while True:
            self._wake = trio.Event()
            deadline = self._core.next_deadline()
            ahead = (deadline - now_ns()) / 1e9
            if ahead <= 0:
                self._armed_ns = -math.inf
                self.step(Tick())
                # A core whose deadline stays in the past must not starve the rest of the loop.
                await trio.lowlevel.checkpoint()
                continue
            self._armed_ns = deadline
            with trio.move_on_after(min(ahead, _SLEEP_SECONDS_MAX)):
                await self._wake.wait()

    def _fail(self, event: HostInput, error: BaseException) -> None:
        """End the process. Log only the text of the core's own errors: others may quote user data."""
        if isinstance(error, DiskStalledError):
            # No record is to blame, nor is the core.
            end_for_disk(self._directory, error, self._leave)
            return
        try:
            _log.critical(
                "core_failed",
                input=type(event).__name__,
                error=type(error).__name__,
                detail=str(error) if isinstance(error, InvariantError) else "",
                trace="".join(traceback.format_tb(error.__traceback__)),
            )
            for output in (sys.stdout, sys.stderr):
                output.flush()
        finally:
            # Even if logging fails, this process must not go on.
            self._leave(EXIT_CORE_FAILED)

    def _rearm(self, deadline_ns: int) -> None:
        self._wake.set()

    def _took_long(self, event: HostInput, spent_ns: int, charged: Sequence[str]) -> None:
        if spent_ns < SLOW_NS:
            return
        sender = ""
        if isinstance(event, ClientRequests):
            sender = event.identity
        elif isinstance(event, PeerMessages):
            sender = event.peer.hex()
        log_slow_step(event, spent_ns, sender, charged)

    # --- effects -----------------------------------------------------------------------------------------

    def _note(self, note: HostEffect) -> None:
        match note:
            case Ignored(what=what, reason=reason, shard=shard, epoch=epoch):
                _log.debug("ignored", what=what, reason=reason, shard=shard, epoch=epoch)
            case Transition(shard=shard, epoch=epoch, role=role, reason=reason):
                _log.debug("transition", shard=shard, epoch=epoch, role=role, reason=reason)
                self.roles.note(note)
            case Warned(message=message, shard=shard):
                _log.warning("core_warning", shard=shard, message=message)
            case MemoryFull(slot=slot):
                _log.warning("memory_full", slot=slot, hint=_MEMORY_HINT)

    def _change_link(self, change: LinkChange) -> None:
        if self._links is None:
            return
        match change:
            case OpenLink(peer=peer, address=address, bulk=bulk):
                self._links.open(peer, address, bulk=bulk)
            case CloseLink(peer=peer, bulk=bulk):
                self._links.close(peer, bulk=bulk)

    def _propose(self, proposals: list[Proposal]) -> None:
        if self._make_proposals is not None:
            self._make_proposals(proposals)


_MEMORY_HINT = "delete sessions, shorten lifetimes, raise --memory-max or add a node"
