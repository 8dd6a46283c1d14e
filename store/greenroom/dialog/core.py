"""The client's side of the protocol, without I/O and without a clock.

One dialog serves one event loop of one process and is never inherited over fork: its random id, together with
rising request ids, is what lets a shard apply a repeated request once. A driver feeds it (`submit`, `opened`,
`lost`, `received`, `tick`, each with the time) and then drains what it wants done: `replies` and `failures`
to hand out, `board.actions` to perform, `board.take_writes()` to send, and a `tick` by `wake_ns`.

Every operation sits in exactly one place until it ends: unanswered on a link (`operation.link`), in a waiting
room (`operation.queue`: that of a lane that is not ready, or `_parked` while its shard has no lane), or held
back after a refusal (`operation.retry_ns`, in the heap `_held`). Nobody needs to say that a caller was
cancelled: the operation stays, and counts, until it is answered or its time is over.
"""

from heapq import heappop, heappush
from random import Random
from typing import Any, NoReturn

import msgspec

from greenroom import wire
from greenroom.dialog import gathering, verdicts
from greenroom.dialog.following import NEVER_NS, MapFollower
from greenroom.dialog.lanes import Lanes
from greenroom.dialog.links import Lane, Link, Switchboard
from greenroom.dialog.operations import (
    AnyOperation,
    Gathering,
    Kind,
    Operation,
    Single,
    stamp,
)
from greenroom.errors import (
    GreenroomError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    UnavailableError,
    UsageError,
)
from greenroom.framing import FRAME_BYTES_MAX, append_frame

SLOW_NS = 1_000_000_000
"""An operation unanswered for this long makes the dialog ask whether its map is still the newest."""

STAMP_BYTES = 32
"""Room in a first attempt's frame for the larger numbers that a later attempt carries."""

BACKOFF_NS_MIN = 2_000_000
BACKOFF_NS_MAX = 100_000_000


class DialogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What may be set. `deadline_seconds` is how long an operation may take, retries included."""

    seeds: tuple[str, ...]
    cluster: str = "greenroom"
    deadline_seconds: float = 5.0
    operations_max: int = 10_000
    link_bytes_max: int = 8 << 20
    waiting_bytes_max: int = 64 << 20
    frame_bytes_max: int = FRAME_BYTES_MAX


_decode_reply = msgspec.msgpack.Decoder(wire.ServerMessage).decode


class Dialog:
    """The requests of one event loop, from submission to reply or truthful failure."""

    def __init__(self, client_id: bytes, settings: DialogSettings, random: Random) -> None:
        self.replies: list[tuple[object, wire.Reply]] = []
        self.failures: list[tuple[object, GreenroomError]] = []
        self.wake_ns = NEVER_NS
        self.low = 1
        self.board = Switchboard(client_id, settings.cluster)
        self._settings = settings
        self._deadline_ns = int(settings.deadline_seconds * 1e9)
        self._first_bytes_max = settings.frame_bytes_max - STAMP_BYTES
        self._random = random
        self._lanes = Lanes(self.board, random)
        self._follower = MapFollower(settings.seeds, settings.cluster, self.board, random)
        self._by_shard: list[Lane | None] = []
        self._shift = 0
        self._last_id = 0
        self._pending: dict[int, AnyOperation] = {}
        self._gatherings: dict[int, Gathering] = {}
        self._parked: dict[int, object] = {}
        self._held: list[tuple[int, int]] = []
        self._waiting_bytes = 0
        self._probed_ns = 0
        self._started = False
        self._closed = False

    @property
    def pending_count(self) -> int:
        """How many operations are not finished, those of cancelled callers included."""
        return len(self._pending)

    # --- submitting --------------------------------------------------------------------------------------

    def next_id(self) -> int:
        """Return a fresh request id; a mutation is built with it and with `low`, then submitted at once."""
        self._last_id += 1
        return self._last_id

    def submit(self, now_ns: int, request: Single, kind: Kind, token: object) -> None:
        """Begin an operation on one session. `token` comes back with its outcome.

        Raises UsageError if the request is over the frame limit, UnavailableError if too much is in flight.
        """
        pending = self._pending
        if len(pending) >= self._settings.operations_max:
            self._refuse_crowd(kind)
        lane = self._by_shard[request.point >> self._shift] if self._by_shard else None
        if lane is not None and lane.ready:
            link = lane.link
            if link is not None and link.bytes < self._settings.link_bytes_max:
                size = self._append(link, request, self._first_bytes_max)
                link.bytes += size
                pending[request.request] = Operation(
                    request, kind, token, now_ns + self._deadline_ns, link, size, now_ns
                )
                if self.wake_ns > now_ns + SLOW_NS:
                    self.wake_ns = now_ns + SLOW_NS
                return
        size = self._measure(request)
        if self._waiting_bytes + size > self._settings.waiting_bytes_max:
            self._refuse_crowd(kind)
        operation = Operation(request, kind, token, now_ns + self._deadline_ns, None, size)
        pending[request.request] = operation
        self._start(now_ns)
        self._place(operation, now_ns)
        self._rewake(now_ns)

    def gather(self, now_ns: int, request: wire.Fanout, kind: Kind, token: object) -> None:
        """Begin an operation that every shard must answer; the `shards` in `request` are filled in.

        Raises UnavailableError if too much is in flight.
        """
        if len(self._pending) >= self._settings.operations_max:
            self._refuse_crowd(kind)
        self._measure(request)
        operation = Gathering(request, kind, token, now_ns + self._deadline_ns)
        self._pending[request.request] = self._gatherings[request.request] = operation
        self._start(now_ns)
        self._ask(operation, now_ns)
        self._rewake(now_ns)

    def _refuse_crowd(self, kind: Kind) -> NoReturn:
        settings = self._settings
        raise UnavailableError(
            f"{kind.name} was not sent: overloaded, {len(self._pending)} operations are in flight and "
            f"{self._waiting_bytes} bytes wait to be sent (operations_max={settings.operations_max}, "
            f"waiting_bytes_max={settings.waiting_bytes_max}). Repeat it later, or raise these options."
        )

    def _append(self, link: Link, request: wire.Frame, limit: int) -> int:
        out = link.out
        start = len(out)
        try:
            append_frame(out, request, limit)
        except LocalProtocolError as error:
            raise _too_large(error) from None
        if not link.dirty:
            link.dirty = True
            self.board.dirty.append(link)
        return len(out) - start

    def _measure(self, request: wire.Frame) -> int:
        scratch = bytearray()
        try:
            append_frame(scratch, request, self._first_bytes_max)
        except LocalProtocolError as error:
            raise _too_large(error) from None
        return len(scratch)

    def _start(self, now_ns: int) -> None:
        if not self._started:
            self._started = True
            self._follower.maintain(now_ns)

    # --- what the driver reports -------------------------------------------------------------------------

    def opened(self, now_ns: int, number: int) -> None:
        """Take note that a connection is established."""
        link = self.board.get(number)
        if link is not None:
            self.board.opened(link, now_ns)
            self._rewake(now_ns)

    def lost(self, now_ns: int, number: int, reason: str) -> None:
        """Take note that a connection could not be opened, or was closed by the other side."""
        link = self.board.get(number)
        if link is not None:
            self.board.forget(link)
            self._unlink(link, reason, now_ns)
            self._rewake(now_ns)

    def received(self, now_ns: int, number: int, data: bytes | memoryview) -> None:
        """Take bytes that came on a connection. Bytes that make no sense end that connection only."""
        link = self.board.get(number)
        if link is None:
            return
        pending = self._pending
        replies = self.replies
        try:
            for payload in link.buffer.feed(data):
                reply: Any = _decode_reply(payload)
                request = getattr(reply, "request", 0)
                operation = pending.get(request)
                # The usual: a final reply, on the connection on which the operation was last sent.
                if (
                    type(operation) is not Operation
                    or operation.link is not link
                    or type(reply) not in operation.kind.finals
                ):
                    self._take_unusual(link, reply, operation, now_ns)
                    if self.board.get(number) is not link:
                        return
                    continue
                del pending[request]
                link.bytes -= operation.size
                replies.append((operation.token, reply))
                if self.low not in pending:
                    self._raise_low()
        except (ProtocolError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.board.abort(link)
            self._unlink(link, f"it broke the protocol: {error}", now_ns)
            self._rewake(now_ns)
            return
        lane = link.lane
        if lane is not None and lane.waiting and lane.ready:
            self._drain(lane, now_ns)

    def tick(self, now_ns: int) -> None:
        """Let time pass: end what is too late, repeat what is due."""
        why = f"no answer within deadline_seconds={self._settings.deadline_seconds:g}"
        while (oldest := self._oldest()) is not None and oldest.deadline_ns <= now_ns:
            self._fail(oldest, why)
        for link in self.board.late(now_ns):
            self.board.abort(link)
            self._unlink(link, "no answer in time" if link.opened else "no connection in time", now_ns)
        while self._held and self._held[0][0] <= now_ns:
            at, number = heappop(self._held)
            held = self._pending.get(number)
            if held is not None and held.retry_ns == at:
                self._retry(held, now_ns)
        self._lanes.reconnect(now_ns)
        if oldest is not None and now_ns >= oldest.deadline_ns - self._deadline_ns + SLOW_NS:
            self._probe(now_ns)
        if self._started and not self._closed:
            self._follower.maintain(now_ns)
        self._rewake(now_ns)

    def close(self, now_ns: int) -> None:
        """End every operation truthfully and every connection. Nothing may be submitted afterwards."""
        self._closed = True
        while (oldest := self._oldest()) is not None:
            self._fail(oldest, "the store was closed first")
        for link in self.board.all():
            self.board.close(link)
        self.wake_ns = NEVER_NS

    # --- replies and other messages ----------------------------------------------------------------------

    def _take_unusual(self, link: Link, message: object, operation: AnyOperation | None, now_ns: int) -> None:
        """Take whatever is not the final reply to an operation that is unanswered on this link."""
        match message:
            case wire.Hello():
                self._greeted(link, message, now_ns)
            case wire.Goodbye():
                self.board.close(link)
                self._unlink(link, f"it said goodbye: {message.code}: {message.message}", now_ns)
            case _ if not link.greeted:
                raise RemoteProtocolError("a message came before the hello")
            case wire.MapFull() | wire.MapChange() if link.lane is None:
                if self._follower.received(link, message, now_ns):
                    self._remap(now_ns)
            case _ if link.lane is None:
                raise RemoteProtocolError(f"a {type(message).__name__} came on a subscription to the map")
            case _ if isinstance(operation, Gathering):
                self._take_part(link, message, operation, now_ns)
            case _ if operation is None or operation.link is not link:
                if getattr(message, "request", self._last_id + 1) > self._last_id:
                    raise RemoteProtocolError("a reply to a request that was never made")
            case wire.Redirect() | wire.Overloaded() | wire.Unknowable():
                self._refused(operation, link, message, now_ns)
            case _:
                raise RemoteProtocolError(f"a {type(message).__name__} answers a {operation.kind.name}")
        self._rewake(now_ns)

    def _greeted(self, link: Link, hello: wire.Hello, now_ns: int) -> None:
        self.board.greeted(link, hello)
        lane = link.lane
        if lane is None:
            self._follower.greeted(link, now_ns)
            self._follower.maintain(now_ns)
            return
        self._lanes.greeted(lane)
        self._drain(lane, now_ns)

    def _refused(
        self,
        operation: Operation,
        link: Link,
        message: wire.Redirect | wire.Overloaded | wire.Unknowable,
        now_ns: int,
    ) -> None:
        """The newest attempt was consumed without effect (or stands in a log: then `appended` says so)."""
        link.bytes -= operation.size
        operation.link = None
        if isinstance(message, wire.Unknowable):
            if not operation.kind.mutation:
                raise RemoteProtocolError("an Unknowable answers a read")
            self._finish(operation)
            why = f"the cluster no longer knows this client ({message.reason})"
            unknown = verdicts.outcome_unknown(operation.kind, why, self._settings.deadline_seconds)
            self.failures.append((operation.token, unknown))
            return
        self._note_refusal(operation, link, message)
        operation.refused_by = link.lane
        operation.wait_version = 0
        if isinstance(message, wire.Redirect):
            operation.wait_version = message.map_version
            if self._lanes.lane_of(operation.request.point) is not link.lane:
                self._place(operation, now_ns)
                return
        self._hold(operation, now_ns)

    def _note_refusal(
        self, operation: AnyOperation, link: Link, message: wire.Redirect | wire.Overloaded
    ) -> None:
        if isinstance(message, wire.Redirect):
            operation.maybe = operation.maybe or (message.appended and operation.kind.mutation)
            operation.reason = f"the actor at {link.address} does not serve that shard (yet)"
        else:
            operation.reason = f"overloaded: {message.reason}"
        if not operation.uncertain:
            operation.first_ns = 0

    def _take_part(self, link: Link, message: object, operation: Gathering, now_ns: int) -> None:
        """Take one actor's answer to an operation that is asked of several."""
        if link not in operation.asked:
            return
        match message:
            case wire.Redirect() | wire.Overloaded():
                del operation.asked[link]
                self._note_refusal(operation, link, message)
                self._hold(operation, now_ns)
            case wire.Unknowable() if operation.kind.mutation:
                self._finish(operation)
                why = f"the cluster no longer knows this client ({message.reason})"
                error = verdicts.outcome_unknown(operation.kind, why, self._settings.deadline_seconds)
                self.failures.append((operation.token, error))
            case wire.Counted() | wire.Listing() if type(message) in operation.kind.finals:
                complete = gathering.take_answer(operation, link, message)
                if not operation.remaining:
                    self._finish(operation)
                    self.replies.append((operation.token, operation.merged()))
                elif complete:
                    self._ask(operation, now_ns)
                else:
                    operation.reason = f"the actor at {link.address} does not serve all its shards (yet)"
                    self._hold(operation, now_ns)
            case _:
                raise RemoteProtocolError(f"a {type(message).__name__} answers a {operation.kind.name}")

    # --- placing operations ------------------------------------------------------------------------------

    def _place(self, operation: Operation, now_ns: int) -> None:
        """Send an operation to its shard's primary, or put it where it waits for that."""
        self._unqueue(operation)
        lane = self._lanes.lane_of(operation.request.point)
        if lane is None:
            self._enqueue(operation, self._parked)
            return
        link = lane.link
        if link is None or not lane.ready:
            self._enqueue(operation, lane.waiting)
            self._lanes.connect(lane, now_ns)
        elif link.bytes and link.bytes + operation.size > self._settings.link_bytes_max:
            self._enqueue(operation, lane.waiting)
        else:
            stamp(operation, self.low, now_ns)
            operation.size = self._append(link, operation.request, self._settings.frame_bytes_max)
            operation.link = link
            link.bytes += operation.size

    def _ask(self, operation: Gathering, now_ns: int) -> None:
        gathering.ask(operation, self._lanes, self.board, self.low, now_ns)

    def _enqueue(self, operation: Operation, queue: dict[int, object]) -> None:
        operation.queue = queue
        queue[operation.request.request] = operation
        self._waiting_bytes += operation.size

    def _unqueue(self, operation: Operation) -> None:
        operation.retry_ns = 0
        if operation.queue is not None:
            del operation.queue[operation.request.request]
            operation.queue = None
            self._waiting_bytes -= operation.size

    def _drain(self, lane: Lane, now_ns: int) -> None:
        """Send what waited for this lane, as far as there is room, in the order of submission."""
        limit = self._settings.link_bytes_max
        while lane.waiting and lane.link is not None:
            number, operation = next(iter(lane.waiting.items()))
            if isinstance(operation, Gathering):
                del lane.waiting[number]
                self._ask(operation, now_ns)
            elif isinstance(operation, Operation):
                if lane.link.bytes and lane.link.bytes + operation.size > limit:
                    return
                self._place(operation, now_ns)

    def _hold(self, operation: AnyOperation, now_ns: int) -> None:
        """Try again after a pause that rises with every refusal."""
        pause = min(BACKOFF_NS_MIN << min(operation.refusals, 10), BACKOFF_NS_MAX)
        operation.refusals += 1
        operation.retry_ns = now_ns + int(pause * self._random.uniform(0.5, 1.0))
        heappush(self._held, (operation.retry_ns, operation.request.request))

    def _retry(self, operation: AnyOperation, now_ns: int) -> None:
        operation.retry_ns = 0
        if isinstance(operation, Gathering):
            self._ask(operation, now_ns)
            return
        router = self._follower.router
        if router is not None and operation.wait_version > router.map.version:
            self._probe(now_ns)
        self._place(operation, now_ns)

    def _probe(self, now_ns: int) -> None:
        if now_ns >= self._probed_ns + SLOW_NS:
            self._probed_ns = now_ns
            self._follower.probe(now_ns)

    # --- connections and maps that change ----------------------------------------------------------------

    def _unlink(self, link: Link, reason: str, now_ns: int) -> None:
        """Place anew whatever was unanswered on a connection that is gone."""
        lane = link.lane
        if lane is None:
            self._follower.lost(link, reason, now_ns)
            if not self._closed:
                self._follower.maintain(now_ns)
            return
        self._lanes.lost(lane, link, reason, now_ns)
        for operation in self._detach(link):
            if isinstance(operation, Gathering):
                self._ask(operation, now_ns)
            else:
                self._place(operation, now_ns)

    def _detach(self, link: Link) -> list[AnyOperation]:
        """Take back what was unanswered on a link. Whether those mutations applied is now unknown."""
        detached: list[AnyOperation] = []
        for operation in self._pending.values():
            if operation.link is link:
                operation.link = None
            elif not isinstance(operation, Gathering) or operation.asked.pop(link, None) is None:
                continue
            operation.maybe = operation.kind.mutation
            detached.append(operation)
        link.bytes = 0
        return detached

    def _remap(self, now_ns: int) -> None:
        """Follow a newer map: whatever is unanswered on a shard that moved goes to its new primary."""
        router = self._follower.router
        if router is None:
            return
        if len(router.primaries) != len(self._by_shard):
            for each in self._gatherings.values():
                each.remaining = None
        unused = self._lanes.update(router)
        self._by_shard, self._shift = self._lanes.by_shard, self._lanes.shift
        moved, aborted = self._sort_moved(router.map.version)
        for link in aborted:
            self.board.abort(link)
            if link.lane is not None:
                self._lanes.dropped(link.lane, link)
            moved += [each for each in self._detach(link) if isinstance(each, Operation)]
        for operation in moved:
            if operation.link is not None:
                operation.link.bytes -= operation.size
                operation.link = None
            self._place(operation, now_ns)
        for each in list(self._gatherings.values()):
            self._ask(each, now_ns)
        for lane in unused:
            if lane.link is not None:
                self.board.close(lane.link)
                self._lanes.dropped(lane, lane.link)
        self._follower.maintain(now_ns)

    def _sort_moved(self, version: int) -> tuple[list[Operation], list[Link]]:
        """Return the operations to place by the new map, and the links that must be reset before.

        A mutation that is unanswered on a connection to a former primary might still arrive there after it
        was repeated elsewhere; so that connection goes first, and everything else on it is repeated too.
        """
        moved: list[Operation] = []
        aborted: dict[Link, None] = {}
        for operation in self._pending.values():
            if isinstance(operation, Gathering):
                for link, shards in operation.asked.items():
                    if any(self._lane_at(shard) is not link.lane for shard in shards):
                        aborted[link] = None
            elif self._must_move(operation, version):
                if operation.link is not None and operation.kind.mutation:
                    aborted[operation.link] = None
                else:
                    moved.append(operation)
        return [each for each in moved if each.link not in aborted], list(aborted)

    def _lane_at(self, shard: int) -> Lane | None:
        return self._by_shard[shard] if shard < len(self._by_shard) else None

    def _must_move(self, operation: Operation, version: int) -> bool:
        lane = self._lanes.lane_of(operation.request.point)
        if operation.link is not None:
            return operation.link.lane is not lane
        if operation.retry_ns:
            return operation.refused_by is not lane or version >= operation.wait_version > 0
        return True

    # --- endings -----------------------------------------------------------------------------------------

    def _fail(self, operation: AnyOperation, why: str) -> None:
        operation.reason = verdicts.obstacle(operation, self._follower, self._lanes)
        error = verdicts.failure(operation, why, self._settings.deadline_seconds)
        self._finish(operation)
        self.failures.append((operation.token, error))

    def _finish(self, operation: AnyOperation) -> None:
        number = operation.request.request
        del self._pending[number]
        if isinstance(operation, Gathering):
            del self._gatherings[number]
            self._lanes.leave(number)
        else:
            self._unqueue(operation)
            if operation.link is not None:
                operation.link.bytes -= operation.size
                operation.link = None
        if self.low not in self._pending:
            self._raise_low()

    def _oldest(self) -> AnyOperation | None:
        """Return the operation that ends first: all have the same time, so the one submitted first."""
        return next(iter(self._pending.values()), None)

    def _raise_low(self) -> None:
        low, pending, last = self.low, self._pending, self._last_id
        while low <= last and low not in pending:
            low += 1
        self.low = low

    def _rewake(self, now_ns: int) -> None:
        """Set when the next tick is due."""
        times = [self.board.due_ns, self._lanes.due_ns]
        if self._started:
            times.append(self._follower.due_ns())
        if self._held:
            times.append(self._held[0][0])
        oldest = self._oldest()
        if oldest is not None:
            times.append(min(oldest.deadline_ns, now_ns + SLOW_NS // 2))
        self.wake_ns = min((at for at in times if at is not None), default=NEVER_NS)


def _too_large(error: LocalProtocolError) -> UsageError:
    return UsageError(f"{error}; keep large values elsewhere and only their keys in the session")
