"""The decisions common to all drivers of a core: when it reads the clock, and the order of its effects.

One step takes everything that one read brought. The clock is read after that read, because leases are judged
by it. Effects that others wait for are performed first. Subclasses provide connections, timers and the log.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from greenroom.negotiation import Agreement
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.links.outbox import DiskEffect, Line, LinkChange, Outbox, Rare, are_bulk
from greenroom_cluster.links.sync_news import SyncNews
from greenroom_cluster.metrics.traffic import Traffic
from greenroom_cluster.shard.effects import HostEffect
from greenroom_cluster.shard.inputs import (
    ClientRequests,
    ConnectionClosed,
    HostInput,
    LinkDown,
    LinkUp,
    PeerMessages,
    Synced,
)
from greenroom_cluster.shard.limits.fairness import LONG_STEP_NS


class Core(Protocol):
    """The replication core's door; see `greenroom_cluster.shard.host`."""

    def step(self, now_ns: int, wall_us: int, event: HostInput) -> list[HostEffect]:
        """Take one input in; return what is to be done."""

    def hear(self, synced: Synced) -> None:
        """Take this in with the next input."""

    @property
    def awaits_disk(self) -> bool:
        """Whether anything waits for a sync, since the latest step."""

    def next_deadline(self) -> int:
        """Return when a Tick is due."""

    def clock_us(self, now_ns: int, wall_us: int) -> int:
        """Return what the clock shows by which sessions end here."""

    def spent(self, now_ns: int, spent_ns: int) -> Sequence[str]:
        """Take in how long the latest step took, if that was long; return who is charged for it."""


class PeerConnection(Line, Protocol):
    """A connection to or from a peer, as a runner uses it."""

    agreement: Agreement

    def send(self, messages: list[Any], *, urgent: bool = False) -> None:
        """Send these, `urgent` ones ahead of what is queued; dropped if it has ended."""

    def abort(self, reason: str) -> None:
        """End it with a reset."""


class Replies(Protocol):
    """Where the replies of one connection go."""

    def send(self, messages: list[Any]) -> None:
        """Send these, in order."""


PeerLine = TypeVar("PeerLine", bound=PeerConnection)


