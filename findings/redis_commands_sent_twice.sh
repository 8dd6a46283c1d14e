#!/usr/bin/env bash
# redis-py and coredis send a command again whose answer was lost, also one that must not be applied twice.
#
# An INCR that reaches the server just before the connection breaks is applied, sent again over a new connection, and
# applied again; the caller sees one call that succeeded, with 2. valkey-glide raises a ConnectionError instead and
# leaves it to the caller, who alone knows whether the command may be repeated.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check redis==8.1.0 coredis==6.9.0 valkey-glide==2.6.0

cat >counting.py <<'PY'
import asyncio
import signal
import socketserver
import sys
import threading
from importlib.metadata import version

import coredis
import redis.asyncio
from glide import (
    AdvancedGlideClientConfiguration,
    GlideClient,
    GlideClientConfiguration,
    Logger,
    LogLevel,
    NodeAddress,
)

ADDRESS = "127.0.0.1"
HELLO = {"server": "redis", "version": "7.2.0", "proto": 3, "id": 1, "mode": "standalone", "role": "master"}
INFO = b"# Replication\r\nrole:master\r\nredis_version:7.2.0\r\n"


def bulk(text):
    return b"$%d\r\n%s\r\n" % (len(text), text)


def hello():
    pairs = [
        bulk(key.encode()) + (b":%d\r\n" % value if isinstance(value, int) else bulk(value.encode()))
        for key, value in HELLO.items()
    ]
    return b"%%%d\r\n%s%s*0\r\n" % (len(pairs) + 1, b"".join(pairs), bulk(b"modules"))


class Counter(socketserver.ThreadingTCPServer):
    """One counter, spoken to in Redis's protocol; the connection of its first increment breaks before the answer."""

    daemon_threads = True
    count = 0


class Connection(socketserver.StreamRequestHandler):
    def command(self):
        words = self.rfile.readline()
        if not words:
            return None
        return [self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2] for _ in range(int(words[1:]))]

    def handle(self):
        while command := self.command():
            name = command[0].upper()
            if name in {b"INCR", b"INCRBY"}:
                self.server.count += 1
                if self.server.count == 1:
                    return
                self.wfile.write(b":%d\r\n" % self.server.count)
            elif name == b"HELLO":
                self.wfile.write(hello())
            else:
                self.wfile.write(bulk(INFO) if name == b"INFO" else b"+OK\r\n")


async def by_redis(port):
    async with redis.asyncio.Redis(host=ADDRESS, port=port) as client:
        return await client.incr("visits")


async def by_coredis(port):
    async with coredis.Redis(host=ADDRESS, port=port) as client:
        return await client.incr("visits")


async def by_glide(port):
    patient = AdvancedGlideClientConfiguration(connection_timeout=10_000)
    client = await GlideClient.create(
        GlideClientConfiguration([NodeAddress(ADDRESS, port)], request_timeout=10_000, advanced_config=patient)
    )
    try:
        return await client.incr("visits")
    finally:
        await client.close()


def give_up(*_):
    raise TimeoutError("not finished within 120 s")


signal.signal(signal.SIGALRM, give_up)
signal.alarm(120)
Logger.set_logger_config(LogLevel.OFF)
print("expected: a connection that breaks after an INCR was sent is an error for the caller, and the counter is at 1")
changed = False
for name, increment, wanted in (
    ("redis", by_redis, (2, 2)),
    ("coredis", by_coredis, (2, 2)),
    ("valkey-glide", by_glide, ("ConnectionError", 1)),
):
    with Counter((ADDRESS, 0), Connection) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            outcome = asyncio.run(asyncio.wait_for(increment(server.server_address[1]), 30))
        except Exception as error:
            outcome = type(error).__name__
        found = (outcome, server.count)
        server.shutdown()
    changed |= found != wanted
    print(
        f"seen: {name} {version(name)}: one call of incr gives {outcome}, and the counter is at {found[1]}"
        f"{'' if found == wanted else '  <- CHANGED'}"
    )
sys.exit(changed)
PY
venv/bin/python counting.py
