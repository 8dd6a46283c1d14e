"""What operators order at a coordinator: to forget a node, or to count its processes as dead."""

import os
from dataclasses import replace
from typing import TypeAlias

from greenroom import wire
from greenroom.errors import UsageError
from greenroom.tls.credentials import Credentials
from greenroom_cluster.coordination.messages import Accepted, DeclareDead, ForgetNode, Rejected
from greenroom_cluster.questions import INSPECT_SECONDS
from greenroom_cluster.runtime.coordinator_link import CoordinatorLink, CoordinatorLinkSettings
from greenroom_cluster.runtime.proving import Keys
from greenroom_cluster.runtime.tasks import open_tasks

Order: TypeAlias = type[ForgetNode] | type[DeclareDead]


async def forget_node_at(
    coordinator: str,
    cluster: str,
    name: str,
    seconds: float = INSPECT_SECONDS,
    *,
    credentials: Keys | None,
) -> tuple[str, ...]:
    """Tell the coordinator that a node is gone for good; return what becomes of its shards, in lines.

    Raises UnavailableError if it cannot be reached, UsageError if it refuses, or is not the coordinator.
    """
    # The coordinators of earlier releases serve this command to peers.
    roles = (
        (wire.ROLE_OPERATOR, wire.ROLE_PEER)
        if not isinstance(credentials, Credentials)
        else (wire.ROLE_OPERATOR,)
    )
    to = CoordinatorLinkSettings(coordinator, cluster, os.urandom(16), credentials=credentials)
    return await _order(ForgetNode, roles, to, name, seconds)


async def declare_dead_at(
    coordinator: str,
    cluster: str,
    name: str,
    seconds: float = INSPECT_SECONDS,
    *,
    credentials: Keys | None,
) -> tuple[str, ...]:
    """Tell the coordinator that no process of a node runs; return and raise as `forget_node_at` does."""
    to = CoordinatorLinkSettings(coordinator, cluster, os.urandom(16), credentials=credentials)
    return await _order(DeclareDead, (wire.ROLE_OPERATOR,), to, name, seconds)


async def _order(
    order: Order, roles: tuple[str, ...], to: CoordinatorLinkSettings, name: str, seconds: float
) -> tuple[str, ...]:
    # Only a coordinator serves operators that name no actor, so a node or actor at this address is
    # recognized.
    refused = ""
    for role in roles:
        refused, reply = await _order_as(order, replace(to, role=role), name, seconds)
        if isinstance(reply, Rejected):
            raise UsageError(reply.reason)
        if not refused:
            return () if reply is None else reply.told
    raise UsageError(refused)


async def _order_as(
    order: Order, to: CoordinatorLinkSettings, name: str, seconds: float
) -> tuple[str, Accepted | Rejected | None]:
    """Return why this role is not served there, or else the coordinator's reply."""
    refusals: list[str] = []
    reply = None
    async with open_tasks() as nursery:

        def refused(reason: str) -> None:
            refusals.append(reason)
            nursery.cancel_scope.cancel()

        link = CoordinatorLink(to, on_refused=refused)
        nursery.start_soon(link.run)
        reply = await link.call(lambda number: order(number, name), seconds)
        nursery.cancel_scope.cancel()
    return (refusals[0] if refusals else ""), reply
