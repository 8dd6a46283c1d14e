"""Which messages each role may send to each kind of server: the one table of it.

A listener decodes what a connection says by the row of its role, so anything else ends that connection
unread. Roles that a server has no row for are refused in answer to their hello.

`client` is a store. `peer` is an actor or a node's supervisor. `admin` only looks. `operator` acts: a command
that changes something for good.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from greenroom import wire
from greenroom_cluster.coordination.messages import (
    ForgetNode,
    Heartbeat,
    Propose,
    RegisterActor,
    RegisterNode,
    RemoveNode,
    ReportDead,
)
from greenroom_cluster.shard.messages import PeerRequest

ActorRequest: TypeAlias = wire.Get | wire.Mutation | wire.Fanout
NodeReport: TypeAlias = Propose | RegisterNode | RegisterActor | ReportDead | RemoveNode | Heartbeat

AT_NODE: Mapping[str, Any] = {
    wire.ROLE_CLIENT: wire.Subscribe,
    wire.ROLE_ADMIN: wire.Subscribe,
}
AT_ACTOR: Mapping[str, Any] = {
    wire.ROLE_CLIENT: ActorRequest,
    wire.ROLE_ADMIN: wire.Inspect,
    wire.ROLE_OPERATOR: wire.DropRecord,
    wire.ROLE_PEER: PeerRequest,
}
AT_COORDINATOR: Mapping[str, Any] = {
    wire.ROLE_ADMIN: wire.Subscribe,
    wire.ROLE_OPERATOR: wire.Subscribe | ForgetNode,
    # ForgetNode only to be rejected in words: the command of former releases spoke as a peer.
    wire.ROLE_PEER: wire.Subscribe | NodeReport | ForgetNode,
}
