"""Faults, operations and checks over a small world, by single moves: for a state machine and for a soak."""

from collections.abc import Callable

from greenroom.cluster_map import NodeEntry
from greenroom_cluster.coordination.messages import RegisterNode, ReportDead
from greenroom_cluster.shard.settings import HostSettings, ns
from simulations.checks.linearizability import assert_explained
from tests.cluster.shard.callers import Callers, shard_of
from tests.cluster.shard.harness import Actor, World
from tests.cluster.shard.judge import Judge, Tape

SMALL = HostSettings(
    prepare_bytes_max=600,
    chunk_bytes=400,
    chunks_in_flight_max=2,
    joins_max=2,
    joins_per_peer_max=1,
    prepares_in_flight_max=2,
)
CLOCK_JUMPS = (-3600.0, -4.0, 3.0, 4.9, 20.0, 3600.0)
JITTERS_NS = (0, ns(0.002), ns(0.05), ns(0.6), ns(1.5))


class Chaos:
    """A world, its judge and its callers. Moves take plain numbers, so that anything can choose them."""

    def __init__(self, tape: Tape, seed: int, *, shards: int = 2, replicas: int = 2, nodes: int = 3) -> None:
        self.world = World(nodes, 1, shards, replicas, seed=seed, settings=SMALL, drift_ppm=40_000)
        self.judge = Judge(self.world, tape)
        self.world.settle()
        self.callers = Callers(self.world, self.judge)
        self.moves: list[str] = []

    def _actor(self, choice: int) -> Actor:
        alive = self.world.alive()
        return alive[choice % len(alive)]

    def _note(self, move: str) -> None:
        self.moves.append(f"{(self.world.now_ns - ns(1000)) / 1e9:.3f} {move}")

    # --- moves ----------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        self.world.run_for(seconds)

    def call(self, kind: str | None = None, key: str | None = None) -> None:
        self.callers.call(kind, key)

    def kill(self, choice: int, *, report: bool = True) -> None:
        actor = self._actor(choice)
        self._note(f"kill {actor.slot} report={report}")
        self.world.kill(actor, report=report)
        if not report:
            # The supervisor tells late, as after a cut: nobody may conclude anything before.
            self.world.after(ns(8), lambda: self._report(actor))

    def _report(self, actor: Actor) -> None:
        self.world.seen_dead.append(actor.incarnation)
        self.world.coordinate(b"s" * 16, ReportDead(1, (actor.incarnation,)))

    def pause(self, choice: int) -> None:
        actor = self._actor(choice)
        self._note(f"pause {actor.slot}")
        self.world.pause(actor)

    def resume(self, choice: int) -> None:
        actor = self._actor(choice)
        if actor.paused:
            self._note(f"resume {actor.slot}")
            self.world.resume(actor)

    def resume_all(self) -> None:
        for number in range(len(self.world.alive())):
            self.resume(number)

    def cut(self, one: int, other: int, *, one_way: bool) -> None:
        names = [*sorted({actor.node for actor in self.world.actors.values()}), "coordinator"]
        first, second = names[one % len(names)], names[other % len(names)]
        if first != second:
            self._note(f"cut {first} {second} one_way={one_way}")
            self.world.cut(first, second, one_way=one_way)

    def heal(self) -> None:
        self._note("heal")
        self.world.heal()

    def break_link(self, one: int, other: int, *, bulk: bool) -> None:
        actor, peer = self._actor(one), self._actor(other)
        self._note(f"break {actor.slot} {peer.slot} bulk={bulk}")
        self.world.break_link(actor, peer.incarnation, bulk)

    def coordinator(self, *, up: bool) -> None:
        if up and not self.world.coordinator_up:
            self._note("coordinator up")
            self.world.start_coordinator()
        elif not up and self.world.coordinator_up:
            self._note("coordinator down")
            self.world.stop_coordinator()

    def slow(self, choice: int) -> None:
        self.world.jitter_ns = JITTERS_NS[choice % len(JITTERS_NS)]
        self._note(f"jitter {self.world.jitter_ns}")

    def jump_clock(self, choice: int, seconds: float) -> None:
        node = self._actor(choice).node
        self._note(f"clock of {node} jumps {seconds}")
        self.world.wall_jump_us[node] = self.world.wall_jump_us.get(node, 0) + int(seconds * 1e6)

    def leave(self, choice: int) -> None:
        node = self._actor(choice).node
        self._note(f"leave {node}")
        self.world.leave(node)

    def stay(self, choice: int) -> None:
        self._register(self._actor(choice).node)

    def _register(self, node: str) -> None:
        self.world.coordinate(b"s" * 16, RegisterNode(1, NodeEntry(node, f"{node}:1", "up")))

    # --- the end --------------------------------------------------------------------------------------------

    def whole(self) -> bool:
        """Whether every shard has two living members, so that no single death loses anything."""
        alive = {actor.incarnation for actor in self.world.alive()}
        return all(len(alive.intersection(entry.members)) > 1 for entry in self.world.map.shards)

    def recover(self) -> None:
        """All faults end; everything must come back, agree, and have an explanation."""
        world = self.world
        self._note("recover")
        self.coordinator(up=True)
        self.resume_all()
        self.slow(0)
        self.heal()
        for actor in list(world.actors.values()):
            if not actor.alive and actor.incarnation not in world.seen_dead:
                self._report(actor)
        for node in sorted({actor.node for actor in world.actors.values()}):
            self._register(node)
        world.run_until(lambda: self.callers.open == 0, 30)
        world.settle(60)
        for key in list(self.callers.keys):
            self.callers.call("get", key)
        world.run_until(lambda: self.callers.open == 0, 30)
        world.run_for(1)
        world.settle(60)
        shards = range(len(world.map.shards))
        world.run_until(lambda: all(map(world.converged, shards)), 40)
        self.judge.check_rest()
        assert_explained(
            operation
            for operation in self.callers.history
            if shard_of(operation.session) not in self.judge.lost_shards
        )

    def explain(self) -> str:
        return "\n".join([*self.moves, self.world.describe()])


