"""Random runs of shards kept on disk: crashes, power cuts, copies put back, and an operator who gives up."""

import msgspec
import pytest

from greenroom import wire
from greenroom.cluster_map import ClusterMap, ShardEntry
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination import rules
from greenroom_cluster.coordination.draft import Draft
from greenroom_cluster.coordination.exchange import Incoming
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.coordination.recovery import Recoveries
from tests.cluster.coordination.builders import SECOND, actor, durable, node
from tests.cluster.coordination.test_coordinator_model import SHARDS, SLOTS, Change, Run

KEPT_SLOTS = SLOTS[:3]
Last = tuple[int, int]


class Disk:
    """One directory: how far it has come, and per shard the last record of the log.

    `told`: the highest mark of it that was told before something was decided on that. `rolled_back`: shards
    of which it runs with an older log than it once had.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.mark = self.highest = self.told = 0
        self.logs: dict[int, Last] = {}
        self.copies: list[tuple[int, dict[int, Last]]] = []
        self.rolled_back: set[int] = set()

    def write(self, shard: int | None = None, last: Last = (0, 0)) -> None:
        self.mark += 1
        self.highest = max(self.highest, self.mark)
        if shard is not None:
            self.logs[shard] = last

    def copy(self) -> None:
        self.copies.append((self.mark, dict(self.logs)))

    def put_back(self, copy: tuple[int, dict[int, Last]]) -> None:
        self.copy()
        self.mark, self.logs = copy[0], dict(copy[1])


class DurableRun(Run):
    """Actors that write their logs to disks; what is acknowledged is on those of all members."""

    def __init__(self, seed: int, *, rolls_back: bool) -> None:
        self.rolls_back = rolls_back
        self.directories = 0
        self.disks: dict[str, Disk] = {slot: self.new_disk() for slot in KEPT_SLOTS}
        self.running: dict[str, bytes] = {}
        self.opened: dict[bytes, Disk] = {}
        self.memory: dict[bytes, dict[int, Last]] = {}
        self.acknowledged: dict[int, Last] = {}
        self.given_up: set[bytes] = set()
        self.claimed: dict[tuple[int, int], dict[bytes, Last]] = {}
        self.kinds: dict[bytes, m.Proposal] = {}
        self.before: ClusterMap | None = None
        self.decided: list[str] = []
        super().__init__(seed)

    def new_disk(self) -> Disk:
        self.directories += 1
        return Disk(f"dir{self.directories}")

    # --- what holds ------------------------------------------------------------------------------------

    def look(self, published: ClusterMap) -> None:
        before = self.before or first_map("test", SHARDS, 2)
        self.before = published
        super().look(published)
        for number, (old, new) in enumerate(zip(before.shards, published.shards, strict=True)):
            if old.epoch != new.epoch:
                proposal = self.kinds[new.nonce]
                states = [before.actors[one].state for one in old.members if one in before.actors]
                if proposal.kind in ("start", "recover"):
                    assert set(states) <= {"dead"}, "a member was not known to be dead"
                self.judge(number, old, proposal, published)
                for one, mark in proposal.marks:
                    self.opened[one].told = max(self.opened[one].told, mark)

    def judge(self, number: int, old: ShardEntry, proposal: m.Proposal, published: ClusterMap) -> None:
        kind, recovered = proposal.kind, proposal.last
        self.decided.append(kind)
        if kind not in ("start", "recover"):
            return
        assert not set(old.members) & set(self.running.values()), "a member was alive"
        kept = [one for one in old.members if one in self.opened and one not in self.given_up]
        if kind == "start":
            assert not kept, "it started empty over a directory"
            self.acknowledged.pop(number, None)
            return
        claims = self.claimed[number, old.epoch]
        for member in kept:
            disk = self.opened[member]
            heirs = [
                one.incarnation
                for one in published.actors.values()
                if one.state == "up" and self.opened.get(one.incarnation) is disk
            ]
            assert len(heirs) == 1, "the heir of a member is awaited"
            assert claims[heirs[0]] <= recovered, "another log was longer"
        if not any(number in self.opened[member].rolled_back for member in kept):
            assert recovered >= self.acknowledged.get(number, (0, 0)), "what was acknowledged is lost"
        self.acknowledged[number] = recovered

    # --- what happens ----------------------------------------------------------------------------------

    def step(self) -> None:
        self.now_ns += self.chance.randrange(SECOND // 2)
        acts = {
            self.propose: 60,
            self.retry: 8,
            self.write: 30,
            self.run_actor: 16,
            self.kill: 4,
            self.cut_power: 1,
            self.look_around: 4,
            self.plan: 5,
            self.crash: 2,
            self.beat: 10,
            self.forget: 1,
            self.copy: 4,
            self.put_back: 4 if self.rolls_back else 0,
        }
        self.chance.choices(list(acts), weights=list(acts.values()))[0]()

    def run_actor(self) -> None:
        """Start what is not running in a slot; in a directory it registers with how far that has come."""
        slot = self.chance.choice(SLOTS)
        if slot in self.running:
            return
        name = slot.split("/")[0]
        incarnation = self.chance.randbytes(16)
        self.send(b"supervisor", m.RegisterNode(1, node(name)))
        entry = actor(incarnation, slot)
        if slot in self.disks:
            disk = self.disks[slot]
            newest = disk.mark == disk.highest
            self.opened[incarnation] = disk
            entry = durable(incarnation, slot, disk.name, disk.mark)
        self.memory[incarnation] = {}
        self.running[slot] = incarnation
        known = any(one.directory == entry.directory for one in self.coordinator.map.actors.values())
        self.send(b"supervisor", m.RegisterActor(2, entry))
        if incarnation not in self.coordinator.map.actors:
            self.stop(slot)
        elif slot in self.disks:
            assert disk.mark >= disk.told or not known, "an older copy counts"
            disk.told = disk.mark
            if not newest:
                disk.rolled_back.update(range(SHARDS))

    def stop(self, slot: str) -> bytes:
        incarnation = self.running.pop(slot)
        self.sent = [one for one in self.sent if one[0] != incarnation]
        return incarnation

    def kill(self) -> None:
        """End an actor; its supervisor sees that, or ends with it."""
        if not self.running:
            return
        incarnation = self.stop(self.chance.choice(sorted(self.running)))
        if self.chance.random() < 0.6:
            self.send(b"supervisor", m.ReportDead(3, (incarnation,)))

    def look_around(self) -> None:
        """A supervisor looks for a process of its predecessor's, and finds none."""
        over = sorted(self.coordinator.map.actors.keys() - set(self.running.values()))
        if over:
            self.send(b"supervisor", m.ReportDead(3, (self.chance.choice(over),)))

    def cut_power(self) -> None:
        for slot in sorted(self.running):
            self.stop(slot)

    def forget(self) -> None:
        """An operator gives up a node that nothing runs on."""
        name = self.chance.choice("abc")
        if any(slot.startswith(name) for slot in self.running):
            return
        for _ in range(20):  # one long wait would be a pause of the coordinator, and no silence of the node
            self.now_ns += SECOND // 4
            outcome = self.coordinator.tick(self.now_ns)
            if outcome.persist is not None:
                self.disk = msgspec.msgpack.encode(outcome.persist)
                self.look(outcome.persist)
        gone = [one.incarnation for one in self.coordinator.map.actors.values() if one.node == name]
        batch = [Incoming(1, b"operator", m.ForgetNode(1, name), wire.ROLE_OPERATOR)]
        outcome = self.coordinator.decide(self.now_ns, batch)
        if outcome.persist is not None:
            self.disk = msgspec.msgpack.encode(outcome.persist)
            self.given_up.update(gone)
            self.look(outcome.persist)

    def copy(self) -> None:
        self.disks[self.chance.choice(KEPT_SLOTS)].copy()

    def put_back(self) -> None:
        """Put back a copy of a directory in which nothing runs, or replace the directory by an empty one."""
        slot = self.chance.choice(KEPT_SLOTS)
        disk = self.disks[slot]
        if slot in self.running:
            return
        if self.chance.random() < 0.1:
            self.disks[slot] = self.new_disk()
        elif disk.copies:
            disk.put_back(self.chance.choice(disk.copies[-3:]))

    # --- what actors do --------------------------------------------------------------------------------

    def log_of(self, incarnation: bytes, shard: int) -> Last:
        disk = self.opened.get(incarnation)
        return (self.memory[incarnation] if disk is None else disk.logs).get(shard, (0, 0))

    def append(self, incarnation: bytes, shard: int, last: Last) -> None:
        disk = self.opened.get(incarnation)
        if disk is None:
            self.memory[incarnation][shard] = last
        else:
            disk.write(shard, last)

    def write(self) -> None:
        """Let a primary log a record; it is acknowledged once all members have it."""
        shard = self.chance.randrange(SHARDS)
        entry = self.coordinator.map.shards[shard]
        alive = set(self.running.values())
        if entry.primary not in alive:
            return
        record = (entry.epoch, self.log_of(entry.primary, shard)[1] + 1)
        reached = [one for one in entry.members if one in alive and self.chance.random() < 0.9]
        for one in reached:
            if one == entry.primary or self.log_of(one, shard) == self.log_of(entry.primary, shard):
                self.append(one, shard, record)
        if all(self.log_of(one, shard) == record for one in entry.members):
            self.acknowledged[shard] = record

    def propose(self) -> None:
        """Have a member propose something; of a shard without members, some of those who may revive it."""
        shard = self.chance.randrange(SHARDS)
        entry = self.coordinator.map.shards[shard]
        found = self.open_to(entry)
        if found and set(entry.members) & set(self.running.values()):
            found = [self.chance.choice(found)]
        found = self.chance.sample(found, self.chance.randint(min(1, len(found)), len(found)))
        for proposer, kind, primary, backups in found:
            proposal = self.proposal(shard, entry, (proposer, kind, primary, backups))
            self.sent.append((proposer, proposal))
            self.send(proposer, m.Propose(4, proposer, (proposal,)))

    def proposal(self, shard: int, entry: ShardEntry, change: Change) -> m.Proposal:
        proposer, kind, primary, backups = change
        joiners = [one for one in backups if one not in entry.members]
        for joiner in joiners:
            self.append(joiner, shard, self.log_of(primary, shard))
            if joiner in self.opened:
                self.opened[joiner].rolled_back.discard(shard)
        told = [one for one in (proposer, *joiners) if one in self.opened]
        last = (0, 0)
        if kind == "recover":
            last = self.log_of(proposer, shard)
            self.claimed.setdefault((shard, entry.epoch), {})[proposer] = last
        marks = tuple((one, self.opened[one].mark) for one in told)
        made = m.Proposal(shard, entry.epoch, self.chance.randbytes(16), kind, primary, backups, last, marks)
        self.kinds[made.nonce] = made
        return made

    def open_to(self, entry: ShardEntry) -> list[Change]:
        """What those who run may propose; anyone may try to recover or to start."""
        alive = sorted(self.running.values())
        found: list[Change] = []
        members = [one for one in entry.members if one in alive]
        if not members or self.chance.random() < 0.05:
            kept = [self.opened.get(one) for one in entry.members]
            for slot, one in self.running.items():
                if (one in self.opened and self.opened[one] in kept) or self.chance.random() < 0.1:
                    found.append((one, "recover", one, ()))
                if slot in entry.wanted[:1] or self.chance.random() < 0.1:
                    found.append((one, "start", one, ()))
        if entry.primary not in alive:
            found += [(one, "takeover", one, ()) for one in members]
        if entry.primary in members:
            rest = tuple(one for one in entry.backups if one in alive)
            if rest != entry.backups:
                found.append((entry.primary, "remove", entry.primary, rest))
            else:
                joiners = [one for one in alive if one not in entry.members]
                found += [(entry.primary, "add", entry.primary, (*entry.backups, one)) for one in joiners]
        return found


