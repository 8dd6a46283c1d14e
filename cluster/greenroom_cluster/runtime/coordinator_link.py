"""The connection of an actor or a node's supervisor to the coordinator, around a `CoordinatorSession`.

It is kept open. The session decides what to send, and what follows from what arrives.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

import structlog
import trio

from greenroom import wire
from greenroom.addresses import parse_addresses
from greenroom.cluster_map import ClusterMap
from greenroom.errors import UnavailableError
from greenroom.framing import messages_decoder
from greenroom.known_coordinators import KnownCoordinators
from greenroom.negotiation import hello
from greenroom.tls.demands import Demand
from greenroom_cluster.coordination.messages import (
    ETCD_AWAY,
    RESIGNED,
    Accepted,
    CoordinatorReply,
    CoordinatorRequest,
    Decision,
    Proposal,
    Rejected,
    Suspicion,
)
from greenroom_cluster.links import coordinator_session as session
from greenroom_cluster.links.coordinator_session import (
    CALL_SECONDS,
    NOTHING_REMEMBERED,
    CoordinatorSession,
    Remembered,
)
from greenroom_cluster.links.handshake import NOT_ALLOWED, TLS_REQUIRED
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.dialing import stay_connected
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.runtime.proving import Keys, trust_of
from greenroom_cluster.runtime.tasks import open_tasks

_ADDRESS_OPTION = "give the coordinator's address with --coordinator (GREENROOM_COORDINATOR)"
# Codes by which a coordinator, or another process at its address, refuses a hello for good.
_REFUSALS = {
    "wrong-cluster": "serves another cluster: give its name with --cluster (GREENROOM_CLUSTER)",
    "wrong-role": f"is a node, not the coordinator: {_ADDRESS_OPTION}",
    "wrong-target": f"is an actor of a node, not the coordinator: {_ADDRESS_OPTION}",
    "wrong-protocol": "speaks another version of the protocol: install matching versions",
    NOT_ALLOWED.code: "does not allow this with our certificate; its log says why (--tls-cert)",
    TLS_REQUIRED.code: "speaks TLS only: give --tls-cert, --tls-key and --tls-ca",
    "wrong-routing": "routes sessions in another way: install matching versions",
}

_decoder = messages_decoder(CoordinatorReply)
# A coordinator that refuses is asked again twice a second.
_limited_log = LimitedLog(structlog.get_logger(__name__), repeat_seconds=60)


class CoordinatorUnreachableError(UnavailableError):
    """The coordinator did not answer in time; the request may still be carried out."""


@dataclass(frozen=True, slots=True)
class CoordinatorLinkSettings:
    """The coordinator's address, or those of several, and our identity: an incarnation or random bytes.

    `keeper_of` is as in `CoordinatorSession`. With `credentials` the connection is one of TLS, and a
    coordinator must answer.
    """

    address: str
    cluster: str
    sender: bytes
    role: str = wire.ROLE_PEER
    remembered: Remembered = NOTHING_REMEMBERED
    keeper_of: str = ""
    credentials: Keys | None = None


class _Call:
    __slots__ = ("done", "reply", "wait_seconds")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.wait_seconds = 0.0
        self.reply: Accepted | Rejected | None = None


def _ignore(*_: object) -> None:
    pass


class CoordinatorLink:
    """Follows the map, proposes and calls. The callbacks are called from `run`'s task and must not block.

    `on_map(map)` gets every newer map, `on_decisions(decisions)` all decisions. `on_up()` follows the first
    map of each connection, `on_down()` the end of one that was up. `on_refused(reason)` means that the
    process at that address is not this cluster's coordinator; the link tries again, although that alone
    changes nothing. `failure` is why there is no connection. Raises UsageError for a malformed address.
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
        parse_addresses(settings.address)
        self._settings = settings
        self._on_map = on_map
        self._on_decisions = on_decisions
        self._on_up = on_up
        self._on_down = on_down
        self._on_refused = on_refused
        self.failure = ""
        self._session = CoordinatorSession(settings.sender, settings.remembered, settings.keeper_of)
        self._connection: FramedConnection | None = None
        self._address = self._farewell = ""
        self._of_no_use = False
        # Set by `run`, because there is no clock before.
        self._lost_at: float | None = None
        self._wake = trio.Event()

    @property
    def map(self) -> ClusterMap | None:
        """The newest map received; None before the first."""
        return self._session.map

    @property
    def up(self) -> bool:
        """Whether the connection is open and has brought the map."""
        return self._session.up

    @property
    def away_seconds(self) -> float:
        """For how long the connection has not been up; 0 while it is, or before `run`."""
        if self.up or self._lost_at is None:
            return 0.0
        return trio.current_time() - self._lost_at

    @property
    def known(self) -> KnownCoordinators:
        """Which coordinators there are, as far as this process knows."""
        given = self._settings.address.split(",")
        others = tuple(each for each in given if each != self._address)
        return KnownCoordinators(self._address, others, self._farewell)

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        self._lost_at = trio.current_time()
        settings = self._settings
        greeting = hello(settings.cluster, settings.role, settings.sender)
        async with open_tasks() as nursery:
            nursery.start_soon(self._flush_forever)
            trust = trust_of(settings.credentials, Demand(settings.cluster, ("coordinator",)))
            await stay_connected(settings.address, greeting, nursery, self, what="coordinator", trust=trust)

    # --- what is asked -----------------------------------------------------------------------------------

    def propose(self, proposals: Iterable[Proposal]) -> None:
        """Send these with all else proposed in this tick; dropped while the link is not up."""
        self._step(session.Offer(tuple(proposals)))

    def heartbeat(
        self,
        node: str,
        suspicions: tuple[Suspicion, ...] = (),
        marks: tuple[tuple[bytes, int], ...] = (),
    ) -> None:
        """Tell the coordinator that this node is alive; dropped while unconnected."""
        self._step(session.Beat(node, suspicions, marks))

    async def call(
        self, make_request: Callable[[int], CoordinatorRequest], seconds: float = CALL_SECONDS
    ) -> Accepted | Rejected:
        """Send what `make_request(number)` returns, after each reconnection again, until it is answered.

        Raises CoordinatorUnreachableError after `seconds`. Only for requests that may safely arrive twice.
        """
        call = _Call()
        self._step(session.Call(call, make_request, seconds))
        try:
            with trio.move_on_after(call.wait_seconds):
                await call.done.wait()
            self._step(session.Overdue(call))
        finally:
            self._step(session.GiveUp(call))
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

    async def _flush_forever(self) -> NoReturn:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            self._step(session.Flush())

    # --- the connection ----------------------------------------------------------------------------------

    def begin(self, connection: FramedConnection, address: str) -> None:
        """Begin a session on an open connection."""
        connection.speak(_decoder)
        self._connection, self._address = connection, address
        self._step(session.Connected())

    async def use(self, connection: FramedConnection) -> bool:
        """Receive messages until the session wants to end the connection; return whether for good."""
        self._of_no_use = False
        while self._step(session.Received(await connection.receive())):
            pass
        return self._of_no_use

    def end(self) -> None:
        """Note that the connection has ended."""
        self._connection = None
        self._step(session.Lost())

    def failed(self, reason: str, code: str) -> None:
        """Note why there is no connection."""
        self.failure = reason
        if code in _REFUSALS:
            self._on_refused(f"{self._settings.address} {_REFUSALS[code]}")

    def _step(self, event: session.SessionInput) -> bool:
        """Pass the session an input and perform its effects; False: end the connection."""
        going_on = True
        for effect in self._session.step(event):
            match effect:
                case session.Transmit(messages=messages) if self._connection is not None:
                    self._connection.send(messages)
                case session.FlushSoon():
                    self._wake.set()
                case session.MapSeen(map=cluster_map):
                    self._on_map(cluster_map)
                case session.SessionUp():
                    self._farewell = ""
                    self._on_up()
                case session.SessionDown():
                    self._lost_at = trio.current_time()
                    self._on_down()
                case session.Decisions(decisions=decisions):
                    self._on_decisions(decisions)
                case session.Remind(token=_Call() as call, seconds=seconds):
                    call.wait_seconds = seconds
                case session.Answered(token=_Call() as call, reply=reply):
                    call.reply = reply
                    call.done.set()
                case session.ProposalsRejected(reason=reason):
                    _limited_log.warning("proposals_rejected", reason=reason)
                case session.End() as end:
                    going_on = False
                    self._of_no_use = end.is_lasting
                    self._log_end(end)
        return going_on

    def _log_end(self, end: session.End) -> None:
        match end:
            case session.Refused(code=str(code), reason=reason) if code in (ETCD_AWAY, RESIGNED):
                self._farewell = code
                _limited_log.info("coordinator_resigned", code=code, address=self._address, reason=reason)
            case session.Refused(code=code, reason=reason):
                _limited_log.error("coordinator_refused", code=code, address=self._address, reason=reason)
            case session.ForeignMap():
                _limited_log.error("coordinator_of_another_cluster", address=self._address)
            case session.OlderMap(known=known, received=received):
                _limited_log.error(
                    "coordinator_map_older",
                    known=".".join(map(str, known)),
                    received=".".join(map(str, received)),
                )
