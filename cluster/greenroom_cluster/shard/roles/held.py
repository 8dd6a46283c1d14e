"""Requests that wait at a primary while its shard changes hands, or while it has no lease."""

from collections import deque
from collections.abc import Iterator
from typing import TypeAlias

from greenroom import wire
from greenroom.ending_messages import WatchSession
from greenroom_cluster.shard.limits.admission import Write
from greenroom_cluster.shard.near.barriers import Origin, Read
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.copy import Copy
from greenroom_cluster.shard.state.log import record_bytes
from greenroom_cluster.shard.state.records import Within

Asking: TypeAlias = Read | WatchSession
"""What is answered from applied state, under the leases."""
Request: TypeAlias = Asking | Write | Within
Entry: TypeAlias = tuple[Origin, bytes, Request]


class HeldRequests:
    """Those of one primary, none of which was logged. What they take is counted with the copy."""

    __slots__ = ("_copy", "_entries", "_settings")

    def __init__(self, copy: Copy, settings: HostSettings) -> None:
        self._copy = copy
        self._settings = settings
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def add(self, origin: Origin, client: bytes, request: Request) -> wire.Overloaded | None:
        """Have a request wait; return why not, if it cannot."""
        size = _size_of(request)
        if len(self._entries) >= self._settings.held_requests_max:
            return wire.Overloaded(request.request_id, "too many requests wait while the shard changes hands")
        if self._copy.held_bytes + size > self._settings.held_bytes_max:
            reason = "too many bytes of requests wait while the shard changes hands"
            return wire.Overloaded(request.request_id, reason)
        self._entries.append((origin, client, request))
        self._count(self._copy.held_bytes + size)
        return None

    def take(self) -> deque[Entry]:
        """Take them all out."""
        taken, self._entries = self._entries, deque()
        self._count(0)
        return taken

    def drop_connection(self, connection: int) -> None:
        """Forget those of a connection that is gone."""
        if self._entries:
            self._entries = deque(
                entry
                for entry in self._entries
                if (entry[0] if isinstance(entry[0], int) else entry[0].connection) != connection
            )
            self._count(sum(_size_of(request) for _, _, request in self._entries))

    def _count(self, held_bytes: int) -> None:
        self._copy.held_bytes = held_bytes
        self._copy.count()


def _size_of(request: Request) -> int:
    return 0 if isinstance(request, Asking) else record_bytes(request)
