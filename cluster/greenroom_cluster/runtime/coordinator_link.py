"""The connection of an actor or a node's supervisor to the coordinator.

It is kept open. On each connection the link subscribes, naming the map it knows, and only after the whole map
came does it report itself up: whoever has proposals open judges them by that map before sending them again.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

import structlog
import trio

from greenroom import wire
from greenroom.cluster_map import ClusterMap, MapDelta
from greenroom.errors import UnavailableError
from greenroom.framing import messages_decoder
from greenroom_cluster.coordination.messages import (
    Accepted,
    CoordinatorReply,
    CoordinatorRequest,
    Decided,
    Decision,
    Heartbeat,
    Proposal,
    Propose,
    Rejected,
    Suspicion,
)
from greenroom_cluster.runtime.addresses import split_address
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.dialing import stay_connected
from greenroom_cluster.runtime.log_limits import LimitedLog

CALL_SECONDS = 5.0
_ADDRESS_OPTION = "give the coordinator's address with --coordinator (GREENROOM_COORDINATOR)"
# What a coordinator, or somebody taken for it, says to a hello that will not fit later either.
_REFUSALS = {
    "wrong-cluster": "serves another cluster: give its name with --cluster (GREENROOM_CLUSTER)",
    "wrong-role": f"is a node, not the coordinator: {_ADDRESS_OPTION}",
    "wrong-target": f"is an actor of a node, not the coordinator: {_ADDRESS_OPTION}",
    "wrong-protocol": "speaks another version of the protocol: install matching versions",
    "wrong-routing": "routes sessions in another way: install matching versions",
}
_PROPOSALS_PER_MESSAGE = 1024

_decoder = messages_decoder(CoordinatorReply)
_log = structlog.get_logger(__name__)
_limited_log = LimitedLog(_log)


class CoordinatorUnreachableError(UnavailableError):
    """The coordinator did not answer in time; what was asked of it may still happen."""


@dataclass(frozen=True, slots=True)
class CoordinatorLinkSettings:
    """Where the coordinator listens, and who we are to it: `sender` is an incarnation or random bytes."""

    address: str
    cluster: str
    sender: bytes
    role: str = wire.ROLE_PEER


class _Call:
    __slots__ = ("done", "reply", "request")

    def __init__(self, request: CoordinatorRequest) -> None:
        self.request = request
        self.done = trio.Event()
        self.reply: Accepted | Rejected | None = None


def _ignore(*_: object) -> None:
    pass


class CoordinatorLink:
    """Follows the map, proposes and calls. The callbacks are called from `run`'s task and must not block.

    `on_map(map)` with every newer map; `on_decisions(decisions)`; `on_up()` after the first map of each
    connection, `on_down()` when one ends that was up; `on_refused(reason)` when who answers is not this
    cluster's coordinator, which no repeating changes (it is repeated all the same). `failure` is why there is no connection. Raises UsageError for a
    malformed address.
    """

    def __init__(
        self,
        settings: CoordinatorLinkSettings,
        *,
        on_map: Callable[[ClusterMap], None] = _ignore,
        on_decisions: Callable[[tuple[Decision, ...]], None] = _ignore,
        on_up: Callable[[], None] = _ignore,
        on_down: Callable[[], None] = _ignore,
        on_refused: Callable[[str], None] = _ignore,
    ) -> None:
        split_address(settings.address)
        self._settings = settings
        self._on_map = on_map
        self._on_decisions = on_decisions
        self._on_up = on_up
        self._on_down = on_down
        self._on_refused = on_refused
        self.failure = ""
        self._map: ClusterMap | None = None
        self._connection: FramedConnection | None = None
        self._up = False
        # Set when it runs: only then is there a clock.
        self._lost_at: float | None = None
        self._numbers = itertools.count(1)
        self._calls: dict[int, _Call] = {}
        self._waiting: list[Proposal] = []
        self._wake = trio.Event()

    @property
    def map(self) -> ClusterMap | None:
        """The newest map that came; None before the first."""
        return self._map

    @property
    def up(self) -> bool:
        """Whether the connection stands and the map was received on it."""
        return self._up

    @property
    def away_seconds(self) -> float:
        """For how long the connection has not been up; 0 while it is, or before `run`."""
        if self._up or self._lost_at is None:
            return 0.0
        return trio.current_time() - self._lost_at

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        self._lost_at = trio.current_time()
        hello = wire.Hello(
            protocol=wire.PROTOCOL_VERSION,
            routing=wire.ROUTING_VERSION,
            cluster=self._settings.cluster,
            role=self._settings.role,
            sender=self._settings.sender,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_proposals)
            await stay_connected(
                self._settings.address,
                hello,
                nursery,
                self._follow,
                what="coordinator",
                on_failure=self._failed,
            )

    def _failed(self, reason: str, code: str) -> None:
        self.failure = reason
        if code in _REFUSALS:
            self._on_refused(f"{self._settings.address} {_REFUSALS[code]}")

    # --- what is asked -----------------------------------------------------------------------------------

    def propose(self, proposals: Iterable[Proposal]) -> None:
        """Send these with whatever else is proposed in this tick; dropped while the link is not up."""
        if self._up:
            self._waiting.extend(proposals)
            self._wake.set()

    def heartbeat(self, node: str, suspicions: tuple[Suspicion, ...] = ()) -> None:
        """Tell the coordinator that this node is alive; dropped while unconnected."""
        if self._connection is not None:
            self._connection.send([Heartbeat(node, *self._known(), suspicions, self._cluster_identity)])

    async def call(
        self, make_request: Callable[[int], CoordinatorRequest], seconds: float = CALL_SECONDS
    ) -> Accepted | Rejected:
        """Send the request that `make_request(number)` returns, again after a reconnection, until answered.

        Raises CoordinatorUnreachableError after `seconds`. Only for requests that may arrive twice.
        """
        number = next(self._numbers)
        call = self._calls[number] = _Call(make_request(number))
        try:
            if self._connection is not None:
                self._connection.send([call.request])
            with trio.move_on_after(seconds):
                await call.done.wait()
        finally:
            del self._calls[number]
        if call.reply is None:
            address = self._settings.address
            reason = f"{address} did not answer within {seconds:g} s"
            if self._connection is None and self.failure.startswith(address):
                reason = self.failure
            raise CoordinatorUnreachableError(
                f"the coordinator at {reason}; is it running, and is --coordinator (GREENROOM_COORDINATOR) "
                "its address?"
            )
        return call.reply

    async def _send_proposals(self) -> NoReturn:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            proposals, self._waiting = self._waiting, []
            connection = self._connection
            if connection is None or not self._up:
                continue
            parts = [
                tuple(proposals[start : start + _PROPOSALS_PER_MESSAGE])
                for start in range(0, len(proposals), _PROPOSALS_PER_MESSAGE)
            ]
            connection.send([Propose(next(self._numbers), self._settings.sender, part) for part in parts])

    # --- what comes --------------------------------------------------------------------------------------

    def _known(self) -> tuple[int, int]:
        return (0, 0) if self._map is None else (self._map.lineage, self._map.version)

    @property
    def _cluster_identity(self) -> bytes:
        return b"" if self._map is None else self._map.identity

    def _subscription(self) -> wire.Subscribe:
        epochs = () if self._map is None else self._map.epochs
        return wire.Subscribe(*self._known(), epochs, self._cluster_identity)

    async def _follow(self, connection: FramedConnection) -> None:
        connection.speak(_decoder)
        self._connection = connection
        try:
            connection.send([self._subscription(), *(call.request for call in self._calls.values())])
            while True:
                for message in await connection.receive():
                    if not self._take(connection, message):
                        return
        finally:
            self._connection = None
            self._waiting.clear()
            was_up, self._up = self._up, False
            if was_up:
                self._lost_at = trio.current_time()
                self._on_down()

    def _take(self, connection: FramedConnection, message: CoordinatorReply) -> bool:
        """Act on one message; False ends the connection."""
        match message:
            case wire.MapFull(map=full):
                return self._take_map(full)
            case wire.MapChange(delta=delta):
                return self._take_change(connection, delta)
            case Decided(decisions=decisions):
                self._on_decisions(decisions)
            case Accepted() | Rejected():
                self._take_reply(message)
            case wire.Goodbye(code=code, message=text):
                _limited_log.error("coordinator_refused", code=code, reason=text)
                return False
            case wire.Hello():
                return False
        return True

    def _take_map(self, full: ClusterMap) -> bool:
        known = self._map
        if known is None or full.continues(known):
            self._map = full
            self._on_map(full)
        elif full.is_foreign_to(known):
            _limited_log.error("coordinator_of_another_cluster", address=self._settings.address)
            return False
        elif (full.lineage, full.version) != (known.lineage, known.version):
            return self._leave(known, full.lineage, full.version)
        if not self._up:
            self._up = True
            self._on_up()
        return True

    def _leave(self, known: ClusterMap, lineage: int, version: int) -> bool:
        """A coordinator that has gone back in time notices it by our Subscribe; never follow it there."""
        _limited_log.error(
            "coordinator_map_older",
            known=f"{known.lineage}.{known.version}",
            received=f"{lineage}.{version}",
        )
        return False

    def _take_change(self, connection: FramedConnection, delta: MapDelta) -> bool:
        known = self._map
        if known is None or (delta.lineage == known.lineage and delta.version <= known.version):
            return True
        try:
            new = known.apply(delta)
        except (ValueError, IndexError):
            # A gap: only the whole map helps.
            connection.send([wire.Subscribe(0, 0, (), self._cluster_identity)])
            return True
        if not new.continues(known):
            return self._leave(known, delta.lineage, delta.version)
        self._map = new
        self._on_map(new)
        return True

    def _take_reply(self, reply: Accepted | Rejected) -> None:
        call = self._calls.get(reply.request)
        if call is not None:
            call.reply = reply
            call.done.set()
        elif isinstance(reply, Rejected):
            _limited_log.warning("proposals_rejected", reason=reply.reason)
