"""Where each unfinished operation is: sent to its actor, or waiting to be sent.

It is in exactly one place: unanswered on a link (`operation.link`), in a waiting room (`operation.queue`:
that of a lane that is not ready or has no room, or `_parked` while its shard has no lane), or held back
after a refusal (`operation.retry_ns`, in the heap `_held`). A gathering may be in several of these at once.
"""

from heapq import heappop, heappush
from random import Random

import msgspec

from greenroom import wire
from greenroom.dialog import gathering, suspects
from greenroom.dialog.clocks import ClusterClock
from greenroom.dialog.lanes import Lanes
from greenroom.dialog.ledger import Ledger
from greenroom.dialog.links import Lane, Link, Switchboard
from greenroom.dialog.near import NearCache
from greenroom.dialog.operations import AnyOperation, Gathering, Operation, stamp
from greenroom.ending_messages import WatchSession
from greenroom.errors import LocalProtocolError, UsageError
from greenroom.framing import ARRAY_BYTES_MAX, FRAME_BYTES_MAX, encode, encode_message, too_long

STAMP_BYTES = 32
"""Room left in a first attempt's frame: later attempts carry larger numbers."""

BACKOFF_NS_MIN = 2_000_000
BACKOFF_NS_MAX = 100_000_000


class DialogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a dialog. `deadline_seconds` is how long an operation may take, including retries.

    `link_bytes_max` limits what is unanswered on one connection, `waiting_bytes_max` what waits to be sent.
    `zone` is the one in which this process runs, if that is known.
    `near_sessions` and `near_eager` are those of the near cache, see `near`. `watches_max` is how many
    sessions are watched at most, see `watches`.
    """

    seeds: tuple[str, ...]
    cluster: str = "greenroom"
    deadline_seconds: float = 5.0
    operations_max: int = 10_000
    link_bytes_max: int = 8 << 20
    waiting_bytes_max: int = 64 << 20
    near_sessions: int = 0
    near_eager: bool = False
    watches_max: int = 20_000
    frame_bytes_max: int = FRAME_BYTES_MAX
    zone: str = ""


class Dispatcher:
    """Sends operations, or has them wait until they can be sent; `waiting_bytes` is what waits.

    `first_bytes_max` is the limit of a first attempt's frame. `near` is None without a near cache.
    """

    def __init__(
        self,
        settings: DialogSettings,
        board: Switchboard,
        lanes: Lanes,
        ledger: Ledger,
        clock: ClusterClock,
        random: Random,
        near: NearCache | None = None,
    ) -> None:
        self.waiting_bytes = 0
        self.near = near
        if near is not None:
            near.send = board.write
        self._frame_bytes_max = settings.frame_bytes_max
        self.first_bytes_max = settings.frame_bytes_max - STAMP_BYTES
        self._link_bytes_max = settings.link_bytes_max
        self._board = board
        self._lanes = lanes
        self._ledger = ledger
        self._clock = clock
        self._random = random
        self._parked: dict[int, object] = {}
        self._held: list[tuple[int, int]] = []

    def dispatch(self, operation: AnyOperation, now_ns: int) -> None:
        """Send an operation to its shard's primary, or have it wait until that is possible."""
        if isinstance(operation, Gathering):
            operation.retry_ns = 0
            gathering.ask(operation, self._lanes, self._board, self._ledger, now_ns)
            return
        self.take_out(operation)
        lane = self._lanes.lane_of(operation.request.point)
        if lane is None:
            self._enqueue(operation, self._parked)
            return
        lane = suspects.lane_for(operation, lane)
        link = lane.link
        if link is None or not lane.ready:
            self._enqueue(operation, lane.waiting)
            self._lanes.connect(lane, now_ns)
        elif not self._has_room(link, operation):
            self._enqueue(operation, lane.waiting)
        else:
            stamp(operation, self._ledger.low, now_ns)
            if self._clock.offset_us and not operation.moved:
                operation.request = self._clock.sent(operation.request)
                operation.moved = True
            operation.size = self.send(link, operation.request, self._frame_bytes_max)
            operation.link = link
            link.alone = operation.request.request_id

    def send(self, link: Link, request: wire.Frame, limit: int) -> int:
        """Queue a request on a ready link; return its size. Raises UsageError if that is over the limit."""
        near = self.near
        if near is not None:
            request = near.leaving(link, request)
        if type(request) is WatchSession:
            request = _understood(link, request)
        # As `encode_message` does, without the call: this is done for every request.
        encoded = encode(request)
        size = len(encoded)
        if size > limit - ARRAY_BYTES_MAX:
            raise _too_large(too_long(request, size, limit))
        link.out.append(msgspec.Raw(encoded))
        if not link.dirty:
            link.dirty = True
            self._board.dirty.append(link)
        link.bytes += size
        self._board.queued_bytes += size
        if near is not None:
            near.left(link)
        return size

    def measure(self, request: wire.Frame) -> int:
        """Return the size of a request. Raises UsageError if too large."""
        try:
            return len(encode_message(request, self.first_bytes_max))
        except LocalProtocolError as error:
            raise _too_large(error) from None

    def drain(self, lane: Lane, now_ns: int) -> None:
        """Send the operations that wait for this lane, in the order of submission, while there is room."""
        while lane.waiting and lane.ready and lane.link is not None:
            if lane.main is not None and suspects.is_busy(lane.link, self._ledger):
                return
            request_id, operation = next(iter(lane.waiting.items()))
            if isinstance(operation, Gathering):
                del lane.waiting[request_id]
                self.dispatch(operation, now_ns)
            elif isinstance(operation, Operation):
                if not self._has_room(lane.link, operation):
                    return
                self.dispatch(operation, now_ns)

    def attend_side(self, side: Lane, now_ns: int) -> None:
        """Send the next suspect if none is unanswered; close the connection if there is none."""
        if side.link is None or not side.ready:
            return
        self.drain(side, now_ns)
        if not side.waiting and not suspects.is_busy(side.link, self._ledger):
            self._board.close(side.link)
            self._lanes.dropped(side, side.link)

    def hold(self, operation: AnyOperation, now_ns: int) -> None:
        """Hold an operation back, for longer with every refusal."""
        pause = min(BACKOFF_NS_MIN << min(operation.refusals, 10), BACKOFF_NS_MAX)
        operation.refusals += 1
        operation.retry_ns = now_ns + int(pause * self._random.uniform(0.5, 1.0))
        heappush(self._held, (operation.retry_ns, operation.request.request_id))

    def next_due(self, now_ns: int) -> AnyOperation | None:
        """Take out and return an operation that was held back long enough, if there is one."""
        while self._held and self._held[0][0] <= now_ns:
            at, request_id = heappop(self._held)
            operation = self._ledger.pending.get(request_id)
            if operation is not None and operation.retry_ns == at:
                operation.retry_ns = 0
                return operation
        return None

    @property
    def due_ns(self) -> int | None:
        """When `next_due` next has something."""
        return self._held[0][0] if self._held else None

    def take_out(self, operation: Operation) -> None:
        """Take an operation out of its waiting room, if it is in one."""
        operation.retry_ns = 0
        if operation.queue is not None:
            del operation.queue[operation.request.request_id]
            operation.queue = None
            self.waiting_bytes -= operation.size

    def detach(self, link: Link) -> list[AnyOperation]:
        """Take back what was unanswered on a link. Whether those mutations applied is now unknown."""
        detached: list[AnyOperation] = []
        for operation in self._ledger.pending.values():
            if operation.link is link:
                operation.link = None
            elif not isinstance(operation, Gathering) or operation.asked.pop(link, None) is None:
                continue
            operation.maybe = operation.kind.mutation
            detached.append(operation)
        link.bytes = 0
        return detached

    def finish(self, operation: AnyOperation) -> None:
        """Remove a finished operation from everywhere."""
        request_id = operation.request.request_id
        if isinstance(operation, Gathering):
            self._lanes.leave(request_id)
        else:
            self.take_out(operation)
            if operation.link is not None:
                operation.link.bytes -= operation.size
                operation.link = None
        self._ledger.remove(request_id)

    def _has_room(self, link: Link, operation: Operation) -> bool:
        if link.lane is not None and link.lane.main is not None:
            return not suspects.is_busy(link, self._ledger)
        return not link.bytes or link.bytes + operation.size <= self._link_bytes_max

    def _enqueue(self, operation: Operation, queue: dict[int, object]) -> None:
        operation.queue = queue
        queue[operation.request.request_id] = operation
        self.waiting_bytes += operation.size


def _understood(link: Link, request: WatchSession) -> wire.Frame:
    """Return what asks an actor for a watch: one of a former release at least says if the session is gone."""
    if link.agreement is not None and wire.FEATURE_ENDINGS in link.agreement.features:
        return request
    return wire.Get(request.request_id, request.point, request.digest)


def _too_large(error: LocalProtocolError) -> UsageError:
    return UsageError(f"{error}; keep large values elsewhere and only their keys in the session")
