"""Real servers, each started on a port of its own for `tests.servers.site`."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

START_SECONDS = 60.0
ROOT = Path(__file__).parent.parent.parent
APP = "tests.servers.site:app"
SECRET = "a secret for tests only, long enough"


class Server(NamedTuple):
    """How to start a server; `needs` are the modules without which it is skipped."""

    name: str
    needs: tuple[str, ...]
    command: tuple[str, ...]
    """With `{port}` in it."""
    drops_accept_headers: bool = False
    """Whether the headers of `websocket.accept` never reach the browser."""
    leaves_sockets: bool = False
    """Whether it ends on SIGTERM without a word to the handlers of open WebSockets."""
    library: str = "asyncio"


def _uvicorn(http: str, ws: str, loop: str, *needs: str) -> Server:
    options = ("--http", http, "--ws", ws, "--loop", loop, "--port", "{port}", "--log-level", "warning")
    return Server(f"uvicorn {http} {ws} {loop}", ("uvicorn", *needs), ("uvicorn", APP, *options))


def _granian(loop: str) -> Server:
    options = ("--interface", "asgi", "--loop", loop, "--port", "{port}", "--workers", "1", "--no-access-log")
    command = ("granian", APP, *options)
    return Server(f"granian {loop}", ("granian",), command, drops_accept_headers=True, leaves_sockets=True)


def _hypercorn(kind: str) -> Server:
    options = ("--worker-class", kind, "--bind", "127.0.0.1:{port}", "--workers", "0")
    return Server(f"hypercorn {kind}", ("hypercorn",), ("hypercorn", APP, *options), library=kind)


SERVERS = (
    _uvicorn("h11", "wsproto", "asyncio", "h11", "wsproto"),
    _uvicorn("httptools", "websockets", "uvloop", "httptools", "websockets", "uvloop"),
    _uvicorn("httptools", "websockets-sansio", "asyncio", "httptools", "websockets"),
    _hypercorn("asyncio"),
    _hypercorn("trio"),
    _granian("asyncio"),
    _granian("rloop")._replace(needs=("granian", "rloop")),
    Server(
        "gunicorn asgi",
        ("gunicorn",),
        (
            *("gunicorn", "--worker-class", "asgi", "--workers", "1", "--bind", "127.0.0.1:{port}"),
            *("--graceful-timeout", "2", APP),
        ),
        leaves_sockets=True,
    ),
    Server(
        "daphne",
        ("daphne",),
        ("daphne", "-b", "127.0.0.1", "-p", "{port}", "-v", "0", APP),
        drops_accept_headers=True,
        leaves_sockets=True,
    ),
)


def is_here(server: Server) -> bool:
    """Whether all that a server needs is installed."""
    return all(importlib.util.find_spec(module) is not None for module in server.needs)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(server: Server, log: Path, app: str = APP, store: str = "memory://") -> Iterator[int]:
    """Run a server around the body, with this store; give its port once it answers."""
    port = free_port()
    command = [part.replace("{port}", str(port)).replace(APP, app) for part in server.command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "GREENROOM_TEST_LIBRARY": server.library,
                "GREENROOM_TEST_STORE": store,
            },
            cwd=ROOT,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port):
            assert process.poll() is None, f"{server.name} ended: {log.read_text()}"
            assert time.monotonic() < deadline, f"{server.name} does not answer: {log.read_text()}"
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.sendall(b"GET /seen HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            return sock.recv(12).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
