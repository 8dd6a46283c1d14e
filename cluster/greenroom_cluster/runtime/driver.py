"""Carries inputs to the replication core, one at a time, and performs the effects that come back.

One step takes everything that one read brought; what it answers goes out with one send per connection. There
is no task, timer, lock or cancel scope per request: one task wakes for the core's next deadline.

A core that fails is not asked again: whatever it raises ends the process at once, because a replica that may
contradict itself must not serve.
"""

import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

import structlog
import trio

from greenroom.errors import InvariantError
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.links.outbox import CloseLink, LinkChange, OpenLink, Outbox, Rare
from greenroom_cluster.runtime.clocks import now_ns, wall_us
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.slow_steps import SLOW_NS, log_slow_step
from greenroom_cluster.shard.effects import (
    HostEffect,
    Ignored,
    MemoryFull,
    Transition,
    Warned,
)
from greenroom_cluster.shard.inputs import ClientRequests, HostInput, LinkDown, LinkUp, PeerMessages, Tick
from greenroom_cluster.shard.limits.fairness import LONG_STEP_NS

EXIT_CORE_FAILED = 72

# The sleep for a deadline is cut into pieces: the event loop's clock stands still while the machine is
# suspended, the core's does not.
_SLEEP_SECONDS_MAX = 0.5

_log = structlog.get_logger(__name__)


class Core(Protocol):
    """The replication core's door; see `greenroom_cluster.shard.host`."""

    def step(self, now_ns: int, wall_us: int, event: HostInput) -> list[HostEffect]:
        """Take one input in; return what is to be done."""

    def next_deadline(self) -> int:
        """Return when a Tick is due."""

    def clock_us(self, now_ns: int, wall_us: int) -> int:
        """Return what the clock shows by which sessions end here."""

    def spent(self, now_ns: int, spent_ns: int) -> Sequence[str]:
        """Take in how long the latest step took, if that was long; return who is charged for it."""


class Links(Protocol):
    """The connections to peers, as `PeerLinks` keeps them."""

    def open(self, peer: bytes, address: str, *, bulk: bool) -> None:
        """Keep a connection open."""

    def close(self, peer: bytes, *, bulk: bool) -> None:
        """End it."""


class Replies(Protocol):
    """Where the replies of one connection go."""

    def send(self, messages: list[Any]) -> None:
        """Send these, in order."""


