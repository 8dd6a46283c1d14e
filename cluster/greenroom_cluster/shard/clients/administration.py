"""Requests of operators: show the replicas of an actor, and drop the record at which a shard is suspended."""

from greenroom import wire
from greenroom.namespace_use import NamespaceUse
from greenroom_cluster.quotas import told
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.effects import ReplyToClient
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.roles.replicas import Replicas
from greenroom_cluster.shard.state.quotas import Quotas


def administer(
    resources: Resources,
    replicas: Replicas,
    now_ns: int,
    wall_us: int,
    connection: int,
    request: wire.Inspect | wire.DropRecord,
) -> None:
    """Answer an operator's question, or do what it asks and confirm that, or say why not."""
    context, step = resources.context, resources.step
    if isinstance(request, wire.Inspect):
        if step.inspected is None:
            # Looked at once a step, however often it is asked for.
            held = tuple(replica.state(now_ns) for replica in replicas.by_shard if replica is not None)
            held += replicas.recovery.states(now_ns)
            step.inspected = held, _namespaces(resources, replicas, now_ns)
        shown, namespaces = step.inspected
        memory = resources.memory
        memory.count_all()
        message = wire.Inspection(
            request.request_id,
            context.incarnation,
            shown,
            used_bytes=memory.used_bytes,
            free_bytes=memory.unused_bytes,
            memory_bytes_max=context.settings.memory_bytes_max,
            evicted=resources.evictions.sessions,
            grantable_bytes=max(memory.free_bytes, 0),
            refusing=memory.refusing(now_ns),
            namespaces=namespaces,
            near=resources.near.use,
            watches=resources.watchers.use,
            excess_bytes=memory.excess_bytes,
            disk_short=context.incarnation in context.short,
        )
        context.effects.append(ReplyToClient(connection, message))
        return
    replica = replicas.get(request.shard)
    refusal = _refusal(context, replica, request)
    context.effects.append(ReplyToClient(connection, refusal or wire.Written(request.request_id, 0)))
    if refusal is None and replica is not None:
        replica.drop_record(now_ns, wall_us)
        step.inspected = None


def _namespaces(resources: Resources, replicas: Replicas, now_ns: int) -> tuple[NamespaceUse, ...]:
    """Return what namespaces have in the shards of which this actor is primary."""
    quotas = resources.quotas
    used = dict.fromkeys(("", *quotas.named), (0, 0))
    for replica in replicas.by_shard:
        if replica is None or replica.primary is None:
            continue
        for namespace in ("", *replica.table.usage.by_namespace):
            sessions, size = used.get(namespace, (0, 0))
            more = replica.table.used_by(namespace)
            used[namespace] = (sessions + more[0], size + more[1])
    return tuple(_use(quotas, namespace, *each, now_ns) for namespace, each in used.items())


def _use(quotas: Quotas, namespace: str, sessions: int, stored_bytes: int, now_ns: int) -> NamespaceUse:
    quota = quotas.of(namespace)
    most = (0, 0) if quota is None else (quota.sessions, quota.stored_bytes)
    return NamespaceUse(told(namespace), sessions, stored_bytes, *most, quotas.refuses(namespace, now_ns))


def _refusal(context: Context, replica: Replica | None, request: wire.DropRecord) -> wire.Failed | None:
    suspension = None if replica is None else replica.suspension
    if suspension is None:
        detail = f"shard {request.shard} is not suspended on this actor"
        return wire.Failed(request.request_id, wire.FailureCode.NOT_FOUND, detail)
    record = suspension.record
    if (record.epoch, record.sequence) != (request.epoch, request.sequence):
        detail = f"shard {request.shard} is suspended at record {record.epoch}/{record.sequence}"
        return wire.Failed(request.request_id, wire.FailureCode.NOT_FOUND, detail)
    if replica is not None and replica.committed < record.sequence - 1:
        detail = "the records before it are still being applied: try again"
        return wire.Failed(request.request_id, wire.FailureCode.CONFLICT, detail)
    former = None if context.map is None else context.map.actors.get(suspension.former)
    if former is not None and former.state != "dead":
        # It may wake up and acknowledge what would be dropped here.
        detail = f"{former.slot}, which hangs on this record, has not ended yet: try again once it has"
        return wire.Failed(request.request_id, wire.FailureCode.CONFLICT, detail)
    return None
