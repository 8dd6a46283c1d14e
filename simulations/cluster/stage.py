"""The machines, processes and time of one world, with its trace.

`world`, which stands above, brings the oracles, the callers and the faults.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, Protocol

import msgspec

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.dialog import DialogSettings
from greenroom.dialog.near import NearCache
from greenroom.errors import UsageError
from greenroom.framing import encode_frames
from greenroom.identities import DEFAULT_NAMESPACE
from greenroom_cluster.coordination.coordinator import CoordinatorSettings
from greenroom_cluster.coordination.genesis import ClusterOptions, first_map, with_patience
from greenroom_cluster.disk.batches import DamagedError
from greenroom_cluster.disk.entries import decode_entries
from greenroom_cluster.disk.replay import Replay
from greenroom_cluster.quotas import Quota
from greenroom_cluster.shard.disk_log import Stable
from greenroom_cluster.shard.effects import Transition, Warned
from greenroom_cluster.shard.host import Host
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.clock import BELIEVED_AHEAD_US
from greenroom_cluster.suspect_records import InHand
from simulations.cluster.actors import ActorProcess, StepWatcher
from simulations.cluster.candidates import CandidateProcess
from simulations.cluster.clients import ClientProcess
from simulations.cluster.connections import CLUSTER, Codec, holder
from simulations.cluster.coordination import CoordinatorProcess, Disk
from simulations.cluster.directories import Directories
from simulations.cluster.etcd import Etcd
from simulations.cluster.marks import ActorMark
from simulations.cluster.recording import Recording
from simulations.cluster.serving import MapWatcher
from simulations.cluster.supervisors import SupervisorProcess
from simulations.cluster.tokens import TokenBook
from simulations.kernel.directory import Directory, FailedError, InUseError
from simulations.kernel.disk import FREE_BYTES_MIN
from simulations.kernel.network import Network
from simulations.kernel.timeline import ORIGIN_NS, SECOND, Timeline
from simulations.plans.plan import Plan

TRACE_MAX = 200_000
TENANT = "tenant"
"""The namespace of every second client, where there are tenants."""
IDENTITY = b"simulatedcluster"


class Violation(msgspec.Struct, frozen=True):
    """A rule that broke, when (seconds since the world began), and how."""

    rule: str
    seconds: float
    detail: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.seconds:.6f}: {self.detail}"


class Observer(StepWatcher, MapWatcher, Protocol):
    """Judges everything that happens on a stage."""

    def died(self, actor: ActorProcess) -> None:
        """Hear that an actor is gone."""

    def reported_dead(self, supervisor: str, incarnations: tuple[bytes, ...]) -> None:
        """Hear which incarnations a supervisor calls dead."""

    def went_over(self, client: str) -> None:
        """Hear that a client has given up its cluster for another."""


def coordinator_machine(number: int) -> str:
    """Return the machine on which a coordinator runs."""
    return f"coordinator{number or ''}"


def _clock_slack_ns(plan: Plan) -> int:
    """Return by how much shard time may run ahead of true time in this plan."""
    ahead = 0.2 + max((0, *plan.walls_ms)) / 1e3
    for fault in plan.faults:
        if fault.kind == "jump wall clock" and fault.amount > 0:
            # What is far ahead is not believed, but followed a tenth faster; from disk a little more is
            # believed, beside the clock of the coordinator.
            believed = BELIEVED_AHEAD_US / 1e6
            follows = 0.1 * plan.seconds + 1.0 + (believed if plan.durability else 0.0)
            ahead += fault.amount if fault.amount <= believed else follows
    return int(ahead * SECOND)


def _clock_lag_ns(plan: Plan) -> int:
    """Return by how much shard time may be late beside its drift: from disk a shard may get another clock."""
    if not plan.durability:
        return 0
    jumps = [fault.amount for fault in plan.faults if fault.kind == "jump wall clock"]
    return int(sum(map(abs, jumps)) * SECOND)


class Stage:
    """The processes of one plan, once it is open."""

    _observer: Observer
    _touched: Callable[[ActorProcess, InHand], None]

    def __init__(self, plan: Plan, *, tracing: bool = False) -> None:
        self.plan = plan
        self.timeline = Timeline()
        self.random = Random(f"{plan.seed}/world")
        self.network = Network(
            self.timeline, Random(f"{plan.seed}/network"), plan.latency_us * 1000, plan.jitter_us * 1000
        )
        self.apart = Random(f"{plan.seed}/apart")
        if plan.secret:
            self.network.secret = self.apart.randbytes(32)
        self.codec = Codec(encoded=plan.encoded)
        self.violations: list[Violation] = []
        self.trace: list[str] = []
        self.tracing = tracing
        self.healing = False
        self.ready_ns = 0
        self.began_ns = ORIGIN_NS
        self.clock_slack_ns = _clock_slack_ns(plan)
        self.clock_lag_ns = _clock_lag_ns(plan)
        self._trace_digest = hashlib.blake2b(digest_size=16)
        self.recording = Recording()
        self.quota = Quota(TENANT, plan.quota_sessions, plan.quota_bytes)
        self.settings = HostSettings(
            beacon_seconds=plan.beacon_seconds,
            lease_seconds=plan.lease_seconds,
            grace_seconds=plan.grace_seconds,
            repropose_seconds=plan.repropose_seconds,
            chunk_bytes=plan.chunk_bytes,
            chunks_in_flight_max=plan.chunks_in_flight,
            prepares_in_flight_max=plan.prepares_in_flight,
            page_max=plan.page_max,
            step_bytes=plan.step_bytes,
            log_bytes_min=plan.log_bytes_min,
            disk_free_bytes_min=FREE_BYTES_MIN,
            eviction="anonymous" if plan.evicts else "none",
            near_seconds=plan.near_seconds,
            quotas=(self.quota,) if plan.quota_sessions else (),
        )
        first = first_map(CLUSTER, plan.shards, plan.replicas, IDENTITY)
        self.disk = Disk(with_patience(first, plan.recover_alone_seconds))
        self.disk.write_ns = int(plan.disk_ms * 1e6)
        self.coordinators: list[CoordinatorProcess | CandidateProcess] = []
        self.etcd = self._make_etcd() if plan.coordinators else None
        self.network.coordinators = ",".join(
            f"{coordinator_machine(number)}:1" for number in range(max(1, plan.coordinators))
        )
        self.directories = Directories(plan)
        self.actors: dict[bytes, ActorProcess] = {}
        self.supervisors: dict[str, SupervisorProcess] = {}
        # The zones of nodes, as they are told at the next start.
        self.zones: dict[str, str] = {}
        self.clients: list[ClientProcess] = []
        self.generations = 0
        if plan.tokens:
            self._issue_tokens()

    def _make_etcd(self) -> Etcd:
        plan, network = self.plan, self.network
        for number, rate in zip(range(plan.coordinators), plan.coordinator_rates, strict=False):
            network.machine(coordinator_machine(number), rate)
        etcd = Etcd(network, Random(f"{plan.seed}/members"), plan.etcd_rates)
        etcd.commit_ns = self.disk.write_ns
        return etcd

    def _issue_tokens(self) -> None:
        """Give every second client a token; a thief has copied these."""
        self.network.tokens = book = TokenBook(self.apart, self.violate)
        for number in range(1, self.plan.clients, 2):
            app = f"client{number}"
            token = book.issue(holder("client", app, self._namespace_of(number)))
            book.give(app, token)
            book.stolen.append(token)

    def open(self, observer: Observer, touched: Callable[[ActorProcess, InHand], None]) -> None:
        """Start all processes. `touched` is called with each record that an actor is about to apply."""
        self._observer = observer
        self._touched = touched
        self.start_coordinators()
        for number in range(self.plan.nodes):
            self.start_node(f"n{number}")
        for number in range(self.plan.clients):
            self.start_client(number)

    # --- making processes --------------------------------------------------------------------------------

    @property
    def coordinator(self) -> CoordinatorProcess | CandidateProcess:
        """The coordinator; of several, who serves, else the first that runs."""
        leading = [each for each in self.coordinators if isinstance(each, CandidateProcess) and each.serves]
        running = [each for each in self.coordinators if each.alive]
        return [*leading, *running, *self.coordinators][0]

    def start_coordinators(self) -> None:
        """Start each coordinator that does not run, from what is on disk or in etcd."""
        for number in range(max(1, self.plan.coordinators)):
            if number >= len(self.coordinators) or not self.coordinators[number].alive:
                self.start_coordinator(number)

    def start_coordinator(self, number: int = 0) -> None:
        """Start one coordinator, in the place of a former run."""
        self.generations += 1
        machine = self.network.machine(coordinator_machine(number))
        random = Random(f"{self.plan.seed}/{machine.name}/{self.generations}")
        settings = CoordinatorSettings(marks_seconds=self.plan.marks_seconds)
        process: CoordinatorProcess | CandidateProcess
        if self.etcd is None:
            process = CoordinatorProcess(self.network, machine, random, self.disk, settings)
        else:
            plan = self.plan
            alone = plan.recover_alone_seconds
            options = ClusterOptions(CLUSTER, plan.shards, plan.replicas, recover_alone_seconds=alone)
            addresses = self.etcd.addresses
            process = CandidateProcess(self.network, machine, random, addresses, options, settings)
        self.coordinators[number : number + 1] = [process]
        process.run(self.codec, self._observer, self.random.randbytes(16))

    def shard_at(self, point: int) -> int:
        """Return the shard of a routing point."""
        return point * self.plan.shards >> 16

    def kept(self, cluster_map: ClusterMap) -> None:
        """Note a map that is in etcd."""
        self._observer.persisted(self.disk.map, cluster_map)
        self.disk.map = cluster_map

    def start_node(self, name: str) -> SupervisorProcess:
        """Start a node's supervisor, on a machine of the same name, unless it runs already."""
        running = self.supervisors.get(name)
        if running is not None and running.alive:
            return running
        self.generations += 1
        number = int(name[1:])
        rate = self.plan.rates[number] if number < len(self.plan.rates) else 1_000_000
        fresh = name not in self.network.machines
        machine = self.network.machine(name, rate)
        if fresh and number < len(self.plan.walls_ms):
            machine.wall_offset_us = self.plan.walls_ms[number] * 1000
        random = Random(f"{self.plan.seed}/{name}/{self.generations}")
        process = SupervisorProcess(self.network, machine, random, self, name, self.random.randbytes(16))
        self.supervisors[name] = process
        process.run(self.codec, self.plan.actors)
        self.note(f"node {name} starts")
        return process

    def keeps(self, node: str) -> bool:
        """Whether the actors of a node keep what they hold in directories."""
        return self.directories.durability(node) != "none"

    def zone_of(self, node: str) -> str:
        """Return the zone in which a node is."""
        return self.zones.setdefault(node, self._zone(int(node[1:])))

    def _zone(self, number: int) -> str:
        zones = self.plan.zones
        return zones[number % len(zones)] if zones else ""

    def start_client(self, place: int, parent: ClientProcess | None = None) -> ClientProcess:
        """Start a client process, in the place of a former one; with a parent it is a fork of that."""
        self.generations += 1
        plan = self.plan
        number = place if parent is None else parent.number
        rate = plan.client_rates[number] if number < len(plan.client_rates) else 1_000_000
        machine = self.network.machine(f"client{number}", rate)
        # In every second world a store of a former release is among them.
        former = number == 1 and plan.seed % 2 == 1
        kept = 0 if former or number >= len(plan.near_sessions) else plan.near_sessions[number]
        nodes = tuple(each.address for each in self.supervisors.values())
        settings = DialogSettings(
            seeds=nodes,
            cluster=CLUSTER,
            deadline_seconds=self.plan.deadline_seconds,
            zone=self._zone(number),
        )
        process = ClientProcess(
            self.network,
            machine,
            Random(f"{self.plan.seed}/client/{self.generations}"),
            self.random.randbytes,
            settings,
            lambda reason: self.violate("client", f"client {number}: {reason}"),
            lambda: self._observer.went_over(f"client {number}"),
            self._namespace_of(number),
            NearCache(kept, machine.now_ns, eager=plan.near_eager) if kept else None,
        )
        process.number = number
        process.former = former
        if parent is not None:
            process.forked_from(parent)
        if place < len(self.clients):
            self.clients[place] = process
        else:
            self.clients.append(process)
        return process

    def _namespace_of(self, number: int) -> str:
        # At the end, a probe must be served wherever it asks.
        refused = self.healing and (self.plan.quota_sessions or self.plan.former_nodes)
        tenant = self.plan.tenants and number % 2 and not refused
        return TENANT if tenant else DEFAULT_NAMESPACE

    def make_actor(self, node: str, slot: str) -> ActorProcess:
        """Make an actor's process, which does not serve yet."""
        incarnation = self.random.randbytes(16)
        settings = self._settings_of(node)
        mark = ActorMark()
        of_host = Random(self.random.random())
        machine = self.network.machine(node)
        actor = ActorProcess(self.network, machine, Random(self.random.random()), slot, incarnation, mark)
        last = range(self.plan.nodes - self.plan.former_nodes, self.plan.nodes)
        actor.former_release = int(node[1:]) in last and not self.healing
        actor.host = Host(incarnation, slot, settings, of_host, mark, self._opened(actor))
        mark.on_record = partial(self._touched, actor)
        actor.host_settings = settings
        actor.trace = self._note_effect
        actor.on_gone = lambda: self._gone(actor)
        self.recording.began(actor.slot, actor.name, self.seconds)
        self.actors[incarnation] = actor
        return actor

    def _opened(self, actor: ActorProcess) -> Stable | None:
        """Open the directory of an actor's slot; None if it has none, or cannot use it."""
        directory = self.directories.of(actor.slot)
        if directory is None:
            return None
        try:
            replay = self._replayed(directory, actor)
        except DamagedError as error:
            self.network.happened["directory damaged"] += 1
            self.note(f"{actor.slot} begins with another directory: {error}")
            if not directory.harmed:
                self.violate("damage", f"nothing has harmed the directory of {actor.slot}: {error}")
            directory = self.directories.replace(actor.slot)
            replay = self._replayed(directory, actor)
        except InUseError:
            actor.shut_out = "shut out of its directory"
            return None
        except FailedError:
            actor.shut_out = "directory could not be opened"
            return None
        except UsageError:
            actor.shut_out = "moved directory refused"
            return None
        seconds = self.plan.interval_seconds
        mode = self.directories.durability(actor.slot.partition("/")[0])
        actor.keep(directory, mode, int(seconds * SECOND) if mode == "interval" else 0)
        return Stable(
            durability="interval" if mode == "interval" else "fsync",
            interval_seconds=seconds,
            mark=directory.synced,
            stored_bytes=directory.stored_bytes,
            copies=replay.copies,
            starts=replay.starts,
            remembered=replay.remembered,
            directory=directory.identity,
            openers=directory.known.incarnations,
            opened_ns=actor.machine.now_ns(),
        )

    def _replayed(self, directory: Directory, actor: ActorProcess) -> Replay:
        replay = Replay()
        for number, body in directory.open(actor, actor.incarnation, str(actor.machine.boot)).items():
            replay.take_batch(number, len(body), decode_entries(body))
        if directory.misjudged:
            self.violate("damage", f"the directory of {actor.slot} is believed, but lacks what was synced")
        return replay

    def _settings_of(self, node: str) -> HostSettings:
        bounds = self.plan.memory_bytes
        if not bounds or self.healing:
            return self.settings
        bound = bounds[int(node[1:]) % len(bounds)]
        return msgspec.structs.replace(self.settings, memory_bytes_max=bound)

    def _gone(self, actor: ActorProcess) -> None:
        self._observer.died(actor)
        self.recording.ended(actor.name, self.seconds)

    def start_actor(self, actor: ActorProcess) -> str:
        """Let an actor serve; return its address."""
        node, _, index = actor.slot.partition("/")
        port = 100 + int(index) if self.plan.fixed_ports else 1000 + self.pid_of(actor)
        address = f"{node}:{port}"
        actor.run(self.codec, address, self._observer)
        self.note(f"{actor.name} starts")
        return address

    # --- what is known of processes ----------------------------------------------------------------------

    def pid_of(self, actor: ActorProcess) -> int:
        """Return the process id, which is never used again in a world."""
        return list(self.actors).index(actor.incarnation) + 1

    def is_process_alive(self, pid: int) -> bool:
        """Whether the process with that id runs."""
        return list(self.actors.values())[pid - 1].alive

    def is_alive(self, incarnation: bytes) -> bool:
        """Whether that incarnation runs."""
        actor = self.actors.get(incarnation)
        return actor is not None and actor.alive

    def name_of(self, incarnation: bytes) -> str:
        """Return the name of an incarnation."""
        actor = self.actors.get(incarnation)
        return incarnation.hex()[:6] if actor is None else actor.name

    def check_dead(self, supervisor: SupervisorProcess, incarnations: tuple[bytes, ...]) -> None:
        """Judge what a supervisor reports."""
        self._observer.reported_dead(supervisor.name, incarnations)

    @staticmethod
    def encode(messages: list[wire.Frame]) -> bytes:
        """Return the frames of these messages."""
        return bytes(encode_frames(messages, 16 << 20))

    @property
    def map(self) -> ClusterMap:
        """The newest map on the coordinator's disk, or in etcd."""
        return self.disk.map

    # --- the trace ---------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Seconds since the world began."""
        return (self.timeline.now - ORIGIN_NS) / 1e9

    def note(self, text: str) -> None:
        """Put a line into the trace."""
        line = f"{self.seconds:12.6f} {text}"
        self._trace_digest.update(line.encode())
        if self.tracing and len(self.trace) < TRACE_MAX:
            self.trace.append(line)

    def _note_effect(self, actor: ActorProcess, effect: Any) -> None:
        if isinstance(effect, Warned) and "its log is not the primary's" in effect.message:
            self.violate("logs", f"{actor.name} shard {effect.shard}: {effect.message}")
        if isinstance(effect, Transition):
            self.recording.turned(actor.name, effect, self.seconds)
            self.note(
                f"{actor.name} shard {effect.shard} epoch {effect.epoch} {effect.role}: {effect.reason}"
            )

    def violate(self, rule: str, detail: str) -> None:
        """Note that a rule broke."""
        self.violations.append(Violation(rule, self.seconds, detail))
        self.note(f"VIOLATION {rule}: {detail}")

    @property
    def digest(self) -> str:
        """A digest of all lines of the trace."""
        return self._trace_digest.hexdigest()
