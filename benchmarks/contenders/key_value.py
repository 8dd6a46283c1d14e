"""What contenders that keep plain bytes under a key have in common.

They encode with msgspec's msgpack, as fast as Python has it and as our own store does. None of them can
change a part of a value, so a patch is a read, a change and a write of the whole; two at once may overwrite
each other, which ours may not.
"""

import time
from abc import abstractmethod
from collections.abc import Awaitable, Sequence
from typing import Any

import msgspec

from benchmarks.contenders.base import Client
from benchmarks.sessions import LIFETIME_SECONDS

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode


def seconds_until(expires_at: float) -> int:
    """Return the time to live, in whole seconds and at least 1, until `expires_at` seconds since 1970."""
    return max(1, round(expires_at - time.time()))


class KeyValueClient(Client):
    """Subclasses read and write bytes."""

    @abstractmethod
    async def read(self, key: str) -> bytes | None:
        """Return the value, or None."""

    @abstractmethod
    async def write(self, key: str, value: bytes, lifetime_seconds: int) -> None:
        """Set the value."""

    def encode(self, data: dict[str, Any]) -> bytes:
        """Return the value for the data."""
        return _encode(data)

    def decode(self, value: bytes) -> dict[str, Any]:
        """Return the data of a value."""
        return _decode(value)

    async def create(self, session_ids: Sequence[str], data: dict[str, Any], expires_at: float) -> None:
        """Store sessions, one after the other."""
        value = self.encode(data)
        for session_id in session_ids:
            await self.write(session_id, value, seconds_until(expires_at))

    def get(self, number: int) -> Awaitable[object]:
        """Read and decode one session."""
        return self.data_of(number)

    async def data_of(self, number: int) -> dict[str, Any] | None:
        """Return what is stored."""
        value = await self.read(self.ids[number])
        return None if value is None else self.decode(value)

    def save(self, number: int, data: dict[str, Any]) -> Awaitable[object]:
        """Encode and replace one session."""
        return self.write(self.ids[number], self.encode(data), LIFETIME_SECONDS)

    async def patch(self, number: int) -> None:
        """Read, change, write."""
        data = await self.data_of(number)
        assert data is not None
        data["theme"] = "light"
        await self.save(number, data)
