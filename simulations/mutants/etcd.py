# ruff: noqa: ANN001, ANN002, ANN202, ARG001, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of coordination on etcd: what a leader compares, and what it takes for the newest."""

from msgspec.structs import replace

from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination.etcd import leadership as ls
from greenroom_cluster.coordination.etcd.candidacy import Candidacy
from greenroom_cluster.coordination.etcd.leadership import Leadership
from simulations.mutants.patching import Patches, mutant
from simulations.plans.plan import Action, Fault, Plan

_ON_ETCD = Plan(
    seed=0,
    coordinators=2,
    shards=2,
    callers=4,
    seconds=8.0,
    actions=tuple(
        Action(number % 4, 40.0 + number * 7 % 19, "create" if number < 6 else "update", number % 6)
        for number in range(400)
    ),
)

LATE_BESIDE_ANOTHER = replace(
    _ON_ETCD,
    faults=(
        Fault(1000, "carry out late", "coordinator", 0.4, 1.0),
        Fault(1001, "kill actor", "primary of shard 0"),
        Fault(1200, "end lease", "coordinator"),
    ),
)
"""What a leader writes takes its time in etcd; meanwhile another one leads, which has nothing to write."""

LEASE_LOST_UNHEARD = replace(
    _ON_ETCD,
    faults=(
        Fault(1000, "end lease", "coordinator"),
        Fault(1050, "kill actor", "primary of shard 0"),
        Fault(3000, "end lease", "coordinator"),
        Fault(3050, "kill actor", "primary of shard 1"),
    ),
)
"""A leader's lease ends, which it has not heard, and its nodes still speak with it."""

LATE_AND_REPEATED = replace(
    _ON_ETCD,
    faults=(
        Fault(1000, "carry out late", "coordinator", 1.6, 1.0),
        Fault(1001, "kill actor", "primary of shard 0"),
    ),
)
"""What a leader writes is carried out only after it was given up, and sent again, and others were written."""

LEADS_AGAIN = replace(
    _ON_ETCD,
    seconds=12.0,
    faults=(
        Fault(1000, "end lease", "coordinator"),
        Fault(2500, "kill actor", "primary of shard 0"),
        Fault(5000, "end lease", "coordinator"),
        Fault(6500, "kill actor", "primary of shard 1"),
    ),
)
"""One coordinator leads, then the other, which decides, then the first again."""

NODES_OUT_OF_REACH = replace(
    _ON_ETCD,
    seconds=16.0,
    whole_at_end=True,
    faults=(
        Fault(1000, "cut off from nodes", "coordinator", 60.0),
        Fault(1500, "kill actor", "primary of shard 0"),
    ),
)
"""Who leads reaches etcd and no node, for as long as it takes; the other coordinator reaches all."""


@mutant("writes without the leader's fence", budget=20, plan=LATE_BESIDE_ANOTHER)
def _(patches: Patches) -> None:
    """A transaction does not compare who leads: what is under way from a former leader is carried out."""

    def compares(self, compare):
        return compare.key != self._leader

    _comparing(patches, compares)


@mutant("repeats what was carried out", budget=20, plan=LATE_AND_REPEATED)
def _(patches: Patches) -> None:
    """A transaction compares only who leads: carried out once more, it takes back what came after it."""

    def compares(self, compare):
        return compare.key == self._leader

    _comparing(patches, compares)


@mutant("leads by its own clock alone", budget=20, plan=LEASE_LOST_UNHEARD)
def _(patches: Patches) -> None:
    """Whose lease lasts by its own clock compares nothing: for a while two may take themselves for it."""

    def compares(self, compare):
        return False

    _comparing(patches, compares)


def _comparing(patches, compares) -> None:
    """Have transactions of maps compare only some things."""
    original = Leadership._begin_write

    def begin_write(self, *arguments):
        effects = original(self, *arguments)
        kept = [
            replace(effect, compares=tuple(each for each in effect.compares if compares(self, each)))
            if isinstance(effect, ls.Transact)
            else effect
            for effect in effects
        ]
        if self._write is not None:
            self._write.transaction = kept[0]
        return kept

    patches.set(Leadership, "_begin_write", begin_write)


@mutant("decides from a stale read", budget=20, plan=LEADS_AGAIN)
def _(patches: Patches) -> None:
    """Who led before begins with the map that it had then."""
    loaded, save = Leadership._loaded, Leadership.save

    def begin(self, now_ns, answer):
        effects = loaded(self, now_ns, answer)
        known = getattr(self, "_known", None)
        return [
            replace(effect, map=known) if isinstance(effect, ls.Lead) and known is not None else effect
            for effect in effects
        ]

    def keep(self, now_ns, cluster_map):
        self._known = cluster_map
        return save(self, now_ns, cluster_map)

    patches.set(Leadership, "_loaded", begin)
    patches.set(Leadership, "save", keep)


@mutant("leads on where no node hears it", budget=20, plan=NODES_OUT_OF_REACH)
def _(patches: Patches) -> None:
    """Whoever has the lease keeps it, though it hears no node, and nobody decides."""

    def gives_up_ns(self):
        return NEVER_NS

    patches.set(Candidacy, "_gives_up_ns", gives_up_ns)
