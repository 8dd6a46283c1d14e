"""Our own stores: a cluster, and the memory of the process."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.contenders.base import Client
from benchmarks.sessions import LIFETIME_SECONDS
from greenroom import BaseSessionStore, MemoryStore, SessionData, store_from_url

_THEME = {"theme": "light"}


class _StoreClient(Client):
    packages = ("greenroom", "msgspec")

    def __init__(self, addresses: Mapping[str, str], store: BaseSessionStore) -> None:
        super().__init__(addresses)
        self._store = store
        self._sessions: list[SessionData] = []

    async def close(self) -> None:
        """Disconnect."""
        await self._store.aclose()

    def choose(self, ids: Sequence[str], data: dict[str, Any]) -> None:
        """Make the sessions as an application has them in hand after a `get`."""
        super().choose(ids, data)
        expires = datetime.now(UTC) + timedelta(seconds=LIFETIME_SECONDS)
        self._sessions = [SessionData(session_id=each, expires=expires, data=data) for each in ids]

    async def create(self, session_ids: Sequence[str], data: dict[str, Any], expires_at: float) -> None:
        """Store new sessions, one after the other."""
        expires = datetime.fromtimestamp(expires_at, UTC)
        for session_id in session_ids:
            await self._store.create(SessionData(session_id=session_id, expires=expires, data=data))

    def get(self, number: int) -> Awaitable[object]:
        """Read one session."""
        return self._store.get(self.ids[number])

    def save(self, number: int, data: dict[str, Any]) -> Awaitable[object]:
        """Replace one session; acknowledged when the peer has it too."""
        session = self._sessions[number]
        session.data = data
        return self._store.update(session.session_id, session)

    def patch(self, number: int) -> Awaitable[object]:
        """Set one path in one step."""
        return self._store.patch(self.ids[number], set=_THEME)

    async def data_of(self, number: int) -> dict[str, Any] | None:
        """Return what is stored."""
        session = await self._store.get(self.ids[number])
        return None if session is None else session.data


class ClusterClient(_StoreClient):
    """`ClusterStore`, under whichever loop runs."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        super().__init__(addresses, store_from_url(addresses["cluster"]))


class NearClient(_StoreClient):
    """`ClusterStore` with a near cache.

    A read from memory does not suspend its caller. A web app's callers wait for their browsers in between, so
    every so many reads these let their loop run.
    """

    _READS_AT_ONCE = 32

    def __init__(self, addresses: Mapping[str, str]) -> None:
        url = addresses["cluster"]
        super().__init__(addresses, store_from_url(f"{url}{'&' if '?' in url else '?'}near_sessions=100000"))
        self._reads = 0

    def get(self, number: int) -> Awaitable[object]:
        """Read one session."""
        self._reads += 1
        if self._reads % self._READS_AT_ONCE == 0:
            return self._get_after_others(number)
        return self._store.get(self.ids[number])

    async def _get_after_others(self, number: int) -> object:
        await asyncio.sleep(0)
        return await self._store.get(self.ids[number])


class MemoryClient(_StoreClient):
    """`MemoryStore`: what it costs without a network."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        super().__init__(addresses, MemoryStore())
