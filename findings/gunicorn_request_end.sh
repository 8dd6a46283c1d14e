#!/usr/bin/env bash
# Under gunicorn's asgi worker, receive() says nothing of a finished response until the client closes its connection.
#
# By the ASGI specification http.disconnect is sent "if receive is called after a response has been sent", which is what
# uvicorn and hypercorn do. Under gunicorn an application that waits for the end of its request, to clean up after it,
# waits for as long as the browser keeps the connection alive.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check gunicorn==27.0.1 uvicorn==0.54.0 hypercorn==0.18.0

cat >application.py <<'PY'
import asyncio


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
    message = await receive()
    with open("heard", "w") as heard:
        heard.write(message["type"])
PY

cat >requests.py <<'PY'
import pathlib
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import version

ADDRESS = "127.0.0.1"
COMMANDS = {
    "uvicorn": "uvicorn application:app --host {host} --port {port} --log-level warning",
    "hypercorn": "hypercorn application:app --bind {host}:{port} --log-level warning",
    "gunicorn": (
        "gunicorn application:app --worker-class asgi --bind {host}:{port} --keep-alive 60 --no-control-socket "
        "--log-level warning"
    ),
}
WAITING = {"gunicorn"}
OPEN_SECONDS = 3
HEARD = pathlib.Path("heard")


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


def heard_within(seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if HEARD.exists() and HEARD.read_text():
            return HEARD.read_text()
        time.sleep(0.05)
    return None


def ask(command):
    """Return what receive() gave while the connection was open, and what after it was closed."""
    HEARD.unlink(missing_ok=True)
    port = free_port()
    program, *arguments = command.format(host=ADDRESS, port=port).split()
    server = subprocess.Popen(["venv/bin/" + program, *arguments])
    try:
        with connected(port) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {ADDRESS}\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\nok"):
                received = connection.recv(4096)
                if not received:
                    raise ConnectionError(f"closed after {answer!r}")
                answer += received
            while_open = heard_within(OPEN_SECONDS)
        return while_open, heard_within(20)
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
print("expected: after the whole response, receive() returns http.disconnect at once, the connection kept alive or not")
changed = False
for name, command in COMMANDS.items():
    found = ask(command)
    wanted = (None, "http.disconnect") if name in WAITING else ("http.disconnect", "http.disconnect")
    changed |= found != wanted
    print(
        f"seen: {name} {version(name)}: {found[0] or 'nothing'} in {OPEN_SECONDS} s with the connection open, "
        f"{found[1] or 'nothing'} after the client closed it{'' if found == wanted else '  <- CHANGED'}"
    )
sys.exit(changed)
PY
venv/bin/python requests.py
