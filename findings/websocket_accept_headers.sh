#!/usr/bin/env bash
# granian and daphne leave out the headers that an application gives to websocket.accept.
#
# The ASGI specification for HTTP and WebSockets has them since its version 2.1, and a handshake has no other place for
# a cookie. Both servers take the message without a word. granian's scope says that it follows 2.3; daphne's names
# no version, which means 2.0 and so promises nothing: an application can tell, if it looks.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
    granian==2.8.9 daphne==4.2.3 hypercorn==0.18.0 uvicorn==0.54.0 websockets==17.4

cat >application.py <<'PY'
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()
    with open("follows", "w") as follows:
        follows.write(scope["asgi"].get("spec_version", "no version"))
    await send({"type": "websocket.accept", "headers": [(b"x-room", b"blue"), (b"set-cookie", b"seat=7; Path=/")]})
    await send({"type": "websocket.close"})
PY

cat >handshake.py <<'PY'
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
    "granian": "granian application:app --interface asgi --host {host} --port {port} --log-level warning",
    "daphne": "daphne application:app -b {host} -p {port} -v 0",
}
GIVEN = ["x-room: blue", "set-cookie: seat=7; path=/"]
DROPPING = {"granian": "2.3", "daphne": "no version"}
REQUEST = (
    "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


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


def handshake(command):
    port = free_port()
    program, *arguments = command.format(host=ADDRESS, port=port).split()
    server = subprocess.Popen(["venv/bin/" + program, *arguments])
    try:
        with connected(port) as connection:
            connection.sendall(REQUEST.format(host=ADDRESS).encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                received = connection.recv(4096)
                if not received:
                    break
                answer += received
        return answer.split(b"\r\n\r\n")[0].decode().lower().splitlines()
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
print("expected: every server answers 101 with the x-room and set-cookie that the application gave to websocket.accept")
changed = False
for name, command in COMMANDS.items():
    status, *headers = handshake(command)
    ours = [each for each in headers if each.startswith(("x-room:", "set-cookie:"))]
    follows = pathlib.Path("follows").read_text()
    wanted = [] if name in DROPPING else GIVEN
    as_found = " 101" in status and ours == wanted and DROPPING.get(name, follows) == follows
    changed |= not as_found
    print(
        f"seen: {name} {version(name)} (ASGI {follows}): {status.strip()!r}, {ours or 'none of them'}"
        f"{'' if as_found else '  <- CHANGED'}"
    )
sys.exit(changed)
PY
venv/bin/python handshake.py
