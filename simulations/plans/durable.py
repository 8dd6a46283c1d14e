"""Plans in which nodes keep their shards on disk: those of the seeds, with faults of disks and of power."""

from random import Random

from msgspec.structs import replace

from simulations.plans.generation import around_grace, some_actor
from simulations.plans.plan import Fault, Plan

_MORE_SECONDS = 5.0
"""Machines that boot need a while until they serve again."""

_MAP_LOST = 0.3
"""In so many of the runs in which all lose power, the map may be lost as well."""

_NEVER_BACK = frozenset({"lose disks", "drain node"})
"""What does not go with that: the directories of a lost machine, and of one that has left, never come.

What they may have known is awaited until an operator gives them up. The simulated operator does that only
once all directories have come, for nothing that is left says which are gone for good.
"""

_HASTY = 0.3
"""In so many of the runs for which that is right, an operator takes nodes for gone that are coming back."""

_COMING_BACK = frozenset({"crash all nodes", "crash node", "kill shard", "kill actor"})
_COMING_BACK_MS = 800.0

_KINDS = (
    "crash all nodes", "crash all nodes", "crash all nodes", "kill shard", "kill shard", "crash node",
    "kill actor", "fail sync", "hang sync", "slow sync", "fill disk", "flip bit", "flip bit",
    "roll back directory", "roll back directory", "move directory", "clone directory", "lose disks",
)  # fmt: skip


OF_DISKS = frozenset(_KINDS) - {"crash node", "kill actor"} | {"forget node"}
"""The kinds of faults that seeds without a profile do not draw."""


def durable(plan: Plan) -> Plan:
    """All nodes keep their shards on disk, in one of the two ways or each in its own."""
    random = Random(f"{plan.seed}/durable")
    modes = random.choice((("fsync",), ("fsync",), ("interval",), ("interval",), ("fsync", "interval")))
    plan = _losing_the_map(_with_disks(plan, random, modes), Random(f"{plan.seed}/map"))
    return _with_a_hasty_operator(plan, Random(f"{plan.seed}/hasty"))


def _losing_the_map(plan: Plan, random: Random) -> Plan:
    """In some runs the coordinator's disk is lost in a power cut, and the map is made anew of directories.

    Drawn apart, so that what a seed stands for besides stays as it is.
    """
    kinds = [fault.kind for fault in plan.faults]
    cuts = [number for number, kind in enumerate(kinds) if kind == "crash all nodes"]
    if plan.coordinators or not cuts or random.random() > _MAP_LOST or not _NEVER_BACK.isdisjoint(kinds):
        return plan
    if kinds.count("flip bit") > 1:
        return plan  # all directories may be damaged, and then nothing is left that tells of the cluster
    lost = random.choice(cuts)
    faults = [
        replace(fault, amount=2.0) if number == lost else fault for number, fault in enumerate(plan.faults)
    ]
    return replace(plan, faults=tuple(faults))


def _with_a_hasty_operator(plan: Plan, random: Random) -> Plan:
    """In some runs nodes are forgotten while their actors come back.

    Not where a coordinator may have to hear members first, for then that word gives up what they know.
    """
    unproven = any(
        fault.kind == "restore coordinator"
        or (fault.kind in ("restart coordinator", "crash all nodes") and fault.amount)
        for fault in plan.faults
    )
    coming = [fault for fault in plan.faults if fault.kind in _COMING_BACK]
    if unproven or not coming or random.random() > _HASTY:
        return plan
    hasty = []
    for fault in random.choices(coming, k=3):
        at_ms = fault.at_ms + fault.seconds * 1000 + random.uniform(0, _COMING_BACK_MS)
        hasty.append(Fault(round(at_ms, 3), "forget node", f"node n{random.randrange(plan.nodes)}"))
    return replace(plan, faults=tuple(sorted((*plan.faults, *hasty), key=lambda fault: fault.at_ms)))


def mixed(plan: Plan) -> Plan:
    """Some nodes keep nothing on disk."""
    random = Random(f"{plan.seed}/mixed")
    modes = ["none", random.choice(("fsync", "interval"))]
    while len(modes) < plan.nodes:
        modes.append(random.choice(("none", "fsync", "interval")))
    random.shuffle(modes)
    return _with_disks(plan, random, tuple(modes))


def _with_disks(plan: Plan, random: Random, modes: tuple[str, ...]) -> Plan:
    seconds = plan.seconds + _MORE_SECONDS
    longer = seconds / plan.seconds
    actions = tuple(replace(each, think_ms=round(each.think_ms * longer, 3)) for each in plan.actions)
    # Enough for snapshots of nothing, or these alone would have others written again and again.
    log_bytes_min = Random(f"{plan.seed}/log").choice((64 << 20, 1000, 4000, 20_000)) + 600 * plan.shards
    plan = replace(
        plan,
        durability=modes,
        interval_seconds=random.choice((1.0, 1.0, 0.3)),
        sync_ms=random.choice((0.2, 1.0, 1.0, 5.0, 20.0)),
        recover_alone_seconds=Random(f"{plan.seed}/alone").choice((0.0, 0.0, 0.3, 2.0)),
        marks_seconds=Random(f"{plan.seed}/marks").choice((10.0, 0.2, 1.0)),
        log_bytes_min=log_bytes_min,
        seconds=seconds,
        actions=actions,
    )
    faults = [*plan.faults] if random.random() < 0.6 else []
    for _ in range(random.choice((1, 1, 2))):
        begin = random.uniform(0.05, 0.6) * seconds * 1000
        spread = random.choice((5.0, 200.0, plan.grace_seconds * 1000, 3000.0))
        shard = random.randrange(plan.shards)
        for _ in range(random.choice((1, 1, 2, 3))):
            at_ms = round(begin + random.uniform(0, spread), 3)
            faults.append(_fault(plan, random, random.choice(_KINDS), at_ms, shard))
    return replace(plan, faults=tuple(sorted(faults, key=lambda fault: fault.at_ms)))


def _fault(plan: Plan, random: Random, kind: str, at_ms: float, shard: int) -> Fault:
    actor, seconds = some_actor(plan, random, shard), around_grace(plan, random)
    match kind:
        case "crash all nodes":
            return Fault(at_ms, kind, "coordinator", seconds, random.choice((0.0, 0.0, 1.0)))
        case "crash node" | "lose disks":
            return Fault(at_ms, kind, f"node of {actor}", seconds)
        case "kill shard":
            return Fault(at_ms, kind, f"primary of shard {shard}")
        case "slow sync":
            return Fault(at_ms, kind, actor, seconds, random.choice((20.0, 200.0, 1000.0)))
        case "fill disk":
            return Fault(at_ms, kind, actor, seconds, random.choice((0.0, 500.0, 4000.0, 20_000.0)))
        case "flip bit" | "move directory":
            lasts = seconds + random.uniform(0.5, 2.0)
            return Fault(at_ms, kind, actor, round(lasts, 4), random.choice((0.0, 1.0, 2.0)))
        case "clone directory":
            lasts, other = seconds + random.uniform(0.5, 2.0), some_actor(plan, random, shard)
            return Fault(at_ms, kind, actor, round(lasts, 4), other=other)
        case "roll back directory":
            lasts = seconds + random.uniform(1.0, 4.0)
            sign = random.choice((1, 1, 1, -1))
            return Fault(at_ms, kind, actor, round(lasts, 4), sign * round(random.uniform(0.01, 1.5), 3))
        case _:
            return Fault(at_ms, kind, actor, seconds)
