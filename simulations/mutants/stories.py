"""Stories made for a mutant each, where what it takes is too rare for faults that strike at random.

They run under many seeds, which decide about everything that the story leaves open.
"""

import msgspec

from simulations.plans.plan import Action, Fault, Plan

WAKES_AMID_REJOINED = Plan(
    seed=0,
    replicas=3,
    shards=1,
    sessions=2,
    clients=2,
    callers=4,
    beacon_seconds=0.05,
    lease_seconds=0.2,
    grace_seconds=0.25,
    actions=tuple(
        Action(number % 4, 10.0 + number * 7 % 19, "create" if number < 4 else "update", number % 2)
        for number in range(1000)
    ),
    faults=(
        Fault(1000, "pause", "primary of shard 0", 1.0),
        Fault(1015, "pause", "client 0", 1.5),
        Fault(1015, "pause", "client 1", 1.5),
    ),
)
"""A primary stops with requests in its sockets; the others go on; nobody repeats those requests yet."""


HEARS_LATE = Plan(
    seed=0,
    shards=2,
    callers=2,
    sessions=8,
    seconds=7.1,
    latency_us=2000,
    jitter_us=2000,
    disk_ms=20.0,
    start_seconds=(0.05, 0.1),
    faults=(
        Fault(1676, "drain node", "node of primary of shard 1"),
        Fault(1679, "lose packets", "node of actor n2/0", 0.85, 0.4),
        Fault(2996, "half-open connection", "coordinator"),
        Fault(4234, "kill actor for good", "backup of shard 2", 1.97),
    ),
)
"""A node is drained while the coordinator's word to a joiner is lost, then the new primary dies."""


HANDS_OVER_BUSY = Plan(
    seed=0,
    shards=8,
    callers=16,
    sessions=32,
    seconds=4.0,
    latency_us=4000,
    jitter_us=6000,
    disk_ms=5.0,
    actions=tuple(
        Action(number % 16, 2.0 + number * 7 % 9, "create" if number < 32 else "update", number % 32)
        for number in range(3000)
    ),
    faults=(
        Fault(1000, "drain node", "node of primary of shard 0"),
        *(Fault(1300 + 150 * number, "kill actor", f"primary of shard {number % 8}") for number in range(14)),
    ),
)
"""A node is drained amid writes whose acknowledgements are slow, and primaries die while they settle in."""


READ_LATE = Plan(
    seed=0,
    nodes=2,
    shards=1,
    clients=1,
    callers=4,
    sessions=4,
    seconds=3.0,
    actions=tuple(
        Action(number % 4, 4.0 + number * 7 % 5, "create" if number < 4 else "patch", number % 4)
        for number in range(1200)
    ),
    faults=tuple(
        Fault(at_ms, "read a connection late", "primary of shard 0", 0.2, 0.1)
        for at_ms in (500, 1000, 1500, 2000, 2500)
    ),
)
"""A server leaves one of its connections unread, whose client is told that it broke and repeats on another.

What waited is read when the repeats have been answered, and the client has confirmed that it knows.
"""

LOGGED_THEN_DEPOSED = Plan(
    seed=0,
    nodes=2,
    shards=1,
    clients=1,
    callers=4,
    sessions=4,
    seconds=4.0,
    deadline_seconds=1.0,
    beacon_seconds=0.05,
    lease_seconds=0.2,
    grace_seconds=0.25,
    actions=tuple(
        Action(number % 4, 2.0 + number * 7 % 5, "create" if number < 4 else "update", number % 4)
        for number in range(1200)
    ),
    faults=(
        Fault(990, "cut clients", "node of backup of shard 0", 2.6),
        Fault(1000, "cut between", "node of primary of shard 0", 0.4, other="coordinator"),
        Fault(1000, "cut one way", "node of backup of shard 0", 2.5, other="node of primary of shard 0"),
        Fault(1006, "cut one way", "node of primary of shard 0", 2.5, other="node of backup of shard 0"),
    ),
)
"""A primary's last records reach its backup, which takes over; it hears of that, its client cannot follow."""

