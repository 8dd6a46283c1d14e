"""coredis, unreplicated."""

import os
from collections.abc import Mapping

# Read when it is imported: without it every call checks its arguments at run time.
os.environ.setdefault("COREDIS_OPTIMIZED", "true")

import coredis
import coredis.cache

from benchmarks.contenders.key_value import KeyValueClient

CONNECTIONS_MAX = 1024  # a connection for every caller


class CoredisClient(KeyValueClient):
    """GET and SET over a pool."""

    packages = ("coredis",)

    def __init__(self, addresses: Mapping[str, str]) -> None:
        super().__init__(addresses)
        host, _, port = addresses["redis"].rpartition(":")
        pool = coredis.ConnectionPool(host=host, port=int(port), max_connections=CONNECTIONS_MAX)
        self._redis: coredis.Redis[bytes] = self._connected(pool)

    def _connected(self, pool: "coredis.ConnectionPool") -> "coredis.Redis[bytes]":
        return coredis.Redis(connection_pool=pool)

    async def close(self) -> None:
        """Disconnect."""
        self._redis.connection_pool.disconnect()

    async def read(self, key: str) -> bytes | None:
        """GET."""
        return await self._redis.get(key)

    async def write(self, key: str, value: bytes, lifetime_seconds: int) -> None:
        """SET with a time to live."""
        await self._redis.set(key, value, ex=lifetime_seconds)


class CoredisNearClient(CoredisClient):
    """GET from a cache in the process, which Redis invalidates (client-side caching by tracking)."""

    def _connected(self, pool: "coredis.ConnectionPool") -> "coredis.Redis[bytes]":
        cache = coredis.cache.TrackingCache(max_keys=100_000)
        return coredis.Redis(connection_pool=pool, cache=cache)
