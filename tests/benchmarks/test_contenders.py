"""Contenders that keep bytes under a key, and the CPU time and memory of servers."""

import asyncio
import sys
import time

import msgspec

from benchmarks.contenders.key_value import KeyValueClient
from benchmarks.processes import Process, Server
from benchmarks.sessions import LIFETIME_SECONDS, session_data, session_id


class DictClient(KeyValueClient):
    """Keeps what it is given, as a server would."""

    def __init__(self) -> None:
        super().__init__({})
        self.values: dict[str, tuple[bytes, int]] = {}

    async def read(self, key: str) -> bytes | None:
        value = self.values.get(key)
        return None if value is None else value[0]

    async def write(self, key: str, value: bytes, lifetime_seconds: int) -> None:
        self.values[key] = (value, lifetime_seconds)


def test_a_peer_decodes_what_it_reads_and_encodes_what_it_writes() -> None:
    async def main() -> None:
        client = DictClient()
        data = session_data(300)
        client.choose([session_id(0)], data)
        await client.create(client.ids, data, time.time() + 100)
        assert client.values[session_id(0)] == (msgspec.msgpack.encode(data), 100)
        assert await client.get(0) == data
        await client.save(0, {**data, "visits": 2})
        changed = {**data, "visits": 2}
        assert client.values[session_id(0)] == (msgspec.msgpack.encode(changed), LIFETIME_SECONDS)
        await client.patch(0)
        assert await client.data_of(0) == {**changed, "theme": "light"}

    asyncio.run(main())


CPU_SECONDS = 0.3
BYTES = 64 << 20
BURNING = f"""
import subprocess, sys, time

memory = b"x" * {BYTES}
child = None
if len(sys.argv) == 1:
    command = [sys.executable, "-c", CODE, "child"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
until = time.process_time() + {CPU_SECONDS}
while time.process_time() < until:
    pass
print("done", flush=True)
sys.stdin.readline()
"""


class BurningServer(Server):
    """A process and a child of it that each take CPU time and memory, and stay."""

    def start(self) -> None:
        code = f"CODE = {BURNING!r}\n{BURNING}"
        self.process = self.run([sys.executable, "-c", code], obeys=True)

    def processes(self) -> list[Process]:
        return [self.process]


def test_what_servers_take_is_that_of_their_children_too() -> None:
    with BurningServer() as server:
        server.process.answer()
        assert len(server.pids()) == 2
        assert 2 * CPU_SECONDS <= server.cpu_seconds() < 2 * CPU_SECONDS + 1
        assert 2 * BYTES <= server.resident_bytes() < 4 * BYTES
    assert server.cpu_seconds() == 0
