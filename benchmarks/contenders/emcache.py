"""emcache with memcached, which replicates nothing."""

from collections.abc import Mapping

import emcache

from benchmarks.contenders.key_value import KeyValueClient

# One for every caller, from the start: whoever waits for one waits for those who came later, too.
CONNECTIONS = 512
_KEYS_TOGETHER_MAX = 64
_SECONDS = 30.0


class EmcacheClient(KeyValueClient):
    """get and set over a pool."""

    packages = ("emcache",)

    def __init__(self, addresses: Mapping[str, str]) -> None:
        super().__init__(addresses)
        self._client: emcache.Client

    async def open(self) -> None:
        """Connect."""
        host, _, port = self.addresses["memcached"].rpartition(":")
        self._client = await emcache.create_client(
            [emcache.MemcachedHostAddress(host, int(port))],
            max_connections=CONNECTIONS,
            min_connections=CONNECTIONS,
            # The gets of one turn of the loop go out together, as ours do; sets cannot.
            autobatching=True,
            autobatching_max_keys=_KEYS_TOGETHER_MAX,
            timeout=_SECONDS,
        )

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()

    async def read(self, key: str) -> bytes | None:
        """Get."""
        item = await self._client.get(key.encode())
        return None if item is None else item.value

    async def write(self, key: str, value: bytes, lifetime_seconds: int) -> None:
        """Set with a time to live."""
        await self._client.set(key.encode(), value, exptime=lifetime_seconds)
