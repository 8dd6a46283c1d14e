"""A small world of hosts on a virtual clock, with the real coordinator and controller, for scripted tests.

Messages between two actors arrive in order after a latency; links can be cut, actors paused and killed. There
is no I/O and no real time: `run_for` and `run_until` move the clock from event to event.
"""

import heapq
import random
from collections.abc import Callable, Iterable

import msgspec

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry
from greenroom_cluster.coordination import coordinator as coordination
from greenroom_cluster.coordination.messages import (
    Decided,
    Heartbeat,
    Propose,
    RegisterActor,
    RegisterNode,
    ReportDead,
)
from greenroom_cluster.planning.controller import Controller, ControllerSettings
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.host import Host
from greenroom_cluster.shard.messages import SnapshotOk, SnapshotRefused
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.roles.role import Role
from greenroom_cluster.shard.settings import HostSettings, ns
from greenroom_cluster.shard.state.stored import as_received

LATENCY_NS = 200_000
START_NS = ns(1000)
WALL_START_US = 1_800_000_000_000_000


class Actor:
    """One incarnation in the world."""

    def __init__(self, world: "World", slot: str, settings: HostSettings) -> None:
        self.world = world
        self.slot = slot
        self.node = slot.partition("/")[0]
        self.incarnation = world.random.randbytes(16)
        self.host = Host(self.incarnation, slot, settings, random.Random(world.random.random()))
        self.alive = True
        self.paused = False
        self.backlog: list[ins.HostInput] = []
        self.wanted_links: dict[tuple[bytes, bool], str] = {}
        self.up_links: set[tuple[bytes, bool]] = set()
        self.requests = 0
        self.replies: dict[int, wire.Reply] = {}
        self.trace: list[fx.HostEffect] = []
        self._tick_at = -1
        self._drift = world.random.randint(-world.drift_ppm, world.drift_ppm)
        self._offset_ns = world.random.randrange(ns(1000)) if world.drift_ppm else 0

    @property
    def now_ns(self) -> int:
        """This actor's own clock, which drifts and starts anywhere."""
        elapsed = self.world.now_ns - START_NS
        return START_NS + self._offset_ns + elapsed + elapsed * self._drift // 1_000_000

    def _world_ns(self, own_ns: int) -> int:
        elapsed = own_ns - START_NS - self._offset_ns
        return START_NS + elapsed * 1_000_000 // (1_000_000 + self._drift) + 1

    def step(self, event: ins.HostInput) -> None:
        if not self.alive:
            return
        if self.paused:
            self.backlog.append(event)
            return
        effects = self.host.step(self.now_ns, self.world.wall_us(self.node), event)
        self.world.stepped(self)
        for effect in effects:
            self.world.perform(self, effect)
        self.arm()

    def arm(self) -> None:
        due = max(self._world_ns(self.host.next_deadline()), self.world.now_ns + 1)
        if self._tick_at <= self.world.now_ns or due < self._tick_at:
            self._tick_at = due
            self.world.at(due, lambda: self._tick(due))

    def _tick(self, due: int) -> None:
        if due != self._tick_at:
            return
        self._tick_at = -1
        if self.alive and not self.paused:
            self.step(ins.Tick())

    def replica(self, shard: int = 0) -> Replica | None:
        return self.host.replicas[shard] if self.host.replicas else None

    def ask(self, *requests: wire.Request, client: bytes = b"c" * 16) -> None:
        self.step(ins.ClientRequests(1, client, list(requests)))


