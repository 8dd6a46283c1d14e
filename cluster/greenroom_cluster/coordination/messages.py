"""The messages between the coordinator and the nodes, actors and operators that talk to it.

A connection opens with `wire.Hello` in both directions: role "peer" for nodes and actors, "operator" for
commands that change something, "admin" for reading (`greenroom_cluster.access`). `wire.Subscribe` is
answered by `wire.MapFull` and then `wire.MapChange`s.

A coordinator whose map is older than one in use answers every request by `Rejected`, and `wire.Subscribe` and
`Heartbeat` by a `wire.Goodbye`. It does the same on the connection of a peer whose map is of another cluster.
"""

from typing import Annotated, TypeAlias

import msgspec

from greenroom import wire
from greenroom.cluster_map import CLUSTER_IDENTITY_BYTES, SHARDS_MAX, ActorEntry, NodeEntry, SuspectRecord

# What no honest peer sends ends the connection at decoding. What an operator can correct gets a reply.
Incarnation: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Mark: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
"""How far a directory has come, by the number of its newest synced batch."""
Nonce: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=8, max_length=16)]
NodeName: TypeAlias = Annotated[str, msgspec.Meta(max_length=256)]
ShortText: TypeAlias = Annotated[str, msgspec.Meta(max_length=16)]

PROPOSALS_MAX = 4096
"""Per message: their decisions fit into a frame."""

SUSPICIONS_MAX = 256
"""Per message: an actor applies one record at a time, and a node has at most 256 actors."""

MARKS_MAX = 1 << 14
"""Per message: a node's actors, and those of its that have ended."""

SHOWN_MAX = 512
"""Shards per message of what a directory knows."""

ETCD_AWAY = "etcd-away"
"""The code of the `Goodbye` of a coordinator that leads no more because etcd does not answer."""

OLDER_MAP = "older-map"
"""The code of the `Goodbye` of a coordinator whose map is older than one already in use, or may be."""
RESIGNED = "resigned"
"""The code of the `Goodbye` of a coordinator that leads no more for another reason."""

SHOW_DIRECTORY = "show-directory"
"""The code of the `Goodbye` by which a coordinator without a map asks what directories know."""

DIRECTORY_OLDER = "older-directory"
"""The code of the `Rejected` to a supervisor whose actor runs in an older copy of its directory."""

NAME_TAKEN = "name-taken"
"""The code of the `Rejected` to a supervisor whose node name belongs to another one that is alive."""