UNHEARD = Plan(
    seed=0,
    callers=4,
    clients=2,
    seconds=10.0,
    actions=tuple(
        Action(number % 4, 20.0 + number * 7 % 11, "create" if number < 6 else "update", number % 6)
        for number in range(2000)
    ),
    faults=(Fault(1000, "cut between", "node of primary of shard 0", 8.0, other="coordinator"),),
)
"""A primary loses the coordinator alone, for so long that their connections end; nothing else fails."""

LATE_TAKEOVER = Plan(
    seed=0,
    nodes=2,
    shards=1,
    clients=1,
    callers=4,
    sessions=4,
    seconds=4.0,
    beacon_seconds=0.05,
    lease_seconds=0.2,
    grace_seconds=0.25,
    actions=tuple(
        Action(number % 4, 5.0 + number * 7 % 5, "create" if number < 4 else "update", number % 4)
        for number in range(2000)
    ),
    faults=(
        Fault(1000, "cut between", "node of primary of shard 0", 0.8, other="node of backup of shard 0"),
        Fault(1000, "cut between", "node of primary of shard 0", 0.3, other="coordinator"),
        Fault(1000, "cut one way", "node of backup of shard 0", 2.0, other="coordinator"),
    ),
)
"""A backup's word that it takes over reaches the coordinator when it was removed and has joined again."""

FULL_BACKUP = Plan(
    seed=0,
    nodes=3,
    shards=8,
    clients=3,
    callers=12,
    sessions=96,
    session_bytes=3000,
    memory_bytes=(400_000, 120_000, 400_000),
    actions=tuple(
        Action(number % 12, 15.0 + number * 7 % 11, "create" if number < 192 else "update", number % 96)
        for number in range(2400)
    ),
)
"""An actor with less memory than its peers holds backups of both, while all of them fill."""

FULL_NEIGHBOURS = Plan(
    seed=0,
    nodes=3,
    shards=8,
    clients=3,
    callers=12,
    sessions=96,
    session_bytes=3000,
    seconds=9.0,
    memory_bytes=(150_000,),
    actions=tuple(
        Action(number % 12, 15.0 + number * 7 % 11, "create", number % 96) for number in range(600)
    ),
    faults=(Fault(3000, "kill actor for good", "primary of shard 0", 6.0),),
)
"""An actor is lost while all are full, so that what it held does not fit on the others."""

OUTGROWN = Plan(
    seed=0,
    nodes=2,
    shards=2,
    clients=3,
    callers=6,
    sessions=24,
    session_bytes=3000,
    seconds=6.0,
    memory_bytes=(400_000, 40_000),
    durability=("fsync",),
    sync_ms=0.2,
    actions=tuple(
        Action(number % 6, 15.0 + number * 7 % 11, "create" if number > 60 else "get", number % 24)
        for number in range(600)
    ),
    faults=(Fault(150, "crash node", "node n1", 1.5),),
)
"""An actor with less memory than the other comes back with its disk, to shards that have outgrown it."""

EVICTING = Plan(
    seed=0,
    nodes=3,
    shards=4,
    clients=3,
    callers=12,
    sessions=64,
    session_bytes=3000,
    memory_bytes=(120_000, 90_000, 120_000),
    evicts=True,
    page_max=4,
    actions=tuple(
        Action(
            number % 12,
            15.0 + number * 7 % 11,
            ("create", "get", "create", "update", "patch")[number % 5],
            number * 29 % 64,
        )
        for number in range(2400)
    ),
    faults=(
        Fault(1500, "kill actor", "primary of shard 0", 1.0),
        Fault(3000, "cut between", "node of primary of shard 1", 0.5, other="node of backup of shard 1"),
    ),
)
"""Sessions with and without a user are written until memory is full, and on; actors are lost meanwhile."""

SLOW_PEER = Plan(
    seed=0,
    shards=2,
    clients=2,
    callers=8,
    sessions=8,
    session_bytes=2048,
    seconds=8.0,
    bound_seconds=3.0,
    actions=tuple(
        Action(number % 8, 10.0 + number * 7 % 11, "create" if number < 8 else "update", number % 8)
        for number in range(4000)
    ),
    faults=(
        Fault(
            2000,
            "thin line",
            "node of primary of shard 0",
            10.0,
            500.0,
            "node of backup of shard 0",
        ),
    ),
)
"""Records to a backup take seconds on a thin line, while beacons pass them and get their answers."""

