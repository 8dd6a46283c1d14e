"""Stores that are connected and do nothing: `python -m benchmarks.tls.idle URL COUNT`.

Prints a line once all are connected, with the memory that they took, and holds them until its stdin ends.
"""

import asyncio
import os
import sys

from benchmarks.processes import Process, Server, json_line, python_module, resident_bytes
from benchmarks.tls.figures import IdleReading
from greenroom import BaseSessionStore, new_session_id, store_from_url

_READS = 32
"""So many sessions are on every actor, all but surely."""


async def _hold(url: str, count: int) -> None:
    stores: list[BaseSessionStore] = []
    await _connected(stores, url)  # what only the first one brings
    before = resident_bytes(os.getpid())
    for _ in range(count):
        await _connected(stores, url)
    sys.stdout.write(json_line(resident_bytes(os.getpid()) - before) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for store in stores:
        await store.aclose()


async def _connected(stores: list[BaseSessionStore], url: str) -> None:
    stores.append(store_from_url(url))
    for _ in range(_READS):
        await stores[-1].get(new_session_id())


def measure(contender: str, server: Server, connections_each: int, count: int) -> IdleReading:
    """Have so many stores connect to a cluster, and return what that takes."""
    with_first = _holding(server, 1)
    try:
        before = server.resident_bytes()
        holding = _holding(server, count)
        try:
            client_bytes = int(holding.answer())
            server_bytes = server.resident_bytes() - before
        finally:
            holding.stop()
    finally:
        with_first.stop()
    return IdleReading(
        contender=contender,
        connections=connections_each * count,
        server_bytes=server_bytes,
        client_bytes=client_bytes,
    )


def _holding(server: Server, count: int) -> Process:
    command = [*python_module("benchmarks.tls.idle"), server.addresses["cluster"], str(count)]
    return Process(command, obeys=True)


if __name__ == "__main__":
    asyncio.run(_hold(sys.argv[1], int(sys.argv[2])))
