# ruff: noqa: ANN001, ANN202, ARG005, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of what is kept on disk: when it counts as kept, who comes back with it, and with what."""

import msgspec

from greenroom_cluster.coordination import operators, rules
from greenroom_cluster.coordination.adoption import Adoption
from greenroom_cluster.coordination.coordinator import Coordinator
from greenroom_cluster.coordination.owners import Owners
from greenroom_cluster.links.core_runner import CoreRunner
from greenroom_cluster.links.disk_schedule import DiskSchedule
from greenroom_cluster.shard import disk_log, recovery
from greenroom_cluster.shard.compaction import Compaction
from greenroom_cluster.shard.disk_log import DiskLog
from greenroom_cluster.shard.effects import DropBefore, Persist, Propose, ReplyToPeer
from greenroom_cluster.shard.host import Host
from greenroom_cluster.shard.messages import PrepareOk, SnapshotOk
from greenroom_cluster.shard.pairs.replication import Replication
from greenroom_cluster.shard.recovery import Recovery
from greenroom_cluster.shard.state import snapshot_parts
from greenroom_cluster.shard.state.clock import ShardClock
from simulations.mutants.patching import Patches, instead, mutant
from simulations.plans.plan import Action, Fault, Plan

_MIXED = tuple(
    Action(
        number % 6,
        5.0 + number * 7 % 11,
        ("create", "update", "delete", "create", "patch")[number // 6 % 5],
        number % 6,
    )
    for number in range(1200)
)
SMALL = Plan(
    seed=0,
    nodes=2,
    shards=1,
    callers=6,
    clients=2,
    sessions=6,
    seconds=6.5,
    beacon_seconds=0.05,
    lease_seconds=0.2,
    grace_seconds=0.25,
    start_seconds=(0.01, 0.02),
    durability=("fsync",),
    sync_ms=20.0,
    actions=_MIXED,
)

PRIMARY_LOST = msgspec.structs.replace(
    SMALL,
    faults=(
        Fault(900, "lose disks", "node of primary of shard 0", 0.5),
        Fault(900, "crash all nodes", "coordinator", 0.3),
    ),
)
"""All machines lose power at once, and that of the primary loses its disk: what the backup has must do."""

BACKUP_LOST = msgspec.structs.replace(
    SMALL,
    faults=(
        Fault(900, "lose disks", "node of backup of shard 0", 0.5),
        Fault(900, "crash all nodes", "coordinator", 0.3),
    ),
)
"""The same, but it is the disk of the backup that is lost."""

ALL_CUT = msgspec.structs.replace(SMALL, faults=(Fault(900, "crash all nodes", "coordinator", 0.3),))
"""All machines lose power at once, amid writes."""

FORGOTTEN_TOO_EARLY = msgspec.structs.replace(
    SMALL,
    start_seconds=(0.3, 0.5),
    faults=(
        Fault(900, "kill shard", "primary of shard 0"),
        Fault(1000, "forget node", "node n0"),
        Fault(1000, "forget node", "node n1"),
    ),
)
"""Both members of a shard end, and while others read their directories, their nodes are forgotten."""

FORGOTTEN_AS_IT_COMES = msgspec.structs.replace(
    SMALL,
    disk_ms=50.0,
    start_seconds=(0.3, 0.5),
    faults=(
        Fault(900, "crash node", "node n0", 1.1),
        Fault(900, "crash node", "node n1", 1.1),
        *(Fault(2300 + 20 * number, "forget node", f"node n{number % 2}") for number in range(40)),
    ),
)
"""Machines lose power and boot, and their nodes ask for names that the supervisors before still have. As soon
as those are silent, and while the coordinator writes that, the nodes are forgotten.
"""

GIVEN_UP_TOO_EARLY = msgspec.structs.replace(
    SMALL,
    start_seconds=(0.05, 6.0),
    seconds=12.0,
    faults=(
        Fault(700, "crash node", "node of backup of shard 0", 1.5),
        Fault(1800, "crash all nodes", "coordinator", 0.3, 2.0),
        *(Fault(2200 + 150 * number, "forget node", f"node n{number % 2}") for number in range(40)),
    ),
)
"""A primary that was alone reads its directory, and while the map is made anew, its node is forgotten."""

ASKED_ONCE = msgspec.structs.replace(ALL_CUT, repropose_seconds=120.0)
"""The same, and nobody asks again for what has not been answered."""

CUT_IN_INTERVAL = msgspec.structs.replace(ALL_CUT, durability=("interval",))
"""The same, with syncs a second apart."""

FULL_IN_INTERVAL = msgspec.structs.replace(
    SMALL,
    durability=("interval",),
    faults=(Fault(900, "fill disk", "backup of shard 0", 1.0, 10.0),),
)
"""The disk of a backup is full all at once, amid writes that are synced a second apart."""

CUT_IN_BOTH_MODES = msgspec.structs.replace(ALL_CUT, durability=("interval", "fsync"))
"""The same, one node syncs each write, the other only once a second."""

CUT_IN_SHORT_LOGS = msgspec.structs.replace(
    SMALL,
    log_bytes_min=1000,
    sync_ms=60.0,
    faults=tuple(Fault(at_ms, "crash all nodes", "coordinator", 0.3) for at_ms in range(900, 6000, 1200)),
)
"""The same, again and again, while snapshots are often written, so that the logs stay short."""

CUT_AGAIN_IN_SHORT_LOGS = msgspec.structs.replace(
    CUT_IN_SHORT_LOGS,
    shards=4,
    sync_ms=5.0,
    seconds=9.0,
    faults=tuple(Fault(at, "crash all nodes", "coordinator", 0.3) for at in range(1500, 7000, 1100)),
)
"""The same, and power fails again and again, before what a start found was written anew."""

TAKEN_OVER_AND_CUT = msgspec.structs.replace(
    SMALL,
    faults=(
        Fault(800, "slow sync", "backup of shard 0", 1.0, 400.0),
        Fault(900, "kill actor for good", "primary of shard 0", 1.0),
        Fault(950, "crash node", "node of primary of shard 0", 0.5),
    ),
)
"""The backup of a primary that was killed takes over with a slow disk, and loses power soon after."""

JOINED_AND_CUT = msgspec.structs.replace(
    SMALL,
    sync_ms=150.0,
    faults=(
        Fault(300, "lose disks", "node of backup of shard 0", 0.3),
        Fault(4300, "lose disks", "node of primary of shard 0", 0.5),
        Fault(4300, "crash all nodes", "coordinator", 0.3),
    ),
)
"""A joiner has the snapshot in memory; then all lose power, and the primary its disk."""

CLOCKS_AHEAD = msgspec.structs.replace(
    ALL_CUT,
    actions=tuple(
        msgspec.structs.replace(action, lifetime_ms=40_000 if action.kind == "create" else 0)
        for action in _MIXED
    ),
    faults=(
        Fault(300, "jump wall clock", "node n0", amount=3600.0),
        Fault(300, "jump wall clock", "node n1", amount=3600.0),
        *ALL_CUT.faults,
    ),
)
"""The same on machines whose clocks are set an hour ahead, but for that of the coordinator."""

_AWAY = (
    Fault(900, "crash node", "node of primary of shard 0", 30.0),
    Fault(900, "crash node", "node of backup of shard 0", 0.3),
)
ONE_STAYS_AWAY = msgspec.structs.replace(
    SMALL, durability=("interval",), recover_alone_seconds=1.0, seconds=8.0, faults=_AWAY
)
"""All machines lose power at once, and one stays off. Neither synced each write."""

ONE_IS_ENOUGH = msgspec.structs.replace(ONE_STAYS_AWAY, durability=("fsync",), bound_seconds=4.0)
"""The same, and both synced each write, so that one suffices for the shard to answer again."""

OTHER_TAIL = msgspec.structs.replace(
    SMALL,
    sync_ms=1.0,
    faults=(
        Fault(880, "cut between", "node of primary of shard 0", 0.025, other="node of backup of shard 0"),
        Fault(900, "kill actor", "primary of shard 0"),
    ),
)
"""A primary is killed with records on its disk that its backup never got, and then joins the backup."""

PARTLY_KEPT = msgspec.structs.replace(
    SMALL,
    durability=("fsync", "none"),
    faults=(
        Fault(890, "cut between", "node n1", 1.5, other="coordinator"),
        Fault(900, "kill actor", "actor n0/0"),
    ),
)
"""A member that keeps its copy on disk starts again, while the one that keeps nothing cannot be heard."""


# --- when something counts as kept -------------------------------------------------------------------------


@mutant("acknowledges records before they are on disk", flagged=True, budget=50, plan=PRIMARY_LOST)
def _(patches: Patches) -> None:
    """A backup acknowledges records that it has only written."""
    _hold_only(patches, SnapshotOk)


@mutant("commits before its own sync", flagged=True, budget=50, plan=BACKUP_LOST)
def _(patches: Patches) -> None:
    """A primary commits what its backups have synced, whatever its own disk has."""
    original = Replication.decided

    def decided(self):
        with instead(self.copy, stable=self.log.appended):
            return original(self)

    patches.set(Replication, "decided", decided)


@mutant("acknowledges before it has written", budget=50, plan=FULL_IN_INTERVAL)
def _(patches: Patches) -> None:
    """With interval, what waits for a write is said before it, and the write fails."""
    original = CoreRunner._perform

    def perform(self, effects):
        effects = sorted(effects, key=lambda effect: isinstance(effect, Persist))
        original(self, effects)

    patches.set(CoreRunner, "_perform", perform)


@mutant("acknowledges ends of sessions before they are synced", flagged=True, budget=50, plan=CUT_IN_INTERVAL)
def _(patches: Patches) -> None:
    """With interval, a log-out is confirmed once it is written."""
    original = DiskLog._give_out

    def give_out(self, now_ns, effects):
        self._ends = False
        original(self, now_ns, effects)

    patches.set(DiskLog, "_give_out", give_out)


@mutant("takes over before its log is on disk", flagged=True, budget=50, plan=TAKEN_OVER_AND_CUT)
def _(patches: Patches) -> None:
    """A backup proposes to take over, and commits what it has, before any of it is synced."""
    original = DiskLog.configure
    patches.set(disk_log, "_is_held", lambda effect: _is_ok(effect, PrepareOk | SnapshotOk))

    def configure(self, copy, entry, known):
        original(self, copy, entry, known)
        copy.unsettled = False

    patches.set(DiskLog, "configure", configure)


@mutant("counts a joiner's snapshot before it is on disk", flagged=True, budget=100, plan=JOINED_AND_CUT)
def _(patches: Patches) -> None:
    """A joiner acknowledges the parts of its snapshot, and becomes a member, before they are synced."""
    _hold_only(patches, PrepareOk)


@mutant("drops the log before its snapshot is synced", budget=100, plan=CUT_IN_SHORT_LOGS)
def _(patches: Patches) -> None:
    """A snapshot counts once it is written, and the log before it is deleted before the next sync."""
    original, next_step = Compaction._begin, DiskSchedule.next

    def begin(self, copy):
        original(self, copy)
        writing, self._writing = self._writing, None
        while not writing.sender.finished:
            self._write_more(writing)
        self._disk.bases[copy.shard] = writing.base
        self._disk.rebased = True

    def drop_first(self, now_ns):
        if self._dropped < self._drop_before:
            self._dropped = self._drop_before
            return DropBefore(self._dropped)
        return next_step(self, now_ns)

    patches.set(Compaction, "_begin", begin)
    patches.set(DiskSchedule, "next", drop_first)


@mutant("drops the log that a start found", budget=100, plan=CUT_AGAIN_IN_SHORT_LOGS)
def _(patches: Patches) -> None:
    """What a copy found on disk consists of is taken for newer than it is, and deleted before its turn."""
    original = DiskLog.find

    def find(self, copy, found):
        original(self, copy, found)
        self.bases[copy.shard].mark = self.mark

    patches.set(DiskLog, "find", find)


# --- who comes back, and with what --------------------------------------------------------------------------


@mutant("recovers without waiting for the other disks", flagged=True, budget=50, plan=CUT_IN_BOTH_MODES)
def _(patches: Patches) -> None:
    """Whoever comes back first recovers a shard with what it has."""
    _without(patches, "recover", rules.ALL_CLAIMED, rules.BEST_CLAIM)


@mutant("answers claims only when they are made again", budget=50, plan=ASKED_ONCE)
def _(patches: Patches) -> None:
    """A claim that had to wait for others is decided when its claimant repeats it."""
    patches.set(Coordinator, "_answer_claims", lambda self, now_ns, draft: [])


@mutant("recovers while a member lives", flagged=True, budget=50, plan=PARTLY_KEPT)
def _(patches: Patches) -> None:
    """An heir claims its shard though a member that kept nothing on disk is not known to be dead."""
    original = Recovery.manage

    def manage(self, now_ns, shard, entry):
        context = self._context
        with instead(context, dead=frozenset((*context.dead, *entry.members))):
            original(self, now_ns, shard, entry)

    patches.set(Recovery, "manage", manage)
    patches.set(rules, "is_known_dead", lambda member, actors: True)


@mutant("begins empty over a directory", flagged=True, budget=50, plan=ALL_CUT)
def _(patches: Patches) -> None:
    """A shard whose members are all dead starts empty, though a disk holds it."""
    original = Host._start_if_wanted

    def start_if_wanted(self, now_ns, shard, entry):
        context, known = self._context, self._context.map
        actors = {key: msgspec.structs.replace(actor, durability="") for key, actor in known.actors.items()}
        with instead(context, map=msgspec.structs.replace(known, actors=actors)):
            original(self, now_ns, shard, entry)

    patches.set(Host, "_start_if_wanted", start_if_wanted)
    _without(patches, "start", rules.NOTHING_KEPT)


@mutant("recovers without its prepared log", budget=50, plan=ALL_CUT)
def _(patches: Patches) -> None:
    """Who recovers a shard drops the records of which its disk does not say that they are committed."""
    original = recovery.restored

    def restored(copy, resources):
        copy.cut(max(copy.committed, copy.from_sequence))
        return original(copy, resources)

    patches.set(recovery, "restored", restored)


@mutant("gives up a directory that is being read", budget=20, plan=FORGOTTEN_TOO_EARLY)
def _(patches: Patches) -> None:
    """Of a node that is back, `forget-node` means all directories in which nobody has registered yet."""
    patches.set(operators, "_opening", lambda draft, abandoned: [])


@mutant("forgets a node that asks for its name", budget=20, plan=FORGOTTEN_AS_IT_COMES)
def _(patches: Patches) -> None:
    """An operator may call gone who has just been refused a name, because the one before may be alive."""
    patches.set(Owners, "is_sought", lambda self, now_ns, name: False)


@mutant("gives up for a new map what is being read", budget=50, plan=GIVEN_UP_TOO_EARLY)
def _(patches: Patches) -> None:
    """While the map is made anew, a node is given up though it is back, and reads its directory."""
    patches.set(Adoption, "_hear", lambda self, now_ns, node: None)


@mutant("believes any clock when it comes back", budget=50, plan=CLOCKS_AHEAD)
def _(patches: Patches) -> None:
    """Who recovers a shard believes the clock of its host, however far ahead it is."""
    original = ShardClock.resume
    patches.set(ShardClock, "resume", lambda self, now_ns, wall_us, _: original(self, now_ns, wall_us, 0))


@mutant("goes on alone with less than all", flagged=True, budget=50, plan=ONE_STAYS_AWAY)
def _(patches: Patches) -> None:
    """A shard does not wait for members that are away, though what is there need not be all."""
    patches.set(rules, "has_all", lambda entry, actors, claimants: True)


@mutant("waits for members that are away for nothing", budget=50, plan=ONE_IS_ENOUGH)
def _(patches: Patches) -> None:
    """A shard waits for a member that stays away, though what is there is all."""
    patches.set(rules, "has_all", lambda entry, actors, claimants: False)


@mutant("forgets kept answers when it comes back", budget=50, plan=CUT_IN_SHORT_LOGS)
def _(patches: Patches) -> None:
    """A snapshot on disk is read without the clients and their answers, so a request is applied twice."""
    original = snapshot_parts._decode

    def decode(body):
        return msgspec.structs.replace(original(body), clients=(), replies=())

    patches.set(snapshot_parts, "_decode", decode)


@mutant("goes on from the length of its log", flagged=True, budget=50, plan=OTHER_TAIL)
def _(patches: Patches) -> None:
    """A joiner keeps all that is on its disk, though its primary has other records in that place."""
    patches.set(recovery, "common_end", lambda ours, theirs: min(ours[-1][1], theirs[-1][1]) if ours else 0)


def _is_ok(effect: object, kinds: object) -> bool:
    return isinstance(effect, ReplyToPeer) and isinstance(effect.message, kinds)  # type: ignore[arg-type]  # a union


def _hold_only(patches: Patches, kind: type) -> None:
    """Let acknowledgements but of that kind leave at once."""
    patches.set(disk_log, "_is_held", lambda effect: isinstance(effect, Propose) or _is_ok(effect, kind))


def _without(patches: Patches, kind: str, *broken: rules.Rule) -> None:
    kept = tuple(rule for rule in rules.RULES[kind] if rule not in broken)
    patches.set(rules, "RULES", {**rules.RULES, kind: kept})
