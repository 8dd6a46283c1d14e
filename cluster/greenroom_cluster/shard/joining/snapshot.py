"""Joining by snapshot: how a replica gets the state that the log then keeps up to date.

The sender freezes a view of the table (one list of references, because stored values are immutable) and sends
it in chunks on the bulk connection, a few in flight. The log goes on meanwhile: once the first chunk is
acknowledged, records after the snapshot's sequence follow on the ordinary connection.
"""

from collections.abc import Iterator

from greenroom.errors import InvariantError
from greenroom.ids import DIGEST_BYTES
from greenroom_cluster.shard.joining.transfer import Transfer
from greenroom_cluster.shard.messages import SnapshotChunk
from greenroom_cluster.shard.state.records import ClientState, KeptReply, StoredSession
from greenroom_cluster.shard.state.stored import decoded
from greenroom_cluster.shard.state.table import SessionTable

ENTRY_OVERHEAD_BYTES = 128
CLIENT_BYTES = 48


class SnapshotSender(Transfer):
    """One transfer of a shard's state. Chunks are made on demand.

    `last` is epoch and number of the newest record in it.
    """

    __slots__ = (
        "_chunk_bytes",
        "_clients",
        "_digests",
        "_identity",
        "_position",
        "_replies",
        "_sessions",
        "last",
    )

    def __init__(
        self,
        shard: int,
        epoch: int,
        join: int,
        last: tuple[int, int],
        table: SessionTable,
        chunk_bytes: int,
    ) -> None:
        super().__init__(join, table.settled_bytes, last[1])
        self.last = last
        self._identity = (shard, epoch, join)
        self._digests = list(table.sessions)
        self._sessions = list(table.sessions.values())
        self._clients: Iterator[ClientState] = iter(list(table.clients.states()))
        self._replies: list[KeptReply] = list(table.clients.replies())
        self._position = 0
        self._chunk_bytes = chunk_bytes

    @property
    def progress(self) -> tuple[int, int]:
        """How many of its sessions were sent, and how many there are."""
        return self._position, len(self._sessions)

    @property
    def named(self) -> bool:
        """Whether a session in it belongs to another namespace than `default`."""
        return any(len(key) > DIGEST_BYTES for key in self._digests)

    def chunk(self, time_us: int) -> SnapshotChunk:
        """Return the next chunk: sessions first, then clients, then their kept replies."""
        room = self._chunk_bytes
        sessions = []
        while room > 0 and self._position < len(self._sessions):
            stored = self._sessions[self._position]
            sessions.append(StoredSession(self._digests[self._position], decoded(stored)))
            self._position += 1
            room -= len(stored) + ENTRY_OVERHEAD_BYTES
        clients = []
        replies = []
        if self._position == len(self._sessions):
            while room > 0 and (client := next(self._clients, None)) is not None:
                clients.append(client)
                room -= CLIENT_BYTES
            while room > 0 and self._replies:
                kept = self._replies.pop()
                replies.append(kept)
                room -= len(getattr(kept.reply, "state", b"")) + ENTRY_OVERHEAD_BYTES
            self.finished = room > 0
        shard, epoch, join = self._identity
        last_epoch, sequence = self.last
        number = self.next_number
        self.next_number += 1
        return SnapshotChunk(
            shard,
            epoch,
            join,
            sequence,
            time_us,
            number,
            self.finished,
            tuple(sessions),
            tuple(clients),
            tuple(replies),
            self.shard_bytes,
            last_epoch,
        )


class SnapshotReceiver:
    """The joiner's side: takes chunks, in order, into a table that is not read before it is complete."""

    __slots__ = ("complete", "join", "last", "next_number", "table")

    def __init__(self, first: SnapshotChunk, table: SessionTable) -> None:
        self.join = first.join
        self.last = (first.last_epoch, first.sequence)
        self.table = table
        self.next_number = 0
        self.complete = False

    def take(self, chunk: SnapshotChunk) -> None:
        """Take in the next chunk; raises InvariantError if it is not the next one of this transfer."""
        if chunk.join != self.join or chunk.number != self.next_number or self.complete:
            raise InvariantError(f"chunk {chunk.number} of join {chunk.join} taken out of order")
        self.next_number += 1
        self.table.install(chunk.sessions, chunk.time_us)
        self.table.clients.install(chunk.clients, chunk.replies)
        self.complete = chunk.last
