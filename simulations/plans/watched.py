"""Plans in which clients watch sessions for their ends: those of the seeds, with more faults at clients."""

from random import Random

from msgspec.structs import replace

from simulations.plans.client_faults import client_fault
from simulations.plans.plan import Plan

_FAULTS = (
    "pause client",
    "reset client",
    "cut client",
    "stale map",
    "kill client",
    "kill actor",
    "drain node",
)
_SPANS = (0.05, 0.3, 1.0, 3.0)
"""How long a fault lasts, in seconds."""


def watched(plan: Plan) -> Plan:
    """Have clients watch. Drawn apart, so that what a seed stands for besides stays as it is."""
    random = Random(f"{plan.seed}/watched")
    counts = tuple(random.choice((0, 1, 4, 40)) for _ in range(plan.clients))
    if not any(counts):
        counts = (4, *counts[1:])
    faults = [*plan.faults]
    for _ in range(random.choice((0, 1, 2, 4))):
        at_ms = round(random.uniform(0, plan.seconds * 1000), 3)
        faults.append(client_fault(plan, random, random.choice(_FAULTS), at_ms, 1.0, _SPANS))
    return replace(plan, watched=counts, faults=tuple(sorted(faults, key=lambda fault: fault.at_ms)))
