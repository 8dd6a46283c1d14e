"""Small maps, actors and a coordinator driven by hand, for the tests of coordination."""

from collections.abc import Iterable, Mapping

import msgspec

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.coordinator import Coordinator, CoordinatorSettings
from greenroom_cluster.coordination.draft import NO_MARKS
from greenroom_cluster.coordination.exchange import ConnectionClosed, Incoming, Outcome
from greenroom_cluster.coordination.genesis import first_map

SECOND = 1_000_000_000


def inc(name: str) -> bytes:
    """An incarnation of 16 bytes that reads like its name."""
    return name.encode().ljust(16, b".")


def nonce(number: int) -> bytes:
    return number.to_bytes(16, "big")


def actor(incarnation: bytes, slot: str, state: str = "up") -> ActorEntry:
    return ActorEntry(incarnation, slot.split("/", maxsplit=1)[0], slot, "127.0.0.1:1", state, "host", 1, 1)


def durable(
    incarnation: bytes, slot: str, directory: str, mark: int = 1, state: str = "up", mode: str = "fsync"
) -> ActorEntry:
    """An actor that keeps what it holds in that directory."""
    return msgspec.structs.replace(
        actor(incarnation, slot, state), durability=mode, directory=inc(directory), mark=mark
    )


def node(name: str, state: str = "up", address: str = "127.0.0.1:1", zone: str = "") -> NodeEntry:
    return NodeEntry(name, address, state, zone)


def shard(
    primary: bytes = b"",
    backups: tuple[bytes, ...] = (),
    *,
    epoch: int = 0,
    wanted: tuple[str, ...] = (),
    made_by: bytes = b"",
) -> ShardEntry:
    return ShardEntry(epoch, primary, backups, made_by, wanted)


def cluster(
    shards: tuple[ShardEntry, ...],
    actors: Iterable[ActorEntry] = (),
    nodes: tuple[NodeEntry, ...] = (),
    *,
    version: int = 1,
) -> ClusterMap:
    actors = tuple(actors)
    known = {one.name: one for one in nodes} | {
        one.node: node(one.node) for one in actors if one.node not in {n.name for n in nodes}
    }
    return ClusterMap("test", 1, version, 2, known, {one.incarnation: one for one in actors}, shards)


class Desk:
    """A coordinator asked one thing at a time, in one call."""

    def __init__(
        self,
        cluster_map: ClusterMap | None = None,
        now_ns: int = 0,
        *,
        proven: bool = True,
        marks: Mapping[bytes, int] = NO_MARKS,
    ) -> None:
        self.now_ns = now_ns
        self.wall_us = 0
        start = first_map("test", 4, 2) if cluster_map is None else cluster_map
        self.coordinator = Coordinator(start, CoordinatorSettings(), now_ns, proven=proven, marks=marks)
        self.warnings: list[str] = []
        self._connections: dict[bytes, int] = {}

    @property
    def map(self) -> ClusterMap:
        return self.coordinator.map

    def batch(self, *asked: tuple[bytes, object]) -> Outcome:
        """Decide (sender, message) pairs together."""
        return self.decide(*(Incoming(self.connection(sender), sender, message) for sender, message in asked))

    def connection(self, sender: bytes) -> int:
        """Return the number of the one connection that each sender has, if no other is given."""
        return self._connections.setdefault(sender, 100 + len(self._connections))

    def decide(self, *batch: Incoming) -> Outcome:
        """Decide a batch; what is published must lead to the coordinator's map."""
        before = self.map
        outcome = self.coordinator.decide(self.now_ns, batch, self.wall_us)
        self.warnings += outcome.warnings
        if outcome.persist is None:
            assert outcome.delta is None
            assert self.map is before
        else:
            assert outcome.persist == self.map
            assert before.apply(outcome.delta) == self.map
            assert self.map.version == before.version + 1
        return outcome

    def ask(
        self,
        message: object,
        sender: bytes = b"supervisor",
        connection: int | None = None,
        role: str = wire.ROLE_PEER,
    ) -> object:
        """Ask one thing and return the answer, if there is one."""
        number = self.connection(sender) if connection is None else connection
        responses = self.decide(Incoming(number, sender, message, role)).responses
        return responses[0].message if responses else None

    def close(self, sender: bytes, connection: int) -> Outcome:
        """End a connection."""
        return self.decide(Incoming(connection, sender, ConnectionClosed()))

    def subscribe(self, sender: bytes, version: int = 0, lineage: int = 1) -> object:
        return self.ask(wire.Subscribe(lineage, version), sender)

    def propose(self, proposer: bytes, *proposals: m.Proposal) -> list[m.Decision]:
        """Subscribe and propose, as an actor does."""
        self.subscribe(proposer)
        answer = self.ask(m.Propose(9, proposer, proposals), proposer)
        assert isinstance(answer, m.Decided), answer
        return list(answer.decisions)

    def node(self, name: str, state: str = "up", address: str = "127.0.0.1:1", zone: str = "") -> object:
        return self.ask(m.RegisterNode(1, node(name, state, address, zone)))

    def actor(self, incarnation: bytes, slot: str) -> object:
        return self.ask(m.RegisterActor(2, actor(incarnation, slot)))

    def durable(self, incarnation: bytes, slot: str, directory: str, mark: int) -> object:
        return self.ask(m.RegisterActor(2, durable(incarnation, slot, directory, mark)))

    def forget(self, name: str) -> object:
        return self.ask(m.ForgetNode(1, name), b"operator", role=wire.ROLE_OPERATOR)

    def declare_dead(self, name: str) -> object:
        return self.ask(m.DeclareDead(1, name), b"operator", role=wire.ROLE_OPERATOR)

    def beat(self, name: str) -> object:
        return self.ask(m.Heartbeat(name, 1, 0))

    def want(self, number: int, *wanted: str) -> None:
        self.coordinator.want({number: wanted})

    def pass_seconds(self, seconds: float, *alive: str) -> list[Outcome]:
        """Let time pass in steps of a quarter second, in which these nodes send heartbeats."""
        outcomes = []
        for _ in range(round(seconds * 4)):
            self.now_ns += SECOND // 4
            for name in alive:
                self.beat(name)
            outcomes.append(self.coordinator.tick(self.now_ns))
            self.warnings += outcomes[-1].warnings
        return outcomes


def raised(entry: ShardEntry, **changes: object) -> ShardEntry:
    """The entry with some fields changed."""
    return msgspec.structs.replace(entry, **changes)