class World:
    """Nodes with their actors, one coordinator with its controller, and the wires between them."""

    def __init__(
        self,
        nodes: int = 3,
        actors: int = 1,
        shards: int = 4,
        replicas: int = 2,
        seed: int = 1,
        settings: HostSettings | None = None,
        drift_ppm: int = 0,
    ) -> None:
        self.random = random.Random(seed)
        self.now_ns = START_NS
        self.drift_ppm = drift_ppm
        # For checkers: called after an actor's step, with each reply, and with each new map.
        self.stepped: Callable[[Actor], None] = lambda actor: None
        self.replied: Callable[[Actor, int, wire.Reply], None] = lambda actor, connection, reply: None
        self.published: Callable[[ClusterMap], None] = lambda full: None
        self.settings = settings or HostSettings()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self.cuts: set[tuple[str, str]] = set()
        self.wall_jump_us: dict[str, int] = {}
        self.actors: dict[bytes, Actor] = {}
        self.dead_nodes: set[str] = set()
        # Nodes of a release without features.
        self.former_nodes: set[str] = set()
        self.seen_dead: list[bytes] = []
        self.coordinator_up = True
        self.coordinator_starts = 0
        self.jitter_ns = 0
        empty = ClusterMap(
            "test", 1, 1, replicas, {}, {}, tuple(ShardEntry(0, b"", (), b"", ()) for _ in range(shards))
        )
        self.coordinator = coordination.Coordinator(empty, coordination.CoordinatorSettings(), self.now_ns)
        self.controller = Controller(ControllerSettings())
        self._arrivals: dict[tuple[str, str], int] = {}
        for number in range(nodes):
            self.start_node(f"n{number}", actors)
        self._coordinate_forever()

    # --- time -----------------------------------------------------------------------------------------------

    def at(self, when_ns: int, call: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (when_ns, self._order, call))

    def after(self, delay_ns: int, call: Callable[[], None]) -> None:
        self.at(self.now_ns + delay_ns, call)

    def run_until(self, done: Callable[[], bool], seconds: float = 30.0) -> None:
        limit = self.now_ns + ns(seconds)
        while not done():
            if not self._events or self._events[0][0] > limit:
                raise AssertionError(f"not reached within {seconds} s: {self.describe()}")
            self.now_ns, _, call = heapq.heappop(self._events)
            call()

    def run_for(self, seconds: float) -> None:
        limit = self.now_ns + ns(seconds)
        while self._events and self._events[0][0] <= limit:
            self.now_ns, _, call = heapq.heappop(self._events)
            call()
        self.now_ns = limit

    def wall_us(self, node: str) -> int:
        return WALL_START_US + self.now_ns // 1000 + self.wall_jump_us.get(node, 0)

    # --- nodes ----------------------------------------------------------------------------------------------

    def start_node(self, name: str, actors: int = 1) -> None:
        self.dead_nodes.discard(name)
        self.coordinate(b"s" * 16, RegisterNode(1, NodeEntry(name, f"{name}:1", "up")))
        self._heartbeat(name)
        for index in range(actors):
            self.start_actor(f"{name}/{index}")

    def start_actor(self, slot: str) -> Actor:
        actor = Actor(self, slot, self.settings)
        self.actors[actor.incarnation] = actor
        self._register(actor)
        self.coordinate(actor.incarnation, wire.Subscribe(0, 0))
        actor.arm()
        return actor

    def leave(self, name: str) -> None:
        self.coordinate(b"s" * 16, RegisterNode(1, NodeEntry(name, f"{name}:1", "leaving")))

    def kill(self, actor: Actor, *, report: bool = True, restart: bool = True) -> None:
        actor.alive = False
        for other in self.actors.values():
            for peer, bulk in sorted(other.up_links):
                if peer == actor.incarnation:
                    self._break(other, peer, bulk)
        if report:
            dead = ReportDead(1, (actor.incarnation,))
            self.seen_dead.append(actor.incarnation)
            self.after(ns(0.003), lambda: self.coordinate(b"s" * 16, dead))
        if restart:
            self.after(ns(0.5), lambda: self.start_actor(actor.slot) and None)

    def kill_node(self, name: str) -> None:
        self.dead_nodes.add(name)
        for actor in self.alive():
            if actor.node == name:
                self.kill(actor, report=False, restart=False)

    def pause(self, actor: Actor) -> None:
        actor.paused = True

    def resume(self, actor: Actor) -> None:
        actor.paused = False
        backlog, actor.backlog = actor.backlog, []
        for event in backlog:
            actor.step(event)
        actor.step(ins.Tick())

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        """Cut nodes (or "coordinator") off from each other: what is sent is lost, links do not notice."""
        self.cuts.add((one, other))
        if not one_way:
            self.cuts.add((other, one))

    def heal(self) -> None:
        self.cuts.clear()
        for actor in self.alive():
            # What was lost on a cut link stays lost: TCP would have reset it.
            for peer, bulk in sorted(actor.up_links):
                self._break(actor, peer, bulk)
            self.after(LATENCY_NS, lambda actor=actor: self._resubscribe(actor))

    def _resubscribe(self, actor: Actor) -> None:
        if actor.alive and self.coordinator_up:
            self.coordinate(actor.incarnation, wire.Subscribe(0, 0))
            actor.step(ins.CoordinationUp())

    def stop_coordinator(self) -> None:
        """The coordinator's process ends; what was on its way to it is lost."""
        self.coordinator_up = False
        self.coordinator_starts += 1

    def start_coordinator(self) -> None:
        """It starts again from the map on its disk, and knows nothing else of before."""
        settings = coordination.CoordinatorSettings()
        self.coordinator = coordination.Coordinator(self.coordinator.map, settings, self.now_ns)
        self.coordinator_up = True
        for actor in self.alive():
            self._register(actor)
            self.after(LATENCY_NS, lambda actor=actor: self._resubscribe(actor))
        self.coordinate(b"s" * 16, ReportDead(1, tuple(self.seen_dead)))

    def _register(self, actor: Actor) -> None:
        entry = ActorEntry(actor.incarnation, actor.node, actor.slot, f"{actor.node}:1000", "up", "h", 1, 1)
        self.coordinate(b"s" * 16, RegisterActor(1, entry))

    def break_link(self, actor: Actor, peer: bytes, bulk: bool) -> None:
        """Reset the connection that the actor opened to that peer."""
        if (peer, bulk) in actor.up_links:
            self._break(actor, peer, bulk)

    def alive(self) -> list[Actor]:
        return [actor for actor in self.actors.values() if actor.alive]

    def at_slot(self, slot: str) -> Actor:
        return next(actor for actor in reversed(self.actors.values()) if actor.slot == slot)

    # --- wires ----------------------------------------------------------------------------------------------

    def deliver(self, one: str, other: str, call: Callable[[], None], lane: str = "") -> None:
        """Call after a latency unless the way is cut; keeps the order of each lane."""
        if (one, other) in self.cuts:
            return
        key = (one + lane, other + lane)
        when = self.now_ns + LATENCY_NS + (self.random.randrange(self.jitter_ns) if self.jitter_ns else 0)
        when = max(when, self._arrivals.get(key, 0))
        self._arrivals[key] = when
        self.at(when, call)

    def perform(self, actor: Actor, effect: fx.HostEffect) -> None:
        match effect:
            case fx.ReplyToClient(connection=connection, message=message):
                reply = as_received(message)
                actor.replies[reply.request_id] = reply
                self.replied(actor, connection, reply)
            case fx.Send(peer=peer, message=message, bulk=bulk):
                if (peer, bulk) in actor.up_links:
                    self._carry(actor, self.actors[peer], message, bulk=bulk, link=(actor, peer, bulk))
            case fx.ReplyToPeer(peer=peer, message=message):
                bulk = isinstance(message, SnapshotOk | SnapshotRefused)
                back = self.actors[peer]
                if (actor.incarnation, bulk) in back.up_links:
                    link = (back, actor.incarnation, bulk)
                    self._carry(actor, back, message, bulk=bulk, link=link)
            case fx.Connect(peer=peer, bulk=bulk):
                actor.wanted_links[peer, bulk] = ""
                self.after(LATENCY_NS, lambda: self._connect(actor, peer, bulk))
            case fx.Disconnect(peer=peer, bulk=bulk):
                actor.wanted_links.pop((peer, bulk), None)
                actor.up_links.discard((peer, bulk))
            case fx.Propose(proposal=proposal):
                message = Propose(1, actor.incarnation, (proposal,))
                start = self.coordinator_starts
                self.deliver(
                    actor.node,
                    "coordinator",
                    lambda: self.coordinate(actor.incarnation, message, start),
                )
            case _:
                actor.trace.append(effect)

    def _carry(self, one: Actor, other: Actor, message, *, bulk: bool, link) -> None:
        def arrive() -> None:
            owner, peer, lane = link
            if (peer, lane) in owner.up_links:
                other.step(ins.PeerMessages(one.incarnation, [message]))

        self.deliver(one.node, other.node, arrive, f"{one.slot}{other.slot}{link[0].slot}{bulk}")

    def _connect(self, actor: Actor, peer: bytes, bulk: bool) -> None:
        if (peer, bulk) not in actor.wanted_links or (peer, bulk) in actor.up_links or not actor.alive:
            return
        other = self.actors[peer]
        cut = (actor.node, other.node) in self.cuts or (other.node, actor.node) in self.cuts
        if not other.alive or other.paused or actor.paused or cut:
            self.after(ns(0.02), lambda: self._connect(actor, peer, bulk))
            return
        actor.up_links.add((peer, bulk))
        former = self.former_nodes & {actor.node, other.node}
        actor.step(ins.LinkUp(peer, bulk, frozenset(() if former else wire.FEATURES)))

    def _break(self, actor: Actor, peer: bytes, bulk: bool) -> None:
        actor.up_links.discard((peer, bulk))
        actor.step(ins.LinkDown(peer, bulk))
        self.after(ns(0.02), lambda: self._connect(actor, peer, bulk))

    # --- coordination ---------------------------------------------------------------------------------------

    def _heartbeat(self, name: str) -> None:
        if name in self.dead_nodes:
            return
        if (name, "coordinator") not in self.cuts:
            self.coordinate(b"s" * 16, Heartbeat(name, 0, 0))
        self.after(ns(0.5), lambda: self._heartbeat(name))

    def coordinate(self, sender: bytes, message, start: int | None = None) -> None:
        """Let the coordinator decide; `start`: only if it has not been started again since."""
        if self.coordinator_up and start in (None, self.coordinator_starts):
            incoming = coordination.Incoming(int.from_bytes(sender), sender, message)
            self._outcome(self.coordinator.decide(self.now_ns, [incoming]), sender)

    def _coordinate_forever(self) -> None:
        if self.coordinator_up:
            self._outcome(self.coordinator.tick(self.now_ns), b"")
            plan = self.controller.step(self.now_ns, self.coordinator.map)
            if plan:
                self._outcome(self.coordinator.want(plan), b"")
        self.after(ns(0.05), self._coordinate_forever)

    def _outcome(self, outcome: coordination.Outcome, sender: bytes) -> None:
        if outcome.persist is not None:
            self.published(outcome.persist)
            for actor in self.alive():
                self._publish(actor, outcome.persist)
        asker = self.actors.get(sender)
        if asker is None:
            return
        for response in outcome.responses:
            match response.message:
                case Decided(decisions=decisions):
                    event = ins.Decisions(decisions)
                    self.deliver("coordinator", asker.node, lambda event=event: asker.step(event), asker.slot)
                case wire.MapFull(map=full):
                    self._publish(asker, full)
                case _:
                    pass

    def _publish(self, actor: Actor, full: ClusterMap) -> None:
        event = ins.MapChanged(full)
        self.deliver("coordinator", actor.node, lambda: actor.step(event), actor.slot)

    # --- looking --------------------------------------------------------------------------------------------

    @property
    def map(self) -> ClusterMap:
        return self.coordinator.map

    def primary(self, shard: int = 0) -> Actor:
        return self.actors[self.map.shards[shard].primary]

    def backup(self, shard: int = 0) -> Actor:
        return self.actors[self.map.shards[shard].backups[0]]

    def full(self) -> bool:
        """Whether every shard has all replicas as planned, serving, with nothing open."""
        for shard, entry in enumerate(self.map.shards):
            if not entry.primary or len(entry.members) != min(self.map.replicas, len(self.nodes_up())):
                return False
            if not all(self.actors[member].alive for member in entry.members):
                return False
            actor = self.actors[entry.primary]
            replica = actor.replica(shard)
            if replica is None or replica.primary is None or replica.role is not Role.PRIMARY:
                return False
            if not replica.primary.leased(actor.now_ns) or replica.primary.opened is not None:
                return False
            slots = {self.actors[member].slot for member in entry.members}
            if slots != set(entry.wanted) or actor.slot != entry.wanted[0]:
                return False
        return True

    def nodes_up(self) -> set[str]:
        return {actor.node for actor in self.alive()}

    def settle(self, seconds: float = 30.0) -> None:
        self.run_until(self.full, seconds)

    def serving(self, shard: int) -> list[Actor]:
        """Every living actor that would answer a read of the shard now: never more than one."""
        found = []
        for actor in self.alive():
            replica = actor.replica(shard)
            if replica is None or replica.primary is None or replica.primary.paused:
                continue
            if replica.primary.leased(actor.now_ns):
                found.append(actor)
        return found

    def converged(self, shard: int) -> bool:
        """Whether the members have applied the same log to the same state."""
        prints = set()
        for member in self.map.shards[shard].members:
            replica = self.actors[member].replica(shard)
            if replica is None:
                return False
            prints.add((replica.committed, replica.table.fingerprint()))
        return len(prints) == 1

    def describe(self) -> str:
        lines = []
        for shard, entry in enumerate(self.map.shards):
            names = [self.actors[member].slot for member in entry.members]
            lines.append(f"shard {shard}: epoch {entry.epoch} {names} wanted {entry.wanted}")
        for actor in self.alive():
            lines.extend(
                f"{actor.slot} shard {replica.shard} {replica.role.value} epoch {replica.epoch} "
                f"log {replica.log.appended} committed {replica.committed} "
                f"open {replica.proposal and replica.proposal.proposal.kind}"
                for replica in actor.host.replicas
                if replica is not None
            )
        return "\n".join(lines)

    # --- requests -------------------------------------------------------------------------------------------

    def request(self, actor: Actor, make: Callable[[int], wire.Request], client: bytes = b"c" * 16) -> int:
        actor.requests += 1
        number = actor.requests * 1000 + self.random.randrange(1000)
        actor.ask(make(number), client=client)
        return number

    def call(self, actor: Actor, make: Callable[[int], wire.Request], seconds: float = 5.0) -> wire.Reply:
        """Ask an actor and run until it answers."""
        number = self.request(actor, make)
        self.run_until(lambda: number in actor.replies, seconds)
        return actor.replies[number]


