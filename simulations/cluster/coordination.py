"""The coordinator's process: a shell around `greenroom_cluster.coordination.service`.

It brings what arrives, writes to a disk that takes its time, and sends. After a crash only what is on disk is
known, so a write under way is there whole or not at all.
"""

from random import Random
from typing import Any, Protocol

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom.framing import messages_decoder
from greenroom_cluster.access import AT_COORDINATOR
from greenroom_cluster.coordination import service as fx
from greenroom_cluster.coordination.adoption import Adoption
from greenroom_cluster.coordination.coordinator import CoordinatorSettings
from greenroom_cluster.coordination.genesis import ClusterOptions, blank_map
from greenroom_cluster.coordination.messages import Heartbeat, Received
from greenroom_cluster.coordination.service import CoordinationService
from greenroom_cluster.planning.controller import ControllerSettings
from simulations.cluster.connections import CLUSTER, Acceptor, Codec, Dialed, Served, Service, hello, holder
from simulations.cluster.coordinator_links import COORDINATOR_ADDRESS
from simulations.cluster.publishing import Publisher
from simulations.kernel.network import Network
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND, Machine

_decoders = {role: messages_decoder(kinds) for role, kinds in AT_COORDINATOR.items()}
_map_decoder = messages_decoder(wire.ServerMessage)
_ASK_SECONDS = 2.0


class Disk:
    """What survives a crash of the coordinator. `write_ns` is how long a write with its fsync takes.

    `marks` are how far directories have come. `copies` are backups: every map that was ever on it, with them.
    `vouched` is the map that this boot of the host is known to have written last, in a place that no backup
    restores. Once `lost`, the map is to be made anew from what actors have on theirs.
    """

    def __init__(self, first: ClusterMap) -> None:
        self.map = first
        self.vouched: ClusterMap | None = first
        self.marks: dict[bytes, int] = {}
        self.copies: list[tuple[ClusterMap, dict[bytes, int]]] = [(first, {})]
        self.write_ns = MILLISECOND
        self.lost = False

    def lose(self) -> None:
        """Have nothing left on it."""
        known, alone = self.map, self.map.recover_alone_seconds
        options = ClusterOptions(
            CLUSTER, known.shard_count, known.replicas, recover_alone_seconds=alone, adopt_directories=True
        )
        self.map = self.vouched = blank_map(options)
        self.marks, self.copies, self.lost = {}, [(self.map, {})], True


class MapWatcher(Protocol):
    """Judges what the coordinator receives and decides."""

    def count(self, role: str, kind: str) -> None:
        """Count a message."""

    def marks_told(self, coordinator: Process, marks: tuple[tuple[bytes, int], ...]) -> None:
        """See how far directories have come, as a supervisor tells a coordinator."""

    def persisted(self, before: ClusterMap, after: ClusterMap) -> None:
        """See a map that is on the disk."""


