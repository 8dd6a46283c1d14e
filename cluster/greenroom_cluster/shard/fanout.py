"""Replies to requests that concern many shards: one request per actor, a reply per shard."""

from collections.abc import Iterable

from greenroom import wire
from greenroom.cluster_map import SHARDS_MAX
from greenroom.fanout import count_of, newest_first
from greenroom.fields import LIST_LIMIT_MAX
from greenroom.framing import FRAME_BYTES_MAX
from greenroom_cluster.shard.effects import HostEffect, ReplyToClient

_HANDLE_BYTES = 80
"""The most that an entry of a listing takes, without its label."""
_SESSIONS_BYTES_MAX = FRAME_BYTES_MAX - 3 * SHARDS_MAX - 64
"""The most that all entries of a listing may take: it fits into a frame, whatever shards it names."""


class Gather:
    """Collects the replies of this actor's shards to one fan-out request and replies once.

    A shard that cannot answer is left out, and the client asks for it again where the map points then.
    """

    __slots__ = ("_connection", "_counts", "_request", "_sessions", "_shards", "_waiting")

    def __init__(self, connection: int, request: wire.Fanout) -> None:
        self._connection = connection
        self._request = request
        # Starts at one, so that the reply waits for `seal`.
        self._waiting = 1
        self._counts: list[tuple[int, int]] = []
        self._shards: list[int] = []
        self._sessions: list[wire.SessionHandle] = []

    @property
    def connection(self) -> int:
        """Where the reply goes."""
        return self._connection

    def expect(self) -> None:
        """Wait for one more shard."""
        self._waiting += 1

    def seal(self, effects: list[HostEffect]) -> None:
        """No more shards are expected."""
        self._finish_one(effects)

    def add(self, shard: int, reply: wire.EncodedReply, effects: list[HostEffect]) -> None:
        """Take a shard's reply; anything but a count or a listing leaves the shard unanswered."""
        match reply:
            case wire.Counted():
                self._counts.append((shard, count_of(reply)))
            case wire.Listing():
                self._shards.append(shard)
                self._sessions.extend(reply.sessions)
            case _:
                pass
        self._finish_one(effects)

    def _finish_one(self, effects: list[HostEffect]) -> None:
        self._waiting -= 1
        if self._waiting:
            return
        request = self._request
        reply: wire.Listing | wire.Counted
        if isinstance(request, wire.ListByUser):
            limit = min(max(request.limit, 0), LIST_LIMIT_MAX)
            sessions = sendable(newest_first(self._sessions, limit))
            reply = wire.Listing(request.request_id, tuple(self._shards), sessions)
        else:
            reply = wire.Counted(request.request_id, tuple(self._counts))
        effects.append(ReplyToClient(self._connection, reply))


def sendable(handles: Iterable[wire.SessionHandle]) -> tuple[wire.SessionHandle, ...]:
    """Return the first of these entries, as many as fit into a frame.

    LIST_LIMIT_MAX of them fit if their labels are as short as admission demands. Older sessions may have
    labels four times as long.
    """
    room = _SESSIONS_BYTES_MAX
    fitting = []
    for handle in handles:
        label = handle.label
        room -= _HANDLE_BYTES + (len(label) if label.isascii() else len(label.encode()))
        if room < 0:
            break
        fitting.append(handle)
    return tuple(fitting)