class CoreRunner(ABC, Generic[PeerLine]):
    """Steps one core, and performs what it wants.

    A core that fails is not asked again: a replica that may contradict itself must not serve.
    """

    def __init__(self, core: Core, now_ns: Callable[[], int], wall_us: Callable[[], int]) -> None:
        self._core = core
        self._now_ns = now_ns
        self._wall_us = wall_us
        self._outbox: Outbox[PeerLine, Replies] = Outbox()
        self._failed = False
        # Later deadlines need no `_rearm`. A subclass that knows when it wakes may set it.
        self._armed_ns: float = math.inf
        self._write: Callable[[list[DiskEffect]], None] | None = None
        self._news: SyncNews | None = None
        self.traffic = Traffic()
        """What has passed through so far."""

    def write_with(self, write: Callable[[list[DiskEffect]], None], news: SyncNews) -> None:
        """Hand what is for the disk to this; a core without a disk asks for nothing.

        It returns once all is written, waits for no sync, and raises if it fails: then nothing more is said.
        What was synced is taken from `news`.
        """
        self._write, self._news = write, news

    # --- for the subclasses ------------------------------------------------------------------------------

    @abstractmethod
    def _fail(self, event: HostInput, error: BaseException) -> None:
        """End the process: the core raised this, and nothing is stepped any more."""

    @abstractmethod
    def _rearm(self, deadline_ns: int) -> None:
        """Arrange for a Tick at this time, which may have passed already."""

    @abstractmethod
    def _took_long(self, event: HostInput, spent_ns: int, charged: Sequence[str]) -> None: ...

    @abstractmethod
    def _note(self, note: HostEffect) -> None: ...

    @abstractmethod
    def _change_link(self, change: LinkChange) -> None: ...

    @abstractmethod
    def _propose(self, proposals: list[Proposal]) -> None: ...

    # --- connections -------------------------------------------------------------------------------------

    def add_client(self, number: int, replies: Replies) -> None:
        """Send replies for connection `number` here."""
        self._outbox.add_client(number, replies)

    def drop_client(self, number: int) -> None:
        """Tell the core that connection `number` has ended, and drop replies for it."""
        self._outbox.drop_client(number)
        self.step(ConnectionClosed(number))

    def take_from_peer(self, peer: bytes, number: int, line: PeerLine, messages: list[Any]) -> bool:
        """Take what came from a peer on the connection `number` that it opened.

        Returns False if the connection is left over from a broken link, and is to be ended.
        """
        ended = self._outbox.heard(peer, number, line, bulk=are_bulk(messages))
        if ended is not None and not self._end_older(ended, line):
            return False
        self.step(PeerMessages(peer, messages))
        return True

    def note_peer(self, peer: bytes, number: int, line: PeerLine, *, bulk: bool) -> bool:
        """Answer this peer on `line` from now on; the connection it used before is ended.

        Returns False if the peer has used a newer one already.
        """
        ended = self._outbox.heard(peer, number, line, bulk=bulk)
        return ended is None or self._end_older(ended, line)

    def _end_older(self, ended: PeerLine, line: PeerLine) -> bool:
        if ended is line:
            return False
        ended.abort("the peer opened a newer connection")
        return True

    def drop_peer(self, peer: bytes, number: int) -> None:
        """Drop answers to this peer that would go to connection `number`."""
        self._outbox.drop_peer(peer, number)

    def link_up(self, peer: bytes, line: PeerLine, *, bulk: bool) -> None:
        """Send to this peer on `line`, the link that was to be kept open."""
        self._outbox.link_up(peer, line, bulk=bulk)
        self.step(LinkUp(peer, bulk, line.agreement.features))

    def link_down(self, peer: bytes, *, bulk: bool) -> None:
        """Drop what is for this peer until its link is up again."""
        self._outbox.link_down(peer, bulk=bulk)
        self.step(LinkDown(peer, bulk))

    # --- stepping ----------------------------------------------------------------------------------------

    def step(self, event: HostInput) -> None:
        """Take in what has just been received, at the time it is now, and do what follows from it."""
        core, news = self._core, self._news
        if self._failed:
            return
        began_ns = self._now_ns()
        kind = type(event)
        if kind is PeerMessages:
            self.traffic.heard(event.messages, began_ns)  # type: ignore[union-attr]  # kind says which
        elif kind is ClientRequests:
            self.traffic.asked(event.requests)  # type: ignore[union-attr]  # as above
        try:
            # Compared here, for most often there is nothing to take.
            if news is not None and news.newest is not news.taken and (synced := news.take()) is not None:
                core.hear(synced)
            effects = core.step(began_ns, self._wall_us(), event)
        except BaseException as error:  # noqa: BLE001 - whatever it is, this core cannot be trusted any more
            self._failed = True
            self._fail(event, error)
            return
        # First what others wait for.
        if effects:
            self._perform(effects)
        try:
            deadline_ns = core.next_deadline()
        except BaseException as error:  # noqa: BLE001 - as above
            self._failed = True
            self._fail(event, error)
            return
        if deadline_ns < self._armed_ns:
            self._rearm(deadline_ns)
        ended_ns = self._now_ns()
        spent_ns = ended_ns - began_ns
        self.traffic.steps.note(spent_ns)
        if spent_ns > LONG_STEP_NS:
            self._took_long(event, spent_ns, core.spent(ended_ns, spent_ns))
        if news is not None and news.look_out(awaited=core.awaits_disk):
            self.wake()

    def wake(self) -> None:
        """Take in what was synced, because something waited for it."""
        if self._news is not None and (synced := self._news.take()) is not None:
            self.step(synced)

    def _perform(self, effects: list[HostEffect]) -> None:
        traffic = self.traffic
        rare, to_peers, to_clients = self._outbox.sort(effects)
        if rare is not None:
            self._perform_rare(rare)
        for line, messages in to_peers.items():
            traffic.sent(messages, self._now_ns)
            line.send(messages)
        for client, replies in to_clients:
            client.send(replies)
            traffic.replied(replies)
        if rare is None:
            return
        if rare.proposals:
            self._propose(rare.proposals)
        if rare.writes:
            # Last: what others get of this step does not depend on it, and they work meanwhile.
            assert self._write is not None
            self._write(rare.writes)
            if rare.later:
                self._perform(rare.later)

    def _perform_rare(self, rare: Rare[PeerLine]) -> None:
        for note in rare.notes:
            self._note(note)
        for change in rare.changes:
            self._change_link(change)
        for line, beacon in rare.urgent:
            line.send([beacon], urgent=True)
