"""The messages between actors, on the connection from a primary's actor to its peer's.

One connection per ordered pair of actors carries everything except snapshots. Those have a connection of
their own (`bulk`), so that beacons never wait behind them. Replication is group commit: a `Prepare` carries
the records that wait on all shards of the pair. It is acknowledged as a whole; the acknowledgement lists the
entries that the receiver does not accept, by shard and epoch.
"""

from typing import Annotated, TypeAlias

import msgspec

from greenroom import wire
from greenroom.cluster_map import SHARDS_MAX
from greenroom_cluster.shard.state.ladder import RUNGS_MAX, Rung
from greenroom_cluster.shard.state.memory import UNLIMITED_BYTES
from greenroom_cluster.shard.state.records import ClientState, KeptReply, Record, StoredSession

PEER_FRAME_BYTES_MAX = 4 << 20

# An actor sends far fewer, see `HostSettings`; more would keep the receiver busy for too long.
_Refused: TypeAlias = Annotated[tuple[tuple[int, int], ...], msgspec.Meta(max_length=SHARDS_MAX)]
_Commit: TypeAlias = tuple[int, int, int, wire.TimeUs]
_Commits: TypeAlias = Annotated[tuple[_Commit, ...], msgspec.Meta(max_length=SHARDS_MAX)]
_Records: TypeAlias = Annotated[tuple[Record, ...], msgspec.Meta(max_length=4096)]
_Sessions: TypeAlias = Annotated[tuple[StoredSession, ...], msgspec.Meta(max_length=2048)]
_Clients: TypeAlias = Annotated[tuple[ClientState, ...], msgspec.Meta(max_length=16_384)]
_Replies: TypeAlias = Annotated[tuple[KeptReply, ...], msgspec.Meta(max_length=8192)]


_Rungs: TypeAlias = Annotated[tuple[Rung, ...], msgspec.Meta(max_length=RUNGS_MAX)]


class ShardRecords(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Consecutive records of one shard. `committed` is the primary's commit point.

    `shard_epoch` is the configuration under which the primary sends, which may be later than the epoch that
    a record was stamped with.
    """

    shard: int
    shard_epoch: int
    committed: int
    records: _Records


class Prepare(wire.Frame, frozen=True, tag=80):
    """Log these; answered by `PrepareOk` with the same batch number."""

    batch: int
    entries: Annotated[tuple[ShardRecords, ...], msgspec.Meta(max_length=SHARDS_MAX)]


class PrepareOk(wire.Frame, frozen=True, tag=81):
    """Everything in the batch is logged, except on the shards refused, given as (shard, epoch)."""

    batch: int
    refused: _Refused = ()


class Beacon(wire.Frame, frozen=True, tag=82):
    """Asks the peer to go on backing the sender. `sent_ns` is the sender's clock, returned untouched.

    `commits` holds (shard, epoch, commit point, shard time) where one of them moved since the last beacon.
    `refusals_seen` is the newest `BeaconOk.refusal` that the sender has taken in, `grant_seen` the newest
    `BeaconOk.grant` (-1: from a sender that knows of none). For `near_ns` clients may show what the sender
    has answered; the receiver waits for that before it shows anything newer, should it take over.
    """

    sent_ns: int
    refusals_seen: int
    commits: _Commits = ()
    grant_seen: int = -1
    near_ns: int = 0


class BeaconOk(wire.Frame, frozen=True, tag=83):
    """The peer backs the sender on every shard but those listed as (shard, epoch).

    `grant` numbers a grant: the sender may add `room_bytes` to the peer's memory, minus what the peer has not
    acknowledged yet; below 0 if the peer uses more than it may. Another `spare_bytes` are only for replies to
    commands that let no session grow. `share_bytes` is what the grant could become once others are renewed;
    while that is enough, the sender waits. Without these fields there is no bound. `disk_short`: the peer's
    disk is nearly full. `near_ns` is the longest that the peer was told.
    """

    sent_ns: int
    refusal: int
    refused: _Refused = ()
    grant: int = 0
    room_bytes: int = UNLIMITED_BYTES
    spare_bytes: int = 0
    share_bytes: int = 0
    disk_short: bool = False
    near_ns: int = 0


class SnapshotChunk(wire.Frame, frozen=True, tag=84):
    """A part of a shard's state at `sequence`, numbered from 0. Sent on the bulk connection.

    `shard_bytes` is about how much memory the whole takes, 0 if the sender does not say. `last_epoch` is the
    epoch of the record under `sequence`.

    With `continues`, in place of a snapshot: the joiner is to go on with the copy in its directory. The
    sender still has all records after that number, and its log has that ladder. `shard_bytes` is then what
    the shard takes with all that is logged up to `sequence`, and `missed_bytes` about how much of that came
    after the number in `continues`, -1 if the sender does not say.
    """

    shard: int
    epoch: int
    join: int
    sequence: int
    time_us: wire.TimeUs
    number: int
    last: bool
    sessions: _Sessions
    clients: _Clients
    replies: _Replies
    shard_bytes: int = 0
    last_epoch: int = 0
    continues: tuple[int, _Rungs] | None = None
    missed_bytes: int = -1


class SnapshotOk(wire.Frame, frozen=True, tag=85):
    """The joiner holds the snapshot up to this chunk; after the last one it is ready to be added.

    `mark` is how far its directory had come when the chunk was on stable storage, 0 if it has none.
    `sequence` is the record up to which it goes on with the copy in its directory, if it was offered that.
    """

    shard: int
    epoch: int
    join: int
    number: int
    mark: int = 0
    sequence: int = 0


class SnapshotRefused(wire.Frame, frozen=True, tag=86):
    """The joiner cannot take this snapshot: it is a member already, knows a later epoch, or is `full`.

    `waits`: it could, once peers give back the memory that they hold in reserve; or, if it was offered to go
    on with the copy in its directory, once its map names the sender.
    """

    shard: int
    epoch: int
    join: int
    reason: str
    full: bool = False
    waits: bool = False


PeerRequest: TypeAlias = Prepare | Beacon | SnapshotChunk
PeerReply: TypeAlias = PrepareOk | BeaconOk | SnapshotOk | SnapshotRefused
