"""A cluster, its clients and its network in one virtual time, made of a plan.

`World(plan).run()` lets the cluster start, runs the plan's actions under its faults (safety phase), then
heals everything and demands that each shard is writable and whole within a bound (liveness phase), and judges
the history at the end. A world is a value of its plan: the same plan gives the same trace.

Faults are found by name: `world["primary of shard 3"].pause(2.0)`, see `targets`.
"""

import hashlib
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.dialog import DialogSettings
from greenroom.framing import encode_frames
from greenroom_cluster.coordination.coordinator import CoordinatorSettings
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.shard.effects import Transition, Warned
from greenroom_cluster.shard.host import Host
from greenroom_cluster.shard.roles.role import Role
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.clock import BELIEVED_AHEAD_US
from simulations.actors import ActorProcess
from simulations.clients import ClientProcess
from simulations.connections import CLUSTER, Codec
from simulations.coordination import CoordinatorProcess, Disk
from simulations.faults import Faults
from simulations.linearizability import Operation, UndecidedError, check_history
from simulations.network import Network
from simulations.oracles import Oracles
from simulations.plans import Plan
from simulations.poison import ActorMark, Poisons
from simulations.recording import Recording, gaps
from simulations.supervisors import SupervisorProcess
from simulations.targets import Target, find
from simulations.timeline import ORIGIN_NS, SECOND, Timeline
from simulations.workload import Workload

START_BOUND_NS = 20 * SECOND
HEAL_BOUND_NS = 30 * SECOND
REST_BOUND_NS = 5 * SECOND
SETTLED_SECONDS = 0.5
GAP_SECONDS = 0.03
TRACE_MAX = 200_000
IDENTITY = b"simulatedcluster"


class Violation(msgspec.Struct, frozen=True):
    """A rule that broke, when (seconds since the world began), and how."""

    rule: str
    seconds: float
    detail: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.seconds:.6f}: {self.detail}"


class Result(msgspec.Struct, kw_only=True):
    """What came of a run."""

    seed: int
    violations: list[Violation]
    simulated_seconds: float
    operations: int
    answered: int
    undecided: int
    lost_shards: int
    heal_seconds: float
    faults: dict[str, int]
    messages: dict[str, int]
    digest: str
    processor_seconds: float = 0.0


def _clock_slack_ns(plan: Plan) -> int:
    """Return by how much shard time may run ahead of true time in this plan."""
    ahead = 0.2 + max((0, *plan.walls_ms)) / 1e3
    for fault in plan.faults:
        if fault.kind == "jump wall clock" and fault.amount > 0:
            # What is far ahead is not believed, but followed a tenth faster.
            ahead += fault.amount if fault.amount <= BELIEVED_AHEAD_US / 1e6 else 0.1 * plan.seconds + 1.0
    return int(ahead * SECOND)


