"""Draws a plan from a seed: the cluster, the calls and the faults.

Faults come in bursts, because overlapping faults find the mistakes: each burst has a theme, and its faults
strike within a moment of each other. Durations are taken around the grace, where decisions lie. Half of the
seeds use the default times, the others shorter ones, under which more happens in a second.
"""

from random import Random

from msgspec.structs import replace

from simulations.plans.plan import ACTION_KINDS, Action, Fault, Plan

_WEIGHTS = (28, 14, 10, 6, 12, 4, 7, 6, 4, 2, 4, 1)
_TIMES = ((0.25, 1.0, 1.25), (0.25, 1.0, 1.25), (0.1, 0.4, 0.5), (0.05, 0.2, 0.25))

_PROCESSES = (
    "kill actor", "kill actor", "kill actor for good", "kill supervisor", "orphan a paused actor",
    "crash node", "pause", "pause", "pause", "pause mid-step", "slow",
)  # fmt: skip
_NETWORK = (
    "lose packets", "delay packets", "queue at sender", "reset connection", "reset connection",
    "half-open connection", "lose the answer", "cut off", "cut off", "cut one way", "cut one way",
    "cut between", "cut between", "flap", "cut clients", "thin line", "read a connection late",
)  # fmt: skip
_WAYS = frozenset({
    "lose packets", "delay packets", "queue at sender", "thin line", "cut one way", "cut between",
    "cut coordination", "flap",
})  # fmt: skip
_COORDINATION = (
    "restart coordinator", "crash coordinator at write", "slow disk", "lose coordinator answers", "stale map",
    "cut coordination", "pause coordinator",
)  # fmt: skip
_RECONFIGURATION = ("add node", "drain node")
_CLIENTS = (
    "kill client", "pause client", "lose the answer", "cut clients", "reset client", "stale client",
)  # fmt: skip
_CLOCKS = ("jump wall clock", "change clock rate")
_THEMES: tuple[tuple[str, ...], ...] = (
    _PROCESSES,
    _NETWORK,
    _COORDINATION,
    _RECONFIGURATION,
    _CLIENTS,
    _CLOCKS,
    _PROCESSES + _NETWORK,
    _PROCESSES + _NETWORK + _COORDINATION,
    _NETWORK + _RECONFIGURATION,
    _PROCESSES + _NETWORK + _COORDINATION + _RECONFIGURATION + _CLIENTS + _CLOCKS,
)


def make_plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    random = Random(f"{seed}/plan")
    nodes = random.choices((2, 3, 4), (3, 5, 2))[0]
    beacon, lease, grace = random.choice(_TIMES)
    clients = random.choice((1, 2, 2, 3))
    seconds = random.uniform(2.0, 4.0) + 2.5 * grace
    plan = Plan(
        seed=seed,
        nodes=nodes,
        actors=random.choices((1, 2), (4, 1))[0],
        shards=random.choices((1, 2, 4, 8), (1, 4, 4, 1))[0],
        replicas=3 if nodes > 2 and random.random() < 0.3 else 2,
        clients=clients,
        callers=clients * random.choice((1, 2, 2, 3)),
        sessions=random.choice((2, 4, 6, 8, 24)),
        seconds=seconds,
        latency_us=random.choice((100, 200, 500, 2000)),
        jitter_us=random.choice((50, 300, 2000)),
        encoded=random.random() < 0.2,
        fixed_ports=random.random() < 0.3,
        rates=_rates(random, nodes),
        walls_ms=tuple(random.randrange(-700, 700) for _ in range(nodes)) if random.random() < 0.3 else (),
        deadline_seconds=random.choice((5.0, 5.0, 1.0, 0.3)),
        beacon_seconds=beacon,
        lease_seconds=lease,
        grace_seconds=grace,
        repropose_seconds=random.choice((1.0, 1.0, grace, 0.1)),
        chunk_bytes=random.choice((256 * 1024, 150, 600)),
        chunks_in_flight=random.choice((2, 1)),
        prepares_in_flight=random.choice((1, 4, 4)),
        disk_ms=random.choice((0.5, 1.0, 5.0, 20.0)),
        start_seconds=random.choice(((0.3, 0.6), (0.05, 0.1), (0.01, 0.02))),
        deadline_ms=random.randrange(500, 3000) if random.random() < 0.25 else 0,
    )
    if random.random() < 0.12:
        # Only with many shards do two nodes have several joins under way between them.
        plan = replace(plan, shards=16)
    # Drawn apart, so that what a seed stands for besides stays as it is.
    apart = Random(f"{seed}/pages")
    plan = replace(
        plan, page_max=apart.choice((256, 1, 2)), step_bytes=apart.choice((64 * 1024, 64 * 1024, 200))
    )
    # Who proves a secret has no certificate, which alone could name a namespace.
    secret = Random(f"{seed}/secret").random() < 0.1
    tenants = not secret and clients > 1 and Random(f"{seed}/tenants").random() < 0.4
    chance = Random(f"{seed}/tokens")
    tokens = not secret and clients > 1 and chance.random() < 0.1
    plan = replace(plan, secret=secret, tenants=tenants, tokens=tokens)
    plan = replace(plan, actions=_actions(plan, random), faults=_faults(plan, random))
    plan = replace(plan, faults=(*plan.faults, *_poison(plan, Random(f"{seed}/poison"))))
    plan = replace(plan, faults=(*plan.faults, *_renewals(plan, Random(f"{seed}/renewals"))))
    plan = replace(plan, faults=(*plan.faults, *_replacements(plan, chance)))
    former = plan.tenants and Random(f"{seed}/former").random() < 0.2
    return _with_zones(_with_quota(_with_bounds(replace(plan, former_nodes=int(former)))))


