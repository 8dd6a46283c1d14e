"""One run of the coordination service within a process: a shell around `coordination.service`.

It brings what arrives, has a store keep what is to be kept, and sends.
"""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, Protocol, TypeAlias

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom.framing import messages_decoder
from greenroom_cluster.access import AT_COORDINATOR
from greenroom_cluster.coordination import service as fx
from greenroom_cluster.coordination.adoption import Adoption
from greenroom_cluster.coordination.messages import ForgetNode, Heartbeat, Received, RegisterNode
from greenroom_cluster.coordination.service import CoordinationService
from simulations.cluster.connections import Acceptor, Codec, Served, Service, hello, holder
from simulations.cluster.dialed import Dialed
from simulations.cluster.publishing import Publisher
from simulations.kernel.network import Network
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND, Machine

_decoders = {role: messages_decoder(kinds) for role, kinds in AT_COORDINATOR.items()}
_map_decoder = messages_decoder(wire.ServerMessage)
_ASK_SECONDS = 2.0
Told: TypeAlias = Heartbeat | RegisterNode | ForgetNode


class MapWatcher(Protocol):
    """Judges what the coordinator receives and decides."""

    def count(self, role: str, kind: str) -> None:
        """Count a message."""

    def told(self, coordinator: "Coordinating", sender: bytes, message: Told) -> None:
        """See what a coordinator is told of a node."""

    def persisted(self, before: ClusterMap, after: ClusterMap) -> None:
        """See a map that is on the disk."""

    def coordinator_failed(self, coordinator: "Coordinating", error: Exception) -> None:
        """Hear that what decides in a coordinator has raised."""


class Coordinating(Process):
    """A process that serves as coordinator, at its machine's address. `server` is its run, if it serves now.

    `lose_answers` makes that many answers get lost with their connections. `crash_at_write` kills it at its
    next write.
    """

    keeps_soon = True
    """Whether it has kept what it was told once its time for that is over."""

    def __init__(self, network: Network, machine: Machine, name: str, random: Random) -> None:
        super().__init__(network, machine, name, random)
        self.holder = holder("coordinator", "c1")
        self.address = f"{machine.name}:1"
        self.server: Server | None = None
        self.adoption: Adoption | None = None
        self.oracles: MapWatcher | None = None
        self.lose_answers = 0
        self.crash_at_write = ""
        self.stale: set[bytes] = set()

    def disconnect(self, sender: bytes) -> None:
        """Break the connections of a peer: it will subscribe again."""
        if self.server is not None and self.alive:
            self.server.disconnect(sender)


class Store(Protocol):
    """The place where a coordinator keeps things."""

    def persist(self, written: fx.Persist, done: Callable[[], None]) -> None:
        """Keep a map, then call `done` in the process."""

    def keep_marks(self, marks: dict[bytes, int], done: Callable[[], None]) -> bool:
        """Keep marks; return whether they are, else call `done` in the process once they are."""

    def vouch(self) -> None:
        """Note that the map is the newest."""


