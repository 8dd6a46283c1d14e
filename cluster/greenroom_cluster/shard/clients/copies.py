"""Copies of shards that operators read: the sessions as they stood when the copy began.

A copy holds on to the stored sessions of that moment, which are immutable, so it costs two references a
session, and what is replaced or ends meanwhile stays in memory until the copy is read or its connection
ends. So a few are given at a time, and one that is not read on ends. Only a primary gives one, and only
while it may answer reads.
"""

from collections.abc import Sequence

from greenroom import wire
from greenroom_cluster.shard.clients.operations import CopyShard, ShardPart
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.effects import ReplyToClient
from greenroom_cluster.shard.joining.snapshot import ENTRY_OVERHEAD_BYTES
from greenroom_cluster.shard.roles.primary import Primary
from greenroom_cluster.shard.roles.replicas import Replicas
from greenroom_cluster.shard.settings import ns
from greenroom_cluster.shard.state.records import StoredSession
from greenroom_cluster.shard.state.stored import decoded

COPY_IDLE_SECONDS = 10.0
"""A copy that is not read on for so long ends."""
COPIES_MAX = 8
"""How many copies one actor has being read at a time."""


class _Copy:
    """The sessions of one shard, frozen, and how far they were read."""

    __slots__ = ("digests", "epoch", "parts", "position", "read_ns", "sequence", "sessions", "shard")

    def __init__(self, primary: Primary, now_ns: int) -> None:
        sessions = primary.table.sessions
        self.shard = primary.shard
        self.epoch = primary.copy.epoch
        self.sequence = primary.copy.committed
        self.digests = list(sessions)
        self.sessions = list(sessions.values())
        self.position = 0
        self.parts = 0
        self.read_ns = now_ns

    def part(self, request_id: int, room: int) -> ShardPart:
        """Return the next part, of about `room` bytes."""
        taken: list[StoredSession] = []
        while self.position < len(self.sessions):
            stored = self.sessions[self.position]
            # Never two that are too large for a frame together.
            if taken and len(stored) > room:
                break
            taken.append(StoredSession(self.digests[self.position], decoded(stored)))
            self.position += 1
            room -= len(stored) + ENTRY_OVERHEAD_BYTES
        number, last = self.parts, self.position == len(self.sessions)
        self.parts += 1
        return ShardPart(request_id, self.shard, number, last, self.epoch, self.sequence, tuple(taken))


class ShardCopies:
    """The copies of one actor's shards, by the connection on which they are read."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._context: Context = replicas.resources.context
        self._step = replicas.resources.step
        self._copies: dict[int, _Copy] = {}
        self.frozen = False

    def freeze(self, request_id: int, connection: int) -> None:
        """Have no client served any more, and refuse those that wait."""
        if not self.frozen:
            self.frozen = True
            for primary in self._primaries():
                primary.refuse_held(FROZEN)
            # They lack what was written since, and the last copies need their place.
            self._copies.clear()
        self._reply(connection, wire.Written(request_id, 0))

    def read(self, now_ns: int, connection: int, request: CopyShard) -> None:
        """Reply with a part of a shard, or say why there is none."""
        request_id = request.request_id
        if self._step.copied:
            # Else a frame with hundreds of requests would take a step of many times this length.
            self._reply(connection, wire.Overloaded(request_id, "one part is read at a time"))
            return
        self._step.copied += 1
        if request.part == 0:
            self._copies.pop(connection, None)
            refusal = self._begin(now_ns, connection, request)
            if refusal is not None:
                self._reply(connection, refusal)
                return
        copy = self._copies.get(connection)
        if copy is None or (copy.shard, copy.parts) != (request.shard, request.part):
            detail = f"part {request.part} of shard {request.shard} is not the next one: begin the copy anew"
            self._reply(connection, wire.Failed(request_id, wire.FailureCode.NOT_FOUND, detail))
            return
        copy.read_ns = now_ns
        part = copy.part(request_id, self._context.settings.chunk_bytes)
        if part.last:
            del self._copies[connection]
        self._reply(connection, part)

    def end_idle(self, now_ns: int) -> None:
        """End the copies that are not read on."""
        since_ns = now_ns - ns(COPY_IDLE_SECONDS)
        for connection in [each for each, copy in self._copies.items() if copy.read_ns <= since_ns]:
            del self._copies[connection]

    def close(self, connection: int) -> None:
        """End the copy that was read on a connection; there need be none."""
        self._copies.pop(connection, None)

    def _begin(
        self, now_ns: int, connection: int, request: CopyShard
    ) -> wire.Failed | wire.Overloaded | None:
        replica = self._replicas.get(request.shard)
        primary = None if replica is None else replica.primary
        if primary is None:
            detail = f"this actor is not the primary of shard {request.shard}"
            return wire.Failed(request.request_id, wire.FailureCode.NOT_FOUND, detail)
        if len(self._copies) >= COPIES_MAX:
            return wire.Overloaded(request.request_id, f"{COPIES_MAX} copies are being read already")
        if primary.paused or not primary.leased(now_ns):
            return wire.Overloaded(request.request_id, "the shard is changing hands")
        if self.frozen and not primary.at_rest:
            return wire.Overloaded(request.request_id, "the last commands are still being applied")
        self._copies[connection] = _Copy(primary, now_ns)
        return None

    def _primaries(self) -> Sequence[Primary]:
        replicas = self._replicas.by_shard
        return [each.primary for each in replicas if each is not None and each.primary is not None]

    def _reply(self, connection: int, reply: wire.EncodedReply | ShardPart) -> None:
        self._context.effects.append(ReplyToClient(connection, reply))


FROZEN = "the cluster is being stopped"
