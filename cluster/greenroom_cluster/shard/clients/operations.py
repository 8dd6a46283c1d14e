"""What operators say to an actor beside `wire.DropRecord`: copies of shards, a freeze, a user's end."""

from typing import Annotated, TypeAlias

import msgspec

from greenroom import wire
from greenroom.ending_messages import WatchRequest
from greenroom.identities import DEFAULT_NAMESPACE, NAME_CHARACTERS_MAX, NAME_PATTERN
from greenroom.near_messages import NearRequest
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

    def command(self) -> wire.DeleteByUser | Within:
        """Return what a client in that namespace would ask for, which is what the core knows."""
        asked = wire.DeleteByUser(self.request_id, self.request_id, 0, self.user_id, b"", self.shards)
        return asked if self.namespace == DEFAULT_NAMESPACE else Within(self.namespace, asked)


class ShardPart(wire.Frame, frozen=True, tag=50):
    """A part of a shard's sessions; `sequence` is the record after which they were copied."""

    request_id: int
    shard: int
    part: int
    last: bool
    epoch: int
    sequence: int
    sessions: tuple[StoredSession, ...]


Operation: TypeAlias = wire.DropRecord | CopyShard | Freeze | EndSessions
Request: TypeAlias = wire.Request | NearRequest | WatchRequest | Within | CopyShard | Freeze
"""All that an actor is asked, but by its peers."""
