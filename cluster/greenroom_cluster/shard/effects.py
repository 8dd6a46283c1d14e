"""What the core asks of its driver, which performs effects in the order in which they are returned."""

from typing import TypeAlias

import msgspec

from greenroom import wire
from greenroom.ending_messages import WatchReply
from greenroom.near_messages import EncodedNearReply
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.disk.entries import Entry
from greenroom_cluster.shard.clients.operations import ShardPart
from greenroom_cluster.shard.messages import PeerReply, PeerRequest


class Effect(msgspec.Struct, frozen=True, gc=False):
    """Base of every effect."""


class ReplyToClient(Effect, frozen=True, gc=False):
    """Reply to a request on that client connection; dropped if it is gone."""

    connection: int
    message: wire.EncodedReply | EncodedNearReply | WatchReply | ShardPart


class Send(Effect, frozen=True, gc=False):
    """Send to the peer on the connection that this actor opened to it (`bulk`: the snapshot connection).

    Dropped if that connection is down: the core hears `LinkUp` and sends again what still matters.
    """

    peer: bytes
    message: PeerRequest
    bulk: bool = False


class ReplyToPeer(Effect, frozen=True, gc=False):
    """Reply to a peer's request on the connection on which that peer sent it; dropped if it is gone."""

    peer: bytes
    message: PeerReply


class Connect(Effect, frozen=True, gc=False):
    """Keep a connection open to this peer until `Disconnect`, reopening it when it breaks."""

    peer: bytes
    address: str
    bulk: bool


class Disconnect(Effect, frozen=True, gc=False):
    """This peer is no longer needed."""

    peer: bytes
    bulk: bool


class Propose(Effect, frozen=True, gc=False):
    """Send this proposal to the coordinator; dropped if unreachable (see `CoordinationUp`)."""

    proposal: Proposal


class Persist(Effect, frozen=True, gc=False):
    """Append these to the log on disk; `Synced` says once they are stable. Positions rise by one.

    What follows in a step waits until they are written, where they survive the end of this process.
    `at_once`: others wait for the sync itself, in any mode.
    """

    position: int
    entries: tuple[Entry, ...]
    at_once: bool = True


class DropBefore(Effect, frozen=True, gc=False):
    """No batch of the log on disk before the one with this number is needed any longer."""

    mark: int


class Transition(Effect, frozen=True, gc=False):
    """A replica changed role, epoch or members: one structured log line."""

    shard: int
    epoch: int
    role: str
    reason: str


class Warned(Effect, frozen=True, gc=False):
    """Something an operator should know that is not a transition."""

    message: str
    shard: int = -1


class MemoryFull(Effect, frozen=True, gc=False):
    """Growth was refused because the actor in that slot has no memory left; not repeated for a while."""

    slot: str


class Ignored(Effect, frozen=True, gc=False):
    """An input, or a part of one, had no effect, and this is why. For tests, traces and counters."""

    what: str
    reason: str
    shard: int = -1
    epoch: int = 0


HostEffect: TypeAlias = (
    ReplyToClient
    | Send
    | ReplyToPeer
    | Connect
    | Disconnect
    | Propose
    | Persist
    | DropBefore
    | Transition
    | Warned
    | MemoryFull
    | Ignored
)
