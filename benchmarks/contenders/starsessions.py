"""starsessions' Redis store with its own serializer, over redis-py."""

from collections.abc import Mapping
from typing import Any

from starsessions import JsonSerializer
from starsessions.stores.redis import RedisStore

from benchmarks.contenders.key_value import KeyValueClient
from benchmarks.contenders.redis_py import pooled

_serializer = JsonSerializer()


class StarsessionsClient(KeyValueClient):
    """The store as its middleware calls it."""

    packages = ("starsessions", "redis", "hiredis")

    def __init__(self, addresses: Mapping[str, str]) -> None:
        super().__init__(addresses)
        self._redis = pooled(addresses["redis"])
        self._store = RedisStore(connection=self._redis)

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose(close_connection_pool=True)

    def encode(self, data: dict[str, Any]) -> bytes:
        """Return JSON, as starsessions does by default."""
        return _serializer.serialize(data)

    def decode(self, value: bytes) -> dict[str, Any]:
        """Return the data of JSON."""
        return _serializer.deserialize(value)

    async def read(self, key: str) -> bytes | None:
        """Read."""
        return await self._store.read(key, lifetime=0) or None

    async def write(self, key: str, value: bytes, lifetime_seconds: int) -> None:
        """Write with a time to live."""
        await self._store.write(key, value, lifetime=lifetime_seconds, ttl=lifetime_seconds)
