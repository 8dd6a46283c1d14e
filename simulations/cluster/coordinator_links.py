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
from greenroom_cluster.links.coordinator_session import CALL_SECONDS, CoordinatorSession
from simulations.cluster.connections import Codec, Dialed, hello
from simulations.kernel.processes import Process

COORDINATOR_ADDRESS = "coordinator:1"

_decoder = messages_decoder(CoordinatorReply)


class _Call:
    __slots__ = ("answered",)

    def __init__(self, answered: Callable[[Accepted | Rejected | None], None]) -> None:
        self.answered: Callable[[Accepted | Rejected | None], None] | None = answered

    def finish(self, reply: Accepted | Rejected | None) -> None:
        answered, self.answered = self.answered, None
        if answered is not None:
            answered(reply)


class CoordinatorLink:
    """Follows the map, proposes and calls, for the process with the identity `sender`."""

    def __init__(self, process: Process, codec: Codec, sender: bytes, role: str = wire.ROLE_PEER) -> None:
        self.on_map: Callable[[ClusterMap], None] = _nothing
        self.on_decisions: Callable[[tuple[Decision, ...]], None] = _nothing
        self.on_up: Callable[[], None] = _nothing
        self.on_down: Callable[[], None] = _nothing
        self._session = CoordinatorSession(sender)
        self._process = process
        self._dialed = Dialed(
            process, codec, COORDINATOR_ADDRESS, hello(role, sender), _decoder, "coordination"
        )
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

    def heartbeat(self, node: str, suspicions: tuple[Suspicion, ...] = ()) -> None:
        """Tell the coordinator that this node is alive."""
        self._step(session.Beat(node, suspicions))

    def call(
        self,
        make_request: Callable[[int], CoordinatorRequest],
        answered: Callable[[Accepted | Rejected | None], None],
    ) -> None:
        """Send a request, again on each connection, until `answered(reply)`.

        `answered(None)` after `CALL_SECONDS` without an answer.
        """
        call = _Call(answered)
        self._step(session.Call(call, make_request))
        self._process.later(CALL_SECONDS, self._give_up, call)

    def _give_up(self, call: _Call) -> None:
        self._step(session.GiveUp(call))
        call.finish(None)

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
                case session.Answered(token=_Call() as call, reply=reply):
                    call.finish(reply)
                case session.End():
                    going_on = False
        return going_on


def _nothing(*_: Any) -> None:
    pass