def _with_zones(plan: Plan) -> Plan:
    """Give nodes zones in every fifth plan; in some, nodes change them. Drawn apart, as below."""
    random = Random(f"{plan.seed}/zones")
    if random.random() > 0.2:
        return plan
    zones = tuple(random.choice(("a", "a", "b", "b", "c", "")) for _ in range(plan.nodes))
    changes = tuple(
        Fault(
            round(random.uniform(0, plan.seconds * 900), 3),
            "change zone",
            f"node n{random.randrange(plan.nodes)}",
            around_grace(plan, random),
        )
        for _ in range(random.choice((0, 0, 1, 2)))
    )
    return replace(plan, zones=zones, faults=(*plan.faults, *changes))


def _with_quota(plan: Plan) -> Plan:
    """Give the tenant of every fourth plan with one a quota, unless it has a token. Drawn apart, as below."""
    random = Random(f"{plan.seed}/quota")
    if not plan.tenants or plan.tokens or random.random() > 0.25:
        return plan
    # With several shards, each has so large a margin of few sessions that only bytes run out.
    sessions = random.choice((1, 3, 1000)) if plan.shards == 1 else 1000
    size = plan.shards * random.choice((60, 120, 4 * plan.session_bytes or 100_000))
    return replace(plan, quota_sessions=sessions, quota_bytes=size, evicts=random.random() < 0.5)


def _replacements(plan: Plan, random: Random) -> tuple[Fault, ...]:
    """Have tokens replaced, where there are any. Drawn apart, as below."""
    if not plan.tokens:
        return ()
    return tuple(
        Fault(round(random.uniform(0, plan.seconds * 800), 3), "replace token", f"client {number}")
        for number in range(1, plan.clients, 2)
        for _ in range(random.choice((1, 2)))
    )


def _with_bounds(plan: Plan) -> Plan:
    """Give the actors of every seventh plan little memory, a random amount on each node.

    It draws from its own random numbers, so the other plans stay as they were.
    """
    random = Random(f"{plan.seed}/memory")
    if random.random() > 0.15 or plan.shards > 8:
        return plan
    return replace(
        plan,
        session_bytes=random.choice((500, 3000, 10_000)),
        memory_bytes=tuple(random.randrange(15_000, 150_000) for _ in range(plan.nodes)),
    )


def _poison(plan: Plan, random: Random) -> tuple[Fault, ...]:
    """Add records to some runs that end actors or hold them up. Drawn apart, as above."""
    if random.random() < 0.8:
        return ()
    return tuple(
        Fault(
            round(random.uniform(0.1, 0.8) * plan.seconds * 1000, 3),
            "poison",
            f"primary of shard {random.randrange(plan.shards)}",
            around_grace(plan, random),
            random.choice((0.0, 1.0, 2.0)),
        )
        for _ in range(random.choice((1, 1, 2)))
    )


