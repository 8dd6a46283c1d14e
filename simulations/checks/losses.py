"""Rules about what comes back from disk.

    lost     a shard that was on disk does not begin empty, and whoever recovers it has all that was
             committed; with interval, all but what was logged within one interval and is on no disk; and no
             directory is given up that is in its place while its node runs, or asks to be registered
    undone   the end of a session never is among what was lost
    stale    no older copy of a directory to which a member of a shard wrote takes its place, and no copy of
             one that is in use elsewhere

What may be lost: everything, if all directories were given up, or are older copies that nothing shows to be
such, or not waited for beside such a one; and what came within one interval, if no member synced before it
answered, or none whose directory is left.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from greenroom.cluster_map import ActorEntry, ClusterMap, ShardEntry
from greenroom_cluster.coordination.messages import ForgetNode, Heartbeat, RegisterNode
from greenroom_cluster.coordination.rules import LINEAGE_EPOCHS
from greenroom_cluster.disk.replay import Replay
from greenroom_cluster.shard.disk_log import is_ending
from greenroom_cluster.shard.effects import HostEffect, Propose
from greenroom_cluster.shard.state.ladder import Rung
from greenroom_cluster.shard.state.records import Record, heading
from greenroom_cluster.shard.state.table import version_of
from simulations.cluster.actors import ActorProcess
from simulations.cluster.serving import Coordinating, Told
from simulations.cluster.stage import Stage
from simulations.kernel.directory import Directory
from simulations.kernel.processes import Process
from simulations.kernel.timeline import SECOND

_SLACK_SECONDS = 0.5
_COMING_SECONDS = 1.0
"""For so long a coordinator knows at least that somebody has asked to be registered."""


class Truth(Protocol):
    """What is known of one shard across all its replicas."""

    committed: dict[int, Record]
    committed_by: dict[int, int]
    applied: dict[tuple[bytes, int], int]
    logged_ns: dict[tuple[int, int], int]


class _Heard(NamedTuple):
    """Marks that a coordinator has heard, and how often each directory had been entered by then."""

    coordinator: Process
    marks: dict[bytes, int]
    lost: int
    entries: dict[bytes, int]


class _Came(NamedTuple):
    """A supervisor that has asked to be registered at a coordinator, and when."""

    coordinator: Process
    supervisor: bytes
    at: int


class LossOracle:
    """Watches what becomes of directories in one world."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        # Shard and version of what was committed and is lost, as it may be.
        self.undone: set[tuple[int, int]] = set()
        # Whether the configurations that began from a disk may lack anything, and then why.
        self._recovered: dict[tuple[int, int], str] = {}
        # What the disks of the members held then, by epoch and number; up to a number all.
        self._held: dict[tuple[int, int], list[tuple[int, set[Rung]]]] = {}
        self._floors: dict[bytes, int] = {}
        # Marks that a coordinator has heard and had the time to keep.
        self._heard: dict[bytes, int] = {}
        self._lost = 0
        # How often each was entered.
        self._entries: Counter[bytes] = Counter()
        self._told: dict[bytes, tuple[tuple[bytes, int], ...]] = {}
        # By node: which supervisor asked to be registered last, and whether it had when it was called gone.
        self._came: dict[str, _Came] = {}
        self._comes: dict[str, bool] = {}

    # --- older copies ------------------------------------------------------------------------------------

    def proposed(self, effects: list[HostEffect]) -> None:
        """See what an actor proposes, and how far it says that directories have come."""
        for effect in effects:
            if type(effect) is Propose and effect.proposal.marks:
                self._told[effect.proposal.nonce] = effect.proposal.marks

    def told(self, coordinator: Coordinating, sender: bytes, message: Told) -> None:
        """See what reaches a coordinator: marks, a node that comes, and an operator who calls one gone."""
        match message:
            case Heartbeat(marks=marks):
                if marks and coordinator.keeps_soon:
                    self._marks_told(coordinator, marks)
            case RegisterNode(node=node):
                self._came[node.name] = _Came(coordinator, sender, self._stage.timeline.now)
            case ForgetNode(name=name):
                self._comes[name] = self._is_coming(coordinator, name)

    def _marks_told(self, coordinator: Process, marks: tuple[tuple[bytes, int], ...]) -> None:
        """Have marks count once the coordinator has had the time to write them."""
        named = self._by_directory(marks)
        heard = _Heard(coordinator, named, self._lost, {each: self._entries[each] for each in named})
        seconds = self._stage.plan.marks_seconds + _SLACK_SECONDS
        self._stage.timeline.after(int(seconds * SECOND), self._count, heard)

    def _is_coming(self, coordinator: Process, node: str) -> bool:
        """Whether a coordinator has just heard of the supervisor of a node, which runs."""
        came, supervisor = self._came.get(node), self._stage.supervisors.get(node)
        if came is None or supervisor is None or came.coordinator is not coordinator:
            return False
        runs = supervisor.alive and not supervisor.paused and supervisor.link.up
        return (
            runs
            and came.supervisor == supervisor.identity
            and self._stage.timeline.now - came.at < _COMING_SECONDS * SECOND
        )

    def kept(self, marks: Mapping[bytes, int]) -> None:
        """See marks that coordinators on etcd have kept: from then on they count."""
        for directory, mark in self._by_directory(marks.items()).items():
            self._heard[directory] = max(mark, self._heard.get(directory, 0))

    def _by_directory(self, marks: Iterable[tuple[bytes, int]]) -> dict[bytes, int]:
        """Return marks, given by incarnation, by the directory of each that has one."""
        disks = [(self._stage.actors.get(each), mark) for each, mark in marks]
        return {actor.disk.directory.identity: mark for actor, mark in disks if actor and actor.disk}

    def forget_told(self) -> None:
        """Have marks count no more that an older copy of the coordinator's directory lacks."""
        self._lost += 1
        self._heard.clear()

    def _count(self, heard: _Heard) -> None:
        coordinator = heard.coordinator
        if not coordinator.alive or coordinator.paused or heard.lost != self._lost:
            return
        for directory, mark in heard.marks.items():
            if heard.entries[directory] == self._entries[directory]:
                self._heard[directory] = max(mark, self._heard.get(directory, 0))

    def persisted(self, before: ClusterMap, after: ClusterMap) -> None:
        """Judge the registrations in a map that went to disk, and what became of those before."""
        self._judge_given_up(before, after)
        for incarnation, entry in after.actors.items():
            if not entry.directory or incarnation in before.actors:
                continue
            if self._is_clone(incarnation):
                name = self._stage.name_of(incarnation)
                self._stage.violate("stale", f"{name} was entered in a copy of a directory that is elsewhere")
            floor = max(self._floors.get(entry.directory, 0), self._heard.get(entry.directory, 0))
            if entry.mark < floor and _counts(entry.directory, before):
                name = self._stage.name_of(incarnation)
                self._stage.violate("stale", f"{name} was entered with mark {entry.mark}, after {floor}")
            self._floors[entry.directory] = entry.mark
            # It may be an older copy, if no shard named it: what was heard of the newest counts no more.
            self._entries[entry.directory] += 1
            self._heard.pop(entry.directory, None)
        for shard, former in zip(after.shards, before.shards, strict=True):
            if shard.nonce != former.nonce:
                for incarnation, mark in self._told.pop(shard.nonce, ()):
                    known = after.actors.get(incarnation) or before.actors.get(incarnation)
                    if known is not None and known.directory:
                        self._floors[known.directory] = max(self._floors.get(known.directory, 0), mark)

    def _judge_given_up(self, before: ClusterMap, after: ClusterMap) -> None:
        for incarnation, entry in before.actors.items():
            known = after.actors.get(incarnation)
            if not entry.directory or known is None or known.directory:
                continue
            # A node that is taken out of the map was silent: then an operator knows better, unless it comes.
            if entry.node not in after.nodes and not self._comes.get(entry.node):
                continue
            there = self._stage.directories.of_node(entry.node)
            if any(each.identity == entry.directory and not each.cloned for each in there):
                name = self._stage.name_of(incarnation)
                self._stage.violate("lost", f"the directory of {name} was given up while its node ran")

    def _is_clone(self, incarnation: bytes) -> bool:
        actor = self._stage.actors.get(incarnation)
        return actor is not None and actor.disk is not None and actor.disk.directory.cloned

    # --- shards ------------------------------------------------------------------------------------------

    def check_empty(self, shard: int, members: tuple[bytes, ...], before: ClusterMap) -> None:
        """Judge a shard that begins empty."""
        awaited = [each for each in members if each in before.actors and before.actors[each].durability]
        if awaited:
            names = [self._stage.name_of(each) for each in awaited]
            self._stage.violate("lost", f"shard {shard} began empty, the disks of {names} were not given up")

    def recovers(
        self, shard: int, former: ShardEntry, entry: ShardEntry, before: ClusterMap, after: ClusterMap
    ) -> bool:
        """Return whether a configuration begins from the disk of a member of the former one."""
        members = [before.actors[each] for each in former.members if each in before.actors]
        primary = after.actors.get(entry.primary)
        if primary is None or not primary.directory:
            return False
        if primary.directory not in [each.directory for each in members]:
            return False
        if before.recover_alone_seconds:
            self._judge_absent(shard, members, primary.directory)
        doubtful = {each.identity for each in self._stage.directories if each.doubtful}
        gone = self._stage.directories.gone
        kept = [each for each in members if each.durability and each.directory not in gone]
        sound = [each for each in kept if each.directory not in doubtful]
        if before.recover_alone_seconds and len(sound) < len(kept):
            up = [each for each in before.actors.values() if each.state == "up"]
            heard = {each.directory for each in up if before.nodes[each.node].state == "up"}
            sound = [each for each in sound if each.directory in heard]
        why = ""
        if self._has_given_up_all_unnamed(former, before):
            why = "older"
        # A map that was made anew does not say how members wrote.
        elif not any(self._stage.directories.durability(each.node) == "fsync" for each in sound):
            why = "interval" if len(sound) == len(kept) else "older"
        if why == "interval":
            identities = {each.directory for each in sound}
            found = [each for each in self._stage.directories if each.identity in identities]
            self._held[shard, entry.epoch] = [held for each in found if (held := _held(each, shard))]
        self._recovered[shard, entry.epoch] = why
        self._stage.network.happened["shard recovered from disk"] += 1
        return True

    def _has_given_up_all_unnamed(self, former: ShardEntry, before: ClusterMap) -> bool:
        """Whether a map made anew leaves out members, all of whose disks are lost.

        Such a one may have gone on alone before, and nothing else knew.
        """
        unnamed = [each for each in former.members if each not in before.actors]
        return bool(unnamed) and former.epoch >= LINEAGE_EPOCHS and all(map(self._has_lost_its_disk, unnamed))

    def _has_lost_its_disk(self, incarnation: bytes) -> bool:
        actor = self._stage.actors.get(incarnation)
        if actor is None or actor.disk is None:
            return False
        return actor.disk.directory.identity in self._stage.directories.gone

    def _judge_absent(self, shard: int, members: list[ActorEntry], directory: bytes) -> None:
        """Judge a recovery beside members that may live: none serves without the one that this follows."""
        dead = [each for each in members if not self._stage.is_alive(each.incarnation)]
        if directory not in [each.directory for each in dead]:
            self._stage.violate("death", f"shard {shard}: it was recovered beside its own member")
        if len(dead) < len(members) and not any(each.durability == "fsync" for each in dead):
            self._stage.violate("death", f"shard {shard}: who lives may have what nobody else has")

    def judge(self, actor: ActorProcess, shard: int, epoch: int, truth: Truth, have: int) -> bool:
        """Judge a new primary that lacks what was committed after `have`; return whether that is settled."""
        why = self._recovered.get((shard, epoch))
        if why is None:
            return False
        lost = [truth.committed[each] for each in sorted(truth.committed) if each > have]
        self.undone.update((shard, version_of(each)) for each in lost)
        where = f"{actor.name} recovered shard {shard} epoch {epoch} up to {have}"
        if not why:
            self._stage.violate("lost", f"{where}, {have + len(lost)} were committed")
        elif why == "interval":
            self._judge_interval(where, lost, truth)
            for through, records in self._held[shard, epoch]:
                for record in lost:
                    if record.sequence <= through or (record.epoch, record.sequence) in records:
                        self._stage.violate("lost", f"{where}, a disk holds {record.sequence}")
        self._stage.network.happened[f"writes lost ({why})"] += len(lost)
        _forget(truth, have)
        return True

    def _judge_interval(self, where: str, lost: list[Record], truth: Truth) -> None:
        for record in lost:
            if is_ending(record.command):
                kind = type(record.command).__name__
                self._stage.violate("undone", f"{where}, {kind} {record.sequence} was committed")
        times = [truth.logged_ns[record.epoch, record.sequence] for record in lost]
        seconds = (max(times) - min(times)) / SECOND
        if seconds > self._stage.plan.interval_seconds * 1.1 + _SLACK_SECONDS:
            self._stage.violate("lost", f"{where}, what was logged in {seconds:.2f} s was committed since")


def _held(directory: Directory, shard: int) -> tuple[int, set[Rung]] | None:
    """Return what a directory holds of a shard."""
    replay = Replay()
    for entry in directory.read():
        replay.take(entry)
    copy = replay.copies.get(shard)
    if copy is None:
        return None
    return copy.from_sequence, {(each.epoch, each.sequence) for each in map(heading, copy.records)}


def _counts(directory: bytes, known: ClusterMap) -> bool:
    """Whether a member of a shard wrote to it."""
    members = {member for entry in known.shards for member in entry.members}
    return any(known.actors[each].directory == directory for each in members if each in known.actors)


def _forget(truth: Truth, have: int) -> None:
    """Go on from what there is."""
    for sequence in [each for each in truth.committed if each > have]:
        del truth.committed[sequence]
    for request in [request for request, sequence in truth.applied.items() if sequence > have]:
        del truth.applied[request]
    for epoch, last in truth.committed_by.items():
        truth.committed_by[epoch] = min(last, have)
