"""An HTTP port in this process, around a view that a test decides, and requests to it."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import trio

from greenroom.errors import UnavailableError
from greenroom_cluster.cluster_status import ClusterStatus, ShardStatus
from greenroom_cluster.http.port import HttpPort, HttpSettings
from greenroom_cluster.metrics.readings import Reading
from greenroom_cluster.tls_options import ServerTlsOptions

CLUSTER = "shop"


def status(*states: str) -> ClusterStatus:
    shards = tuple(ShardStatus(index, 1, "n1/0", ("n2/0",), 3, state) for index, state in enumerate(states))
    return ClusterStatus(CLUSTER, 1, 7, 2, (), (), shards)


@dataclass
class FakeView:
    """A process that tells what a test says."""

    told: str = ""
    found: ClusterStatus | None = field(default_factory=lambda: status("full", "full"))
    looks: int = 0
    lasts: float = 0.0

    def objection(self) -> str:
        return self.told

    async def readings(self) -> dict[str, list[Reading]]:
        return {"n1": [Reading("greenroom_ready", 1.0)]}

    async def look(self) -> ClusterStatus:
        self.looks += 1
        await trio.sleep(self.lasts)
        if self.found is None:
            raise UnavailableError("no node answers")
        return self.found


@asynccontextmanager
async def open_port(view: Any = None, **settings: Any) -> AsyncIterator[HttpPort]:
    """Serve a port around the body."""
    given = {"cluster": CLUSTER, "listen": "127.0.0.1:0", "tls": ServerTlsOptions(), **settings}
    port = HttpPort(HttpSettings(**given), view or FakeView())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(port.run)
        yield port
        nursery.cancel_scope.cancel()


async def get(
    port: HttpPort, path: str, *, context: ssl.SSLContext | None = None, method: str = "GET", **headers: str
) -> httpx.Response:
    """Ask on a connection of its own."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    verify: Any = context if context is not None else True
    async with httpx.AsyncClient(base_url=port.url, verify=verify, trust_env=False) as client:
        return await client.request(method, path, headers=named)