def _renewals(plan: Plan, random: Random) -> tuple[Fault, ...]:
    """Have processes of some runs replace their links, one after the other. Drawn apart, as above."""
    if random.random() < 0.85:
        return ()
    begun = random.uniform(0.0, 0.8) * plan.seconds * 1000
    count = random.choice((1, 2, 6))
    at_ms = [round(begun + random.uniform(0, 500), 3) for _ in range(count)]
    return tuple(
        Fault(at, "renew links", some_actor(plan, random, random.randrange(plan.shards))) for at in at_ms
    )


def _rates(random: Random, nodes: int) -> tuple[int, ...]:
    """Return clock rates that differ by less than the tenth that the grace allows for."""
    if random.random() < 0.7:
        return ()
    return tuple(random.randrange(960_000, 1_040_000) for _ in range(nodes))


def _actions(plan: Plan, random: Random) -> tuple[Action, ...]:
    busy = random.random() < 0.2
    count = random.randrange(300, 500) if busy else random.randrange(60, 160)
    # Busy callers ask again at once, over about a second in the middle of the run.
    think_ms = plan.callers * 1000 / count if busy else plan.seconds * 1000 * plan.callers / count
    waits = set(range(plan.callers)) if busy else set()
    short_lived = random.random() < 0.25
    actions = []
    for _ in range(count):
        caller = random.randrange(plan.callers)
        think = random.expovariate(1 / think_ms)
        if caller in waits:
            waits.discard(caller)
            think += plan.seconds * 250
        actions.append(
            Action(
                caller=caller,
                think_ms=round(think, 3),
                kind=random.choices(ACTION_KINDS, _WEIGHTS)[0],
                session=random.randrange(plan.sessions),
                older=random.random() < 0.15,
                cancel_ms=round(random.uniform(0.1, 1000), 1) if random.random() < 0.05 else 0.0,
                lifetime_ms=random.randrange(100, 4000) if short_lived and random.random() < 0.4 else 0,
            )
        )
    return tuple(actions)


# --- faults ----------------------------------------------------------------------------------------------


def _faults(plan: Plan, random: Random) -> tuple[Fault, ...]:
    faults: list[Fault] = []
    for _ in range(random.choice((1, 1, 2, 2, 3))):
        theme = random.choice(_THEMES)
        if theme is _CLOCKS and random.random() < 0.3 and not faults:
            # By itself: whoever starts while an older copy is in use could be told of decisions that were
            # taken before. That is the operator's mistake, and not to be healed by any coordinator.
            return _restore(plan, random)
        begin = random.uniform(0, plan.seconds * 700)
        spread = random.choice((5.0, 100.0, plan.grace_seconds * 1000, 2500.0))
        shard = random.randrange(plan.shards)
        if plan.shards > 8 and not faults:
            faults += _interrupted_joins(plan, random, begin, shard)
        for _ in range(random.choice((1, 1, 2, 3, 4))):
            at_ms = round(begin + random.uniform(0, spread), 3)
            faults.append(_fault(plan, random, random.choice(theme), at_ms, shard))
    return tuple(sorted(faults, key=lambda fault: fault.at_ms))


def _restore(plan: Plan, random: Random) -> tuple[Fault, ...]:
    """An older copy comes into use, somebody notices, and then an actor fails."""
    at_ms = random.uniform(0, plan.seconds * 500)
    seconds = 1.0 + plan.grace_seconds * random.uniform(0.5, 2.0)
    versions = random.randrange(1, 6)
    shard = random.randrange(plan.shards)
    kind = random.choice(("kill actor", "pause", "cut off", "kill actor for good"))
    target = ("node of " if kind == "cut off" else "") + some_actor(plan, random, shard)
    later_ms = round(at_ms + random.uniform(400, 900), 3)
    return (
        Fault(round(at_ms, 3), "restore coordinator", "coordinator", round(seconds, 4), versions),
        Fault(later_ms, kind, target, around_grace(plan, random)),
    )


