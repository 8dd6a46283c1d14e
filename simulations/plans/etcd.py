"""Plans whose coordinators stand on etcd: a seed's plan, with several of them and with faults of etcd.

They last longer, because a lease in etcd does, and because another coordinator leads only once it has ended.
"""

from random import Random

from msgspec.structs import replace

from simulations.plans.generation import around_grace
from simulations.plans.plan import Fault, Plan

EVERY = 3
"""So often a seed stands for a cluster on etcd."""
_MORE_SECONDS = 3.0
_MEMBERS = 3

_OF_A_FILE = frozenset({"restore coordinator", "begin anew"})
"""What does not strike where the map is in etcd."""

OF_ETCD = frozenset({
    "crash etcd member", "etcd away", "cut off from etcd", "lose etcd answers", "carry out late",
    "elect another member", "end lease", "member behind", "silent watches", "stop coordinator",
    "cut off from nodes",
})  # fmt: skip
"""The kinds of faults that strike only where the map is in etcd."""

_ETCD = (
    "crash etcd member", "pause member", "cut off member", "etcd away", "lose etcd answers", "carry out late",
    "carry out late", "elect another member", "end lease", "member behind", "silent watches", "slow disk",
)  # fmt: skip
_COORDINATORS = (
    "restart coordinator", "restart coordinator", "pause coordinator", "pause coordinator",
    "slow coordinator", "cut off from etcd", "cut off from nodes", "crash coordinator at write",
    "cut off coordinator", "end lease", "carry out late", "lose coordinator answers", "stop coordinator",
)  # fmt: skip
_THEMES = (_ETCD, _COORDINATORS, _ETCD + _COORDINATORS)
_GIVES_UP_SECONDS = 4.0
"""After so long a coordinator gives up that hears no node."""
_LASTS_SECONDS = (0.05, 0.3, 0.9, 1.5, 2.0, 2.5, 3.5)


def on_etcd(plan: Plan) -> Plan:
    """Return the plan with several coordinators on etcd. Drawn apart, so that the rest stays as it is."""
    random = Random(f"{plan.seed}/etcd")
    coordinators = random.choice((2, 2, 3))
    seconds = plan.seconds + _MORE_SECONDS
    longer = seconds / plan.seconds
    actions = tuple(replace(each, think_ms=round(each.think_ms * longer, 3)) for each in plan.actions)
    rates = random.random() < 0.4
    plan = replace(
        plan,
        coordinators=coordinators,
        coordinator_rates=_rates(random, coordinators) if rates else (),
        etcd_rates=_rates(random, _MEMBERS) if rates else (),
        seconds=seconds,
        actions=actions,
    )
    faults = [fault for fault in plan.faults if fault.kind not in _OF_A_FILE]
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        theme = random.choice(_THEMES)
        begin = random.uniform(0.02, 0.7) * seconds * 1000
        spread = random.choice((5.0, 200.0, 1000.0, 3000.0))
        for _ in range(random.choice((1, 1, 2, 3, 4))):
            at_ms = round(begin + random.uniform(0, spread), 3)
            faults.append(_fault(plan, random, random.choice(theme), at_ms))
    return replace(plan, faults=tuple(sorted(faults, key=lambda fault: fault.at_ms)))


def _rates(random: Random, count: int) -> tuple[int, ...]:
    return tuple(random.randrange(980_000, 1_020_000) for _ in range(count))


def _fault(plan: Plan, random: Random, kind: str, at_ms: float) -> Fault:
    number = random.randrange(_MEMBERS)
    coordinator = random.choice(("coordinator", "coordinator", f"coordinator {number % plan.coordinators}"))
    seconds = random.choice((round(random.choice(_LASTS_SECONDS) * random.uniform(0.8, 1.2), 4),
                             around_grace(plan, random)))  # fmt: skip
    match kind:
        case "pause member":
            return Fault(at_ms, "pause", f"etcd {number}", seconds)
        case "cut off member":
            return Fault(at_ms, "cut off", f"node etcd{number}", seconds)
        case "crash etcd member" | "member behind" | "silent watches":
            return Fault(at_ms, kind, f"etcd {number}", seconds)
        case "etcd away":
            return Fault(at_ms, kind, "coordinator", seconds, random.choice((0.0, 1.0)))
        case "lose etcd answers" | "carry out late" | "lose coordinator answers":
            return Fault(at_ms, kind, "coordinator", seconds, random.choice((1.0, 1.0, 3.0)))
        case "pause coordinator":
            return Fault(at_ms, "pause", coordinator, seconds)
        case "slow coordinator":
            return Fault(at_ms, "slow", coordinator, seconds, random.choice((1.0, 10.0, 100.0)))
        case "cut off coordinator":
            return Fault(at_ms, "cut off", f"node coordinator{number % plan.coordinators or ''}", seconds)
        case "cut off from nodes":
            return Fault(at_ms, kind, coordinator, round(seconds + _GIVES_UP_SECONDS, 4))
        case "crash coordinator at write":
            return Fault(at_ms, kind, coordinator, seconds, random.choice((0.0, 1.0)))
        case "slow disk":
            return Fault(at_ms, kind, "coordinator", seconds, random.choice((50.0, 500.0, 1500.0)))
        case _:
            return Fault(at_ms, kind, coordinator, seconds)
