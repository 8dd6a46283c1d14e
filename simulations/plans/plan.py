"""A run as data: the cluster, the calls of its clients, and the faults. A seed makes it.

A plan can be written down, run again, and shrunk: with fewer faults or fewer actions it is still a plan.
"""

import msgspec

ACTION_KINDS = (
    "get",
    "create",
    "update",
    "update_if",
    "patch",
    "patch_if",
    "delete",
    "rotate",
    "list",
    "delete_by_user",
    "delete_by_handle",
    "clean",
)

DURABILITIES = ("none", "interval", "fsync")


class Action(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call of a caller: after `think_ms`, on session number `session`.

    `older`: with an id that the session has been rotated away from, if there is one. `cancel_ms`: the caller
    gives up after so long (0: never). `lifetime_ms`: the session expires that soon (0: not in this run).
    """

    caller: int
    think_ms: float
    kind: str
    session: int
    older: bool = False
    cancel_ms: float = 0.0
    lifetime_ms: int = 0


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fault: of that kind, at that time after the cluster was ready, on what `target` selects.

    What `seconds`, `amount` and `other` (a second target) mean depends on the kind; see `faults`.
    """

    at_ms: float
    kind: str
    target: str = ""
    seconds: float = 0.0
    amount: float = 0.0
    other: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run. Times of the core's in seconds.

    `rates`: how fast the nodes' clocks run, in millionths; `walls_ms`: how far their wall clocks are off.

    `deadline_ms`: every fourth session has an absolute deadline, that long after the cluster was ready.
    `session_bytes`: what a session holds beside its values. `memory_bytes`: how much the actors of each node
    may hold, in turn (none: without a bound); then sessions are of up to twice `session_bytes`.
    `evicts`: every second session has no user, and may be evicted when memory is full.
    `tenants`: every second client is in a namespace of its own, with sessions under the same digests, users
    and points as the others have. The last `former_nodes` nodes are of a release that knows no namespaces,
    until the end. The namespace may have `quota_sessions` sessions of `quota_bytes` (0: any number).

    `tokens`: every second client shows a token instead of a certificate, and a thief has copied these.

    `zones`: the zone of each node, and of each client, in turn ("": it has none; no entry: none has).

    `near_sessions`: how many sessions each client keeps, in turn (0, no entry: none), with `near_eager` from
    the first read on; actors let it show them for `near_seconds`. `client_rates` are as `rates`.

    `watched`: how many sessions each client watches for their ends, in turn (0, no entry: none).

    `secret`: processes have no certificates and prove that they know one secret, which an intruder does not.

    `durability`: what the actors of each node keep on disk, in turn ("none", "interval" or "fsync"; no entry:
    none does). `sync_ms` is how long a sync of theirs takes, in the middle. Their logs are
    compacted from `log_bytes_min` on. `marks_seconds`: how often it is told how far they have come, and kept.
    `recover_alone_seconds`: how long shards wait for all directories (0: for as long as it takes).

    `coordinators`: how many run, on an etcd of three members (0: one, with a file). `coordinator_rates` and
    `etcd_rates`: how fast the clocks of their machines run.

    A story may demand more: no shard goes without an answer for `bound_seconds` (0: not judged); with
    `spares` no record ends two actors; and with `whole_at_end` every shard has all its replicas at the end of
    the safety phase, though faults still last.
    """

    seed: int
    nodes: int = 3
    actors: int = 1
    shards: int = 4
    replicas: int = 2
    clients: int = 2
    callers: int = 2
    sessions: int = 6
    seconds: float = 6.0
    latency_us: int = 200
    jitter_us: int = 300
    encoded: bool = False
    secret: bool = False
    tokens: bool = False
    fixed_ports: bool = False
    rates: tuple[int, ...] = ()
    walls_ms: tuple[int, ...] = ()
    deadline_seconds: float = 5.0
    beacon_seconds: float = 0.25
    lease_seconds: float = 1.0
    grace_seconds: float = 1.25
    repropose_seconds: float = 1.0
    chunk_bytes: int = 256 * 1024
    chunks_in_flight: int = 2
    prepares_in_flight: int = 4
    page_max: int = 256
    step_bytes: int = 64 * 1024
    disk_ms: float = 1.0
    start_seconds: tuple[float, float] = (0.3, 0.6)
    deadline_ms: int = 0
    session_bytes: int = 0
    memory_bytes: tuple[int, ...] = ()
    evicts: bool = False
    tenants: bool = False
    former_nodes: int = 0
    quota_sessions: int = 0
    quota_bytes: int = 0
    zones: tuple[str, ...] = ()
    near_sessions: tuple[int, ...] = ()
    near_eager: bool = False
    near_seconds: float = 0.0
    client_rates: tuple[int, ...] = ()
    watched: tuple[int, ...] = ()
    durability: tuple[str, ...] = ()
    interval_seconds: float = 1.0
    sync_ms: float = 1.0
    log_bytes_min: int = 64 << 20
    marks_seconds: float = 10.0
    recover_alone_seconds: float = 0.0
    coordinators: int = 0
    coordinator_rates: tuple[int, ...] = ()
    etcd_rates: tuple[int, ...] = ()
    bound_seconds: float = 0.0
    spares: bool = False
    whole_at_end: bool = False
    actions: tuple[Action, ...] = ()
    faults: tuple[Fault, ...] = ()
