"""Sessions written until a cluster is full, or so many are there, and read back."""

import os
from datetime import UTC, datetime, timedelta

import trio

from greenroom import ClusterStore, GreenroomError, SessionData, StoreFullError, new_session_id

REFUSALS = 20
READERS = 16


class Filler:
    """Writers that go on until the cluster has refused often, and what was acknowledged to them."""

    def __init__(self, size: int, writers: int, *stores: ClusterStore) -> None:
        self._size = size
        self._writers = writers
        self._stores = stores
        self._written = 0
        self.acknowledged: dict[str, int] = {}
        self.refusals: list[str] = []

    async def fill(self, *, user_id: str | None = None, sessions: int | None = None) -> None:
        """Write with all stores until the cluster is full, or so many sessions are written."""
        until = len(self.refusals) + REFUSALS
        last = None if sessions is None else self._written + sessions
        async with trio.open_nursery() as writing:
            for writer in range(self._writers):
                store = self._stores[writer % len(self._stores)]
                writing.start_soon(self._write, store, until, last, user_id)

    async def _write(self, store: ClusterStore, until: int, last: int | None, user_id: str | None) -> None:
        while len(self.refusals) < until and (last is None or self._written < last):
            self._written += 1
            number = self._written
            session = SessionData(
                session_id=new_session_id(),
                expires=datetime.now(UTC) + timedelta(hours=1),
                user_id=user_id,
                data={"n": number, "x": os.urandom(self._size)},
            )
            try:
                await store.create(session)
            except StoreFullError as error:
                self.refusals.append(str(error))
                await trio.sleep(0.05)
            except GreenroomError:
                # Not acknowledged: an actor was lost, or its successor has yet to take the shard over.
                continue
            else:
                self.acknowledged[session.session_id] = number

    async def lost(self) -> list[int]:
        """Read all that was acknowledged; return the numbers of what is not there, or not as written."""
        left = list(self.acknowledged.items())
        lost: list[int] = []

        async def read() -> None:
            while left:
                session_id, number = left.pop()
                found = await self._stores[0].get(session_id)
                if found is None or found.data["n"] != number:
                    lost.append(number)

        async with trio.open_nursery() as reading:
            for _ in range(READERS):
                reading.start_soon(read)
        return sorted(lost)
