"""The table of messages that each role may send to each kind of server.

A listener decodes messages by the row of the connection's role, so any other message ends the connection
unread. A role without a row at a server is refused in the reply to its hello.

`client` is a store. `peer` is an actor or a node's supervisor. `admin` only reads.
`operator` makes a permanent change, by a command.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from greenroom import wire
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

ActorRequest: TypeAlias = wire.Get | wire.Mutation | wire.Fanout
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