class CoordinatorProcess(Process):
    """One run of the coordinator. `lose_answers` makes that many answers get lost with their connections.

    If it began without a map, its `adoption` gathers what directories know.

    `crash_at_write` ("before" or "after" the disk has it) kills it at its next write.
    """

    def __init__(
        self, network: Network, machine: Machine, random: Random, disk: Disk, settings: CoordinatorSettings
    ) -> None:
        super().__init__(network, machine, "coordinator", random)
        self.holder = holder("coordinator", "c1")
        self.disk = disk
        self.adoption: Adoption | None = None
        if disk.lost:
            # The number of shards is in the directories.
            alone, replicas = disk.map.recover_alone_seconds, disk.map.replicas
            options = ClusterOptions(CLUSTER, None, replicas, recover_alone_seconds=alone)
            self.adoption = Adoption(options, machine.now_ns())
        proven = disk.map is disk.vouched
        if not proven:
            disk.vouched = None
            network.happened["coordinator unproven"] += 1
        self.service = CoordinationService(
            disk.map,
            settings,
            ControllerSettings(),
            machine.now_ns(),
            machine.wall_us() // 1000,
            proven=proven,
            marks=disk.marks,
            adoption=self.adoption,
        )
        self.lose_answers = 0
        self.crash_at_write = ""
        self.stale: set[bytes] = set()
        self._connections: dict[int, Served] = {}
        self._writing: fx.Persist | None = None
        self._due_at = -1
        self._codec: Codec | None = None
        self._publisher = Publisher(network, self._pack)
        self._publisher.stale = self.stale
        self.oracles: MapWatcher | None = None

    def run(self, codec: Codec, oracles: MapWatcher, identity: bytes) -> None:
        """Listen and begin to plan."""
        self.oracles = oracles
        self._codec = codec
        services = {role: Service(decoder, self._serve) for role, decoder in _decoders.items()}
        Acceptor(self, codec, COORDINATOR_ADDRESS, identity, services, takes_tokens=False)
        self._go_on()

    def _pack(self, message: wire.Frame) -> Any:
        assert self._codec is not None
        return self._codec.pack([message])

    def _serve(self, served: Served) -> None:
        number, sender, role = served.number, served.sender, served.role
        self._connections[number] = served
        identity = served.identity
        node = identity.name if identity is not None and role == wire.ROLE_PEER else ""

        def received(messages: list[Received]) -> None:
            if self.oracles is not None:
                for message in messages:
                    self.oracles.count("coordinator", type(message).__name__)
                    if isinstance(message, Heartbeat) and message.marks:
                        self.oracles.marks_told(self, message.marks)
            if told := self.service.receive(number, sender, role, messages, node):
                self.network.happened["refused to speak for another"] += 1
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

    def disconnect(self, sender: bytes) -> None:
        """Break the connections of a peer: it will subscribe again."""
        for served in list(self._connections.values()):
            if served.sender == sender and self.alive:
                self.network.break_connection(served.end)

    # --- deciding ----------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        if self.alive:
            self._perform(self.service.step(self.machine.now_ns(), self.machine.wall_us()))

    def _perform(self, effects: list[fx.ServiceEffect]) -> None:
        for effect in effects:
            match effect:
                case fx.Persist():
                    self._writing = effect
                    self.timeline.after(self.disk.write_ns, self._write_ended, effect)
                case fx.Publish(map=decided, delta=delta):
                    self._publisher.publish(decided, delta)
                case fx.KeepMarks(marks=marks):
                    self.disk.marks = marks
                case fx.Vouch():
                    self.disk.vouched = self.disk.map
                case fx.Reply() | fx.Subscribe():
                    self._send(effect)
                case fx.Ask(addresses=addresses):
                    for address in addresses:
                        self._ask(address)
        self._sleep()

    def _send(self, effect: fx.Reply | fx.Subscribe) -> None:
        served = self._connections.get(effect.connection)
        if served is None:
            return
        if isinstance(effect, fx.Subscribe):
            self._publisher.subscribe(served)
        elif self.lose_answers and served.end.peer.open:
            # It was decided, it may have applied, and nobody is told.
            self.lose_answers -= 1
            self.network.happened["coordinator answer lost"] += 1
            self.network.break_connection(served.end)
        else:
            served.send(effect.messages)
            if effect.last:
                self.network.close(served.end, reset=False)
                self._connections.pop(effect.connection, None)
                self._publisher.forget(effect.connection)

    def _sleep(self) -> None:
        due = self.service.next_deadline()
        if due >= NEVER_NS:
            return
        at = max(self.machine.moment(due), self.timeline.now + MILLISECOND)
        if self._due_at <= self.timeline.now or at < self._due_at:
            self._due_at = at
            self.timeline.at(at, self._due, at)

    def _due(self, at: int) -> None:
        if at == self._due_at:
            self._due_at = -1
            self.tell(0, self._go_on)

    # --- the disk ----------------------------------------------------------------------------------------

    def _write_ended(self, written: fx.Persist) -> None:
        if not self.alive:
            return
        crash, self.crash_at_write = self.crash_at_write, ""
        if crash:
            self.network.happened[f"coordinator crash {crash} persisting"] += 1
        if crash != "before":
            self._save(written)
        self._writing = None
        if crash:
            self.kill()
        else:
            self.tell(0, self._written)

    def _written(self) -> None:
        self._perform(self.service.written(self.machine.now_ns(), self.machine.wall_us()))

    def _save(self, written: fx.Persist) -> None:
        if self.oracles is not None:
            self.oracles.persisted(self.disk.map, written.map)
        if self.disk.lost:
            self.network.happened["map made of directories"] += 1
        self.disk.map, self.disk.lost = written.map, False
        if written.vouched:
            self.disk.vouched = written.map
        self.disk.copies.append((written.map, self.disk.marks))

    def kill(self) -> None:
        """End it at once; a write under way is on disk whole, or not at all."""
        writing, self._writing = self._writing, None
        if self.alive and writing is not None and self.random.random() < 0.5:
            self._save(writing)
        super().kill()

    # --- maps in use -------------------------------------------------------------------------------------

    def _ask(self, address: str) -> None:
        """Ask a node once for the map that it holds."""
        assert self._codec is not None
        greeting = hello(wire.ROLE_ADMIN, self.random.randbytes(16))
        dialed = Dialed(self, self._codec, address, greeting, _map_decoder, "map in use")

        def show(shown: ClusterMap | None) -> None:
            dialed.stop()
            self.service.show(address, shown)
            self._go_on()
            if self.service.coordinator.refusal:
                self.network.happened["coordinator refuses"] += 1

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
        self.later(_ASK_SECONDS, dialed.stop)
