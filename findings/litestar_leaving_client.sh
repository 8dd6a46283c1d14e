#!/usr/bin/env bash
# Litestar calls its after_exception hooks for a WebSocket whose client closed it in good order.
#
# A handler that reads until its client leaves has done its work, and the server logs no error; but the hook that is
# meant for exceptions gets a WebSocketDisconnect. A hook that counts failures, or undoes what a failed handler did,
# takes each visitor who closes a page for a failure. With a websocket_listener the same end calls no hook.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check litestar==2.25.0 uvicorn==0.54.0 websockets==17.4

cat >leaving.py <<'PY'
import signal
import socket
import sys
import threading
import time
from importlib.metadata import version

import uvicorn
from litestar import Litestar, WebSocket, websocket, websocket_listener
from websockets.sync.client import connect

ADDRESS = "127.0.0.1"
hooked = []


async def note(exception, scope):
    hooked.append((scope["path"], type(exception).__name__))


@websocket("/handler")
async def handler(socket: WebSocket) -> None:
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())


@websocket_listener("/listener")
async def listener(data: str) -> str:
    return data


def give_up(*_):
    raise TimeoutError("not finished within 60 s")


signal.signal(signal.SIGALRM, give_up)
signal.alarm(60)
app = Litestar([handler, listener], after_exception=[note])
with socket.create_server((ADDRESS, 0)) as listening:
    port = listening.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
    serving = threading.Thread(target=server.run, args=([listening],), daemon=True)
    serving.start()
    while not server.started:
        time.sleep(0.05)
    closed = {}
    for path in ("/handler", "/listener"):
        with connect(f"ws://{ADDRESS}:{port}{path}") as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"
        closed[path] = client.close_code
    server.should_exit = True
    serving.join(20)

print("expected: a client that closes with 1000 (normal) is no exception: after_exception is called for neither path")
print(f"seen: litestar {version('litestar')}: closed with {closed}, after_exception called for {hooked}")
sys.exit((closed, hooked) != ({"/handler": 1000, "/listener": 1000}, [("/handler", "WebSocketDisconnect")]))
PY
venv/bin/python leaving.py
