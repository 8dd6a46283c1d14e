"""Litestar's Redis store with the serializer of its server-side sessions, over redis-py."""

from collections.abc import Mapping
from typing import Any

from litestar.serialization import decode_json, encode_json
from litestar.stores.redis import RedisStore

from benchmarks.contenders.key_value import KeyValueClient
from benchmarks.contenders.redis_py import pooled


class LitestarClient(KeyValueClient):
    """The store as its session backend calls it."""

    packages = ("litestar", "redis", "hiredis")

    def __init__(self, addresses: Mapping[str, str]) -> None:
        super().__init__(addresses)
        self._redis = pooled(addresses["redis"])
        self._store = RedisStore(self._redis)

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose(close_connection_pool=True)

    def encode(self, data: dict[str, Any]) -> bytes:
        """Return JSON, as Litestar's sessions do."""
        return encode_json(data)

    def decode(self, value: bytes) -> dict[str, Any]:
        """Return the data of JSON."""
        return decode_json(value, target_type=dict[str, Any])

    async def read(self, key: str) -> bytes | None:
        """Get."""
        return await self._store.get(key)

    async def write(self, key: str, value: bytes, lifetime_seconds: int) -> None:
        """Set with a time to live."""
        await self._store.set(key, value, expires_in=lifetime_seconds)
