"""How often stores were asked; of Redis by its own statistics."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from redis.asyncio import Redis


class Calls(msgspec.Struct, frozen=True):
    """How often a store was asked."""

    reads: int = 0
    writes: int = 0


async def no_calls() -> Calls:
    """Return the calls to a store that does not exist."""
    return Calls()


READING = frozenset({"get", "mget", "exists", "ttl", "pttl"})
WRITING = frozenset(
    {"set", "setex", "psetex", "getex", "getdel", "del", "unlink", "expire", "mset", "persist"}
)
_IGNORED = frozenset({"info", "client", "hello", "ping", "select", "config", "flushall", "auth", "command"})


def calls_of(statistics: Mapping[str, Mapping[str, Any]]) -> Calls:
    """Return the reads and writes in `INFO commandstats`. Raises ValueError for a command not known here."""
    reads = writes = 0
    for key, figures in statistics.items():
        name = key.removeprefix("cmdstat_").partition("|")[0]
        if name in READING:
            reads += figures["calls"]
        elif name in WRITING:
            writes += figures["calls"]
        elif name not in _IGNORED:
            raise ValueError(f"is {name} a read or a write? Say so in {__name__}")
    return Calls(reads, writes)


async def redis_calls(redis: "Redis") -> Calls:
    """Return what the server was asked so far."""
    return calls_of(await redis.info("commandstats"))
