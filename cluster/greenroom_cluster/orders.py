"""What operators order at a coordinator: to forget a node."""

import os

from greenroom import wire
from greenroom.errors import UsageError
from greenroom_cluster.coordination.messages import ForgetNode, Rejected
from greenroom_cluster.inspection import INSPECT_SECONDS
from greenroom_cluster.runtime.coordinator_link import CoordinatorLink, CoordinatorLinkSettings
from greenroom_cluster.runtime.tasks import open_tasks


async def forget_node_at(coordinator: str, cluster: str, name: str, seconds: float = INSPECT_SECONDS) -> None:
    """Tell the coordinator that a node is gone for good.

    Raises UnavailableError if it cannot be reached, UsageError if it refuses, or is not the coordinator.
    """
    # Only a coordinator serves operators that name no actor, so a node or actor at this address is
    # recognized. The coordinators of earlier releases serve this command to peers.
    for role in (wire.ROLE_OPERATOR, wire.ROLE_PEER):
        refused, rejected = await _forget_as(role, coordinator, cluster, name, seconds)
        if rejected:
            raise UsageError(rejected)
        if not refused:
            return
    raise UsageError(refused)


async def _forget_as(role: str, coordinator: str, cluster: str, name: str, seconds: float) -> tuple[str, str]:
    """Return why this role is not served there, and why the coordinator refused; ("", "") on success."""
    settings = CoordinatorLinkSettings(coordinator, cluster, os.urandom(16), role)
    refusals: list[str] = []
    rejected = ""
    async with open_tasks() as nursery:

        def refused(reason: str) -> None:
            refusals.append(reason)
            nursery.cancel_scope.cancel()

        link = CoordinatorLink(settings, on_refused=refused)
        nursery.start_soon(link.run)
        reply = await link.call(lambda number: ForgetNode(number, name), seconds)
        if isinstance(reply, Rejected):
            rejected = reply.reason
        nursery.cancel_scope.cancel()
    return (refusals[0] if refusals else ""), rejected
