"""valkey-glide, unreplicated: a Rust core that multiplexes all requests over one connection."""

from collections.abc import Mapping

from glide import ExpirySet, ExpiryType, GlideClient, GlideClientConfiguration, NodeAddress

from benchmarks.contenders.key_value import KeyValueClient

_REQUEST_MILLISECONDS = 10_000


class GlideContender(KeyValueClient):
    """GET and SET."""

    packages = ("valkey-glide",)

    def __init__(self, addresses: Mapping[str, str]) -> None:
        super().__init__(addresses)
        self._glide: GlideClient

    async def open(self) -> None:
        """Connect."""
        host, _, port = self.addresses["redis"].rpartition(":")
        configuration = GlideClientConfiguration(
            [NodeAddress(host, int(port))], request_timeout=_REQUEST_MILLISECONDS
        )
        self._glide = await GlideClient.create(configuration)

    async def close(self) -> None:
        """Disconnect."""
        await self._glide.close()

    async def read(self, key: str) -> bytes | None:
        """GET."""
        return await self._glide.get(key)

    async def write(self, key: str, value: bytes, lifetime_seconds: int) -> None:
        """SET with a time to live."""
        await self._glide.set(key, value, expiry=ExpirySet(ExpiryType.SEC, lifetime_seconds))
