#!/usr/bin/env bash
# The code of websocket.disconnect does not tell a client that has said good-bye from a connection that broke.
#
# RFC 6455, 7.1.5, has a code for each: the one in the client's close frame, 1005 if that had none (which is what
# `socket.close()` of a browser sends), 1006 if there was no such frame. hypercorn gives 1006 for all three, though it
# answers the close frame (pgjones/hypercorn#127). granian and uvicorn, the latter with two of its implementations of
# WebSockets, give 1005 for a connection that was reset. uvicorn with the third, gunicorn and daphne tell them apart,
# though daphne gives None where the others give 1005.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
    uvicorn==0.54.0 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1 daphne==4.2.3 websockets==17.4 wsproto==1.3.2

cat >application.py <<'PY'
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    message = await receive()
    with open("heard", "w") as heard:
        heard.write(f"{message['type']} {message['code'] and int(message['code'])}")
PY

cat >codes.py <<'PY'
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time
from importlib.metadata import version

ADDRESS = "127.0.0.1"
UVICORN = "uvicorn application:app --host {host} --port {port} --log-level critical --ws "
COMMANDS = {
    "uvicorn with websockets": UVICORN + "websockets",
    "uvicorn with websockets-sansio": UVICORN + "websockets-sansio",
    "uvicorn with wsproto": UVICORN + "wsproto",
    "hypercorn": "hypercorn application:app --bind {host}:{port} --log-level critical",
    "granian": "granian application:app --interface asgi --host {host} --port {port} --log-level critical",
    "gunicorn": (
        "gunicorn application:app --worker-class asgi --bind {host}:{port} --no-control-socket --log-level critical"
    ),
    "daphne": "daphne application:app -b {host} -p {port} -v 0",
}
MASK = bytes(4)
ENDS = {  # what the client sends last; None: it resets the connection
    "close frame with 4001": b"\x88\x82" + MASK + struct.pack(">H", 4001),
    "close frame without a code": b"\x88\x80" + MASK,
    "reset": None,
}
BY_RFC = ["4001", "1005", "1006"]
OTHERS = {
    "uvicorn with websockets-sansio": ["4001", "1005", "1005"],
    "uvicorn with wsproto": ["4001", "1005", "1005"],
    "hypercorn": ["1006", "1006", "1006"],
    "granian": ["4001", "1005", "1005"],
    "daphne": ["4001", "None", "1006"],
}
REQUEST = (
    "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
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


def heard():
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if HEARD.exists() and HEARD.read_text():
            return HEARD.read_text().removeprefix("websocket.disconnect ")
        time.sleep(0.05)
    return "nothing"


def code_after(end, port):
    """Return the code that the application hears when the client ends in this way."""
    HEARD.unlink(missing_ok=True)
    with connected(port) as connection:
        connection.sendall(REQUEST.format(host=ADDRESS).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            received = connection.recv(4096)
            if not received:
                raise ConnectionError(f"closed after {answer!r}")
            answer += received
        if end is None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            connection.sendall(end)
            if connection.recv(1) != b"\x88":
                raise ConnectionError("the close frame was not answered by one")
    return heard()


def codes(command):
    port = free_port()
    program, *arguments = command.format(host=ADDRESS, port=port).split()
    server = subprocess.Popen(["venv/bin/" + program, *arguments], stderr=subprocess.DEVNULL)
    try:
        return [code_after(end, port) for end in ENDS.values()]
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def give_up(*_):
    raise TimeoutError("not finished within 240 s")


signal.signal(signal.SIGALRM, give_up)
signal.alarm(240)
print(f"expected: after {', '.join(ENDS)} the application hears {', '.join(BY_RFC)}")
changed = False
for name, command in COMMANDS.items():
    found, wanted = codes(command), OTHERS.get(name, BY_RFC)
    changed |= found != wanted
    server, _, rest = name.partition(" ")
    print(
        f"seen: {server} {version(server)} {rest}".rstrip() + f": {', '.join(found)}"
        f"{'' if found == wanted else '  <- CHANGED'}"
    )
sys.exit(changed)
PY
venv/bin/python codes.py