def random_move(chaos: Chaos) -> None:
    """Make one move by the world's own random numbers: mostly calls and waiting, now and then a fault."""
    random = chaos.world.random
    for _ in range(random.randrange(3)):
        for _ in range(random.randrange(6)):
            chaos.call()
        chaos.wait(random.choice((0.0003, 0.002)))
    chaos.wait(random.choice((0.0005, 0.003, 0.02, 0.2, 0.5, 1.5)))
    number, other, luck = random.randrange(100), random.randrange(100), random.random()
    faults: tuple[tuple[int, Callable[[], None]], ...] = (
        (1, lambda: chaos.kill(number, report=luck < 0.8) if chaos.whole() or luck < 0.2 else None),
        (1, lambda: chaos.wait(3)),
        (2, lambda: chaos.pause(number)),
        (3, chaos.resume_all),
        (2, lambda: chaos.cut(number, other, one_way=luck < 0.5)),
        (2, chaos.heal),
        (2, lambda: chaos.break_link(number, other, bulk=luck < 0.5)),
        (1, lambda: chaos.coordinator(up=False)),
        (2, lambda: chaos.coordinator(up=True)),
        (1, lambda: chaos.slow(number)),
        (1, lambda: chaos.jump_clock(number, random.choice(CLOCK_JUMPS))),
        (1, lambda: chaos.leave(number)),
        (1, lambda: chaos.stay(number)),
        (2, lambda: None),
    )
    random.choices([fault for _, fault in faults], [weight for weight, _ in faults])[0]()


def soak(tape: Tape, seed: int, moves: int = 40) -> Chaos:
    """Run one seed to its end; raises AssertionError with the moves that led there."""
    chaos = Chaos(tape, seed, shards=1 + seed % 2, replicas=2 + (seed % 5 == 0), nodes=3 + (seed % 3 == 0))
    try:
        for _ in range(moves):
            random_move(chaos)
        chaos.recover()
    except Exception as error:
        raise AssertionError(f"seed {seed}: {error!r}\n{chaos.explain()}") from error
    return chaos
