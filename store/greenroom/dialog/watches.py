"""Sessions whose end somebody waits for: the client's half of endings.

A watch is registered at the session's primary, on the connection to it, and lives as long as both do. So it
is registered again whenever the connection is lost, the map names another primary, or the actor says that it
watches nothing in that shard any more. A registration is a read: the primary answers whether the session is
there, so an end that happened in between is told then, as one of unknown reason. Nothing asks again and again
for a session that is registered; a beacon a second on each connection shows that the connection lives, and
that who answers is the primary.

Registrations are operations like others, but few of a shard are under way at a time: when a primary fails,
thousands are to be made anew, and must not crowd out what users wait for. One that fails is made again later.
"""

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from typing import Any, Final, TypeAlias

from greenroom import wire
from greenroom.deadlines import NEVER_NS
from greenroom.dialog.lanes import Lanes
from greenroom.dialog.links import Lane, Link, Switchboard
from greenroom.dialog.operations import WATCH, Kind
from greenroom.ending_messages import (
    SessionEnded,
    Unwatch,
    Unwatched,
    WatchBeacon,
    WatchEcho,
    Watching,
    WatchSession,
    heard,
)
from greenroom.endings import UNKNOWN, Ended
from greenroom.errors import GreenroomError, RemoteProtocolError, TooManyWatchesError, UsageError
from greenroom.ids import POINT_BITS

WINDOW: Final = 32
"""How many registrations of one shard are under way at a time."""
RETRY_NS: Final = 500_000_000
"""How long after a registration has failed another is made."""
ASK_AGAIN_NS: Final = 5_000_000_000
"""How long after an actor said that it will tell nothing it is asked again."""
BEACON_NS: Final = 1_000_000_000
SILENCE_NS: Final = 5_000_000_000
"""How long a beacon may be unanswered before the connection is given up."""

Outcome: TypeAlias = Ended | GreenroomError
Waiter: TypeAlias = Any
"""One caller, as the driver knows it."""
Submit: TypeAlias = Callable[[int, WatchSession, Kind, object], object]


class Watched:
    """One session that is watched, and by whom.

    It is `queued` in its shard, or `asking` for a registration, or registered on a `link`, or to be queued
    again at `due_ns`.
    """

    __slots__ = ("asking", "digest", "due_ns", "link", "point", "queued", "waiters")

    def __init__(self, point: int, digest: bytes) -> None:
        self.point = point
        self.digest = digest
        self.waiters: dict[Waiter, None] = {}
        self.queued = False
        self.asking = False
        self.link: Link | None = None
        self.due_ns = 0


class _Shard:
    """The sessions of one shard: those that are to be registered, and how many just are."""

    __slots__ = ("asking", "members", "queue")

    def __init__(self) -> None:
        self.members: dict[bytes, Watched] = {}
        self.queue: dict[bytes, Watched] = {}
        self.asking = 0


class _Pulse:
    """A connection on which sessions are watched. `asked_ns`: when the unanswered beacon was sent, or 0."""

    __slots__ = ("asked_ns", "due_ns", "number", "watched")

    def __init__(self, due_ns: int) -> None:
        self.watched: dict[bytes, Watched] = {}
        self.number = 0
        self.asked_ns = 0
        self.due_ns = due_ns


