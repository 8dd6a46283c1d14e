"""What operators say to an actor beside `wire.DropRecord`: copies of shards, a freeze, a user's sessions."""

from typing import Annotated, Any, TypeAlias

import msgspec

from greenroom import wire
from greenroom.ending_messages import WatchRequest
from greenroom.identities import DEFAULT_NAMESPACE, NAME_CHARACTERS_MAX, NAME_PATTERN
from greenroom.near_messages import NearRequest
from greenroom_cluster.shard.state.namespaces import enclosed
from greenroom_cluster.shard.state.records import StoredSession, Within


class CopyShard(wire.Frame, frozen=True, tag=23):
    """Read all sessions of a shard, as they stand at one moment, part by part.

    Part 0 begins a copy and ends another that is read on this connection; the next parts follow in order.
    Answered by `ShardPart`, by `Failed(NOT_FOUND)` if the shard's primary is not here or that part is not the
    next one, and by `Overloaded` if it is to be asked for again. A copy that is not read on for ten seconds
    ends.
    """

    request_id: int
    shard: int
    part: int


class Freeze(wire.Frame, frozen=True, tag=24):
    """Serve no client any more, for as long as this process lives.

    Answered by `Written(0)`. A copy that is begun later has all that was ever acknowledged: it waits until
    nothing is under way in the shard.
    """

    request_id: int


Namespace: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=rf"\A{NAME_PATTERN}\Z", max_length=NAME_CHARACTERS_MAX)
]


class EndSessions(wire.Frame, frozen=True, tag=25):
    """End all sessions of a user in a namespace, on these shards. Answered as `wire.DeleteByUser` is."""

    request_id: int
    namespace: Namespace
    user_id: wire.UserId
    shards: wire.Shards

    def command(self) -> Any:
        """Return what a client in that namespace would ask for, as the core takes it."""
        asked = wire.DeleteByUser(self.request_id, self.request_id, 0, self.user_id, b"", self.shards)
        return _within(self.namespace, asked)


class ListSessions(wire.Frame, frozen=True, tag=33):
    """List the sessions of a user in a namespace, on these shards. Answered as `wire.ListByUser` is."""

    request_id: int
    namespace: Namespace
    user_id: wire.UserId
    limit: int
    shards: wire.Shards

    def command(self) -> Any:
        """Return what a client in that namespace would ask for, as the core takes it."""
        asked = wire.ListByUser(self.request_id, self.user_id, self.limit, self.shards)
        return _within(self.namespace, asked)


class EndSession(wire.Frame, frozen=True, tag=34):
    """End the session of a user that a list names so. Answered as `wire.DeleteByHandle` is."""

    request_id: int
    namespace: Namespace
    user_id: wire.UserId
    point: int
    listed: wire.Digest

    def command(self) -> Any:
        """Return what a client in that namespace would ask for, as the core takes it."""
        asked = wire.DeleteByHandle(
            self.request_id, self.request_id, 0, self.point, self.listed, self.user_id
        )
        return _within(self.namespace, asked)


def _within(namespace: str, asked: Any) -> Any:
    return asked if namespace == DEFAULT_NAMESPACE else enclosed(asked, namespace)


class ShardPart(wire.Frame, frozen=True, tag=50):
    """A part of a shard's sessions; `sequence` is the record after which they were copied."""

    request_id: int
    shard: int
    part: int
    last: bool
    epoch: int
    sequence: int
    sessions: tuple[StoredSession, ...]


OfUser: TypeAlias = EndSessions | ListSessions | EndSession
"""What an operator says of a user's sessions."""

Operation: TypeAlias = wire.DropRecord | CopyShard | Freeze | OfUser
Request: TypeAlias = wire.Request | NearRequest | WatchRequest | Within | CopyShard | Freeze
"""All that an actor is asked, but by its peers."""
