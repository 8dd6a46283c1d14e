"""redis-py under asyncio, with hiredis and its connection pool."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from benchmarks.contenders.base import NotReplicatedError
from benchmarks.contenders.key_value import KeyValueClient, seconds_until
from benchmarks.servers.redis_names import SENTINEL_NAME

# A connection for every caller: a pool that makes callers wait for one takes an eighth longer.
CONNECTIONS_MAX = 1024
WAIT_MILLISECONDS = 1000
_SOCKET_SECONDS = 2.0  # longer than a WAIT may take
# What fails is tried again for as long as ours does. Not by the client's own means: it tries to reach the
# server that it knew, again and again, before it asks Sentinel for the new one.
_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.02
_HANDSHAKES_SECONDS = 60.0
_Result = TypeVar("_Result")


def pooled(address: str) -> Redis:
    """Return a client of one server, at an address or a URL."""
    if "://" in address:
        # All callers shake hands at once, which takes a while where the processors are busy.
        pool = ConnectionPool.from_url(
            address, max_connections=CONNECTIONS_MAX, socket_connect_timeout=_HANDSHAKES_SECONDS
        )
        return Redis(connection_pool=pool)
    host, _, port = address.rpartition(":")
    return Redis(connection_pool=ConnectionPool(max_connections=CONNECTIONS_MAX, host=host, port=int(port)))


class RedisClient(KeyValueClient):
    """GET and SET, without waiting for a replica."""

    packages = ("redis", "hiredis")

    def __init__(self, addresses: Mapping[str, str]) -> None:
        super().__init__(addresses)
        self.redis = self._connected()

    def _connected(self) -> Redis:
        return pooled(self.addresses["redis"])

    async def close(self) -> None:
        """Disconnect."""
        await self.redis.aclose(close_connection_pool=True)

    async def create(self, session_ids: Sequence[str], data: dict[str, Any], expires_at: float) -> None:
        """Store sessions in one pipeline: filling is not what is measured."""
        value, seconds = self.encode(data), seconds_until(expires_at)
        async with self.redis.pipeline(transaction=False) as pipeline:
            for session_id in session_ids:
                pipeline.set(session_id, value, ex=seconds)
            await pipeline.execute()

    async def read(self, key: str) -> bytes | None:
        """GET."""
        value = await self.redis.get(key)
        assert value is None or isinstance(value, bytes)
        return value

    async def write(self, key: str, value: bytes, lifetime_seconds: int) -> None:
        """SET with a time to live."""
        await self.redis.set(key, value, ex=lifetime_seconds)


class RedisWaitClient(RedisClient):
    """SET and WAIT 1 in one round trip: acknowledged when a replica has it, as ours is."""

    async def write(self, key: str, value: bytes, lifetime_seconds: int) -> None:
        """SET and WAIT; raises NotReplicatedError if no replica confirmed in time."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.set(key, value, ex=lifetime_seconds)
            pipeline.wait(1, WAIT_MILLISECONDS)
            _, replicas = await pipeline.execute()
        if replicas < 1:
            raise NotReplicatedError("no replica confirmed the write")


def _through_sentinel(addresses: Mapping[str, str]) -> Redis:
    sentinels = [address.rpartition(":") for address in addresses["sentinels"].split(",")]
    finder = Sentinel(  # type: ignore[no-untyped-call]  # redis-py does not annotate it
        [(host, int(port)) for host, _, port in sentinels],
        sentinel_kwargs={"socket_timeout": _SOCKET_SECONDS},
        # Servers know each other by the addresses of the proxy between them; clients go straight to them.
        force_master_ip="127.0.0.1",
        socket_timeout=_SOCKET_SECONDS,
        socket_connect_timeout=_SOCKET_SECONDS,
        max_connections=CONNECTIONS_MAX,
    )
    redis: Redis = finder.master_for(SENTINEL_NAME)
    return redis


async def _patiently(action: Callable[[], Awaitable[_Result]]) -> _Result:
    """Return what the action returns, trying again while the servers fail, for a while."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return await action()
        except (RedisError, OSError, NotReplicatedError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


class SentinelClient(RedisClient):
    """SET through Sentinel: acknowledged by the master alone."""

    def _connected(self) -> Redis:
        return _through_sentinel(self.addresses)

    async def read(self, key: str) -> bytes | None:
        """GET, patiently."""
        return await _patiently(partial(super().read, key))

    async def write(self, key: str, value: bytes, lifetime_seconds: int) -> None:
        """SET, patiently."""
        await _patiently(partial(super().write, key, value, lifetime_seconds))


class SentinelWaitClient(SentinelClient, RedisWaitClient):
    """SET and WAIT 1 through Sentinel."""
