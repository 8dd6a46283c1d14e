"""Plans in which some clients keep sessions and show them without asking: those of the seeds, and more reads.

Their clocks drift, too, and they are stopped, blocked and cut off for about as long as their leases run.
"""

from random import Random

from msgspec.structs import replace

from simulations.plans.client_faults import client_fault
from simulations.plans.plan import Action, Fault, Plan

_FAULTS = (
    "pause client", "pause client", "slow client", "reset client", "read late", "cut client", "cut one way",
    "delay", "kill actor", "kill actor", "pause actor", "drain node", "client rate", "stale map",
    "kill client",
)  # fmt: skip
_SPANS = (0.3, 0.8, 1.0, 1.2, 3.0)
"""How long a fault lasts, in leases."""


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
        kind = random.choice(_FAULTS)
        faults.append(client_fault(plan, random, kind, round(at_ms, 3), plan.near_seconds, _SPANS))
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
