"""Stories in which clients that keep sessions read and change few of them, made for mutants of that.

They run under many seeds, which decide about everything that the story leaves open.
"""

from collections.abc import Callable, Iterable

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


def _late(ms: float, kind: str) -> list[Fault]:
    return _every(ms, lambda number, at: Fault(at - 2, kind, f"client {(number + 1) % 3}", 0.34))


_HEARD_LATE = ("stale map", "read a connection late", "read a connection late")


TAKEN_OVER = _story(
    [
        *_every(350, lambda number, at: Fault(at, "kill actor", f"primary of shard {number % 2}")),
        *_every(350, lambda number, at: Fault(at - 1, "pause", f"client {number % 3}", 0.1)),
        *_late(350, "stale map"),
        *_late(350, "read a connection late"),
        *_late(351, "read a connection late"),
        Fault(50.0, "delay packets", "client 0", 3.0, 60.0),
    ],
    start_seconds=(0.05, 0.1),
)
"""Primaries are killed one after the other, of which clients hear late."""

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
