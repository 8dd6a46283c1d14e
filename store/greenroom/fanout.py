"""What the replies to requests that concern many shards come to together. Pure."""

from collections.abc import Iterable

from greenroom import wire


def count_of(reply: wire.Counted) -> int:
    """Return how many sessions a command met, on all shards together."""
    return sum(count for _, count in reply.counts)


def newest_first(handles: Iterable[wire.SessionHandle], limit: int) -> list[wire.SessionHandle]:
    """Return the newest of these, at most `limit`.

    Each shard orders its own in the same way, so that the limit cuts off the oldest of all.
    """
    return sorted(handles, key=lambda each: (each.created_us, each.listed), reverse=True)[:limit]
