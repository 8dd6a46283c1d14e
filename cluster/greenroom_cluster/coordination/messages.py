"""The messages between the coordinator and the nodes, actors and operators that talk to it.

A connection opens with `wire.Hello` in both directions: role "peer" for nodes and actors, "operator" for the
commands that change something, "admin" for who only looks (`greenroom_cluster.access`). `wire.Subscribe` is
answered by `wire.MapFull` and then `wire.MapChange`s.

A coordinator whose map is older than one in use answers every request by `Rejected`, and `wire.Subscribe` and
`Heartbeat` by a `wire.Goodbye`. So it does on the connection of a peer whose map is of another cluster.
"""

from typing import Annotated, TypeAlias

import msgspec

from greenroom import wire
from greenroom.cluster_map import CLUSTER_IDENTITY_BYTES, ActorEntry, NodeEntry, SuspectRecord

# What nobody means honestly ends the connection where it is decoded; what an operator can mend is answered.
Incarnation: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Nonce: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=8, max_length=16)]
NodeName: TypeAlias = Annotated[str, msgspec.Meta(max_length=256)]
ShortText: TypeAlias = Annotated[str, msgspec.Meta(max_length=16)]

PROPOSALS_MAX = 4096
"""Of one message: decided, they fit into a frame."""

SUSPICIONS_MAX = 256
"""Of one message: an actor has one record in hand, and a node 256 actors at most."""

NAME_TAKEN = "name-taken"
"""Code of the `Rejected` that a supervisor gets whose node name belongs to another that is alive."""


class Proposal(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A compare-and-set on one shard's configuration.

    It applies if the shard's epoch is still `epoch`; the new one is `epoch + 1`. `nonce` makes it safe to
    send again: a proposal that applied already is answered so. `kind` is one of
    "start"     a shard without configuration, or whose members are all known dead, begins empty; proposed by
                the incarnation of its first wanted slot
    "takeover"  a backup makes itself the only member
    "remove", "add", "handover", "reaffirm"  proposed by the primary only
    """

    shard: int
    epoch: int
    nonce: Nonce
    kind: ShortText
    primary: Incarnation
    backups: Annotated[tuple[Incarnation, ...], msgspec.Meta(max_length=8)]


class Decision(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What became of the proposal with this nonce. The map that shows it was published before."""

    shard: int
    nonce: bytes
    applied: bool
    reason: str


class Propose(wire.Frame, frozen=True, tag=90):
    """Decide each of these on its own. `proposer` is the incarnation that asks.

    Answered by `Decided`, or by `Rejected` if the proposer is not the sender or has not subscribed.
    """

    request_id: int
    proposer: Incarnation
    proposals: Annotated[tuple[Proposal, ...], msgspec.Meta(max_length=PROPOSALS_MAX)]


class Decided(wire.Frame, frozen=True, tag=91):
    """Decisions in the order of the proposals; they are on disk."""

    request_id: int
    decisions: tuple[Decision, ...]


class RegisterNode(wire.Frame, frozen=True, tag=92):
    """A node's supervisor enters or changes its node. Answered by `Accepted` or `Rejected`."""

    request_id: int
    node: NodeEntry


class RegisterActor(wire.Frame, frozen=True, tag=93):
    """A supervisor enters a new incarnation. Answered by `Accepted` or `Rejected`."""

    request_id: int
    actor: ActorEntry


class Suspicion(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record of that shard on which an actor died or hangs, or which it has `passed` after all."""

    shard: int
    record: SuspectRecord
    passed: bool = False


class ReportDead(wire.Frame, frozen=True, tag=94):
    """These incarnations' exits were seen by their supervisor on their host.

    Answered by `Accepted`, or by `Rejected` if one of them is of another node than the sender's: then nothing
    of it was done. `suspicions` names the records that ended some of them.
    """

    request_id: int
    incarnations: Annotated[tuple[Incarnation, ...], msgspec.Meta(max_length=1 << 16)]
    suspicions: Annotated[tuple[Suspicion, ...], msgspec.Meta(max_length=SUSPICIONS_MAX)] = ()


class RemoveNode(wire.Frame, frozen=True, tag=95):
    """A node that has stopped for good leaves the map; only once nothing names its actors. `Accepted`."""

    request_id: int
    name: NodeName


class ForgetNode(wire.Frame, frozen=True, tag=96):
    """An operator's word that a node and all its actors are gone for good: their memory counts as lost.

    From a connection of role "operator" only.
    """

    request_id: int
    name: NodeName


class Heartbeat(wire.Frame, frozen=True, tag=97):
    """A supervisor is alive and reaches the coordinator.

    `lineage` and `version` are the newest it knows, `identity` is that of the cluster that it knows them of.

    `suspicions` names the records on which actors of the node hang, or hung. What is not repeated holds all
    the same: a supervisor that was restarted knows nothing of it.
    """

    node: NodeName
    lineage: int
    version: int
    suspicions: Annotated[tuple[Suspicion, ...], msgspec.Meta(max_length=SUSPICIONS_MAX)] = ()
    identity: Annotated[bytes, msgspec.Meta(max_length=CLUSTER_IDENTITY_BYTES)] = b""


class Accepted(wire.Frame, frozen=True, tag=98):
    """Done, and on disk."""

    request_id: int


class Rejected(wire.Frame, frozen=True, tag=99):
    """Not done; `reason` says why and what to do, `code` which of the reasons that peers act on, if any."""

    request_id: int
    reason: str
    code: str = ""


CoordinatorRequest: TypeAlias = (
    wire.Hello
    | wire.Subscribe
    | Propose
    | RegisterNode
    | RegisterActor
    | ReportDead
    | RemoveNode
    | ForgetNode
    | Heartbeat
)
CoordinatorReply: TypeAlias = (
    wire.Hello | wire.Goodbye | wire.MapFull | wire.MapChange | Decided | Accepted | Rejected
)