def _interrupted_joins(plan: Plan, random: Random, at_ms: float, shard: int) -> list[Fault]:
    """Snapshots to a new node take long, and meanwhile a primary that sends some of them is deposed.

    Or the plan changes again, so that it gives up a join, and perhaps its place, with others still under way.
    """
    grace_ms = plan.grace_seconds * 1000
    seconds = plan.grace_seconds * random.uniform(3.0, 6.0)
    amount = grace_ms * random.uniform(0.3, 2.5)
    joined_ms = at_ms + plan.start_seconds[1] * 1000 + random.uniform(0, grace_ms)
    tight = random.random() < 0.5
    if tight:
        # Just so long that what was sent before a takeover is answered after it; connecting takes as long.
        amount = grace_ms * random.uniform(0.7, 1.2)
        seconds *= 2
        joined_ms = at_ms + plan.start_seconds[1] * 1000 + amount * random.uniform(1.5, 5.0)
    amount = round(amount, 3)
    primary, backup = f"primary of shard {shard}", f"backup of shard {shard}"
    faults = [
        Fault(round(at_ms, 3), "slow snapshots", f"node n{plan.nodes}", round(seconds, 4), amount),
        Fault(round(at_ms + 1, 3), "add node", "coordinator"),
    ]
    if random.random() < 0.5:
        amount = random.choice((1.0, 50.0, 500.0))
        again_ms = joined_ms + random.uniform(0, grace_ms * 2)
        faults += [
            Fault(round(joined_ms, 3), "slow disk", "coordinator", round(seconds, 4), amount),
            Fault(round(joined_ms, 3), "add node", "coordinator"),
            Fault(round(again_ms, 3), "add node", "coordinator"),
        ]
        if random.random() < 0.5:
            # Who has just handed the shard over is left alone with it, and cannot ask for it.
            later_ms = again_ms + random.uniform(0, grace_ms)
            faults += [
                Fault(round(later_ms, 3), "kill actor for good", primary, around_grace(plan, random)),
                Fault(round(later_ms, 3), "cut between", f"node of {backup}", seconds, other="coordinator"),
            ]
        return faults
    for other in ("coordinator", f"node of {backup}"):
        lasts = plan.grace_seconds * (random.uniform(1.15, 1.6) if tight else random.uniform(1.3, 2.0))
        faults.append(
            Fault(round(joined_ms, 3), "cut between", f"node of {primary}", round(lasts, 4), other=other)
        )
    later_ms = joined_ms + random.uniform(1.5, 3.0) * grace_ms
    if tight and random.random() < 0.5:
        # It comes back, is alone with the shard, cannot ask for it, and then hears of its former joins.
        lasts = round(plan.grace_seconds * random.uniform(3.0, 5.0), 4)
        faults += [
            Fault(round(joined_ms, 3), "read snapshots late", primary, lasts),
            Fault(round(later_ms, 3), "kill actor for good", primary, around_grace(plan, random)),
            Fault(round(later_ms, 3), "cut between", f"node of {backup}", lasts, other="coordinator"),
        ]
    elif random.random() < 0.5:
        faults.append(Fault(round(later_ms, 3), "pause", primary, around_grace(plan, random)))
    return faults


def some_actor(plan: Plan, random: Random, shard: int) -> str:
    """Return the name of a target, mostly of that shard."""
    if random.random() < 0.8:
        if random.random() < 0.2:
            shard = random.randrange(plan.shards)
        return random.choice(("primary of shard {}", "primary of shard {}", "backup of shard {}")).format(
            shard
        )
    return f"actor n{random.randrange(plan.nodes)}/{random.randrange(plan.actors)}"


def _machine(plan: Plan, random: Random, shard: int) -> str:
    if random.random() < 0.7:
        return "node of " + some_actor(plan, random, shard)
    return f"node n{random.randrange(plan.nodes)}"


def around_grace(plan: Plan, random: Random) -> float:
    """Around the grace, mostly."""
    return round(
        plan.grace_seconds * random.choice((0.3, 0.7, 0.9, 1.0, 1.1, 1.5, 2.5)) * random.uniform(0.8, 1.2), 4
    )


