"""What operators order at a coordinator: to forget a node, or to count its processes as dead."""

import os
from typing import TypeAlias

from greenroom import wire
from greenroom.errors import UsageError
from greenroom_cluster.coordination.messages import Accepted, DeclareDead, ForgetNode, Rejected
from greenroom_cluster.inspection import INSPECT_SECONDS
from greenroom_cluster.runtime.coordinator_link import CoordinatorLink, CoordinatorLinkSettings
from greenroom_cluster.runtime.tasks import open_tasks

Order: TypeAlias = type[ForgetNode] | type[DeclareDead]


async def forget_node_at(
    coordinator: str, cluster: str, name: str, seconds: float = INSPECT_SECONDS
) -> tuple[str, ...]:
    """Tell the coordinator that a node is gone for good; return what becomes of its shards, in lines.

    Raises UnavailableError if it cannot be reached, UsageError if it refuses, or is not the coordinator.
    """
    # The coordinators of earlier releases serve this command to peers.
    return await _order(ForgetNode, (wire.ROLE_OPERATOR, wire.ROLE_PEER), coordinator, cluster, name, seconds)


async def declare_dead_at(
    coordinator: str, cluster: str, name: str, seconds: float = INSPECT_SECONDS
) -> tuple[str, ...]:
    """Tell the coordinator that no process of a node runs; return and raise as `forget_node_at` does."""
    return await _order(DeclareDead, (wire.ROLE_OPERATOR,), coordinator, cluster, name, seconds)


async def _order(
    order: Order, roles: tuple[str, ...], coordinator: str, cluster: str, name: str, seconds: float
) -> tuple[str, ...]:
    # Only a coordinator serves operators that name no actor, so a node or actor at this address is
    # recognized.
    refused = ""
    for role in roles:
        refused, reply = await _order_as(order, role, coordinator, cluster, name, seconds)
        if isinstance(reply, Rejected):
            raise UsageError(reply.reason)
        if not refused:
            return () if reply is None else reply.told
    raise UsageError(refused)


async def _order_as(
    order: Order, role: str, coordinator: str, cluster: str, name: str, seconds: float
) -> tuple[str, Accepted | Rejected | None]:
    """Return why this role is not served there, or else the coordinator's reply."""
    settings = CoordinatorLinkSettings(coordinator, cluster, os.urandom(16), role)
    refusals: list[str] = []
    reply = None
    async with open_tasks() as nursery:

        def refused(reason: str) -> None:
            refusals.append(reason)
            nursery.cancel_scope.cancel()

        link = CoordinatorLink(settings, on_refused=refused)
        nursery.start_soon(link.run)
        reply = await link.call(lambda number: order(number, name), seconds)
        nursery.cancel_scope.cancel()
    return (refusals[0] if refusals else ""), reply