THIN_LINE = Plan(
    seed=0,
    nodes=2,
    shards=8,
    clients=2,
    callers=16,
    sessions=32,
    session_bytes=8192,
    seconds=14.0,
    bound_seconds=3.0,
    whole_at_end=True,
    start_seconds=(0.05, 0.1),
    actions=tuple(
        Action(number % 16, 40.0 + number * 7 % 11, "create" if number < 32 else "get", number % 32)
        for number in range(6000)
    ),
    faults=(
        Fault(1990, "thin line", "node of primary of shard 0", 30.0, 40_000.0, "node of backup of shard 0"),
        Fault(2000, "kill actor", "backup of shard 0"),
    ),
)
"""An actor starts again behind a thin line, and needs the snapshots of all shards at once."""

_BUSY = tuple(
    Action(number % 4, 10.0 + number * 7 % 5, "create" if number < 4 else "update", number % 4)
    for number in range(2000)
)

LOST_WITH_SUPERVISORS = Plan(
    seed=0,
    nodes=2,
    shards=1,
    callers=4,
    sessions=4,
    actions=_BUSY,
    faults=(
        Fault(1000, "kill supervisor", "supervisor of primary of shard 0", 0.3),
        Fault(1000, "kill supervisor", "supervisor of backup of shard 0", 0.3),
    ),
)
"""A shard loses all its members with those who would have seen them end."""

RESTORED = Plan(
    seed=0,
    nodes=2,
    shards=1,
    callers=4,
    sessions=4,
    actions=_BUSY,
    faults=(
        Fault(1000, "cut between", "node of backup of shard 0", 1.6, other="node of primary of shard 0"),
        Fault(1000, "cut between", "node of backup of shard 0", 1.45, other="coordinator"),
        Fault(2400, "cut between", "node of primary of shard 0", 2.0, other="coordinator"),
        Fault(2405, "restore coordinator", "coordinator", 2.5, 1.0),
    ),
)
"""A backup is removed and does not hear of it. It is the first to be heard by a coordinator restored from a
copy that names it, for its primary, which goes on alone, is cut off from that.
"""

RESTORED_RESTARTED = msgspec.structs.replace(
    RESTORED,
    faults=(
        *RESTORED.faults[:3],
        Fault(2405, "restore coordinator", "coordinator", 3.5, 1.0),
        Fault(2550, "restart coordinator", "coordinator", 0.05),
    ),
)
"""The same, but the coordinator is restarted on the copy before anybody was heard."""

RESTORED_LONG = msgspec.structs.replace(
    RESTORED,
    seconds=14.0,
    faults=(
        *RESTORED.faults[:2],
        Fault(2400, "cut between", "node of primary of shard 0", 5.0, other="coordinator"),
        Fault(2405, "restore coordinator", "coordinator", 9.0, 1.0),
    ),
)
"""The same, but the copy stays in use until all are connected, under versions that it has counted on."""

JUMPED_BACK = msgspec.structs.replace(
    RESTORED_LONG,
    seconds=18.0,
    faults=(*RESTORED_LONG.faults, Fault(11000, "jump wall clock", "coordinator", amount=-20.0)),
)
"""The same, but the newest directory is put back under a clock that went back meanwhile.

So the versions that the copy has given out are beyond those of the newest map, and one actor alone has them.
"""

UNANSWERED = Plan(
    seed=0,
    nodes=2,
    shards=1,
    callers=4,
    sessions=4,
    seconds=10.0,
    actions=_BUSY,
    faults=(
        Fault(1000, "cut between", "node of primary of shard 0", 7.0, other="coordinator"),
        Fault(1050, "kill actor", "primary of shard 0"),
    ),
)
"""What a supervisor says is lost on a way that is cut: its connection ends, then its calls' time is over."""

_BUSY_FOR_LONG = _BUSY + _BUSY[4:]

