"""The connections to the primaries of the newest map, one to each actor.

As long as operations wait for an actor, a failed attempt to connect is repeated after a pause, which grows to
a quarter of a second.
"""

from collections.abc import Iterator
from random import Random

from greenroom.dialog.links import Lane, Link, Switchboard
from greenroom.routing import Router

RECONNECT_NS_MIN = 10_000_000
RECONNECT_NS_MAX = 250_000_000
FAILURES_LOST = 2


class Lanes:
    """The lanes of all shards. `by_shard` is empty until there is a map; `shift` is as in `Router`."""

    def __init__(self, board: Switchboard, random: Random) -> None:
        self.by_shard: list[Lane | None] = []
        self.shift = 0
        self._board = board
        self._random = random
        self._lanes: dict[bytes, Lane] = {}

    def update(self, router: Router) -> list[Lane]:
        """Take over a newer map; return the lanes that it no longer needs."""
        old = self._lanes
        self._lanes = {}
        self.shift = router.shift
        self.by_shard = []
        for actor in router.primaries:
            if actor is None:
                self.by_shard.append(None)
                continue
            lane = self._lanes.get(actor.incarnation)
            if lane is None:
                lane = old.pop(actor.incarnation, None)
                if lane is None or lane.actor.address != actor.address:
                    if lane is not None:
                        old[actor.incarnation] = lane
                    lane = Lane(actor)
                self._lanes[actor.incarnation] = lane
            self.by_shard.append(lane)
        return list(_with_sides(old))

    def lane_of(self, point: int) -> Lane | None:
        """Return the lane to the primary of a point's shard."""
        return self.by_shard[point >> self.shift] if self.by_shard else None

    def connect(self, lane: Lane, now_ns: int) -> None:
        """Open the connection unless it is open, being opened, or paused after a failure."""
        if lane.link is None and lane.retry_ns <= now_ns:
            lane.link = self._board.open(lane.actor.address, lane, now_ns)

    def greeted(self, lane: Lane) -> None:
        """Note that the actor has accepted the connection."""
        lane.ready = True
        lane.failures = 0
        lane.last_failure = ""

    def dropped(self, lane: Lane, link: Link) -> None:
        """Note that this side dropped the connection."""
        if lane.link is link:
            lane.link = None
            lane.ready = False

    def lost(self, lane: Lane, link: Link, reason: str, now_ns: int) -> None:
        """Note that the connection broke or could not be opened."""
        if lane.link is not link:
            return
        self.dropped(lane, link)
        lane.last_failure = reason
        pause = min(RECONNECT_NS_MIN << min(lane.failures, 10), RECONNECT_NS_MAX)
        lane.failures += 1
        lane.retry_ns = now_ns + int(pause * self._random.uniform(0.5, 1.0))

    def leave(self, request_id: int) -> None:
        """Take an operation out of every waiting room."""
        for lane in _with_sides(self._lanes):
            lane.waiting.pop(request_id, None)

    def reconnect(self, now_ns: int) -> None:
        """Reconnect the lanes that have operations waiting and whose pause is over."""
        for lane in _with_sides(self._lanes):
            if lane.waiting and lane.link is None:
                self.connect(lane, now_ns)

    @property
    def due_ns(self) -> int | None:
        """When `reconnect` is next due."""
        return min(
            (lane.retry_ns for lane in _with_sides(self._lanes) if lane.waiting and lane.link is None),
            default=None,
        )

    def are_lost(self, now_ns: int) -> bool:
        """Try to connect to every actor; return whether all of them failed to answer.

        Only attempts that began after the last connection broke count, so call this again until it is true.
        """
        for lane in self._lanes.values():
            self.connect(lane, now_ns)
        return all(lane.link is None and lane.failures >= FAILURES_LOST for lane in self._lanes.values())

    def sides(self) -> list[Lane]:
        """Return the lanes for suspects."""
        return [lane.side for lane in self._lanes.values() if lane.side is not None]


def _with_sides(lanes: dict[bytes, Lane]) -> Iterator[Lane]:
    for lane in lanes.values():
        yield lane
        if lane.side is not None:
            yield lane.side