class Proposal(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A compare-and-set on one shard's configuration.

    It applies if the shard's epoch is still `epoch`, and makes it `epoch + 1`. `nonce` makes it safe to
    repeat: the reply says that it has applied already. `kind` is one of
    "start"     a shard without configuration, or whose members are all known dead and kept nothing on disk,
                starts empty; proposed by the incarnation in its first wanted slot
    "takeover"  a backup makes itself the only member
    "recover"   of a shard whose members are all known dead, an heir of one makes itself the only member with
                what its directory holds; there is no reply before every heir has proposed it
    "remove", "add", "handover", "reaffirm"  proposed by the primary only

    `last` is what a "recover" claims to hold: epoch and number of its last record. `marks` says how far the
    directories of the proposer and of members have come that this makes count; once it is decided, older
    copies of them do not.
    """

    shard: int
    epoch: int
    nonce: Nonce
    kind: ShortText
    primary: Incarnation
    backups: Annotated[tuple[Incarnation, ...], msgspec.Meta(max_length=8)]
    last: tuple[int, int] = (0, 0)
    marks: Annotated[tuple[tuple[Incarnation, int], ...], msgspec.Meta(max_length=8)] = ()


class Decision(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The outcome of the proposal with this nonce. The map that shows it was published before."""

    shard: int
    nonce: bytes
    applied: bool
    reason: str


class Propose(wire.Frame, frozen=True, tag=90):
    """Decide each of these on its own. `proposer` is the incarnation that sends them.

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
    """A node's supervisor registers or changes its node. Answered by `Accepted` or `Rejected`."""

    request_id: int
    node: NodeEntry


class RegisterActor(wire.Frame, frozen=True, tag=93):
    """A supervisor registers a new incarnation. Answered by `Accepted` or `Rejected`."""

    request_id: int
    actor: ActorEntry


class Suspicion(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record of that shard on which an actor died or hangs, or which it has `passed` after all."""

    shard: int
    record: SuspectRecord
    passed: bool = False


class ReportDead(wire.Frame, frozen=True, tag=94):
    """These incarnations' exits were seen by their supervisor on their host.

    Answered by `Accepted`, or by `Rejected`, without any effect, if one of them belongs to another node than
    the sender's. `suspicions` names the records that ended some of them, `marks` says how far the directories
    of some had come at the end.
    """

    request_id: int
    incarnations: Annotated[tuple[Incarnation, ...], msgspec.Meta(max_length=1 << 16)]
    suspicions: Annotated[tuple[Suspicion, ...], msgspec.Meta(max_length=SUSPICIONS_MAX)] = ()
    marks: Annotated[tuple[tuple[Incarnation, Mark], ...], msgspec.Meta(max_length=MARKS_MAX)] = ()


class RemoveNode(wire.Frame, frozen=True, tag=95):
    """Remove a node that has stopped for good, once no shard names its actors. Answered like the others."""

    request_id: int
    name: NodeName


class ForgetNode(wire.Frame, frozen=True, tag=96):
    """An operator's word that a node and all its actors are gone for good: their memory counts as lost.

    From a connection of role "operator" only.
    """

    request_id: int
    name: NodeName


class DeclareDead(wire.Frame, frozen=True, tag=100):
    """An operator's word that no process of a silent node runs any more; its directories may come back.

    From a connection of role "operator" only.
    """

    request_id: int
    name: NodeName


class Heartbeat(wire.Frame, frozen=True, tag=97):
    """A supervisor is alive and reaches the coordinator.

    `lineage` and `version` are those of the newest map that it knows, `identity` that of the map's cluster.

    `suspicions` names the records on which actors of the node hang, or hung. A suspicion that is not repeated
    still holds, because a restarted supervisor does not know it. `marks` says of running actors how far their
    directories have come; it is in some heartbeats only.
    """

    node: NodeName
    lineage: int
    version: int
    suspicions: Annotated[tuple[Suspicion, ...], msgspec.Meta(max_length=SUSPICIONS_MAX)] = ()
    identity: Annotated[bytes, msgspec.Meta(max_length=CLUSTER_IDENTITY_BYTES)] = b""
    marks: Annotated[tuple[tuple[Incarnation, Mark], ...], msgspec.Meta(max_length=MARKS_MAX)] = ()


class KnownShard(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The newest configuration of a shard that a directory knows; as it was decided, with the members' slots.

    `proposed` are members, with their slots, of changes proposed from there that may have been decided.
    """

    shard: Annotated[int, msgspec.Meta(ge=0, lt=SHARDS_MAX)]
    lineage: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
    version: Annotated[int, msgspec.Meta(ge=1, le=1 << 62)]
    epoch: Annotated[int, msgspec.Meta(ge=1, lt=1 << 23)]
    nonce: Annotated[bytes, msgspec.Meta(max_length=16)]
    members: Annotated[tuple[tuple[Incarnation, NodeName], ...], msgspec.Meta(min_length=1, max_length=9)]
    proposed: Annotated[tuple[tuple[Incarnation, NodeName], ...], msgspec.Meta(max_length=64)] = ()


class ShowDirectory(wire.Frame, frozen=True, tag=101):
    """What the directory of an actor knows of configurations, before the actor has got any map.

    Sent once a coordinator has asked for it (`SHOW_DIRECTORY`), in front of the `wire.Subscribe` that it
    belongs to, in parts of which all but the last have `more`. `openers` are incarnations of the slot that
    wrote to the directory, `shards` is how many the cluster has, 0 if the directory does not know it. `held`
    are shards of which it has a copy and no configuration.
    """

    slot: NodeName
    directory: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    mark: Mark
    openers: Annotated[tuple[Incarnation, ...], msgspec.Meta(max_length=1 << 13)]
    identity: Annotated[bytes, msgspec.Meta(max_length=CLUSTER_IDENTITY_BYTES)]
    shards: Annotated[int, msgspec.Meta(ge=0, le=SHARDS_MAX)]
    known: Annotated[tuple[KnownShard, ...], msgspec.Meta(max_length=SHOWN_MAX)]
    held: Annotated[tuple[int, ...], msgspec.Meta(max_length=SHARDS_MAX)] = ()
    more: bool = False


class Accepted(wire.Frame, frozen=True, tag=98):
    """The request was carried out, and is on disk. `told` are lines for the operator who asked."""

    request_id: int
    told: tuple[str, ...] = ()


class Rejected(wire.Frame, frozen=True, tag=99):
    """Not carried out: `reason` says why and what to do, `code` is for reasons that peers act on."""

    request_id: int
    reason: str
    code: str = ""


Handled: TypeAlias = (
    wire.Subscribe
    | Propose
    | RegisterNode
    | RegisterActor
    | ReportDead
    | RemoveNode
    | ForgetNode
    | DeclareDead
    | Heartbeat
)
"""What the coordinator itself decides on; its server handles hellos."""
Received: TypeAlias = Handled | ShowDirectory
"""What comes to it; a directory is of interest only before there is a map."""
CoordinatorRequest: TypeAlias = wire.Hello | Handled
CoordinatorReply: TypeAlias = (
    wire.Hello | wire.Goodbye | wire.MapFull | wire.MapChange | Decided | Accepted | Rejected
)
