#!/usr/bin/env bash
# granian, gunicorn's asgi worker and daphne end on SIGTERM without a word to the handler of an open WebSocket.
#
# uvicorn gives it websocket.disconnect with 1012, so that its `finally` runs, and then lifespan.shutdown to the
# application. Under the other three receive() never returns, nothing is cancelled, and `finally` never runs. Under
# gunicorn lifespan.shutdown is lost as well, with one open WebSocket that outlasts --graceful-timeout. With plain
# requests under way it is not: they are waited for, and lifespan.shutdown comes. (daphne knows no lifespan.)
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
    uvicorn==0.54.0 granian==2.8.9 gunicorn==27.0.1 daphne==4.2.3 websockets==17.4

cat >application.py <<'PY'
import asyncio


def tell(what):
    with open("told", "a") as told:
        told.write(what + "\n")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                tell(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()
    if scope["type"] == "http":
        await asyncio.sleep(1)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        return
    await send({"type": "websocket.accept"})
    try:
        message = await receive()
        tell(f"{message['type']} {int(message['code'])}")
    except asyncio.CancelledError:
        tell("cancelled")
        raise
    finally:
        tell("finally")
PY

cat >stopping.py <<'PY'
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from importlib.metadata import version

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ADDRESS = "127.0.0.1"
COMMANDS = {
    "uvicorn": "uvicorn application:app --host {host} --port {port} --log-level critical",
    "granian": "granian application:app --interface asgi --host {host} --port {port} --log-level critical",
    "gunicorn": (
        "gunicorn application:app --worker-class asgi --bind {host}:{port} --graceful-timeout 3 --no-control-socket "
        "--log-level critical"
    ),
    "daphne": "daphne application:app -b {host} -p {port} -v 0",
}
WITH_SOCKET = {
    "uvicorn": ["websocket.disconnect 1012", "finally", "lifespan.shutdown"],
    "granian": ["lifespan.shutdown"],
    "gunicorn": [],
    "daphne": [],
}
WITH_REQUEST = ["lifespan.shutdown"]
TOLD = pathlib.Path("told")


def free_port():
    with socket.create_server((ADDRESS, 0)) as listener:
        return listener.getsockname()[1]


def answers(port):
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection((ADDRESS, port), timeout=10).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def stopped(command, hold):
    """Return what the application was told from SIGTERM to the end of the server."""
    TOLD.unlink(missing_ok=True)
    port = free_port()
    program, *arguments = command.format(host=ADDRESS, port=port).split()
    server = subprocess.Popen(["venv/bin/" + program, *arguments], stderr=subprocess.DEVNULL)
    try:
        answers(port)
        hold(port, server)
        server.wait(30)
    finally:
        server.kill()
        server.wait()
    return TOLD.read_text().splitlines() if TOLD.exists() else []


def hold_socket(port, server):
    with connect(f"ws://{ADDRESS}:{port}/", close_timeout=5) as opened:
        server.send_signal(signal.SIGTERM)
        try:
            opened.recv(timeout=30)
        except ConnectionClosed:
            pass


def hold_request(port, server):
    timer = threading.Timer(0.5, server.send_signal, [signal.SIGTERM])
    timer.start()
    try:
        urllib.request.urlopen(f"http://{ADDRESS}:{port}/", timeout=30).read()
    finally:
        timer.join()


def give_up(*_):
    raise TimeoutError("not finished within 240 s")


signal.signal(signal.SIGALRM, give_up)
signal.alarm(240)
print("expected: on SIGTERM the handler of an open WebSocket is told, or cancelled, and then comes lifespan.shutdown")
changed = False
for name, command in COMMANDS.items():
    found = stopped(command, hold_socket)
    changed |= found != WITH_SOCKET[name]
    print(
        f"seen: {name} {version(name)}: {', '.join(found) or 'nothing'}"
        f"{'' if found == WITH_SOCKET[name] else '  <- CHANGED'}"
    )
found = stopped(COMMANDS["gunicorn"], hold_request)
changed |= found != WITH_REQUEST
print(f"seen: gunicorn with a plain request under way: {', '.join(found) or 'nothing'}")
sys.exit(changed)
PY
venv/bin/python stopping.py