class Driver:
    """Steps one core. `connect_with` must be called before the first step.

    `leave(status)` ends the process at once; should it come back, nothing is stepped any more.
    """

    def __init__(self, core: Core, leave: Callable[[int], None] = os._exit) -> None:
        self._core = core
        self._leave = leave
        self._links: Links | None = None
        self._propose: Callable[[list[Proposal]], None] | None = None
        self._outbox: Outbox[FramedConnection, Replies] = Outbox()
        self._failed = False
        self._armed_ns: float = -math.inf
        self._rearm = trio.Event()

    def connect_with(self, links: Links, propose: Callable[[list[Proposal]], None]) -> None:
        """Set where effects for peers and for the coordinator go."""
        self._links = links
        self._propose = propose

    # --- connections -------------------------------------------------------------------------------------

    def add_client(self, number: int, replies: Replies) -> None:
        """Send replies for connection `number` here."""
        self._outbox.add_client(number, replies)

    def drop_client(self, number: int) -> None:
        """Drop replies for connection `number` from now on."""
        self._outbox.drop_client(number)

    def note_peer(self, peer: bytes, number: int, connection: FramedConnection, *, bulk: bool) -> bool:
        """Answer this peer on `connection` from now on; the connection it used before is ended.

        False if the peer has used a newer one already: what comes here is a leftover of a broken link.
        """
        ended = self._outbox.heard(peer, number, connection, bulk=bulk)
        if ended is None:
            return True
        if ended is connection:
            return False
        ended.abort("the peer opened a newer connection")
        return True

    def drop_peer(self, peer: bytes, number: int) -> None:
        """Drop answers to this peer that would go to connection `number`."""
        self._outbox.drop_peer(peer, number)

    def link_up(self, peer: bytes, connection: FramedConnection, *, bulk: bool) -> None:
        """Send to this peer on `connection`, the link that was to be kept open."""
        self._outbox.link_up(peer, connection, bulk=bulk)
        self.step(LinkUp(peer, bulk))

    def link_down(self, peer: bytes, *, bulk: bool) -> None:
        """Drop what is for this peer until its link is up again."""
        self._outbox.link_down(peer, bulk=bulk)
        self.step(LinkDown(peer, bulk))

    # --- stepping ----------------------------------------------------------------------------------------

    def step(self, event: HostInput) -> None:
        """Take in what has just been received, at the time it is now, and do what follows from it."""
        core = self._core
        if self._failed:
            return
        began_ns = now_ns()
        try:
            effects = core.step(began_ns, wall_us(), event)
        except BaseException as error:  # noqa: BLE001 - whatever it is, this core cannot be trusted any more
            self._fail(event, error)
            return
        # First what others wait for.
        if effects:
            self._perform(effects)
        try:
            deadline = core.next_deadline()
        except BaseException as error:  # noqa: BLE001 - as above
            self._fail(event, error)
            return
        if deadline < self._armed_ns:
            self._rearm.set()
        ended_ns = now_ns()
        if ended_ns - began_ns > LONG_STEP_NS:
            self._took_long(event, ended_ns, ended_ns - began_ns)

    def _took_long(self, event: HostInput, ended_ns: int, spent_ns: int) -> None:
        charged = self._core.spent(ended_ns, spent_ns)
        if spent_ns < SLOW_NS:
            return
        sender = ""
        if isinstance(event, ClientRequests):
            sender = event.identity
        elif isinstance(event, PeerMessages):
            sender = event.peer.hex()
        log_slow_step(event, spent_ns, sender, charged)

    async def tick_forever(self) -> NoReturn:
        """Give the core a Tick at each of its deadlines."""
        while True:
            self._rearm = trio.Event()
            deadline = self._core.next_deadline()
            ahead = (deadline - now_ns()) / 1e9
            if ahead <= 0:
                self._armed_ns = -math.inf
                self.step(Tick())
                # A core whose deadline stays in the past must not keep the loop from everything else.
                await trio.lowlevel.checkpoint()
                continue
            self._armed_ns = deadline
            with trio.move_on_after(min(ahead, _SLEEP_SECONDS_MAX)):
                await self._rearm.wait()

    def _fail(self, event: HostInput, error: BaseException) -> None:
        """End the process. Only the core's own words are logged: other errors may quote what users store."""
        self._failed = True
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
            # Whatever becomes of the log line, this process must not go on.
            self._leave(EXIT_CORE_FAILED)

    # --- effects -----------------------------------------------------------------------------------------

    def _perform(self, effects: list[HostEffect]) -> None:
        rare, to_peers, to_clients = self._outbox.sort(effects)
        if rare is not None:
            self._perform_rare(rare)
        for connection, messages in to_peers.items():
            connection.send(messages)
        for client, replies in to_clients:
            client.send(replies)
        if rare is not None and rare.proposals and self._propose is not None:
            self._propose(rare.proposals)

    def _perform_rare(self, rare: Rare[FramedConnection]) -> None:
        for note in rare.notes:
            _log_note(note)
        for change in rare.changes:
            self._change_link(change)
        for connection, beacon in rare.urgent:
            connection.send([beacon], urgent=True)

    def _change_link(self, change: LinkChange) -> None:
        if self._links is None:
            return
        match change:
            case OpenLink(peer=peer, address=address, bulk=bulk):
                self._links.open(peer, address, bulk=bulk)
            case CloseLink(peer=peer, bulk=bulk):
                self._links.close(peer, bulk=bulk)


def _log_note(note: HostEffect) -> None:
    match note:
        case Ignored(what=what, reason=reason, shard=shard, epoch=epoch):
            _log.debug("ignored", what=what, reason=reason, shard=shard, epoch=epoch)
        case Transition(shard=shard, epoch=epoch, role=role, reason=reason):
            _log.info("transition", shard=shard, epoch=epoch, role=role, reason=reason)
        case Warned(message=message, shard=shard):
            _log.warning("core_warning", shard=shard, message=message)
        case MemoryFull(slot=slot):
            _log.warning("memory_full", slot=slot, hint=_MEMORY_HINT)


_MEMORY_HINT = "delete sessions, shorten lifetimes, raise --memory-max or add a node"
