"""What operators say to an actor beside `wire.DropRecord`: copies of shards, and a freeze."""

from typing import TypeAlias

from greenroom import wire
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


class ShardPart(wire.Frame, frozen=True, tag=50):
    """A part of a shard's sessions; `sequence` is the record after which they were copied."""

    request_id: int
    shard: int
    part: int
    last: bool
    epoch: int
    sequence: int
    sessions: tuple[StoredSession, ...]


Operation: TypeAlias = wire.DropRecord | CopyShard | Freeze
Request: TypeAlias = wire.Request | Within | CopyShard | Freeze
"""All that an actor is asked, but by its peers."""
