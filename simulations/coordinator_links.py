"""The connection of an actor or a supervisor to the coordinator; mirrors `runtime/coordinator_link.py`.

What decides something there and is mirrored here: on each connection it subscribes, naming the map it knows;
it counts as up only once the whole map came; a map that is older than the one known, or of another cluster,
ends the connection; a change that leaves a gap is answered by asking for the whole map; proposals made while
it is not up are dropped; calls are sent again on every connection until answered.
"""

from collections.abc import Callable, Iterable
from typing import Any

from greenroom import wire
from greenroom.cluster_map import ClusterMap, MapDelta
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
from simulations.connections import Codec, Dialed, hello
from simulations.processes import Process

CALL_SECONDS = 5.0
COORDINATOR_ADDRESS = "coordinator:1"

_decoder = messages_decoder(CoordinatorReply)


class _Call:
    __slots__ = ("answered", "request")

    def __init__(
        self, request: CoordinatorRequest, answered: Callable[[Accepted | Rejected | None], None]
    ) -> None:
        self.request = request
        self.answered = answered


class CoordinatorLink:
    """Follows the map, proposes and calls, for the process with the identity `sender`."""

    def __init__(self, process: Process, codec: Codec, sender: bytes, role: str = wire.ROLE_PEER) -> None:
        self.on_map: Callable[[ClusterMap], None] = _nothing
        self.on_decisions: Callable[[tuple[Decision, ...]], None] = _nothing
        self.on_up: Callable[[], None] = _nothing
        self.on_down: Callable[[], None] = _nothing
        self.map: ClusterMap | None = None
        self.up = False
        self._process = process
        self._sender = sender
        self._numbers = 0
        self._calls: dict[int, _Call] = {}
        self._dialed = Dialed(
            process, codec, COORDINATOR_ADDRESS, hello(role, sender), _decoder, "coordination"
        )
        self._dialed.on_up = self._connected
        self._dialed.on_messages = self._received
        self._dialed.on_down = self._lost

    def start(self) -> None:
        """Connect, for as long as the process lives."""
        self._dialed.start()

    def propose(self, proposals: Iterable[Proposal]) -> None:
        """Send these; dropped while the link is not up."""
        if self.up:
            self._numbers += 1
            self._dialed.send([Propose(self._numbers, self._sender, tuple(proposals))])

    def heartbeat(self, node: str, suspicions: tuple[Suspicion, ...] = ()) -> None:
        """Tell the coordinator that this node is alive."""
        self._dialed.send([Heartbeat(node, *self._known(), suspicions, self._identity())])

    def call(
        self,
        make_request: Callable[[int], CoordinatorRequest],
        answered: Callable[[Accepted | Rejected | None], None],
    ) -> None:
        """Send a request, again on each connection, until `answered(reply)`.

        `answered(None)` after `CALL_SECONDS` without an answer.
        """
        self._numbers += 1
        number = self._numbers
        call = self._calls[number] = _Call(make_request(number), answered)
        self._dialed.send([call.request])
        self._process.later(CALL_SECONDS, self._finish, number, None)

    def _finish(self, number: int, reply: Accepted | Rejected | None) -> None:
        call = self._calls.pop(number, None)
        if call is not None:
            call.answered(reply)

    def _known(self) -> tuple[int, int]:
        return (0, 0) if self.map is None else (self.map.lineage, self.map.version)

    def _identity(self) -> bytes:
        return b"" if self.map is None else self.map.identity

    def _connected(self) -> None:
        epochs = () if self.map is None else self.map.epochs
        subscription = wire.Subscribe(*self._known(), epochs, self._identity())
        self._dialed.send([subscription, *(call.request for call in self._calls.values())])

    def _lost(self) -> None:
        was_up, self.up = self.up, False
        if was_up:
            self.on_down()

    def _received(self, messages: list[Any]) -> bool:
        return all(self._take(message) for message in messages)

    def _take(self, message: CoordinatorReply) -> bool:
        match message:
            case wire.MapFull(map=full):
                return self._take_map(full)
            case wire.MapChange(delta=delta):
                return self._take_change(delta)
            case Decided(decisions=decisions):
                self.on_decisions(decisions)
            case Accepted() | Rejected():
                self._finish(message.request, message)
            case _:
                return False
        return True

    def _take_map(self, full: ClusterMap) -> bool:
        known = self.map
        if known is None or full.continues(known):
            self.map = full
            self.on_map(full)
        elif full.is_foreign_to(known) or (full.lineage, full.version) != (known.lineage, known.version):
            return False
        if not self.up:
            self.up = True
            self.on_up()
        return True

    def _take_change(self, delta: MapDelta) -> bool:
        known = self.map
        if known is None or (delta.lineage == known.lineage and delta.version <= known.version):
            return True
        try:
            new = known.apply(delta)
        except (ValueError, IndexError):
            self._dialed.send([wire.Subscribe(0, 0, (), self._identity())])
            return True
        if not new.continues(known):
            return False
        self.map = new
        self.on_map(new)
        return True


def _nothing(*_: Any) -> None:
    pass
