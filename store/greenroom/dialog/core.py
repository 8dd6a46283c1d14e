"""The client's side of the protocol, without I/O and without a clock.

One dialog serves one event loop of one process and must not be used in a forked child: its random id,
together with rising request ids, lets a shard apply a repeated request only once. A driver feeds it
(`submit`, `opened`, `lost`, `received`, `tick`, each with the time) and then drains it: it hands out
`replies` and `failures`, performs `board.actions`, sends `board.take_writes()`, and calls `tick` by
`wake_ns`.

The driver does not report that a caller was cancelled: the operation stays, and counts, until it is answered
or its deadline passes.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom.dialog import moves, redirects, suspects, verdicts
from greenroom.dialog.clocks import ClusterClock
from greenroom.dialog.dispatch import DialogSettings, Dispatcher
from greenroom.dialog.lanes import Lanes
from greenroom.dialog.ledger import Ledger
from greenroom.dialog.links import Lane, Link, Switchboard
from greenroom.dialog.map_follower import WANT_CERTIFICATE, WANT_SECRET, MapFollower
from greenroom.dialog.near import NearCache
from greenroom.dialog.operations import WATCH, AnyOperation, Gathering, Kind, Operation, Single
from greenroom.dialog.settling import Settling
from greenroom.dialog.watches import Waiter, Watches
from greenroom.ending_messages import SessionEnded, Unwatched, WatchEcho, Watching, WatchReply
from greenroom.errors import ProtocolError, RemoteProtocolError, UnavailableError
from greenroom.framing import messages_decoder
from greenroom.near_messages import Held, Invalidate, NearLease, NearReply
from greenroom.proofs import NOT_PROVEN, NotProvenError
from greenroom.tokens import Shown

SLOW_NS = 1_000_000_000
"""When an operation is unanswered for this long, the dialog asks whether its map is still the newest."""

REFUSALS = WANT_CERTIFICATE | WANT_SECRET | {"wrong-cluster", "wrong-protocol", "wrong-role", "wrong-routing"}
"""Codes of goodbyes from a server that will never serve this client."""

_decode_greeting = msgspec.msgpack.Decoder(wire.Hello | wire.Goodbye).decode
_decode_messages = messages_decoder(wire.ServerMessage | NearReply | WatchReply).decode


class Dialog(Settling):
    """The requests of one event loop, from submission to reply or truthful failure.

    `entropy(n)` returns n random bytes that nobody else gets: the dialog is known by some of them. `near`, if
    there is one, are sessions that it keeps.
    """

    def __init__(
        self,
        entropy: Callable[[int], bytes],
        settings: DialogSettings,
        random: Random,
        near: NearCache | None = None,
    ) -> None:
        super().__init__()
        self.notices: list[str] = []
        """Lines to log; the driver logs them and empties the list."""
        self.clock = ClusterClock(self.notices)
        self.wake_ns = NEVER_NS
        self.board = Switchboard(entropy, settings.cluster)
        self._settings = settings
        self._deadline_ns = int(settings.deadline_seconds * 1e9)
        self._check_ns = min(self._deadline_ns, SLOW_NS)
        self._lanes = Lanes(self.board, random)
        self._follower = MapFollower(
            settings.seeds, settings.cluster, self.board, self._lanes, self.notices, random, settings.zone
        )
        self._by_shard: list[Lane | None] = []
        self._shift = 0
        self._map: ClusterMap | None = None
        self._ledger = ledger = Ledger()
        self.next_id = ledger.next_id
        """Return a fresh request id; build the request with it and submit that at once."""
        self.near = near
        self._dispatcher = Dispatcher(settings, self.board, self._lanes, ledger, self.clock, random, near)
        self.watches = Watches(settings.watches_max, self.board, self._lanes, ledger.next_id, self.submit)
        self._first_bytes_max = self._dispatcher.first_bytes_max
        self._operations_max = settings.operations_max
        self._link_bytes_max = settings.link_bytes_max
        self._probed_ns = 0
        self._started = False
        self._closed = False

    @property
    def pending_count(self) -> int:
        """The number of unfinished operations, including those of cancelled callers."""
        return len(self._ledger.pending)

    # --- submitting --------------------------------------------------------------------------------------

    @property
    def low(self) -> int:
        """The lowest request id still waited for; every mutation carries it."""
        return self._ledger.low

    def submit(self, now_ns: int, request: Single, kind: Kind, token: object) -> bool:
        """Begin an operation on one session; return whether nothing remains but to send it.

        `token` comes back with its outcome. Raises UsageError if the request is over the frame limit,
        UnavailableError if too much is in flight.
        """
        pending = self._ledger.pending
        if len(pending) >= self._operations_max:
            self._refuse_crowd(kind)
        lane = self._by_shard[request.point >> self._shift] if self._by_shard else None
        if lane is not None and lane.ready and not lane.waiting and not self.clock.offset_us:
            link = lane.link
            if link is not None and link.bytes < self._link_bytes_max:
                size = self._dispatcher.send(link, request, self._first_bytes_max)
                pending[request.request_id] = Operation(
                    request,
                    kind,
                    token,
                    now_ns + self._deadline_ns,
                    link=link,
                    size=size,
                    first_ns=now_ns,
                )
                if self.wake_ns > now_ns + self._check_ns:
                    self.wake_ns = now_ns + self._check_ns
                    return False
                return True
        size = self._dispatcher.measure(request)
        if self._dispatcher.waiting_bytes + size > self._settings.waiting_bytes_max:
            self._refuse_crowd(kind)
        operation = Operation(request, kind, token, now_ns + self._deadline_ns, size=size)
        pending[request.request_id] = operation
        self._start(now_ns)
        self._dispatcher.dispatch(operation, now_ns)
        self._end_mistaken()
        self._rewake(now_ns)
        return False

    def hit(self, point: int, digest: bytes, *, looks_again: bool = False) -> wire.Session | None:
        """Return a session that is kept here and may be shown now without asking, else None.

        `looks_again`: see `NearCache.hit`.
        """
        lane = self._by_shard[point >> self._shift] if self._by_shard else None
        if self.near is None or lane is None:
            return None
        session = self.near.hit(digest, lane.link, looks_again=looks_again)
        if session is None or not self.clock.offset_us:
            return session
        return self.clock.received(session)  # type: ignore[return-value]  # it stays a session

    def gather(self, now_ns: int, request: wire.Fanout, kind: Kind, token: object) -> None:
        """Begin an operation that every shard must answer; this fills in the `shards` of `request`.

        Raises UnavailableError if too much is in flight, UsageError if the request is over the frame limit.
        """
        if len(self._ledger.pending) >= self._settings.operations_max:
            self._refuse_crowd(kind)
        self._dispatcher.measure(request)
        operation = Gathering(request, kind, token, now_ns + self._deadline_ns)
        self._ledger.pending[request.request_id] = self._ledger.gatherings[request.request_id] = operation
        self._start(now_ns)
        self._dispatcher.dispatch(operation, now_ns)
        self._end_mistaken()
        self._rewake(now_ns)

    def watch(self, now_ns: int, point: int, digest: bytes, waiter: Waiter) -> None:
        """Have `watches.told` name this waiter once the session has ended. Raises TooManyWatchesError."""
        self.watches.add(point, digest, waiter)
        self._start(now_ns)
        self._rewake(now_ns)

    def _start(self, now_ns: int) -> None:
        if not self._started:
            self._started = True
            self._follower.maintain(now_ns)

    # --- what the driver reports -------------------------------------------------------------------------

    def opened(self, now_ns: int, number: int, challenge: Shown | None = None) -> None:
        """Note that a connection is established, and which proof is asked or shown on it, if any."""
        link = self.board.get(number)
        if link is not None:
            self.board.opened(link, now_ns, challenge)
            self._rewake(now_ns)

    def unproven(self, now_ns: int, number: int, reason: str) -> None:
        """Give up a connection on which nothing may be said, because one side cannot prove what it must."""
        link = self.board.get(number)
        if link is not None:
            self.board.abort(link)
            self._unlink(link, reason, now_ns, refused=NOT_PROVEN)
            self._rewake(now_ns)

    def lost(self, now_ns: int, number: int, reason: str, *, refused: str = "") -> None:
        """Note that a connection could not be opened, or that the other side closed it.

        `refused`: the code for why this one never will be.
        """
        link = self.board.get(number)
        if link is not None:
            self.board.forget(link)
            self._unlink(link, reason, now_ns, refused=refused)
            self._rewake(now_ns)

    def received(self, now_ns: int, number: int, data: bytes | memoryview) -> None:
        """Take bytes that came on a connection. Invalid bytes end only that connection."""
        link = self.board.get(number)
        if link is None:
            return
        try:
            for payload in link.buffer.feed(data):
                if link.greeted:
                    self._take(link, _decode_messages(payload), now_ns)
                else:
                    self._take_unusual(link, _decode_greeting(payload), None, now_ns)
                if self.board.get(number) is not link:
                    return
        except NotProvenError as error:
            self.unproven(now_ns, number, str(error))
            return
        except (ProtocolError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.board.abort(link)
            self._unlink(
                link, f"it broke the protocol: {error}", now_ns, refused="" if link.peer else "no-hello"
            )
            self._rewake(now_ns)
            return
        lane = link.lane
        if lane is None:
            return
        if lane.main is not None:
            self._dispatcher.attend_side(lane, now_ns)
        elif lane.waiting and lane.ready:
            self._dispatcher.drain(lane, now_ns)

    def tick(self, now_ns: int) -> None:
        """Let time pass: fail operations at their deadline, repeat those that are due."""
        why = f"no answer within deadline_seconds={self._settings.deadline_seconds:g}"
        while (oldest := self._ledger.oldest()) is not None and oldest.deadline_ns <= now_ns:
            self._fail(oldest, why)
        for link in self.board.late(now_ns):
            self.board.abort(link)
            self._unlink(link, "no answer in time" if link.opened else "no connection in time", now_ns)
        for link in self.watches.tick(now_ns):
            self.board.abort(link)
            self._unlink(link, "it does not answer beacons", now_ns)
        while (due := self._dispatcher.next_due(now_ns)) is not None:
            self._retry(due, now_ns)
        self._lanes.reconnect(now_ns)
        for side in self._lanes.sides():
            self._dispatcher.attend_side(side, now_ns)
        if oldest is not None and now_ns >= oldest.deadline_ns - self._deadline_ns + SLOW_NS:
            self._probe(now_ns)
        if self._started and not self._closed:
            self._follower.maintain(now_ns)
        self._rewake(now_ns)

    def close(self, now_ns: int) -> None:
        """Fail every operation truthfully and close every connection. Submit nothing afterwards."""
        self._closed = True
        while (oldest := self._ledger.oldest()) is not None:
            self._fail(oldest, "the store was closed first")
        self.watches.close(UnavailableError("the store was closed: the end of the session is not told"))
        for link in self.board.all():
            self.board.close(link)
        self.wake_ns = NEVER_NS

    # --- replies and other messages ----------------------------------------------------------------------

    def _take(self, link: Link, messages: list[Any], now_ns: int) -> None:
        """Take the messages of one frame, until one of them ends the connection."""
        ledger, near = self._ledger, self.near
        pending = ledger.pending
        replies = self.replies
        for reply in messages:
            request_id = getattr(reply, "request_id", 0)
            operation = pending.get(request_id)
            # Usually it is a final reply, on the connection on which the operation was last sent.
            if (
                type(operation) is not Operation
                or operation.link is not link
                or type(reply) not in operation.kind.finals
                or (near is None and type(reply) is Held)
            ):
                self._take_unusual(link, reply, operation, now_ns)
                if self.board.get(link.id) is not link:
                    return
                continue
            del pending[request_id]
            link.bytes -= operation.size
            if near is not None:
                reply = near.learn(link, operation.request, reply)
            replies.append((operation.token, reply))
        if ledger.low not in pending:
            ledger.raise_low()

    def _take_unusual(self, link: Link, message: object, operation: AnyOperation | None, now_ns: int) -> None:
        """Take any message other than the final reply to an operation that is unanswered on this link."""
        match message:
            case wire.Hello():
                self._greeted(link, message, now_ns)
            case wire.Goodbye(code=code):
                self.board.close(link)
                reason = f"it said goodbye: {code}: {message.message}"
                self._unlink(link, reason, now_ns, refused=code if code in REFUSALS else "")
            case wire.MapFull() | wire.MapChange() if link.lane is None:
                if self._follower.received(link, message, now_ns):
                    self._remap(now_ns)
            case _ if link.lane is None:
                raise RemoteProtocolError(f"a {type(message).__name__} came on a subscription to the map")
            case _ if self._take_pushed(link, message, now_ns):
                pass
            case _ if isinstance(operation, Gathering):
                self._take_part(link, message, operation, now_ns)
            case _ if operation is None or operation.link is not link:
                if getattr(message, "request_id", self._ledger.last_id + 1) > self._ledger.last_id:
                    raise RemoteProtocolError("a reply to a request that was never made")
            case wire.Redirect() | wire.Overloaded():
                self._refused(operation, link, message, now_ns)
            case wire.Unknowable() if operation.kind.mutation:
                self._fail_unknowable(operation, message)
            case wire.Failed():
                self._fail_alone(operation, message)
            case _:
                self._take_watching(link, message, operation, now_ns)
        self._rewake(now_ns)

    def _take_pushed(self, link: Link, message: object, now_ns: int) -> bool:
        """Take what an actor says without being asked for it by an operation; return whether this is that."""
        match message:
            case NearLease() | Invalidate() if self.near is not None:
                self.near.take(link, message, self._shift)
            case SessionEnded() | Unwatched() | WatchEcho():
                if self.watches.take(link, message, 0 if self._map is None else self._map.version):
                    self._probe(now_ns)
            case _:
                return False
        return True

    def _take_watching(self, link: Link, message: object, operation: Operation, now_ns: int) -> None:
        """Take the answer to a registration of a watch, and nothing else."""
        if operation.kind is not WATCH or not isinstance(message, Watching | wire.Missing | wire.Session):
            raise RemoteProtocolError(f"a {type(message).__name__} answers a {operation.kind.name}")
        self._dispatcher.finish(operation)
        self.watches.answered(now_ns, operation.token, link, message)

    def _greeted(self, link: Link, hello: wire.Hello, now_ns: int) -> None:
        self.board.greeted(link, hello)
        lane = link.lane
        if lane is None:
            self._follower.greeted(link, now_ns)
            self._follower.maintain(now_ns)
            return
        self._lanes.greeted(lane)
        if self.near is not None:
            self.near.greeted(link)
        self.clock.heard(hello.sender, hello.clock_us, now_ns)
        self._follower.heard(now_ns)
        self._dispatcher.drain(lane, now_ns)

    def _refused(self, operation: Operation, link: Link, refusal: redirects.Refusal, now_ns: int) -> None:
        """Send a refused operation elsewhere at once, or hold it back; see `redirects`."""
        redirects.take_back(operation, link, refusal)
        if redirects.has_another_primary(operation, refusal, self._lanes.lane_of(operation.request.point)):
            self._dispatcher.dispatch(operation, now_ns)
        else:
            self._dispatcher.hold(operation, now_ns)

    # --- connections and maps that change ----------------------------------------------------------------

    def _retry(self, operation: AnyOperation, now_ns: int) -> None:
        if redirects.wants_newer_map(operation, self._follower.router):
            self._probe(now_ns)
        self._dispatcher.dispatch(operation, now_ns)

    def _probe(self, now_ns: int) -> None:
        if now_ns >= self._probed_ns + SLOW_NS:
            self._probed_ns = now_ns
            self._follower.probe(now_ns)

    def _unlink(self, link: Link, reason: str, now_ns: int, *, refused: str = "") -> None:
        """Dispatch the unanswered operations of a lost connection again."""
        lane = link.lane
        if lane is None:
            self._follower.lost(link, reason, now_ns, refused=refused)
            self._end_mistaken()
            if not self._closed:
                self._follower.maintain(now_ns)
            return
        if lane.ready and lane.link is link:
            self._follower.heard(now_ns)
            self.clock.lost(lane.actor.incarnation)
        self._lanes.lost(lane, link, reason, now_ns)
        self.watches.lost(link)
        for operation in self._dispatcher.detach(link):
            if suspects.note_break(operation, lane):
                self._dispatcher.finish(operation)
                seconds = self._settings.deadline_seconds
                error = verdicts.given_up(operation, link, reason, seconds)
                self._failed(operation, error)
            else:
                self._dispatcher.dispatch(operation, now_ns)

    def _remap(self, now_ns: int) -> None:
        """Follow a newer map: unanswered operations on a shard that moved go to its new primary."""
        router = self._follower.router
        if router is None:
            return
        self._told_mistake = False
        former, self._map = self._map, router.map
        succeeded = former is not None and router.map.is_foreign_to(former)
        recounted = succeeded or len(router.primaries) != len(self._by_shard)
        if succeeded:
            self._forget_partial_replies()
        unused = self._lanes.update(router)
        self._by_shard, self._shift = self._lanes.by_shard, self._lanes.shift
        version = router.map.version
        moved, aborted = moves.sort_moved(self._ledger, self._lanes, version, recounted=recounted)
        for link in aborted:
            self.board.abort(link)
            if link.lane is not None:
                self._lanes.dropped(link.lane, link)
            self.watches.lost(link)
            moved += [each for each in self._dispatcher.detach(link) if isinstance(each, Operation)]
        for operation in moved:
            if operation.link is not None:
                operation.link.bytes -= operation.size
                operation.link = None
            self._dispatcher.dispatch(operation, now_ns)
        for each in self._ledger.gatherings.values():
            if recounted:
                each.remaining = None
            self._dispatcher.dispatch(each, now_ns)
        for lane in unused:
            if lane.link is not None:
                self.board.close(lane.link)
                self.watches.lost(lane.link)
                self._lanes.dropped(lane, lane.link)
        self.watches.remapped()
        self._follower.maintain(now_ns)

    # --- endings -----------------------------------------------------------------------------------------

    def _rewake(self, now_ns: int) -> None:
        """Set when the next tick is due."""
        times = [self.board.due_ns, self._lanes.due_ns, self._dispatcher.due_ns, self.watches.due_ns]
        if self._started:
            times.append(self._follower.due_ns())
        oldest = self._ledger.oldest()
        if oldest is not None:
            times.append(min(oldest.deadline_ns, now_ns + SLOW_NS // 2))
        self.wake_ns = min((at for at in times if at is not None), default=NEVER_NS)
