"""A cluster of two nodes with an actor each: every write goes to a peer."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Self

from benchmarks.processes import Server
from greenroom import ClusterStore, SessionData, new_session_id

SESSIONS = 1000


class ClusterServer(Server):
    """`greenroom up` in a process tree of its own; its actors' CPU time counts."""

    def __init__(self, nodes: int = 2, actors: int = 1) -> None:
        self._nodes = nodes
        self._actors = actors

    async def __aenter__(self) -> Self:
        """Start it, wait until every shard has its replicas, and learn the actors' process ids."""
        line = await self.spawn(
            sys.executable,
            "-m",
            "greenroom_cluster",
            "up",
            "--json",
            f"--nodes={self._nodes}",
            f"--actors={self._actors}",
            "--listen=127.0.0.1:0",
        )
        self.seeds = ",".join(json.loads(line)["seeds"])
        self.pids = await self._actor_pids()
        return self

    async def _actor_pids(self) -> list[int]:
        status = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "greenroom_cluster",
            "status",
            "--json",
            f"--connect={self.seeds.split(',')[0]}",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        out, _ = await status.communicate()
        return [actor["pid"] for actor in json.loads(out)["actors"]]


class ClusterWork:
    """Operations on sessions of about 300 bytes through a `ClusterStore`."""

    def __init__(self, seeds: str) -> None:
        self._store = ClusterStore(seeds)
        now = datetime.now(UTC)
        data = {"user": "u" * 20, "cart": {"sku": 1}, "note": "x" * 240}
        self._sessions = [
            SessionData(
                session_id=new_session_id(),
                user_id=None,
                created=now,
                expires=now + timedelta(hours=1),
                data=data,
            )
            for _ in range(SESSIONS)
        ]

    async def prepare(self) -> None:
        """Store the sessions."""
        for session in self._sessions:
            await self._store.create(session)

    async def close(self) -> None:
        """Disconnect."""
        await self._store.aclose()

    def read(self, number: int) -> Awaitable[object]:
        """Read one of the sessions."""
        return self._store.get(self._sessions[number % SESSIONS].session_id)

    def write(self, number: int) -> Awaitable[object]:
        """Replace one of the sessions; acknowledged when the peer has it."""
        session = self._sessions[number % SESSIONS]
        return self._store.update(session.session_id, session)

    @property
    def operations(self) -> dict[str, Callable[[int], Awaitable[object]]]:
        """The operations by name."""
        return {"reads": self.read, "replicated_writes": self.write}
