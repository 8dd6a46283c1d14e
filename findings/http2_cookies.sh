#!/usr/bin/env bash
# Over HTTP/2 a Litestar app under granian knows only the first of a browser's cookies.
#
# HTTP/2 lets a client send each cookie in a header of its own, and Chromium does. hypercorn joins them, as RFC 9113,
# 8.2.3 has it for what is passed to "a generic HTTP server application"; granian hands them on as they came, since ASGI
# keeps headers "as received" (emmett-framework/granian#717). Starlette reads all of them, Litestar reads one. Each is
# right by some text, and together they lose cookies; over HTTP/1.1 nothing is amiss.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
    granian==2.8.9 hypercorn==0.18.0 h2==4.4.1 litestar==2.25.0 starlette==1.10.0

cat >in_litestar.py <<'PY'
from litestar import Litestar, Request, get


@get("/")
async def show(request: Request) -> dict[str, str]:
    return request.cookies


app = Litestar([show])
PY
cat >in_starlette.py <<'PY'
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


async def show(request):
    return JSONResponse(request.cookies)


app = Starlette(routes=[Route("/", show)])
PY

cat >cookies.py <<'PY'
import json
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import version

import h2.config
import h2.connection
import h2.events

ADDRESS = "127.0.0.1"
COMMANDS = {
    "hypercorn": "hypercorn {module}:app --bind {host}:{port} --log-level warning",
    "granian": "granian {module}:app --interface asgi --http auto --host {host} --port {port} --log-level warning",
}
BOTH = {"theme": "dark", "session": "7f3a"}
FIRST = {"theme": "dark"}


def free_port():
    with socket.create_server((ADDRESS, 0)) as listener:
        return listener.getsockname()[1]


def connected(port):
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection((ADDRESS, port), timeout=10)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def get(connection, cookies):
    """Return the body of one GET over HTTP/2 with these headers of cookies."""
    dialog = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    dialog.initiate_connection()
    pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", ADDRESS), (":path", "/")]
    dialog.send_headers(1, pseudo + [("cookie", each) for each in cookies], end_stream=True)
    body = b""
    while True:
        connection.sendall(dialog.data_to_send())
        received = connection.recv(65536)
        if not received:
            raise ConnectionError("closed before the end of the response")
        for event in dialog.receive_data(received):
            if isinstance(event, h2.events.DataReceived):
                body += event.data
            elif isinstance(event, h2.events.StreamEnded):
                return json.loads(body)


def known(command, cookies):
    port = free_port()
    program, *arguments = command.format(host=ADDRESS, port=port).split()
    server = subprocess.Popen(["venv/bin/" + program, *arguments], stderr=subprocess.DEVNULL)
    try:
        with connected(port) as connection:
            return get(connection, cookies)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def give_up(*_):
    raise TimeoutError("not finished within 180 s")


signal.signal(signal.SIGALRM, give_up)
signal.alarm(180)
one_each = [f"{name}={value}" for name, value in BOTH.items()]
print(f"expected: the headers `cookie: {'` and `cookie: '.join(one_each)}` of one request are two cookies everywhere")
changed = False
for name, command in COMMANDS.items():
    for framework in ("starlette", "litestar"):
        found = known(command.replace("{module}", f"in_{framework}"), one_each)
        wanted = FIRST if (name, framework) == ("granian", "litestar") else BOTH
        changed |= found != wanted
        print(
            f"seen: {framework} {version(framework)} under {name} {version(name)}: {found}"
            f"{'' if found == wanted else '  <- CHANGED'}"
        )
found = known(COMMANDS["granian"].replace("{module}", "in_litestar"), ["; ".join(one_each)])
changed |= found != BOTH
print(f"seen: the same under granian with both cookies in one header: {found}")
sys.exit(changed)
PY
venv/bin/python cookies.py
