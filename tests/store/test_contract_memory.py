"""MemoryStore, and a store that writes only the five methods, keep the contract under both libraries."""

import asyncio
from collections.abc import Iterator
from types import coroutine

from greenroom import BaseSessionStore, MemoryStore, SessionData
from greenroom.testing import ManualClock, StoreContract


@coroutine
def yield_to_asyncio() -> Iterator[None]:
    yield


async def checkpoint() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import trio

        await trio.lowlevel.checkpoint()
    else:
        await yield_to_asyncio()


class FiveMethodStore(BaseSessionStore):
    """The least that a custom store writes; it lets others run before and after each operation."""

    def __init__(self, clock: ManualClock) -> None:
        self._inner = MemoryStore(clock=clock)

    async def create(self, session: SessionData) -> int:
        await checkpoint()
        version = await self._inner.create(session)
        await checkpoint()
        return version

    async def get(self, session_id: str) -> SessionData | None:
        await checkpoint()
        session = await self._inner.get(session_id)
        await checkpoint()
        return session

    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        await checkpoint()
        new_version = await self._inner.update(session_id, session, version=version)
        await checkpoint()
        return new_version

    async def delete(self, session_id: str) -> None:
        await checkpoint()
        await self._inner.delete(session_id)
        await checkpoint()

    async def clean(self) -> int:
        await checkpoint()
        return await self._inner.clean()


class TestMemoryStore(StoreContract):
    def make_store(self) -> BaseSessionStore:
        self.clock = ManualClock()
        return MemoryStore(clock=self.clock)


class TestMemoryStoreInRealTime(StoreContract):
    def make_store(self) -> BaseSessionStore:
        return MemoryStore()


class TestFiveMethodStore(StoreContract):
    """Only what this store offers is selected, so that nothing is reported as skipped."""

    offers = FiveMethodStore.features

    def make_store(self) -> BaseSessionStore:
        self.clock = ManualClock()
        return FiveMethodStore(self.clock)
