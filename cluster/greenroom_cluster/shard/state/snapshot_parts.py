"""The parts of a snapshot on an actor's disk. Their sessions are encoded as a table keeps them."""

import msgspec

from greenroom import wire
from greenroom_cluster.shard.messages import SnapshotChunk
from greenroom_cluster.shard.state.records import ClientState, EncodedSession, KeptReply
from greenroom_cluster.shard.state.table import SessionTable


class Part(wire.Frame, frozen=True, tag=SnapshotChunk.__struct_config__.tag):
    """The beginning of a `SnapshotChunk`, as much of it as a table takes in."""

    shard: int
    epoch: int
    join: int
    sequence: int
    time_us: wire.TimeUs
    number: int
    last: bool
    sessions: tuple[EncodedSession, ...]
    clients: tuple[ClientState, ...]
    replies: tuple[KeptReply, ...]


_decode = msgspec.msgpack.Decoder(Part).decode


def take_in(table: SessionTable, body: bytes) -> bool:
    """Take in a part, encoded; return whether it is the last one.

    Raises InvariantError if it holds a session that is there already.
    """
    part = _decode(body)
    table.restore(part.sessions, part.time_us)
    table.clients.install(part.clients, part.replies)
    return part.last
