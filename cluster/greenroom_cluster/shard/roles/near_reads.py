"""Reads of clients that keep what they are shown, and what falls due because of that."""

from greenroom import wire
from greenroom.near_messages import GetNear
from greenroom_cluster.shard.effects import ReplyToClient
from greenroom_cluster.shard.near.served import Near
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.roles.primary import Primary
from greenroom_cluster.shard.roles.replicas import Replicas


def read_near(
    resources: Resources,
    primary: Primary,
    now_ns: int,
    wall_us: int,
    origin: int,
    client: bytes,
    request: GetNear,
) -> None:
    """Answer a read with a session that is held for the connection if it may be, or else as any read."""
    lease_ns = resources.near.lease_ns
    stored = primary.table.sessions.get(request.digest) if lease_ns else None
    if stored is not None:
        near = primary.near
        if near is None:
            near = primary.near = primary.membership.near = _begin(resources, primary)
        time_us = primary.clock.read(now_ns, wall_us)
        held = near.answer(now_ns, time_us, origin, request, stored)
        if held is not None:
            resources.context.effects.append(ReplyToClient(origin, held))
            return
    primary.read(now_ns, wall_us, origin, client, wire.Get(request.request_id, request.point, request.digest))


def _begin(resources: Resources, primary: Primary) -> Near:
    # Peers are told with the next beacon, and nothing is held before they know.
    resources.context.near_ns = resources.near.lease_ns
    return Near(primary.replication, resources, lambda: primary.paused, primary.reply, primary.read)


def attend_all(replicas: Replicas, now_ns: int, wall_us: int) -> None:
    """Do what is due now because of what clients may show."""
    for shard in replicas.resources.near.due(now_ns):
        replica = replicas.get(shard)
        primary = None if replica is None else replica.primary
        if primary is not None:
            if primary.near is not None:
                primary.near.attend(now_ns, wall_us)
            primary.manage(now_ns, wall_us)