def _fault(plan: Plan, random: Random, kind: str, at_ms: float, shard: int) -> Fault:  # noqa: C901  a table
    actor, machine = some_actor(plan, random, shard), _machine(plan, random, shard)
    client = f"client {random.randrange(plan.clients)}"
    seconds = around_grace(plan, random)
    anyone = random.choice(
        (actor, actor, client, "coordinator", f"supervisor n{random.randrange(plan.nodes)}")
    )
    other = random.choice(
        ("coordinator", client, _machine(plan, random, shard), _machine(plan, random, shard))
    )
    if kind in _WAYS:
        return _way(plan, random, kind, at_ms, seconds, machine, other)
    match kind:
        case "kill actor" | "kill actor for good" | "pause mid-step":
            return Fault(at_ms, kind, actor, seconds)
        case "kill supervisor":
            return Fault(at_ms, kind, machine, seconds)
        case "crash node":
            return Fault(at_ms, kind, machine, max(seconds, 2.5))
        case "orphan a paused actor":
            return Fault(at_ms, kind, actor, seconds, random.choice((0.05, 0.3, seconds)))
        case "pause":
            return Fault(at_ms, kind, anyone, seconds)
        case "slow":
            return Fault(at_ms, kind, anyone, seconds, random.choice((1.0, 10.0, 100.0)))
        case "pause coordinator":
            return Fault(at_ms, "pause", "coordinator", seconds)
        case "pause client":
            return Fault(at_ms, "pause", client, seconds)
        case "kill client":
            return Fault(at_ms, kind, client, seconds)
        case "jump wall clock":
            return Fault(at_ms, kind, machine, amount=random.choice((-20.0, -2.0, -0.5, 0.5, 2.0, 20.0)))
        case "change clock rate":
            return Fault(at_ms, kind, machine, seconds, random.uniform(0.96, 1.04))
        case "reset connection" | "half-open connection" | "lose the answer":
            return Fault(at_ms, kind, anyone if kind != "lose the answer" else actor)
        case "read a connection late":
            return Fault(at_ms, kind, anyone, seconds, random.choice((0.0, 0.1, 0.5)))
        case "stale client":
            return Fault(at_ms, "stale map", client, seconds)
        case "reset client":
            return Fault(at_ms, "reset connection", client)
        case "crash coordinator at write":
            return Fault(at_ms, kind, "coordinator", seconds, random.choice((0.0, 1.0)))
        case "slow disk":
            return Fault(at_ms, kind, "coordinator", seconds, random.choice((50.0, 500.0, 2000.0)))
        case "lose coordinator answers":
            return Fault(at_ms, kind, "coordinator", seconds, random.choice((1.0, 3.0)))
        case "stale map":
            return Fault(at_ms, kind, random.choice((actor, machine, client)), seconds)
        case "add node" | "restart coordinator":
            return Fault(at_ms, kind, "coordinator", seconds)
        case _:
            return Fault(at_ms, kind, machine, seconds)


def _way(
    plan: Plan, random: Random, kind: str, at_ms: float, seconds: float, machine: str, other: str
) -> Fault:
    """Return a fault of the ways from and to a machine, all of them or those between it and another."""
    match kind:
        case "lose packets":
            return Fault(
                at_ms, kind, machine, seconds, random.choice((0.01, 0.1, 0.4)), random.choice(("", other))
            )
        case "delay packets" | "queue at sender":
            amount = random.choice((2.0, 20.0, 100.0, plan.lease_seconds * 1000))
            return Fault(at_ms, kind, machine, seconds, amount, random.choice(("", other)))
        case "thin line":
            amount = random.choice((2_000.0, 20_000.0, 200_000.0))
            return Fault(at_ms, kind, machine, seconds, amount, random.choice(("", other)))
        case "cut one way":
            return Fault(at_ms, kind, machine, seconds, random.choice((0.0, 1.0)), random.choice(("", other)))
        case "cut between":
            return Fault(at_ms, kind, machine, seconds, other=other)
        case "cut coordination":
            return Fault(at_ms, "cut between", machine, seconds, other="coordinator")
        case _:
            return Fault(at_ms, kind, machine, seconds, random.choice((20.0, 200.0, 500.0)), other)
