"""What can happen to the core. Every input reaches it through `Host.step(now_ns, wall_us, input)`.

`now_ns` is CLOCK_BOOTTIME, sampled after the bytes that caused the input were received. `wall_us` is UTC.
"""

from typing import TypeAlias

import msgspec

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.messages import Decision
from greenroom_cluster.shard.clients.operations import Request
from greenroom_cluster.shard.messages import PeerReply, PeerRequest


class Input(msgspec.Struct, frozen=True, gc=False):
    """Base of every input."""


class ClientRequests(Input, frozen=True, gc=False):
    """Requests of one client connection, in the order received. `client` is the dialog id of its hello.

    `identity` is charged for what they cost, see `fairness`. `namespace` is that of who has proven to be
    there, empty for `default`.
    """

    connection: int
    client: bytes
    requests: list[Request]
    identity: str = ""
    namespace: str = ""


class ConnectionClosed(Input, frozen=True, gc=False):
    """A client connection is gone; send nothing more there."""

    connection: int


class PeerMessages(Input, frozen=True, gc=False):
    """Messages from the actor incarnation `peer`, in the order received."""

    peer: bytes
    messages: list[PeerRequest | PeerReply]


class LinkUp(Input, frozen=True, gc=False):
    """The connection (`bulk`: the snapshot connection) that this actor opened to `peer` is established.

    `features` are what both have, by their hellos.
    """

    peer: bytes
    bulk: bool
    features: frozenset[str] = frozenset(wire.FEATURES)


class LinkDown(Input, frozen=True, gc=False):
    """The connection that this actor opened to `peer` is gone; what was sent on it may be lost."""

    peer: bytes
    bulk: bool


class MapChanged(Input, frozen=True, gc=False):
    """The coordinator published this map."""

    map: ClusterMap


class Decisions(Input, frozen=True, gc=False):
    """The coordinator's replies to proposals of this actor."""

    decisions: tuple[Decision, ...]


class CoordinationUp(Input, frozen=True, gc=False):
    """The connection to the coordinator is up, perhaps again: open proposals must be sent again."""


class Synced(Input, frozen=True, gc=False):
    """What `Persist` gave up to this position is on stable storage.

    `mark` is the number of the newest batch there, `stored_bytes` what all batches take.
    """

    position: int
    mark: int
    stored_bytes: int


class DiskMeasured(Input, frozen=True, gc=False):
    """How much room the disk of the directory has left."""

    free_bytes: int


class MemoryMeasured(Input, frozen=True, gc=False):
    """How much memory this process takes: its resident size."""

    resident_bytes: int


class Tick(Input, frozen=True, gc=False):
    """Time passed; due when the clock reaches `Host.next_deadline()`."""


HostInput: TypeAlias = (
    ClientRequests
    | ConnectionClosed
    | PeerMessages
    | LinkUp
    | LinkDown
    | MapChanged
    | Decisions
    | CoordinationUp
    | MemoryMeasured
    | Synced
    | DiskMeasured
    | Tick
)
