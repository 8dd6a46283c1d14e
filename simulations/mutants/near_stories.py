"""Stories in which clients that keep sessions read and change few of them, made for mutants of that.

They run under many seeds, which decide about everything that the story leaves open.
"""

from collections.abc import Callable, Iterable
from random import Random

from simulations.plans.plan import Action, Fault, Plan

_KINDS = (
    *("get", "get", "get", "update", "get", "create", "get", "get", "patch", "get", "get", "get") * 4,
    *(
        "delete",
        "create",
        "get",
        "update_if",
        "get",
        "delete_by_handle",
        "create",
        "get",
        "list",
        "get",
        "create",
    ),
    *("get", "patch_if", "get", "rotate", "create", "get", "get", "delete_by_user", "create", "get", "get"),
)
CALLERS = 12
CLIENTS = 3
SECONDS = 3.0


def _action(number: int) -> Action:
    """Return a call: half of the callers only read, each one session; the others do everything to all."""
    caller, think_ms = number % CALLERS, 3.0 + number * 7 % 31
    if number < CALLERS:
        return Action(caller, think_ms, "create", number % 3)
    if caller < CALLERS // 2:
        return Action(caller, think_ms, "get", caller % 2)
    return Action(caller, think_ms, _KINDS[number * 11 % len(_KINDS)], (number + number // CALLERS) % 3)


def _story(faults: Iterable[Fault], **changes: object) -> Plan:
    """Return a plan with busy callers of few sessions, under these faults."""
    plan = {
        "seed": 0,
        "nodes": 3,
        "shards": 2,
        "clients": CLIENTS,
        "callers": CALLERS,
        "sessions": 3,
        "seconds": SECONDS,
        "deadline_seconds": 1.0,
        "beacon_seconds": 0.1,
        "lease_seconds": 0.4,
        "grace_seconds": 0.5,
        "near_sessions": (100, 100, 1),
        "near_eager": True,
        "near_seconds": 0.3,
        "client_rates": (960_000, 1_000_000, 1_040_000),
        "actions": tuple(map(_action, range(1200))),
        "faults": tuple(sorted(faults, key=lambda fault: fault.at_ms)),
    }
    return Plan(**{**plan, **changes})  # type: ignore[arg-type]  # each field has a type of its own


def _every(ms: float, fault: Callable[[int, float], Fault]) -> list[Fault]:
    return [fault(number, 150.0 + number * ms) for number in range(int((SECONDS * 1000 - 300) / ms))]


STALLED = _story(
    [
        *_every(
            290, lambda number, at: Fault(at, "pause", f"client {number % 3}", (0.2, 0.33, 0.5)[number % 3])
        ),
        *_every(410, lambda number, at: Fault(at, "reset connection", f"client {number % 3}")),
        *_every(
            530,
            lambda number, at: Fault(
                at,
                "delay packets",
                f"node of primary of shard {number % 2}",
                0.3,
                150.0,
                f"client {number % 3}",
            ),
        ),
        *_every(470, lambda number, at: Fault(at, "slow", f"client {number % 3}", 0.2, 20.0)),
    ]
)
"""Clients stop, go on, lose connections and hear late."""


FAR_AWAY = _story(
    _every(410, lambda number, at: Fault(at, "reset connection", f"client {number % 3}")),
    latency_us=8000,
    jitter_us=8000,
    sessions=2,
    near_sessions=(100, 100, 1),
)
"""Clients are far away, so that much is under way at a time."""


HALF_OPEN = _story(
    [
        *_every(90, lambda number, at: Fault(at, "half-open connection", f"client {number % 3}")),
        *_every(70, lambda number, at: Fault(at, "half-open connection", f"primary of shard {number % 2}")),
    ],
    latency_us=2000,
    jitter_us=2000,
)
"""One side of a connection takes it for closed, the other does not."""


DELAYED = _story(
    [
        *(Fault(50.0, "delay packets", f"client {client}", 3.0, 40.0 + 20 * client) for client in range(2)),
        *_every(130, lambda _, at: Fault(at, "reset connection", "client 2")),
    ],
    shards=1,
)
"""The ways to two clients are slow all the time, and the third loses connections."""


_HEARD_LATE = ("stale map", "read a connection late", "read a connection late")


def _taken_over(every_ms: float, seconds: float, *, early_ms: float = 2.0, **changes: object) -> Plan:
    """Return a plan in which primaries are killed, of which each time one client hears that much later."""

    def late(ms: float, kind: str) -> list[Fault]:
        return _every(
            ms, lambda number, at: Fault(at - early_ms, kind, f"client {(number + 1) % 3}", seconds)
        )

    return _story(
        [
            *_every(every_ms, lambda number, at: Fault(at, "kill actor", f"primary of shard {number % 2}")),
            *_every(every_ms, lambda number, at: Fault(at - 1, "pause", f"client {number % 3}", 0.1)),
            *late(every_ms, "stale map"),
            *late(every_ms, "read a connection late"),
            *late(every_ms + 1, "read a connection late"),
            Fault(50.0, "delay packets", "client 0", 3.0, 60.0),
        ],
        start_seconds=(0.05, 0.1),
        **changes,
    )


TAKEN_OVER = _taken_over(350, 0.34)
"""Primaries are killed one after the other, of which clients hear late."""

WAITED = _taken_over(350, 0.4, early_ms=100.0)
"""As before, while changes wait for a client that hears nothing for a while."""

PASSED_ON = _taken_over(900, 0.65, near_seconds=0.6, lease_seconds=0.6, grace_seconds=0.75)
"""As before, with leases so long that a primary that was started anew may get its shard back meanwhile."""

MOVED = _story(
    [
        *_every(400, lambda _, at: Fault(at, "add node", "coordinator")),
        *_every(
            650, lambda number, at: Fault(at, "drain node", f"node of primary of shard {number % 2}", 0.5)
        ),
        *_every(
            370, lambda number, at: Fault(at, "pause", f"client {number % 3}", (0.1, 0.25, 0.4)[number % 3])
        ),
        *_every(
            430,
            lambda number, at: Fault(
                at,
                "cut between",
                f"node of primary of shard {number % 2}",
                0.25,
                other=f"client {number % 3}",
            ),
        ),
    ],
    start_seconds=(0.05, 0.1),
)
"""Shards are handed over while clients stop, or cannot be reached."""

CUT_OFF = _story(
    [
        *_every(
            800,
            lambda _, at: Fault(
                at + 2, "cut between", "node of primary of shard 0", 0.75, other="coordinator"
            ),
        ),
        *_every(
            800,
            lambda _, at: Fault(
                at + 1,
                "cut between",
                "node of primary of shard 0",
                0.75,
                other="node of backup of shard 0",
            ),
        ),
        *_every(800, lambda _, at: Fault(at, "stale map", "client 0", 0.79)),
        *_every(800, lambda _, at: Fault(at, "stale map", "client 1", 0.79)),
    ],
    near_seconds=0.4,
    shards=1,
)
"""Primaries lose their backups, and the coordinator, but not their clients, of whom two have an old map."""

BACK_FROM_DISK = _story(
    [
        *_every(700, lambda _, at: Fault(at, "kill shard", "primary of shard 0")),
        *_every(700, lambda _, at: Fault(at - 2, "stale map", "client 0", 0.4)),
        *_every(700, lambda _, at: Fault(at - 2, "stale map", "client 1", 0.4)),
        *_every(700, lambda _, at: Fault(at - 2, "read a connection late", "client 0", 0.4)),
        *_every(700, lambda _, at: Fault(at - 1, "read a connection late", "client 0", 0.4)),
        *_every(700, lambda _, at: Fault(at - 2, "read a connection late", "client 1", 0.4)),
        *_every(700, lambda _, at: Fault(at - 1, "read a connection late", "client 1", 0.4)),
    ],
    nodes=2,
    shards=1,
    durability=("fsync",),
    start_seconds=(0.01, 0.02),
)
"""All members of a shard are killed and back from their disks at once; of that two clients hear late."""

KILLED_EARLY = _story(
    [
        Fault(60.0, "kill actor", "primary of shard 0"),
        *(Fault(55.0, kind, f"client {client}", 0.4) for kind in _HEARD_LATE for client in range(2)),
    ],
    shards=1,
    beacon_seconds=0.25,
    lease_seconds=1.0,
    grace_seconds=1.25,
    seconds=1.0,
)
"""A primary is killed soon after clients have begun to keep what it answers."""


def _crowded() -> tuple[Action, ...]:
    """Return calls of one client that reads at once, after its lease is over, and of others that write."""
    random = Random("crowded")
    actions = [Action(number % CALLERS, 2.0, "create", number % 6) for number in range(CALLERS)]
    for number in range(1200):
        caller, session = number % CALLERS, random.randrange(6)
        if caller % CLIENTS == 0:
            actions.append(Action(caller, 112.0, "get", session))
        else:
            kind = random.choice(("update", "patch", "get", "create"))
            actions.append(Action(caller, random.uniform(20.0, 90.0), kind, session))
    return tuple(actions)


CROWDED = _story(
    [],
    latency_us=3000,
    jitter_us=3000,
    sessions=6,
    near_seconds=0.1,
    near_sessions=(3,),
    actions=_crowded(),
)
"""A client keeps fewer sessions than it reads, so seldom that each time it has to ask for all of them."""

_CUT_MS = (500.0, 1900.0)
_APART = (1, 4, 9, 12, 17, 20)
"""Sessions of shards whose primary is cut off from their backup, but not from that of `_BESIDE`."""
_BESIDE = (2, 10, 18)


def _uneven() -> tuple[Action, ...]:
    """Return calls of one client that reads from a primary, and of another that writes after a takeover.

    Not before: the former primary would tell the holders of what it logs, though it cannot commit that.
    """
    actions = [Action(2 + CLIENTS * (each % 4), 1.0, "create", each) for each in (*_APART, *_BESIDE)]
    passed_ms = dict.fromkeys(range(CALLERS), 0.0)

    def at(caller: int, ms: float, kind: str, session: int) -> None:
        actions.append(Action(caller, max(0.5, ms - passed_ms[caller]), kind, session))
        passed_ms[caller] = ms

    for number, cut_ms in enumerate(_CUT_MS):
        for step in range(35):
            at(0, cut_ms - 150.0 + step * 10, "get", _BESIDE[step % 3])
        for caller, session in zip((3, 6, 9), _APART[number * 3 :], strict=False):
            at(caller, cut_ms + 205.0 + caller * 3, "get", session)
            at(2 + caller % 4 * CLIENTS, cut_ms + 450.0, "update", session)
    return tuple(actions)


UNEVEN = _story(
    [
        fault
        for at in _CUT_MS
        for fault in (
            Fault(at - 5, "stale map", "client 0", 0.85),
            Fault(at, "cut between", "node of primary of shard 1", 0.8, other="node of backup of shard 1"),
            Fault(at, "cut between", "node of primary of shard 1", 0.8, other="coordinator"),
        )
    ],
    shards=8,
    sessions=24,
    near_seconds=0.4,
    near_sessions=(100,),
    actions=_uneven(),
)
"""A primary loses one of its backups, and the coordinator, so that it is leased for some shards only."""

WOKEN = _story(
    [
        *(Fault(50.0, "delay packets", f"client {client}", 3.0, 50.0) for client in range(2)),
        *_every(900, lambda number, at: Fault(at, "pause", f"primary of shard {number % 2}", 0.75)),
        *_every(900, lambda _, at: Fault(at, "stale map", "client 2", 0.85)),
    ],
    deadline_seconds=0.3,
    near_sessions=(100, 100),
)
"""Primaries stop while holders are waited for, and go on when others serve in their place."""

REPEATED = _story(
    [
        *_every(60, lambda number, at: Fault(at, "lose the answer", f"primary of shard {number % 2}")),
        *_every(90, lambda number, at: Fault(at, "reset connection", f"client {number % 3}")),
    ],
    latency_us=2000,
    jitter_us=2000,
)
"""Answers are lost, so that clients repeat what they have asked for."""


def _read(sessions: int) -> tuple[Action, ...]:
    """Return calls of one client that reads all the time, and of others that write now and then."""
    random = Random("read")
    actions = [Action(number + 1, 2.0, "create", number) for number in range(sessions)]
    for number in range(4000):
        caller, session = number % CALLERS, random.randrange(sessions)
        if caller % CLIENTS == 0:
            actions.append(Action(caller, random.uniform(3.0, 15.0), "get", session))
        else:
            actions.append(
                Action(caller, random.uniform(100.0, 250.0), random.choice(("update", "patch")), session)
            )
    return tuple(actions)


SLOW_CLOCKS = _story(
    [
        *(Fault(300.0 + 20 * number, "reset connection", "client 0") for number in range(4)),
        Fault(420.0, "stale map", "client 0", 3.4),
        *(Fault(421.0 + number / 100, "read a connection late", "client 0", 3.4) for number in range(8)),
        Fault(425.0, "kill actor", "primary of shard 0"),
    ],
    shards=1,
    sessions=6,
    seconds=4.0,
    near_seconds=3.0,
    near_sessions=(100,),
    lease_seconds=3.0,
    grace_seconds=3.5,
    rates=(1_046_000,) * 3,
    client_rates=(957_000, 1_000_000, 1_000_000),
    actions=_read(6),
)
"""A primary is killed, of which a client with a slow clock hears late; those of the nodes are fast."""

FORKED = _story(
    [
        *_every(300, lambda number, at: Fault(at, "fork client", f"client {number % 2}", other="client 2")),
        *_every(310, lambda number, at: Fault(at, "reset connection", f"client {number % 3}")),
    ],
    near_sessions=(100, 100, 100),
)
"""The place of a client is taken by forks of others, again and again."""
