"""The connection of an actor or a supervisor to the coordinator, around the real `CoordinatorSession`."""

from collections.abc import Callable, Iterable
from typing import Any

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.framing import messages_decoder
from greenroom_cluster.coordination.messages import (
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
    NOTHING_REMEMBERED,
    CoordinatorSession,
    Remembered,
)
from simulations.cluster.connections import Codec, hello
from simulations.cluster.dialed import Dialed
from simulations.kernel.processes import Process

_decoder = messages_decoder(CoordinatorReply)


class CoordinatorLink:
    """Follows the map, proposes and calls for the process with the identity `sender`."""

    def __init__(
        self,
        process: Process,
        codec: Codec,
        sender: bytes,
        role: str = wire.ROLE_PEER,
        remembered: Remembered = NOTHING_REMEMBERED,
        keeper_of: str = "",
    ) -> None:
        self.on_map: Callable[[ClusterMap], None] = _nothing
        self.on_decisions: Callable[[tuple[Decision, ...]], None] = _nothing
        self.on_up: Callable[[], None] = _nothing
        self.on_down: Callable[[], None] = _nothing
        self._session = CoordinatorSession(sender, remembered, keeper_of)
        self._process = process
        self._calls = 0
        self._answered: dict[int, Callable[[Accepted | Rejected | None], None]] = {}
        addresses = process.network.coordinators
        self._dialed = Dialed(process, codec, addresses, hello(role, sender), _decoder, "coordination")
        self._dialed.on_up = lambda: self._step(session.Connected())
        self._dialed.on_messages = lambda messages: self._step(session.Received(messages))
        self._dialed.on_down = lambda: self._step(session.Lost())

    @property
    def map(self) -> ClusterMap | None:
        """The newest map that came."""
        return self._session.map

    @property
    def up(self) -> bool:
        """Whether the map was received on the connection that stands."""
        return self._session.up

    def start(self) -> None:
        """Connect, for as long as the process lives."""
        self._dialed.start()

    def propose(self, proposals: Iterable[Proposal]) -> None:
        """Send these; dropped while the link is not up."""
        self._step(session.Offer(tuple(proposals)))

    def heartbeat(
        self,
        node: str,
        suspicions: tuple[Suspicion, ...] = (),
        marks: tuple[tuple[bytes, int], ...] = (),
    ) -> None:
        """Tell the coordinator that this node is alive."""
        self._step(session.Beat(node, suspicions, marks))

    def call(
        self,
        make_request: Callable[[int], CoordinatorRequest],
        answered: Callable[[Accepted | Rejected | None], None],
    ) -> None:
        """Send a request, again on each connection, until `answered(reply)`; None: no answer came in time."""
        self._calls += 1
        self._answered[self._calls] = answered
        self._step(session.Call(self._calls, make_request))

    def _overdue(self, token: object) -> None:
        self._step(session.Overdue(token))

    def _step(self, event: session.SessionInput) -> bool:
        """Have the session take an input, and perform what follows; False: the connection is to be ended."""
        going_on = True
        for effect in self._session.step(event):
            match effect:
                case session.Transmit(messages=messages):
                    self._dialed.send(messages)
                case session.FlushSoon():
                    timeline = self._process.timeline
                    timeline.after(0, self._process.tell, 0, self._step, session.Flush())
                case session.MapSeen(map=cluster_map):
                    self.on_map(cluster_map)
                case session.SessionUp():
                    self.on_up()
                case session.SessionDown():
                    self.on_down()
                case session.Decisions(decisions=decisions):
                    self.on_decisions(decisions)
                case session.Remind(token=token, seconds=seconds):
                    self._process.later(seconds, self._overdue, token)
                case session.Answered(token=int() as call, reply=reply):
                    self._answered.pop(call)(reply)
                case session.End() as end:
                    going_on = False
                    if end.is_lasting:
                        self._dialed.shun()
        return going_on


def _nothing(*_: Any) -> None:
    pass
