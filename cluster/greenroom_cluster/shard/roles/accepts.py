"""What each role accepts: the table that dispatches everything that reaches a replica.

Two places look it up: `deliver`, for messages from other actors and for what falls due with time, and
`clients.requests`, for requests. What a role does not accept is never acted on: it is ignored with a reason,
or the client is redirected. Handlers check epochs and senders, which do not depend on the role.
"""

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any, TypeAlias

from greenroom import wire
from greenroom_cluster.shard.effects import ReplyToClient
from greenroom_cluster.shard.fanout import Gather
from greenroom_cluster.shard.messages import SnapshotOk, SnapshotRefused
from greenroom_cluster.shard.roles.backup import (
    catch_up,
    receive_commit,
    receive_records,
)
from greenroom_cluster.shard.roles.joiner import take_chunk
from greenroom_cluster.shard.roles.primary import Primary
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.roles.replicas import Replicas
from greenroom_cluster.shard.roles.role import InputKind, Role
from greenroom_cluster.shard.roles.takeover import end_grace
from greenroom_cluster.shard.state.records import Within

Handler: TypeAlias = Callable[..., Any]
"""For a request: `(server, now_ns, wall_us, origin, client, request)`; the server is the primary, if there is
one, else the replica. For all else: `(replicas, replica, now_ns, wall_us, sender, message)`, which returns
whether the message was taken in."""


def _serve_part(
    primary: Primary, now_ns: int, wall_us: int, origin: Gather, client: bytes, request: wire.Fanout | Within
) -> None:
    """Serve this shard's part of a request to many."""
    if isinstance(request, wire.ListByUser):
        primary.read(now_ns, wall_us, origin, client, request)
    elif isinstance(request, Within):
        primary.submit_within(now_ns, wall_us, origin, client, request)
    else:
        primary.submit(now_ns, wall_us, origin, client, request)


def _reply_suspended(
    replica: Replica, now_ns: int, _wall_us: int, origin: int, client: bytes, request: Any
) -> None:
    context, suspension = replica.context, replica.suspension
    assert suspension is not None
    reply = suspension.reply_to(client, request, replica.table.clients, context.map_version)
    if now_ns < replica.quiet_until_ns and not isinstance(reply, wire.Redirect):
        # Clients may show what was before the change of which a kept reply tells.
        reply = wire.Overloaded(request.request_id, suspension.reason)
    context.effects.append(ReplyToClient(origin, reply))


def _advance(
    _replicas: Replicas, replica: Replica, now_ns: int, wall_us: int, _sender: bytes, _message: None
) -> bool:
    assert replica.primary is not None
    replica.primary.advance(now_ns, wall_us)
    return True


def _release(
    _replicas: Replicas, replica: Replica, now_ns: int, wall_us: int, _sender: bytes, _message: None
) -> bool:
    assert replica.primary is not None
    replica.primary.release(now_ns, wall_us)
    replica.primary.membership.on_lease(now_ns)
    return True


def _lose_backup(
    _replicas: Replicas, replica: Replica, now_ns: int, wall_us: int, _sender: bytes, _message: None
) -> bool:
    assert replica.primary is not None
    replica.primary.manage(now_ns, wall_us)
    return True


def _send_more(
    _replicas: Replicas, replica: Replica, now_ns: int, _wall_us: int, _sender: bytes, message: SnapshotOk
) -> bool:
    assert replica.primary is not None
    replica.primary.membership.on_chunk_ok(message, now_ns)
    return True


def _end_join(
    _replicas: Replicas,
    replica: Replica,
    now_ns: int,
    _wall_us: int,
    _sender: bytes,
    message: SnapshotRefused,
) -> bool:
    assert replica.primary is not None
    replica.primary.membership.on_join_refused(message, now_ns)
    return True


def _approach_suspect(
    _replicas: Replicas, replica: Replica, _now_ns: int, _wall_us: int, _sender: bytes, _message: None
) -> bool:
    replica.approach_suspect()
    return True


ACCEPTS: dict[Role, dict[InputKind, Handler]] = {
    # The first chunk of a snapshot makes a replica.
    Role.NONE: {InputKind.CHUNK: take_chunk},
    # The snapshot, and the log after it. A joiner never takes over: it may lack what was committed.
    Role.JOINING: {
        InputKind.CHUNK: take_chunk,
        InputKind.RECORDS: receive_records,
        InputKind.COMMIT: receive_commit,
        InputKind.CATCH_UP: catch_up,
    },
    # The log and the commit point. Only a backup may take over.
    Role.BACKUP: {
        InputKind.RECORDS: receive_records,
        InputKind.COMMIT: receive_commit,
        InputKind.CATCH_UP: catch_up,
        InputKind.GRACE_OVER: end_grace,
    },
    # It has proposed to take over, so it must no longer help the present configuration.
    Role.FENCED: {},
    # It took over from a primary that died or hung on a record, and waits for an operator.
    Role.SUSPENDED: {
        InputKind.READ: _reply_suspended,
        InputKind.WRITE: _reply_suspended,
        InputKind.CATCH_UP: _approach_suspect,
    },
    # Requests, and the replies of its recipients.
    Role.PRIMARY: {
        InputKind.READ: Primary.read,
        InputKind.WRITE: Primary.submit,
        InputKind.FANOUT: _serve_part,
        InputKind.ACKNOWLEDGEMENT: _advance,
        InputKind.LEASE: _release,
        InputKind.REFUSAL: _lose_backup,
        InputKind.CHUNK_ACKNOWLEDGEMENT: _send_more,
        InputKind.CHUNK_REFUSAL: _end_join,
        InputKind.CATCH_UP: _advance,
    },
    # It has proposed another primary, and any of its recipients may become it; requests are held.
    Role.HANDING_OVER: {
        InputKind.READ: Primary.read,
        InputKind.WRITE: Primary.submit,
        InputKind.FANOUT: _serve_part,
        InputKind.ACKNOWLEDGEMENT: _advance,
        InputKind.LEASE: _release,
        InputKind.REFUSAL: _lose_backup,
        InputKind.CATCH_UP: _advance,
    },
}


READS = {role: row.get(InputKind.READ) for role, row in ACCEPTS.items()}
WRITES = {role: row.get(InputKind.WRITE) for role, row in ACCEPTS.items()}
"""The columns that are looked up most."""

_NOTHING = repeat(None)


def deliver(
    replicas: Replicas,
    shards: Iterable[int],
    now_ns: int,
    wall_us: int,
    sender: bytes,
    kind: InputKind,
    messages: Iterable[Any] = _NOTHING,
) -> list[int]:
    """Hand one kind of input to the replicas of shards; return the shards that did not take it in."""
    accepts, by_shard, left = ACCEPTS, replicas.by_shard, []
    count = len(by_shard)
    for shard, message in zip(shards, messages, strict=False):
        replica = by_shard[shard] if 0 <= shard < count else None
        role = Role.NONE if replica is None else replica.role
        handler = accepts[role].get(kind)
        if handler is None:
            epoch = 0 if replica is None else replica.epoch
            replicas.resources.context.ignore(kind.value, f"not as {role.value}", shard, epoch)
            left.append(shard)
        elif not handler(replicas, replica, now_ns, wall_us, sender, message):
            left.append(shard)
    return left