class Watches:
    """All that one dialog watches: at most `most` sessions. The driver empties `told`."""

    def __init__(
        self, most: int, board: Switchboard, lanes: Lanes, next_id: Callable[[], int], submit: Submit
    ) -> None:
        self.told: list[tuple[Waiter, Outcome]] = []
        self._most = most
        self._board = board
        self._lanes = lanes
        self._next_id = next_id
        self._submit = submit
        self._by_digest: dict[bytes, Watched] = {}
        self._shards: dict[int, _Shard] = {}
        # By which lanes and shift the shards were numbered last.
        self._by_shard: list[Lane | None] = []
        self._shift = POINT_BITS
        # Shards that may have registrations to make.
        self._ready: dict[int, None] = {}
        # What is to be registered again later, and what has failed since the last tick.
        self._later: list[tuple[int, int, Watched]] = []
        self._failed: list[Watched] = []
        self._count = 0
        self._pulses: dict[Link, _Pulse] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    @property
    def registered(self) -> int:
        """How many sessions a primary is known to watch for this dialog."""
        return sum(len(pulse.watched) for pulse in self._pulses.values())

    # --- callers -----------------------------------------------------------------------------------------

    def add(self, point: int, digest: bytes, waiter: Waiter) -> None:
        """Have a caller told when a session has ended. Raises TooManyWatchesError."""
        watched = self._by_digest.get(digest)
        if watched is None:
            if len(self._by_digest) >= self._most:
                raise TooManyWatchesError(
                    f"the endings of watches_max={self._most} sessions are watched in this event loop "
                    "already: raise that option of the store, or run more workers"
                )
            watched = self._by_digest[digest] = Watched(point, digest)
            self._shard_of(watched).members[digest] = watched
            self._queue(watched)
        watched.waiters[waiter] = None

    def remove(self, digest: bytes, waiter: Waiter) -> None:
        """Tell a caller nothing any more."""
        watched = self._by_digest.get(digest)
        if watched is None or watched.waiters.pop(waiter, self) is not None or watched.waiters:
            return
        if watched.asking:
            return  # what becomes of it is known once that is answered
        if watched.link is not None:
            self._board.write(watched.link, Unwatch((digest,)))
        self._forget(watched)

    # --- what the dialog reports -------------------------------------------------------------------------

    def take(self, link: Link, message: SessionEnded | Unwatched | WatchEcho, version: int) -> bool:
        """Take in what an actor says; return whether there may be a newer map than that of this version.

        Raises RemoteProtocolError on a connection to an actor that tells of no endings.
        """
        if link.agreement is None or wire.FEATURE_ENDINGS not in link.agreement.features:
            raise RemoteProtocolError(f"a {type(message).__name__} came from a server that tells no endings")
        match message:
            case SessionEnded(digest=digest):
                watched = self._by_digest.get(digest)
                # What was told on another connection, or before the registration, is of a former watch.
                if watched is not None and watched.link is link:
                    self._end(watched, heard(message))
            case Unwatched(shards=shards):
                for shard in shards:
                    self._again(shard, lambda each: each is link)
            case WatchEcho():
                return self._echoed(link, message, version)
        return False

    def _echoed(self, link: Link, echo: WatchEcho, version: int) -> bool:
        pulse = self._pulses.get(link)
        if pulse is None or echo.number != pulse.number:
            return False
        pulse.asked_ns = 0
        return not echo.is_sure or echo.map_version > version

    def answered(
        self, now_ns: int, watched: Any, link: Link, reply: Watching | wire.Missing | wire.Session
    ) -> None:
        """Take in the answer to a registration on a connection."""
        self._answered(watched)
        registered = isinstance(reply, Watching) and not reply.is_full
        if not watched.waiters or (registered and not self._may_stay_on(link, watched)):
            if registered:
                self._board.write(link, Unwatch((watched.digest,)))
            if watched.waiters:
                self._queue(watched)
            else:
                self._forget(watched)
        elif registered:
            watched.link = link
            pulse = self._pulses.get(link)
            if pulse is None:
                pulse = self._pulses[link] = _Pulse(now_ns + BEACON_NS)
            pulse.watched[watched.digest] = watched
        elif isinstance(reply, wire.Missing):
            self._end(watched, UNKNOWN)
        else:  # nothing will be told: the actor is full, or of a former release
            self._pause(watched, now_ns + ASK_AGAIN_NS)

    def _may_stay_on(self, link: Link, watched: Watched) -> bool:
        """Whether this is the connection to the primary, and not one for suspects, which ends soon."""
        lane = link.lane
        return lane is not None and lane.link is link and self._lanes.lane_of(watched.point) is lane

    def failed(self, watched: Any, error: GreenroomError) -> None:
        """Make a registration again later, unless the caller has to change something."""
        self._answered(watched)
        if not watched.waiters:
            self._forget(watched)
        elif isinstance(error, UsageError):
            self._end(watched, error)
        else:
            self._failed.append(watched)

    def _answered(self, watched: Watched) -> None:
        watched.asking = False
        shard = self._shard_of(watched)
        shard.asking -= 1
        if shard.queue:
            self._ready[self._number_of(watched)] = None

    def lost(self, link: Link) -> None:
        """Register anew what was watched on a connection that is gone."""
        pulse = self._pulses.pop(link, None)
        if pulse is not None:
            for watched in pulse.watched.values():
                watched.link = None
                self._queue(watched)

    def remapped(self) -> None:
        """Register anew, by a newer map, what has another primary."""
        lanes, before = self._lanes, self._by_shard
        self._by_shard = list(lanes.by_shard)
        if self._shift != lanes.shift or len(before) != len(self._by_shard):
            self._renumber()
            before = [None] * len(self._by_shard)
        for shard in self._shards:
            lane = self._by_shard[shard] if self._by_shard else None
            if lane is not before[shard]:
                self._again(shard, partial(_leads_elsewhere, lane))

    def _renumber(self) -> None:
        """Put every session into its shard: now the map says how many there are."""
        self._shift = self._lanes.shift
        self._shards, self._ready = {}, {}
        for watched in self._by_digest.values():
            shard = self._shard_of(watched)
            shard.members[watched.digest] = watched
            shard.asking += watched.asking
            if watched.queued:
                shard.queue[watched.digest] = watched
                self._ready[self._number_of(watched)] = None

    def _again(self, shard: int, is_void: Callable[[Link], bool]) -> None:
        """Register anew what is registered in a shard on connections of which that is void."""
        known = self._shards.get(shard)
        for watched in () if known is None else list(known.members.values()):
            if watched.link is not None and is_void(watched.link):
                self._leave_link(watched)
                self._queue(watched)

    # --- time --------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> list[Link]:
        """Say beacons and make registrations that are due; return connections that are silent."""
        silent = []
        for link, pulse in self._pulses.items():
            if pulse.asked_ns:
                if now_ns >= pulse.asked_ns + SILENCE_NS:
                    silent.append(link)
            elif now_ns >= pulse.due_ns:
                pulse.number += 1
                pulse.asked_ns, pulse.due_ns = now_ns, now_ns + BEACON_NS
                self._board.write(link, WatchBeacon(pulse.number))
        failed, self._failed = self._failed, []
        for watched in failed:
            if watched.waiters:
                self._pause(watched, now_ns + RETRY_NS)
        while self._later and self._later[0][0] <= now_ns:
            due_ns, _, watched = heappop(self._later)
            if watched.due_ns == due_ns:
                watched.due_ns = 0
                self._queue(watched)
        ready, self._ready = self._ready, {}
        for shard in ready:
            self._register(now_ns, self._shards.get(shard))
        return silent

    def _register(self, now_ns: int, shard: _Shard | None) -> None:
        while shard is not None and shard.queue and shard.asking < WINDOW:
            digest = next(iter(shard.queue))
            watched = shard.queue.pop(digest)
            watched.queued = False
            watched.asking = True
            shard.asking += 1
            try:
                self._submit(now_ns, WatchSession(self._next_id(), watched.point, digest), WATCH, watched)
            except GreenroomError as error:  # too much is in flight
                self.failed(watched, error)

    @property
    def due_ns(self) -> int:
        """When `tick` is next due."""
        if not self._by_digest:
            return NEVER_NS
        if self._ready or self._failed:
            return 0
        due_ns = self._later[0][0] if self._later else NEVER_NS
        for pulse in self._pulses.values():
            due_ns = min(due_ns, pulse.asked_ns + SILENCE_NS if pulse.asked_ns else pulse.due_ns)
        return due_ns

    def close(self, error: GreenroomError) -> None:
        """Tell all callers that they will not be told."""
        for watched in list(self._by_digest.values()):
            self._end(watched, error)

    # --- inside ------------------------------------------------------------------------------------------

    def _number_of(self, watched: Watched) -> int:
        return watched.point >> self._shift

    def _shard_of(self, watched: Watched) -> _Shard:
        return self._shards.setdefault(self._number_of(watched), _Shard())

    def _queue(self, watched: Watched) -> None:
        if not (watched.queued or watched.asking):
            watched.queued = True
            self._shard_of(watched).queue[watched.digest] = watched
            self._ready[self._number_of(watched)] = None

    def _pause(self, watched: Watched, due_ns: int) -> None:
        watched.due_ns = due_ns
        self._count += 1
        heappush(self._later, (due_ns, self._count, watched))

    def _leave_link(self, watched: Watched) -> None:
        link, watched.link = watched.link, None
        pulse = None if link is None else self._pulses.get(link)
        if link is not None and pulse is not None:
            pulse.watched.pop(watched.digest, None)
            if not pulse.watched:
                del self._pulses[link]

    def _end(self, watched: Watched, outcome: Outcome) -> None:
        """Tell all who wait, for the last time."""
        self.told += [(waiter, outcome) for waiter in watched.waiters]
        watched.waiters.clear()
        if not watched.asking:
            self._forget(watched)

    def _forget(self, watched: Watched) -> None:
        self._leave_link(watched)
        watched.due_ns = 0
        watched.queued = False
        del self._by_digest[watched.digest]
        shard = self._shard_of(watched)
        shard.members.pop(watched.digest, None)
        shard.queue.pop(watched.digest, None)
        if not shard.members and not shard.asking:
            self._shards.pop(self._number_of(watched), None)


def _leads_elsewhere(lane: Lane | None, link: Link) -> bool:
    return link.lane is not lane