def holding(value: str) -> bytes:
    """Session data that holds just this value."""
    return msgspec.msgpack.encode({"v": value})


def held(data: bytes) -> str:
    """The value that `holding` put there."""
    return msgspec.msgpack.decode(data)["v"]


def create(digest: bytes, data: bytes, *, point: int = 0, expires_s: float = 3600, user: str | None = None):
    """A maker of a `Create` for `World.call`; the expiry counts from the world's start."""
    expires_us = WALL_START_US + int((1000 + expires_s) * 1e6)

    def make(number: int) -> wire.Create:
        return wire.Create(number, number, 0, point, digest, user, WALL_START_US, expires_us, None, "", data)

    return make


def update(digest: bytes, data: bytes, *, point: int = 0, version: int | None = None):
    expires_us = WALL_START_US + (1000 + 3600) * 1_000_000

    def make(number: int) -> wire.Update:
        return wire.Update(number, number, 0, point, digest, None, expires_us, "", data, version)

    return make


def get(digest: bytes, *, point: int = 0):
    return lambda number: wire.Get(number, point, digest)


def delete(digest: bytes, *, point: int = 0):
    return lambda number: wire.Delete(number, number, 0, point, digest)


def transitions(actors: Iterable[Actor], shard: int) -> list[str]:
    """The transitions of a shard as told to the operator, for golden comparisons."""
    return [
        f"{actor.slot} epoch {effect.epoch} {effect.role}: {effect.reason}"
        for actor in actors
        for effect in actor.trace
        if isinstance(effect, fx.Transition) and effect.shard == shard
    ]
