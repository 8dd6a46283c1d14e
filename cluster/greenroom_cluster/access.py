"""The table of messages that each role may send to each kind of server.

A listener decodes messages by the row of the connection's role, so any other message ends the connection
unread. A role without a row at a server is refused in the reply to its hello.

`client` is a store. `peer` is an actor or a node's supervisor. `admin` only reads.
`operator` makes a permanent change, by a command. Which of these roles a certificate allows is said in
`greenroom_cluster.links.handshake`; a server may refuse some holders for all of them.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from greenroom import wire
from greenroom.ending_messages import WatchRequest
from greenroom.identities import Identity, IdentityRole
from greenroom.near_messages import NearRequest
from greenroom_cluster.coordination.messages import (
    DeclareDead,
    ForgetNode,
    Heartbeat,
    Propose,
    RegisterActor,
    RegisterNode,
    RemoveNode,
    ReportDead,
    ShowDirectory,
)
from greenroom_cluster.shard.clients.operations import Operation
from greenroom_cluster.shard.messages import PeerRequest

ActorRequest: TypeAlias = wire.Get | wire.Mutation | wire.Fanout | NearRequest | WatchRequest
NodeReport: TypeAlias = (
    Propose | RegisterNode | RegisterActor | ReportDead | RemoveNode | Heartbeat | ShowDirectory
)

AT_NODE: Mapping[str, Any] = {
    wire.ROLE_CLIENT: wire.Subscribe,
    wire.ROLE_ADMIN: wire.Subscribe,
}
AT_ACTOR: Mapping[str, Any] = {
    wire.ROLE_CLIENT: ActorRequest,
    wire.ROLE_ADMIN: wire.Inspect,
    wire.ROLE_OPERATOR: Operation,
    wire.ROLE_PEER: PeerRequest,
}
AT_COORDINATOR: Mapping[str, Any] = {
    wire.ROLE_ADMIN: wire.Subscribe,
    wire.ROLE_OPERATOR: wire.Subscribe | ForgetNode | DeclareDead,
    # ForgetNode only so that it can be rejected with a reason: earlier releases sent it as a peer.
    wire.ROLE_PEER: wire.Subscribe | NodeReport | ForgetNode,
}

ONLY_AT_NODES: frozenset[IdentityRole] = frozenset({"coordinator"})
"""Whom actors and the coordinator refuse: a coordinator reads the maps of nodes, and asks nobody else."""


def sees_processes(role: str, holder: Identity | None) -> bool:
    """Whether a subscriber is shown in the map by which processes actors run, and the nonces of proposals.

    `role` is that of its hello, `holder` who has proven to be there. Who only looks needs neither.
    """
    if role == wire.ROLE_CLIENT:
        return False
    return holder is None or holder.role != "observer"