class Server:
    """One run of the service in a process, until `end` or the end of the process."""

    def __init__(
        self, process: Coordinating, codec: Codec, service: CoordinationService, store: Store, identity: bytes
    ) -> None:
        self.service = service
        self._process = process
        self._codec = codec
        self._store = store
        self._identity = identity
        self._ended = False
        self._waiting = False
        self._connections: dict[int, Served] = {}
        self._dialed: list[Dialed] = []
        self._due_at = -1
        self._publisher = Publisher(process.network, lambda message: codec.pack([message]))
        self._publisher.stale = process.stale

    def begin(self) -> None:
        """Listen and begin to plan."""
        services = {role: Service(decoder, self._serve) for role, decoder in _decoders.items()}
        process = self._process
        Acceptor(process, self._codec, process.address, self._identity, services, takes_tokens=False)
        self._go_on()

    @property
    def runs(self) -> bool:
        """Whether it serves."""
        return self._process.alive and not self._ended

    def end(self) -> None:
        """Serve no longer."""
        self._ended = True
        network = self._process.network
        network.unlisten(self._process)
        for dialed in self._dialed:
            dialed.stop()
        for served in list(self._connections.values()):
            served.on_messages = served.on_closed = _nothing
            network.close(served.end, reset=True)
        self._connections.clear()

    def disconnect(self, sender: bytes) -> None:
        """Break the connections of a peer."""
        for served in list(self._connections.values()):
            if served.sender == sender:
                self._process.network.break_connection(served.end)

    def _serve(self, served: Served) -> None:
        process = self._process
        if self._ended:
            process.network.close(served.end, reset=True)
            return
        number, sender, role = served.number, served.sender, served.role
        self._connections[number] = served
        identity = served.identity
        node = identity.name if identity is not None and role == wire.ROLE_PEER else ""

        def received(messages: list[Received]) -> None:
            if process.oracles is not None:
                for message in messages:
                    process.oracles.count("coordinator", type(message).__name__)
                    if isinstance(message, Told):
                        process.oracles.told(process, sender, message)
            if told := self.service.receive(number, sender, role, messages, node):
                process.network.happened["refused to speak for another"] += 1
                served.abort(told)
                return
            self._go_on()

        def closed() -> None:
            self._connections.pop(number, None)
            self._publisher.forget(number)
            self.service.close(number, sender)
            self._go_on()

        served.on_messages = received
        served.on_closed = closed

    # --- deciding ----------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        if self.runs and not self._waiting:
            machine = self._process.machine
            self._perform(self.service.step(machine.now_ns(), machine.wall_us()))

    def _perform(self, effects: list[fx.ServiceEffect]) -> None:
        for number, effect in enumerate(effects):
            match effect:
                case fx.Persist():
                    self._store.persist(effect, self._written)
                case fx.Publish(map=decided, delta=delta):
                    self._publisher.publish(decided, delta)
                case fx.KeepMarks(marks=marks):
                    rest = effects[number + 1 :]
                    if not self._store.keep_marks(marks, partial(self._kept, rest)):
                        self._waiting = True
                        return
                case fx.Vouch():
                    self._store.vouch()
                case fx.Reply() | fx.Subscribe():
                    self._send(effect)
                case fx.Ask(addresses=addresses):
                    for address in addresses:
                        self._ask(address)
        self._sleep()

    def _kept(self, rest: list[fx.ServiceEffect]) -> None:
        self._waiting = False
        if self.runs:
            self._perform(rest)
            self._go_on()

    def _written(self) -> None:
        if self.runs:
            machine = self._process.machine
            self._perform(self.service.written(machine.now_ns(), machine.wall_us()))

    def _send(self, effect: fx.Reply | fx.Subscribe) -> None:
        served = self._connections.get(effect.connection)
        process = self._process
        if served is None:
            return
        if isinstance(effect, fx.Subscribe):
            self._publisher.subscribe(served)
        elif process.lose_answers and served.end.peer.open:
            # It was decided, it may have applied, and nobody is told.
            process.lose_answers -= 1
            process.network.happened["coordinator answer lost"] += 1
            process.network.break_connection(served.end)
        else:
            served.send(effect.messages)
            if effect.last:
                process.network.close(served.end, reset=False)
                self._connections.pop(effect.connection, None)
                self._publisher.forget(effect.connection)

    def _sleep(self) -> None:
        due = self.service.next_deadline()
        if due >= NEVER_NS:
            return
        timeline = self._process.timeline
        at = max(self._process.machine.moment(due), timeline.now + MILLISECOND)
        if self._due_at <= timeline.now or at < self._due_at:
            self._due_at = at
            timeline.at(at, self._due, at)

    def _due(self, at: int) -> None:
        if at == self._due_at:
            self._due_at = -1
            self._process.tell(0, self._go_on)

    # --- maps in use -------------------------------------------------------------------------------------

    def _ask(self, address: str) -> None:
        """Ask a node once for the map that it holds."""
        process = self._process
        greeting = hello(wire.ROLE_ADMIN, process.random.randbytes(16))
        dialed = Dialed(process, self._codec, address, greeting, _map_decoder, "map in use")
        self._dialed.append(dialed)

        def show(shown: ClusterMap | None) -> None:
            dialed.stop()
            self.service.show(address, shown)
            self._go_on()
            if self.service.coordinator.refusal:
                process.network.happened["coordinator refuses"] += 1

        def received(messages: list[Any]) -> bool:
            for message in messages:
                if isinstance(message, wire.MapFull):
                    show(message.map)
                    break
            return True

        dialed.on_up = lambda: dialed.send([wire.Subscribe(0, 0)])
        dialed.on_messages = received
        dialed.on_failed = lambda: show(None)
        dialed.start()
        process.later(_ASK_SECONDS, dialed.stop)


def _nothing(*_: Any) -> None:
    pass