class World:
    """One run of one plan."""

    def __init__(self, plan: Plan, *, tracing: bool = False) -> None:
        self.plan = plan
        self.timeline = Timeline()
        self.random = Random(f"{plan.seed}/world")
        self.network = Network(
            self.timeline, Random(f"{plan.seed}/network"), plan.latency_us * 1000, plan.jitter_us * 1000
        )
        self.codec = Codec(encoded=plan.encoded)
        self.violations: list[Violation] = []
        self.trace: list[str] = []
        self.tracing = tracing
        self.healing = False
        self.ready_ns = 0
        self.began_ns = ORIGIN_NS
        self.clock_slack_ns = _clock_slack_ns(plan)
        self._trace_digest = hashlib.blake2b(digest_size=16)
        self.oracles = Oracles(self)
        self.poisons = Poisons(self)
        self.recording = Recording()
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
            eviction="anonymous" if plan.evicts else "none",
        )
        self.disk = Disk(first_map(CLUSTER, plan.shards, plan.replicas, IDENTITY))
        self.disk.write_ns = int(plan.disk_ms * 1e6)
        self.actors: dict[bytes, ActorProcess] = {}
        self.supervisors: dict[str, SupervisorProcess] = {}
        self.clients: list[ClientProcess] = []
        self.generations = 0
        self.network.machine("coordinator")
        self.coordinator = self.start_coordinator()
        for number in range(plan.nodes):
            self.start_node(f"n{number}")
        for number in range(plan.clients):
            self.start_client(number)
        self.workload = Workload(self)
        self.faults = Faults(self)

    # --- making processes --------------------------------------------------------------------------------

    def start_coordinator(self) -> CoordinatorProcess:
        """Start the coordinator from what is on disk."""
        self.generations += 1
        process = CoordinatorProcess(
            self.network,
            self.network.machine("coordinator"),
            Random(f"{self.plan.seed}/coordinator/{self.generations}"),
            self.disk,
            CoordinatorSettings(),
        )
        self.coordinator = process
        process.run(self.codec, self.oracles, self.random.randbytes(16))
        return process

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

    def start_client(self, number: int) -> ClientProcess:
        """Start a client process, in the place of a former one."""
        self.generations += 1
        machine = self.network.machine(f"client{number}")
        nodes = tuple(each.address for each in self.supervisors.values())
        settings = DialogSettings(seeds=nodes, cluster=CLUSTER, deadline_seconds=self.plan.deadline_seconds)
        process = ClientProcess(
            self.network,
            machine,
            Random(f"{self.plan.seed}/client/{self.generations}"),
            self.random.randbytes(16),
            settings,
            lambda reason: self.violate("client", f"client {number}: {reason}"),
            lambda: self.oracles.went_over(f"client {number}"),
        )
        if number < len(self.clients):
            self.clients[number] = process
        else:
            self.clients.append(process)
        return process

    def make_actor(self, node: str, slot: str) -> ActorProcess:
        """Make an actor's process, which does not serve yet."""
        incarnation = self.random.randbytes(16)
        settings = self._settings_of(node)
        mark = ActorMark(self.poisons)
        host = Host(incarnation, slot, settings, Random(self.random.random()), mark)
        machine = self.network.machine(node)
        actor = ActorProcess(
            self.network, machine, Random(self.random.random()), host, slot, incarnation, mark
        )
        mark.actor = actor
        actor.host_settings = settings
        actor.trace = self._note_effect
        actor.on_gone = lambda: self._gone(actor)
        self.recording.began(actor.slot, actor.name, self.seconds)
        self.actors[incarnation] = actor
        return actor

    def _settings_of(self, node: str) -> HostSettings:
        bounds = self.plan.memory_bytes
        if not bounds or self.healing:
            return self.settings
        bound = bounds[int(node[1:]) % len(bounds)]
        return msgspec.structs.replace(self.settings, memory_bytes_max=bound)

    def _gone(self, actor: ActorProcess) -> None:
        self.oracles.died(actor)
        self.recording.ended(actor.name, self.seconds)

    def start_actor(self, actor: ActorProcess) -> str:
        """Let an actor serve; return its address."""
        node, _, index = actor.slot.partition("/")
        port = 100 + int(index) if self.plan.fixed_ports else 1000 + self.pid_of(actor)
        address = f"{node}:{port}"
        actor.run(self.codec, address, self.oracles)
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
        self.oracles.reported_dead(supervisor.name, incarnations)

    @staticmethod
    def encode(messages: list[wire.Frame]) -> bytes:
        """Return the frames of these messages."""
        return bytes(encode_frames(messages, 16 << 20))

    @property
    def map(self) -> ClusterMap:
        """The newest map on the coordinator's disk."""
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
            self.note(
                f"{actor.name} shard {effect.shard} epoch {effect.epoch} {effect.role}: {effect.reason}"
            )

    def violate(self, rule: str, detail: str) -> None:
        """Note that a rule broke."""
        self.violations.append(Violation(rule, self.seconds, detail))
        self.note(f"VIOLATION {rule}: {detail}")

    # --- running -----------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Target:
        """Return what a name stands for now; see `targets`."""
        return find(self, name)

    def begin(self) -> bool:
        """Let the cluster start, and the callers with their faults; False if it does not come up."""
        timeline = self.timeline
        if not timeline.run_until(timeline.now + START_BOUND_NS, self._ticking(self.whole)):
            self.violate("liveness", f"the cluster did not start: {self.describe()}")
            return False
        self.note("the cluster is whole")
        self.ready_ns = self.timeline.now
        self.faults.schedule(self.plan.faults)
        self.workload.start()
        return True

    def run(self) -> Result:
        """Run the plan and judge it."""
        heal_seconds = 0.0
        if self.begin():
            end = self.timeline.now + int(self.plan.seconds * SECOND)
            self.timeline.run_until(end, lambda: bool(self.violations))
            if self.plan.whole_at_end and not self.violations and not self.whole():
                self.violate("whole", f"replicas are missing: {self.describe()}")
            if not self.violations:
                heal_seconds = self._live()
        return self._judge(heal_seconds)

    def _ticking(self, done: Callable[[], bool]) -> Callable[[], bool]:
        """Ask only now and then: asking costs more than an event."""
        countdown = 0

        def sometimes() -> bool:
            nonlocal countdown
            if self.violations:
                return True
            countdown -= 1
            if countdown > 0:
                return False
            countdown = 20
            return done()

        return sometimes

    def _live(self) -> float:
        """Heal, then demand that everything works again within the bound; return how long that took."""
        from simulations.probes import Probes  # probes act through a world's clients

        self.note("healing")
        self.healing = True
        healed_ns = self.timeline.now
        self.faults.heal()
        for actor in self.actors.values():
            # An operator gives them what they need: until then copies may be missing for want of memory.
            actor.host.memory.rebound(self.settings.memory_bytes_max)
        probes = Probes(self)
        end = healed_ns + HEAL_BOUND_NS
        done = self.timeline.run_until(
            end, self._ticking(lambda: probes.answered and self.whole() and not self._astray())
        )
        took = (self.timeline.now - healed_ns) / 1e9
        if self.violations:
            return took
        if not done:
            state = "all probes were answered" if probes.answered else f"no answer to {probes.unanswered}"
            if astray := self._astray():
                state += f"; {astray} have the map of another cluster"
            self.violate("liveness", f"not whole {took:.0f} s after healing ({state}): {self.describe()}")
            return took
        if not self.timeline.run_until(self.timeline.now + REST_BOUND_NS, self._ticking(self._equal)):
            self.violate("equal", f"replicas differ at rest: {self.describe()}")
        return took

    def whole(self) -> bool:
        """Whether every shard has all its replicas where they are wanted, and serves."""
        cluster_map = self.disk.map
        nodes = {each.name for each in cluster_map.nodes.values() if each.state == "up"}
        slots = sum(each.state == "up" and each.node in nodes for each in cluster_map.actors.values())
        for shard, entry in enumerate(cluster_map.shards):
            if not entry.primary or len(entry.members) != min(cluster_map.replicas, slots):
                return False
            actor = self.actors[entry.primary]
            replica = actor.host.replicas[shard] if actor.alive and actor.host.replicas else None
            if replica is None or replica.primary is None or replica.role is not Role.PRIMARY:
                return False
            if replica.epoch != entry.epoch or replica.primary.opened is not None:
                return False
            if not replica.primary.leased(actor.machine.now_ns()):
                return False
            if not all(self.actors[member].alive for member in entry.members):
                return False
            if {self.actors[member].slot for member in entry.members} != set(entry.wanted):
                return False
            if actor.slot != entry.wanted[0]:
                return False
        return True

    def _astray(self) -> list[str]:
        """Return the clients that have the map of a cluster that is not there any more."""
        return [
            client.name
            for client in self.clients
            if client.alive and client.dialog.identity not in (b"", self.disk.map.identity)
        ]

    def _equal(self) -> bool:
        """Whether the replicas of each shard are at the same point and hold the same."""
        for shard, entry in enumerate(self.disk.map.shards):
            states = set()
            for member in entry.members:
                replica = self.actors[member].host.replicas[shard]
                if replica is None or replica.committed != replica.log.appended:
                    return False
                states.add((replica.committed, replica.table.fingerprint()))
            if len(states) != 1:
                return False
        return True

    def silent_spans(self) -> list[list[tuple[float, float]]]:
        """Return for each shard the spans without an answer, while callers were asking."""
        ready = (self.ready_ns - self.began_ns) / 1e9
        answers: list[list[float]] = [[] for _ in range(self.plan.shards)]
        for shard, seconds in self.workload.answers:
            answers[shard].append(seconds)
        end = ready + self.plan.seconds
        return [gaps(times, ready + SETTLED_SECONDS, end, GAP_SECONDS) for times in answers]

    def _check_bound(self) -> None:
        for shard, spans in enumerate(self.silent_spans()):
            longest = max((end - begin for begin, end in spans), default=0.0)
            if longest > self.plan.bound_seconds:
                self.violate("available", f"shard {shard} gave no answer for {longest:.2f} s")

    def _judge(self, heal_seconds: float) -> Result:
        if self.plan.bound_seconds and not self.violations:
            self._check_bound()
        history = self.history()
        undecided = 0
        try:
            for violation in check_history(history):
                self.violate("linearizable", str(violation))
        except UndecidedError:
            undecided = 1
        for client, request, kind in self.workload.refused:
            for shard, truth in enumerate(self.oracles.shards):
                if (client, request) in truth.applied:
                    self.violate("client", f'{kind} {request} was called "not applied", shard {shard} has it')
        return Result(
            seed=self.plan.seed,
            violations=self.violations,
            simulated_seconds=self.seconds,
            operations=len(self.workload.history),
            answered=self.workload.acknowledged,
            undecided=undecided,
            lost_shards=len(self.oracles.lost),
            heal_seconds=heal_seconds,
            faults=dict(self.network.happened),
            messages={f"{role} {kind}": count for (role, kind), count in self.oracles.messages.items()},
            digest=self._trace_digest.hexdigest(),
        )

    def history(self) -> list[Operation]:
        """Return all that must be explained: what callers were told, and what may end by itself.

        Sessions of shards that were lost with all their members are left out. To be called when the run is
        over: an operation that is under way counts as unknown.
        """
        lost, shards = self.oracles.lost, self.plan.shards
        return [each for each in self.workload.close() if int(each.session[1:]) % shards not in lost]

    def describe(self) -> str:
        """Say how every shard stands."""
        lines = [f"nodes {[(node.name, node.state) for node in self.disk.map.nodes.values()]}"]
        for shard, entry in enumerate(self.disk.map.shards):
            names = [self.name_of(member) for member in entry.members]
            lines.append(f"shard {shard}: epoch {entry.epoch} {names} wanted {entry.wanted}")
        for actor in self.actors.values():
            for replica in actor.host.replicas if actor.alive else ():
                if replica is not None:
                    opened = replica.proposal
                    lines.append(
                        f"{actor.name} shard {replica.shard} {replica.role.value} epoch {replica.epoch} log "
                        f"{replica.log.appended} committed {replica.committed} "
                        f"open {opened and opened.proposal.kind}"
                    )
        return "\n    ".join(lines)