UNPROVEN = Plan(
    seed=0,
    nodes=3,
    shards=1,
    callers=4,
    sessions=4,
    seconds=10.0,
    bound_seconds=3.0,
    actions=_BUSY_FOR_LONG,
    faults=(
        Fault(1500, "restart coordinator", "coordinator", 0.05),
        Fault(1500, "crash node", "node of primary of shard 0", 8.0),
    ),
)
"""A primary's machine loses power while the coordinator is restarted; whoever waits to hear it waits long."""

BEHIND = Plan(
    seed=0,
    nodes=2,
    shards=1,
    callers=4,
    sessions=4,
    seconds=11.0,
    bound_seconds=3.0,
    actions=_BUSY_FOR_LONG,
    faults=(
        Fault(100, "add node", "coordinator"),
        Fault(1500, "crash node", "node n2", 20.0),
        Fault(2500, "restart coordinator", "coordinator", 0.05, 1.0),
        Fault(2900, "jump wall clock", "coordinator", amount=-20.0),
        Fault(3000, "restore coordinator", "coordinator", 20.0, 1.0),
        Fault(5000, "kill actor", "primary of shard 0"),
    ),
)
"""A restored coordinator whose clock went back is behind by its versions alone, and asks nodes for maps.

One of them has lost power, and nobody tells it so. Then a shard needs a decision.
"""


def _poisoned(*faults: Fault) -> Plan:
    """Return a story of one shard under load with these faults, in which no record may end two actors."""
    return Plan(
        seed=0,
        shards=1,
        clients=1,
        callers=4,
        sessions=4,
        seconds=8.0,
        spares=True,
        actions=tuple(
            Action(number % 4, 5.0 + number * 7 % 11, "create" if number < 4 else "patch", number % 4)
            for number in range(3000)
        ),
        faults=faults,
    )


CRASHES = _poisoned(Fault(1000, "poison", "primary of shard 0", amount=0.0))
"""A record crashes the actor that applies it; its clients go on asking until an operator has dropped it."""

HANGS = _poisoned(Fault(1000, "poison", "primary of shard 0", amount=1.0))
"""A record hangs the actor that applies it; another takes over before it is killed for that."""

SLOW = _poisoned(
    Fault(1000, "poison", "primary of shard 0", 4.0, 2.0),
    Fault(1100, "pause", "client 0", 4.3),
)
"""A primary spends four seconds over a record; another takes over meanwhile, as its client learns late."""

KILLED_AT_WORK = _poisoned(
    Fault(1000, "pause mid-step", "primary of shard 0", 5.0),
    Fault(1300, "kill actor", "primary of shard 0"),
)
"""A primary is stopped with a record in hand that is as good as any other, and killed."""


ANEW = Plan(
    seed=0,
    shards=2,
    clients=2,
    callers=4,
    sessions=4,
    seconds=12.0,
    actions=_BUSY,
    faults=(
        Fault(1000, "cut between", "node n0", 3.0, other="coordinator"),
        Fault(1010, "begin anew", "node n0", 6.0),
        Fault(2000, "kill actor", "actor n0/0"),
    ),
)
"""A cluster is created anew while a node of the former one is cut off from the coordinator: it comes to the
new one, and clients see both, until it is started again.
"""


STOLEN = Plan(
    seed=0,
    tokens=True,
    clients=2,
    callers=4,
    seconds=4.0,
    actions=tuple(
        Action(number % 4, 5.0 + number * 7 % 19, "create" if number < 6 else "update", number % 6)
        for number in range(600)
    ),
    faults=(
        Fault(800, "replace token", "client 1"),
        Fault(1500, "kill supervisor", "node n1", 1.0),
        Fault(2200, "replace token", "client 1"),
        Fault(2800, "pause", "primary of shard 0", 0.6),
    ),
)
"""An app shows a token, which a thief has copied, and gets others while processes end and stop."""


INTRUDED = Plan(
    seed=0,
    secret=True,
    clients=1,
    seconds=4.0,
    faults=(
        Fault(200, "kill supervisor", "node n0", 1.0),
        Fault(1800, "kill supervisor", "node n1", 1.0),
        Fault(3000, "kill supervisor", "node n2", 1.0),
    ),
)
"""Processes prove a secret to each other; an intruder, who does not know it, takes the ports of the dead."""
