"""What the batches on an actor's disk hold: entries about one shard each, in the order they came about.

The log is the only authority, and holds the snapshots of shards too: in chunks, among the other entries. A
snapshot counts from the entry `Based` that ends it; without one it is left over from a crash. A configuration
or a proposal is acted on once its entry is synced.
"""

from typing import TypeAlias

import msgspec

from greenroom_cluster.shard.state.ladder import Rung
from greenroom_cluster.shard.state.records import EncodedRecord, Record


class Logged(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """Records of a shard that follow each other. They void what was logged under their numbers and above."""

    shard: int
    records: tuple[Record, ...]


class Kept(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """`Logged` as it is read back: each record stays encoded until it is needed."""

    shard: int
    records: tuple[EncodedRecord, ...]


class Cut(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=2):
    """The records after a number are void: they are not those of the primary that this replica joins."""

    shard: int
    after: int


class Committed(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=3):
    """The records up to a number are committed: they will never be cut."""

    shard: int
    sequence: int


class Configured(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=4):
    """The configuration of a shard in which this actor is a member, as the cluster map told it.

    `cluster` is the identity of that map's cluster, of so many `shards`. `slots` are those of the members,
    "" where one is not known. `holder` is the member that wrote this.
    """

    shard: int
    lineage: int
    version: int
    epoch: int
    nonce: bytes
    primary: bytes
    backups: tuple[bytes, ...]
    cluster: bytes = b""
    holder: bytes = b""
    slots: tuple[str, ...] = ()
    shards: int = 0

    @property
    def members(self) -> tuple[bytes, ...]:
        """The incarnations that hold the shard."""
        return (self.primary, *self.backups)


class Proposed(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=5):
    """A change of the configuration that this actor proposes; it may be decided at any later time.

    `slots` are those of the members that it would make.
    """

    shard: int
    epoch: int
    nonce: bytes
    kind: str
    primary: bytes
    backups: tuple[bytes, ...]
    slots: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[bytes, ...]:
        """The incarnations that would hold the shard."""
        return (self.primary, *self.backups)

    @property
    def others(self) -> tuple[bytes, ...]:
        """Those of them whose directory may be another than this; who proposes is primary, or hands over."""
        return self.members if self.kind == "handover" else self.backups


class Chunk(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=8):
    """A part of a snapshot of a shard at `sequence`, numbered from 0. `body` is a `SnapshotChunk`, encoded.

    Number 0 begins a snapshot, and leaves the copy of the shard as it is. What comes of the shard from there
    on is for both.
    """

    shard: int
    sequence: int
    number: int
    body: bytes


class Based(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=6):
    """The copy of a shard is the snapshot that was begun last, at `sequence`, and what came since it began.

    All before is void. The snapshot has that many `chunks`; with none the copy begins empty. `ladder` is what
    the snapshot holds, by epoch.
    """

    shard: int
    sequence: int
    time_us: int
    ladder: tuple[Rung, ...]
    chunks: int = 0


class Left(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=7):
    """The copy of a shard was given up."""

    shard: int


Entry: TypeAlias = Logged | Cut | Committed | Configured | Proposed | Chunk | Based | Left
EntryRead: TypeAlias = Kept | Cut | Committed | Configured | Proposed | Chunk | Based | Left

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[EntryRead, ...])


def encode_entries(entries: tuple[Entry, ...]) -> bytes:
    """Return the body of a batch."""
    return _encoder.encode(entries)


def decode_entries(body: bytes) -> tuple[EntryRead, ...]:
    """Return the entries of a batch. Raises msgspec.MsgspecError if these are none.

    The records among them are views of `body`.
    """
    return _decoder.decode(body)
