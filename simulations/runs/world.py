"""A cluster, its clients and its network in one virtual time, made of a plan.

`World(plan).run()` lets the cluster start, runs the plan's actions under its faults (safety phase), then
heals everything and demands that each shard is writable and whole within a bound (liveness phase), and judges
the history at the end. A world is a value of its plan: the same plan gives the same trace.

Faults are found by name: `world["primary of shard 3"].pause(2.0)`, see `targets`.
"""

from collections.abc import Callable

import msgspec

from greenroom_cluster.shard.roles.role import Role
from simulations.checks.linearizability import Operation, UndecidedError, check_history
from simulations.checks.near import NearOracle
from simulations.checks.oracles import Oracles
from simulations.checks.zones import crowded
from simulations.cluster.marks import PoisonBook
from simulations.cluster.recording import gaps
from simulations.cluster.stage import Stage, Violation
from simulations.faults.hits import Reach
from simulations.faults.injection import Faults, Victim
from simulations.faults.intruders import Intruder
from simulations.faults.poison import Poisons
from simulations.faults.thieves import steal
from simulations.kernel.timeline import SECOND
from simulations.plans.plan import Plan
from simulations.workload.callers import Workload
from simulations.workload.probes import Probes
from simulations.workload.watching import Watching

START_BOUND_NS = 20 * SECOND
HEAL_BOUND_NS = 30 * SECOND
REST_BOUND_NS = 5 * SECOND
ENDED_BOUND_NS = 15 * SECOND
SETTLED_SECONDS = 0.5
GAP_SECONDS = 0.03


class Result(msgspec.Struct, kw_only=True):
    """The outcome of a run."""

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


class World(Stage):
    """One run of one plan."""

    def __init__(self, plan: Plan, *, tracing: bool = False) -> None:
        super().__init__(plan, tracing=tracing)
        book = PoisonBook()
        self.oracles = Oracles(self, book)
        self.poisons = Poisons(self, book, self.oracles)
        self.open(self.oracles, self.poisons.touched)
        self.workload = Workload(self, book, NearOracle(self, self.oracles.losses.undone))
        self.watching = Watching(self, self.workload, self.oracles, book)
        self.faults = Faults(Reach(self, self.oracles, self.poisons, self.workload))

    # --- running -----------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Victim:
        """Return what a name stands for now; see `targets`."""
        return self.faults.victim(name)

    def begin(self) -> bool:
        """Let the cluster start, and the callers with their faults; False if it does not come up."""
        timeline = self.timeline
        if not timeline.run_until(timeline.now + START_BOUND_NS, self._ticking(self.whole)):
            self.violate("liveness", f"the cluster did not start: {self.describe()}")
            return False
        self.note("the cluster is whole")
        self.ready_ns = self.timeline.now
        self.faults.schedule(self.plan.faults)
        if self.plan.secret:
            Intruder(self).start()
        steal(self)
        self.workload.start()
        self.watching.start()
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
        """Return a check that asks `done` only now and then: asking costs more than an event."""
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
        self.note("healing")
        self.healing = True
        healed_ns = self.timeline.now
        self.faults.heal()
        for actor in [each for each in self.actors.values() if each.former_release and each.alive]:
            # It is upgraded: until then shards may be missing a copy for that.
            actor.kill()
        for actor in self.actors.values():
            # An operator gives them what they need: until then copies may be missing for want of memory.
            actor.host.memory.rebound(self.settings.memory_bytes_max)
        probes = Probes(self, self.oracles.lost)
        end = healed_ns + HEAL_BOUND_NS

        def works() -> bool:
            return probes.answered and self.whole() and not self._astray()

        done = self.timeline.run_until(end, self._ticking(lambda: works() and not crowded(self)))
        took = (self.timeline.now - healed_ns) / 1e9
        if self.violations:
            return took
        if not done and works():
            self.violate("zones", f"{took:.0f} s after healing: {'; '.join(crowded(self))}")
            return took
        if not done:
            state = "all probes were answered" if probes.answered else f"no answer to {probes.unanswered}"
            if astray := self._astray():
                state += f"; {astray} have the map of another cluster"
            self.violate("liveness", f"not whole {took:.0f} s after healing ({state}): {self.describe()}")
            return took
        if not self.timeline.run_until(self.timeline.now + REST_BOUND_NS, self._ticking(self._equal)):
            self.violate("equal", f"replicas differ at rest: {self.describe()}")
        end = self.timeline.now + ENDED_BOUND_NS
        if not self.timeline.run_until(end, self._ticking(lambda: not self.watching.untold())):
            self.violate("endings", f"not told long after healing: {', '.join(self.watching.untold())}")
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
            # Of different ids, a change may show before another that was logged earlier, but has holders.
            for violation in check_history(history, apart=bool(self.plan.near_sessions)):
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
            digest=self.digest,
        )

    def history(self) -> list[Operation]:
        """Return the history to explain: the operations of callers, and what may end by itself.

        Sessions of shards that were lost with all their members are left out. To be called when the run is
        over: an operation that is under way counts as unknown.
        """
        lost, shard_of = self.oracles.lost, self.workload.shard_of
        return [each for each in self.workload.close() if shard_of(each.session) not in lost]

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