@pytest.mark.parametrize("seed", range(10, 22))
@pytest.mark.parametrize("rolls_back", [False, True])
def test_what_is_kept_comes_back(seed: int, rolls_back: bool) -> None:
    run = DurableRun(seed, rolls_back=rolls_back)
    for _ in range(1000):
        run.step()
    assert {"recover", "takeover"} & set(run.decided), "the run lost no member and so showed nothing"


def without(kind: str, *broken: rules.Rule) -> dict[str, tuple[rules.Rule, ...]]:
    return {**rules.RULES, kind: tuple(rule for rule in rules.RULES[kind] if rule not in broken)}


def with_the_dead(
    self: Recoveries, shard: int, entry: ShardEntry, actors: object, *_: object
) -> dict[bytes, Last]:
    found = self._claims.get(shard, {})
    proposals = {key: claim.proposal for key, claim in found.items() if key in actors}
    return {key: each.last for key, each in proposals.items() if each.epoch == entry.epoch}


MISTAKES = {
    "starts empty over a directory": (rules, "RULES", without("start", rules.NOTHING_KEPT)),
    "recovers while a member may live": (rules, "is_known_dead", lambda member, actors: True),
    "recovers by any one heir": (rules, "RULES", without("recover", rules.ALL_CLAIMED)),
    "recovers by any claim": (rules, "RULES", without("recover", rules.BEST_CLAIM)),
    "counts claims of the dead": (Recoveries, "standing", with_the_dead),
    "does not compare marks": (Draft, "is_older_copy", lambda self, actor: False),
    "raises no floor by decisions": (Draft, "_count", lambda self, proposer, proposal: None),
    "keeps former owners alive": (Draft, "bury", lambda self, incarnations: None),
}


FIRST_SEEDS = {"counts claims of the dead": 50}
"""Where to begin to look, to save time: shortly before the seed that finds it."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_model_finds(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MISTAKES[mistake])
    with pytest.raises(AssertionError):
        hunt(FIRST_SEEDS.get(mistake, 0))


def hunt(first: int) -> None:
    for seed in range(first, first + 12):
        run = DurableRun(seed, rolls_back=True)
        for _ in range(1000):
            run.step()
