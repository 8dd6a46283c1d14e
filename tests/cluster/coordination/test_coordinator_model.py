"""Random runs: actors propose, retry and die, the coordinator crashes and comes back from its disk."""

import random

import msgspec
import pytest

from greenroom import wire
from greenroom.cluster_map import ClusterMap, ShardEntry
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.coordinator import Coordinator, CoordinatorSettings
from greenroom_cluster.coordination.exchange import Incoming
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.coordination.rules import begin_lineage
from tests.cluster.coordination.builders import SECOND, actor, node

SHARDS = 4
Change = tuple[bytes, str, bytes, tuple[bytes, ...]]
SLOTS = ("a/0", "b/0", "c/0", "c/1")


class Run:
    """One coordinator on a simulated disk, and everything that anyone ever learnt from it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now_ns = 0
        self.disk = msgspec.msgpack.encode(first_map("test", SHARDS, 2))
        self.configurations: dict[tuple[int, int], tuple[bytes, bytes, tuple[bytes, ...]]] = {}
        self.highest = [0] * SHARDS
        self.applied: set[bytes] = set()
        self.refused: set[bytes] = set()
        self.sent: list[tuple[bytes, m.Proposal]] = []
        self.dead: set[bytes] = set()
        self.connections: dict[bytes, int] = {}
        self.published = (1, 1)
        self.start()

    def start(self) -> None:
        restored = msgspec.msgpack.decode(self.disk, type=ClusterMap)
        self.coordinator = Coordinator(restored, CoordinatorSettings(), self.now_ns)
        # Copies in flight died with the connections, and who heard a refusal does not ask again.
        self.sent = [one for one in self.sent if one[1].nonce not in self.refused]
        if (restored.lineage, restored.version) > self.published:
            self.look(restored)

    def crash(self) -> None:
        self.start()

    def send(self, sender: bytes, message: object) -> None:
        """Ask; the coordinator may die before it persists, or after that but before anyone hears of it."""
        number = self.connections.setdefault(sender, len(self.connections) + 1)
        batch = [Incoming(number, sender, wire.Subscribe(0, 0)), Incoming(number, sender, message)]
        outcome = self.coordinator.decide(self.now_ns, batch)
        fate = self.chance.random()
        if fate < 0.03:
            self.crash()
            return
        if outcome.persist is not None:
            self.disk = msgspec.msgpack.encode(outcome.persist)
        if fate < 0.06:
            self.crash()
            return
        if outcome.persist is not None:
            self.look(outcome.persist)
        for response in outcome.responses:
            if isinstance(response.message, m.Decided):
                self.hear(response.message)

    def look(self, published: ClusterMap) -> None:
        """Epochs never fall, and one epoch is one configuration, for everyone and for ever."""
        assert (published.lineage, published.version) > self.published
        self.published = (published.lineage, published.version)
        for number, entry in enumerate(published.shards):
            assert entry.epoch >= self.highest[number]
            self.highest[number] = entry.epoch
            seen = (entry.nonce, entry.primary, entry.backups)
            assert self.configurations.setdefault((number, entry.epoch), seen) == seen
        slots = [one.slot for one in published.actors.values() if one.state == "up"]
        assert len(slots) == len(set(slots))
        for incarnation in self.dead & published.actors.keys():
            assert published.actors[incarnation].state == "dead"
        for entry in published.shards:
            assert all(member in published.actors for member in entry.members)

    def hear(self, answer: m.Decided) -> None:
        for decision in answer.decisions:
            assert decision.reason
            if decision.applied:
                assert decision.nonce not in self.refused
                self.applied.add(decision.nonce)
                assert any(made[0] == decision.nonce for made in self.configurations.values())
            elif "stale" not in decision.reason:
                assert decision.nonce not in self.applied
                self.refused.add(decision.nonce)

    def step(self) -> None:
        self.now_ns += self.chance.randrange(SECOND)
        act = self.chance.choices(
            (self.propose, self.retry, self.register, self.bury, self.plan, self.crash, self.beat),
            weights=(40, 15, 8, 5, 8, 3, 10),
        )[0]
        act()

    def beat(self) -> None:
        self.send(b"supervisor", m.Heartbeat(self.chance.choice("abc"), 1, 0))

    def register(self) -> None:
        slot = self.chance.choice(SLOTS)
        name = slot.split("/")[0]
        self.send(b"supervisor", m.RegisterNode(1, node(name, self.chance.choice(("up", "up", "leaving")))))
        self.send(b"supervisor", m.RegisterActor(2, actor(self.chance.randbytes(16), slot)))

    def bury(self) -> None:
        known = sorted(self.coordinator.map.actors)
        if known:
            incarnation = self.chance.choice(known)
            outcome = self.coordinator.decide(
                self.now_ns, [Incoming(1, b"supervisor", m.ReportDead(3, (incarnation,)))]
            )
            if outcome.persist is not None:
                self.disk = msgspec.msgpack.encode(outcome.persist)
                self.dead.add(incarnation)
                self.look(outcome.persist)

    def plan(self) -> None:
        wanted = tuple(self.chance.sample(SLOTS, 2))
        outcome = self.coordinator.want({self.chance.randrange(SHARDS): wanted})
        if outcome.persist is not None:
            self.disk = msgspec.msgpack.encode(outcome.persist)
            self.look(outcome.persist)

    def propose(self) -> None:
        number = self.chance.randrange(SHARDS)
        entry = self.coordinator.map.shards[number]
        proposer, kind, primary, backups = self.chance.choice(self.proposals(entry) or [self.nonsense(entry)])
        if self.chance.random() < 0.2:
            proposer, kind, primary, backups = self.nonsense(entry)
        epoch = entry.epoch - (self.chance.random() < 0.1)
        proposal = m.Proposal(number, epoch, self.chance.randbytes(16), kind, primary, backups)
        self.sent.append((proposer, proposal))
        self.send(proposer, m.Propose(4, proposer, (proposal,)))

    def proposals(self, entry: ShardEntry) -> list[Change]:
        """What members, and the first wanted, might well propose."""
        up = {one.slot: key for key, one in self.coordinator.map.actors.items() if one.state == "up"}
        if not entry.primary or self.chance.random() < 0.1:
            starters = [up[slot] for slot in entry.wanted[:1] if slot in up]
            return [(starter, "start", starter, ()) for starter in starters]
        primary, backups = entry.primary, entry.backups
        found: list[Change] = [(primary, "reaffirm", primary, backups)]
        found += [(backup, "takeover", backup, ()) for backup in backups]
        found += [
            (primary, "add", primary, (*backups, one)) for one in up.values() if one not in entry.members
        ]
        if backups:
            found.append((primary, "remove", primary, backups[1:]))
            found.append((primary, "handover", backups[0], (primary, *backups[1:])))
        return found

    def nonsense(self, entry: ShardEntry) -> Change:
        """Any members in any roles under any kind, from anybody."""
        pool = sorted({*self.coordinator.map.actors, *entry.members, self.chance.randbytes(16)})
        members = self.chance.sample(pool, self.chance.randrange(1, min(len(pool), 4) + 1))
        kind = self.chance.choice(("start", "takeover", "remove", "add", "handover", "reaffirm"))
        return self.chance.choice(pool), kind, members[0], tuple(members[1:])

    def retry(self) -> None:
        """Send a proposal again whose answer may have been lost."""
        if self.sent:
            proposer, proposal = self.chance.choice(self.sent[-5:])
            self.send(proposer, m.Propose(5, proposer, (proposal,)))


@pytest.mark.parametrize("seed", range(20))
def test_epochs_rise_and_each_is_decided_once(seed: int) -> None:
    run = Run(seed)
    for _ in range(400):
        run.step()
    assert run.applied, "the run decided nothing and so showed nothing"
    assert max(run.highest) > 3


def test_restored_from_an_older_copy_no_epoch_is_used_again() -> None:
    run = Run(99)
    for _ in range(200):
        run.step()
    copy = run.disk
    for _ in range(200):
        run.step()
    newest = msgspec.msgpack.decode(run.disk, type=ClusterMap)
    run.disk = copy
    run.start()
    lineage, version = run.published
    claim = [Incoming(1, b"x", wire.Subscribe(lineage, version))]
    assert run.coordinator.decide(run.now_ns, claim).ask
    assert run.coordinator.shown(run.now_ns, [newest]).warnings
    refused = run.coordinator.decide(run.now_ns, claim)
    assert isinstance(refused.responses[0].message, wire.Goodbye)
    renewed = begin_lineage(msgspec.msgpack.decode(copy, type=ClusterMap))
    run.look(renewed)
    run.disk = msgspec.msgpack.encode(renewed)
    run.start()
    for _ in range(200):
        run.step()
