"""Plans in which some clients keep sessions and show them without asking: those of the seeds, and more reads.

Their clocks drift, too, and they are stopped, blocked and cut off for about as long as their leases run.
"""

from random import Random

from msgspec.structs import replace

from simulations.plans.plan import Action, Fault, Plan

_FAULTS = (
    "pause client", "pause client", "slow client", "reset client", "read late", "cut client", "cut one way",
    "delay", "kill actor", "kill actor", "pause actor", "drain node", "client rate", "stale map",
    "kill client",
)  # fmt: skip


def near(plan: Plan) -> Plan:
    """Have some clients keep sessions. Drawn apart, so that what a seed stands for besides stays as it is."""
    random = Random(f"{plan.seed}/near")
    sessions = tuple(random.choice((0, 2, 100, 100)) for _ in range(plan.clients))
    if not any(sessions):
        sessions = (100, *sessions[1:])
    # Several callers of each client, and few sessions, which others read and change too.
    plan = replace(
        plan,
        callers=plan.clients * random.choice((2, 4)),
        sessions=min(plan.sessions, random.choice((2, 4, 8))),
    )
    near_seconds = min(0.3, plan.lease_seconds * random.choice((0.5, 1.0)))
    plan = replace(
        plan,
        near_sessions=sessions,
        near_eager=random.random() < 0.5,
        near_seconds=round(near_seconds, 4),
        client_rates=tuple(random.randrange(960_000, 1_040_000) for _ in range(plan.clients))
        if random.random() < 0.5
        else (),
    )
    plan = replace(plan, actions=_with_reads(plan, random))
    begin = random.uniform(0.0, 0.7) * plan.seconds * 1000
    faults = [*plan.faults] if random.random() < 0.7 else []
    for _ in range(random.choice((1, 2, 3, 6))):
        at_ms = begin + random.uniform(0, random.choice((20.0, 400.0, plan.seconds * 300)))
        faults.append(_fault(plan, random, random.choice(_FAULTS), round(at_ms, 3)))
    faults += _forks(plan)
    return replace(plan, faults=tuple(sorted(faults, key=lambda fault: fault.at_ms)))


def _forks(plan: Plan) -> list[Fault]:
    """Let a client that keeps sessions fork, in some plans, while others change what it keeps."""
    random = Random(f"{plan.seed}/forks")
    if plan.clients < 2 or random.random() < 0.7:
        return []
    times_ms = [
        round(random.uniform(0.1, 0.9) * plan.seconds * 1000, 3) for _ in range(random.choice((1, 3)))
    ]
    pairs = [random.sample(range(plan.clients), 2) for _ in times_ms]
    return [
        Fault(at_ms, "fork client", f"client {parent}", other=f"client {place}")
        for at_ms, (parent, place) in zip(times_ms, pairs, strict=True)
    ]


def _with_reads(plan: Plan, random: Random) -> tuple[Action, ...]:
    """Read sessions again and again, as a page does."""
    actions: list[Action] = []
    for action in plan.actions:
        actions.append(action)
        for _ in range(random.choice((0, 1, 2, 4))):
            think_ms = round(random.choice((0.1, 1.0, 10.0, plan.near_seconds * 500)) * random.random(), 3)
            caller = random.randrange(plan.callers)
            actions.append(Action(caller, think_ms, "get", action.session, older=random.random() < 0.15))
    return tuple(actions)


def _fault(plan: Plan, random: Random, kind: str, at_ms: float) -> Fault:
    client = f"client {random.randrange(plan.clients)}"
    primary = f"primary of shard {random.randrange(plan.shards)}"
    seconds = round(
        plan.near_seconds * random.choice((0.3, 0.8, 1.0, 1.2, 3.0)) * random.uniform(0.8, 1.2), 4
    )
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
            amount = round(plan.near_seconds * random.choice((100.0, 500.0, 1000.0)), 2)
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
