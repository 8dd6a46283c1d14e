"""The coordinator's process: mirrors `runtime/coordinator.py` and `runtime/map_publisher.py`.

What decides something there and is mirrored here: what arrives while a map is being written is decided as
one batch; nothing that rests on a map leaves before it is on disk; the whole map makes a subscriber; after a
crash only what is on disk is known, so a write under way is there whole or not at all.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.framing import messages_decoder
from greenroom_cluster.access import AT_COORDINATOR
from greenroom_cluster.controller import Controller, ControllerSettings
from greenroom_cluster.coordination.coordinator import (
    NEVER,
    ConnectionClosed,
    Coordinator,
    CoordinatorSettings,
    Handled,
    Incoming,
    Outcome,
)
from greenroom_cluster.coordination.genesis import renumbered
from simulations.connections import Acceptor, Codec, Dialed, Served, Service, hello
from simulations.coordinator_links import COORDINATOR_ADDRESS
from simulations.network import Network
from simulations.processes import Process
from simulations.timeline import MILLISECOND, Machine

if TYPE_CHECKING:
    from simulations.oracles import Oracles

_decoders = {role: messages_decoder(kinds) for role, kinds in AT_COORDINATOR.items()}
_map_decoder = messages_decoder(wire.ServerMessage)
ASK_SECONDS = 0.5


class Disk:
    """What survives a crash of the coordinator. `write_ns` is how long a write with its fsync takes.

    `copies` are backups: every map that was ever on it. `vouched` is the map that this boot of the host is
    known to have written last, in a place that no backup restores.
    """

    def __init__(self, first: ClusterMap) -> None:
        self.map = first
        self.vouched: ClusterMap | None = first
        self.copies: list[ClusterMap] = [first]
        self.write_ns = MILLISECOND


class CoordinatorProcess(Process):
    """One run of the coordinator. `lose_answers` makes that many answers get lost with their connections.

    `crash_at_write` ("before" or "after" the disk has it) kills it at its next write.
    """

    def __init__(
        self, network: Network, machine: Machine, random: Random, disk: Disk, settings: CoordinatorSettings
    ) -> None:
        super().__init__(network, machine, "coordinator", random)
        self.disk = disk
        proven = disk.map is disk.vouched
        if not proven:
            disk.vouched = None
            network.happened["coordinator unproven"] += 1
        stored_version = disk.map.version
        if not proven:
            disk.map = renumbered(disk.map, machine.wall_us() // 1000)
        self.coordinator = Coordinator(
            disk.map, settings, machine.now_ns(), proven=proven, stored_version=stored_version
        )
        self.lose_answers = 0
        self.crash_at_write = ""
        self.stale: set[bytes] = set()
        self._controller = Controller(ControllerSettings())
        self._published = disk.map
        self._connections: dict[int, Served] = {}
        self._subscribers: dict[int, Served] = {}
        self._waiting: list[Incoming] = []
        self._writing: Outcome | None = None
        self._due_at = -1
        self._codec: Codec | None = None
        self.oracles: Oracles | None = None

    def run(self, codec: Codec, oracles: "Oracles", identity: bytes) -> None:
        """Listen and begin to plan."""
        self.oracles = oracles
        self._codec = codec
        services = {role: Service(decoder, self._serve) for role, decoder in _decoders.items()}
        Acceptor(self, codec, COORDINATOR_ADDRESS, identity, services)
        self._turn_around()

    def _serve(self, served: Served) -> None:
        number, sender, role = served.number, served.sender, served.role
        self._connections[number] = served

        def received(messages: list[Handled]) -> None:
            oracles = self.oracles
            for message in messages:
                if oracles is not None:
                    oracles.count("coordinator", type(message).__name__)
                self._waiting.append(Incoming(number, sender, message, role))
            self._turn_around()

        def closed() -> None:
            self._connections.pop(number, None)
            self._subscribers.pop(number, None)
            self._waiting.append(Incoming(number, sender, ConnectionClosed()))
            self._turn_around()

        served.on_messages = received
        served.on_closed = closed

    def disconnect(self, sender: bytes) -> None:
        """Break the connections of a peer: it will subscribe again."""
        for served in list(self._connections.values()):
            if served.sender == sender and self.alive:
                self.network.break_connection(served.end)

    # --- deciding ----------------------------------------------------------------------------------------

    def _turn_around(self) -> None:
        """Decide what waits, then plan, then sleep until something is due; one write at a time."""
        if self._writing is not None or not self.alive:
            return
        batch, self._waiting = self._waiting, []
        self._perform(self.coordinator.decide(self.machine.now_ns(), batch))

    def _perform(self, outcome: Outcome) -> None:
        if outcome.ask:
            self._ask(outcome.ask)
        if outcome.persist is None:
            self._vouch()
            self._respond(outcome)
            return
        self._writing = outcome
        self.timeline.after(self.disk.write_ns, self._written, outcome)

    def _ask(self, addresses: tuple[str, ...]) -> None:
        """Ask nodes for the maps that they hold, for so long."""
        maps: list[ClusterMap] = []
        asked = [self._ask_one(address, maps) for address in addresses]

        def shown() -> None:
            for dialed in asked:
                dialed.stop()
            self._perform_shown(maps)

        self.later(ASK_SECONDS, shown)

    def _ask_one(self, address: str, maps: list[ClusterMap]) -> Dialed:
        assert self._codec is not None
        greeting = hello(wire.ROLE_ADMIN, self.random.randbytes(16))
        dialed = Dialed(self, self._codec, address, greeting, _map_decoder, "map in use")

        def received(messages: list[Any]) -> bool:
            maps.extend(message.map for message in messages if isinstance(message, wire.MapFull))
            dialed.stop()
            return True

        dialed.on_up = lambda: dialed.send([wire.Subscribe(0, 0)])
        dialed.on_messages = received
        dialed.start()
        return dialed

    def _perform_shown(self, maps: list[ClusterMap]) -> None:
        """Take in what nodes showed, once nothing is being written."""
        if self._writing is not None:
            self.later(self.disk.write_ns / 1e9, self._perform_shown, maps)
            return
        outcome = self.coordinator.shown(self.machine.now_ns(), maps)
        if self.coordinator.refusal:
            self.network.happened["coordinator refuses"] += 1
        self._perform(outcome)

    def _written(self, outcome: Outcome) -> None:
        if not self.alive:
            return
        crash, self.crash_at_write = self.crash_at_write, ""
        if crash:
            self.network.happened[f"coordinator crash {crash} persisting"] += 1
        if crash != "before":
            self._save(outcome)
        if crash:
            self._writing = None
            self.kill()
        else:
            self.tell(0, self._publish, outcome)

    def _save(self, outcome: Outcome) -> None:
        assert outcome.persist is not None
        if self.oracles is not None:
            self.oracles.persisted(self.disk.map, outcome.persist)
        self.disk.map = outcome.persist
        self._vouch()
        self.disk.copies.append(outcome.persist)

    def _vouch(self) -> None:
        if self.coordinator.proven(self.machine.now_ns()):
            self.disk.vouched = self.disk.map

    def kill(self) -> None:
        """End it at once; a write under way is on disk whole, or not at all."""
        writing, self._writing = self._writing, None
        if (
            self.alive
            and writing is not None
            and self.random.random() < 0.5
            and writing.persist is not self.disk.map
        ):
            self._save(writing)
        super().kill()

    def _publish(self, outcome: Outcome) -> None:
        self._writing = None
        assert outcome.persist is not None
        self._published = outcome.persist
        if outcome.delta is not None:
            change = wire.MapChange(outcome.delta)
            for served in list(self._subscribers.values()):
                if served.sender in self.stale:
                    self.network.happened["stale map"] += 1
                else:
                    served.send([change])
        self._respond(outcome)

    def _respond(self, outcome: Outcome) -> None:
        for response in outcome.responses:
            served = self._connections.get(response.connection)
            if served is None:
                continue
            if isinstance(response.message, wire.MapFull):
                self._subscribers[response.connection] = served
                served.send([wire.MapFull(self._published)])
                continue
            if self.lose_answers and served.end.peer.open:
                # It was decided, it may have applied, and nobody is told.
                self.lose_answers -= 1
                self.network.happened["coordinator answer lost"] += 1
                self.network.break_connection(served.end)
                continue
            served.send([response.message])
            if isinstance(response.message, wire.Goodbye):
                self.network.close(served.end, reset=False)
                self._connections.pop(response.connection, None)
                self._subscribers.pop(response.connection, None)
        plan = self._controller.step(self.machine.now_ns(), self.coordinator.map)
        if plan:
            self._perform(self.coordinator.want(plan))
        elif self._waiting:
            self.timeline.after(0, self.tell, 0, self._turn_around)
        else:
            self._sleep()

    def _sleep(self) -> None:
        due = min(self.coordinator.next_deadline(), self._controller.next_deadline())
        if due >= NEVER:
            return
        at = max(self.machine.moment(due), self.timeline.now + MILLISECOND)
        if self._due_at <= self.timeline.now or at < self._due_at:
            self._due_at = at
            self.timeline.at(at, self._due, at)

    def _due(self, at: int) -> None:
        if at == self._due_at:
            self._due_at = -1
            self.tell(0, self._turn_around)
