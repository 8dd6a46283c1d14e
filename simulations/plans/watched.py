"""Plans in which clients watch sessions for their ends: those of the seeds, with more faults at clients."""

from random import Random

from msgspec.structs import replace

from simulations.plans.plan import Fault, Plan

_FAULTS = (
    "pause client",
    "reset client",
    "cut client",
    "stale map",
    "kill client",
    "kill actor",
    "drain node",
)


def watched(plan: Plan) -> Plan:
    """Have clients watch. Drawn apart, so that what a seed stands for besides stays as it is."""
    random = Random(f"{plan.seed}/watched")
    counts = tuple(random.choice((0, 1, 4, 40)) for _ in range(plan.clients))
    if not any(counts):
        counts = (4, *counts[1:])
    faults = [*plan.faults]
    for _ in range(random.choice((0, 1, 2, 4))):
        at_ms = round(random.uniform(0, plan.seconds * 1000), 3)
        faults.append(_fault(plan, random, random.choice(_FAULTS), at_ms))
    return replace(plan, watched=counts, faults=tuple(sorted(faults, key=lambda fault: fault.at_ms)))


def _fault(plan: Plan, random: Random, kind: str, at_ms: float) -> Fault:
    client = f"client {random.randrange(plan.clients)}"
    primary = f"primary of shard {random.randrange(plan.shards)}"
    seconds = round(random.choice((0.05, 0.3, 1.0, 3.0)) * random.uniform(0.8, 1.2), 4)
    match kind:
        case "pause client":
            return Fault(at_ms, "pause", client, seconds)
        case "reset client":
            return Fault(at_ms, random.choice(("reset connection", "half-open connection")), client)
        case "cut client":
            return Fault(at_ms, "cut between", f"node of {primary}", seconds, other=client)
        case "stale map" | "kill client":
            return Fault(at_ms, kind, client, seconds)
        case "drain node":
            return Fault(at_ms, kind, f"node of {primary}", seconds)
        case _:
            return Fault(at_ms, kind, primary, seconds)
