"""Faults at clients and between them and actors, for plans in which clients keep or watch sessions."""

from collections.abc import Sequence
from random import Random

from simulations.plans.plan import Fault, Plan


def client_fault(
    plan: Plan, random: Random, kind: str, at_ms: float, unit: float, spans: Sequence[float]
) -> Fault:
    """Return a fault of this kind; it lasts about so many units, of so many seconds each."""
    client = f"client {random.randrange(plan.clients)}"
    primary = f"primary of shard {random.randrange(plan.shards)}"
    seconds = round(unit * random.choice(spans) * random.uniform(0.8, 1.2), 4)
    match kind:
        case "pause client":
            return Fault(at_ms, "pause", client, seconds)
        case "slow client":
            return Fault(at_ms, "slow", client, seconds, random.choice((1.0, 20.0, 100.0)))
        case "reset client":
            return Fault(at_ms, random.choice(("reset connection", "half-open connection")), client)
        case "read late":
            who = random.choice((client, primary))
            return Fault(at_ms, "read a connection late", who, seconds, random.choice((0.0, 0.1, 0.5)))
        case "cut client":
            return Fault(at_ms, "cut between", f"node of {primary}", seconds, other=client)
        case "cut one way":
            return Fault(
                at_ms, "cut one way", f"node of {primary}", seconds, random.choice((0.0, 1.0)), other=client
            )
        case "delay":
            amount = round(unit * random.choice((100.0, 500.0, 1000.0)), 2)
            return Fault(at_ms, "delay packets", f"node of {primary}", seconds, amount, other=client)
        case "pause actor":
            return Fault(at_ms, "pause", primary, seconds)
        case "client rate":
            return Fault(at_ms, "change clock rate", client, seconds, random.uniform(0.96, 1.04))
        case "stale map" | "kill client":
            return Fault(at_ms, kind, client, seconds)
        case "drain node":
            return Fault(at_ms, kind, f"node of {primary}", seconds)
        case _:
            return Fault(at_ms, kind, primary, seconds)
