"""Which requests wait while their identity is in debt (see `fairness`); all others go on at once."""

from collections.abc import Sequence

from greenroom import wire
from greenroom.ids import POINT_BITS
from greenroom_cluster.shard.clients.operations import Request
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.effects import ReplyToClient
from greenroom_cluster.shard.limits.fairness import COSTLY_BYTES, CostlyRequest, FairShare
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.state.log import record_bytes
from greenroom_cluster.shard.state.namespaces import bare
from greenroom_cluster.shard.state.records import Within

FANOUTS = frozenset({wire.DeleteByUser, wire.ListByUser, wire.Clean})
BRINGING = frozenset({wire.Create, wire.Update, wire.Patch, wire.Rotate})
"""Requests that bring data, which is read before they are taken."""

_REQUEST_BYTES = 1024
_SHARD_BYTES = 8


def hold_costly(
    context: Context,
    fair: FairShare,
    replicas: Sequence[Replica | None],
    connection: int,
    client: bytes,
    identity: str,
    requests: Sequence[Request],
) -> list[Request]:
    """Have the costly requests of an identity in debt wait; return the others."""
    cheap = []
    for request in requests:
        size = _size_if_costly(request, replicas)
        if not size:
            cheap.append(request)
            continue
        waiting = CostlyRequest(connection, client, identity, request, size)
        if not fair.wait(waiting):
            _refuse(context, waiting)
    return cheap


def put_off(
    context: Context,
    fair: FairShare,
    now_ns: int,
    connection: int,
    client: bytes,
    identity: str,
    request: wire.Create | wire.Update | wire.Patch | wire.Rotate | Within,
) -> None:
    """Have a request wait for a later step, because this one has read enough."""
    waiting = CostlyRequest(connection, client, identity, request, record_bytes(request))
    if not fair.put_off(now_ns, waiting):
        _refuse(context, waiting)


def _refuse(context: Context, waiting: CostlyRequest) -> None:
    reason = "too many costly requests of this host wait: ask for less at once, keep sessions small"
    request_id: int = waiting.request.request_id  # type: ignore[union-attr]  # what is costly has one
    context.effects.append(ReplyToClient(waiting.connection, wire.Overloaded(request_id, reason)))


def _size_if_costly(request: Request, replicas: Sequence[Replica | None]) -> int:
    """Return about how many bytes a costly request takes while it waits, 0 for a cheap one."""
    request = bare(request)
    match request:
        case wire.DeleteByUser() | wire.ListByUser() | wire.Clean():
            return _REQUEST_BYTES + _SHARD_BYTES * len(request.shards)
        case wire.Create() | wire.Update() | wire.Patch() | wire.Rotate():
            size = record_bytes(request)
            opened = 0 if isinstance(request, wire.Create | wire.Update) else _opened(request, replicas)
            return size if size + opened >= COSTLY_BYTES else 0
        case _:
            return 0


def _opened(request: wire.Patch | wire.Rotate, replicas: Sequence[Replica | None]) -> int:
    shard = request.point * len(replicas) >> POINT_BITS
    replica = replicas[shard] if 0 <= shard < len(replicas) else None
    stored = None if replica is None else replica.table.sessions.get(request.digest)
    return 0 if stored is None else len(stored)
