"""Loads one server with wrk (Debian's package), each connection's thread with sessions of its own."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec

from benchmarks.processes import MissingError

CONNECTIONS = 32
THREADS = 2
ITEMS = 8
"""Cart items of a customer: with the login, about 300 bytes of data."""

READ, CHANGE = ("GET", "/session"), ("POST", "/count")
MIXES: dict[str, tuple[tuple[str, str], ...]] = {
    "read": (READ,),
    "change": (CHANGE,),
    "nine reads, one change": (*(READ,) * 9, CHANGE),
}

# wrk runs this once a thread: the cookies are dealt out, so that no two threads share a session.
_SCRIPT = """
local cookies = %(cookies)s
local pages = %(pages)s
local threads = 0
local sent = 0
function setup(thread)
  thread:set("first", threads)
  threads = threads + 1
end
function request()
  sent = sent + 1
  local page = pages[(sent - 1) %% #pages + 1]
  local mine = (sent * %(threads)d + first) %% #cookies + 1
  return wrk.format(page[1], page[2], {["cookie"] = cookies[mine]})
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"answered":%%d,"micros":%%d,"refused":%%d,"broken":%%d,"p50_us":%%d,"p99_us":%%d}\\n',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class Loaded(msgspec.Struct, frozen=True):
    """What wrk counted: answers, the time in microseconds, answers of 400 and more, broken connections."""

    answered: int
    micros: int
    refused: int
    broken: int
    p50_us: int
    p99_us: int


def customers(address: str, count: int = CONNECTIONS) -> list[str]:
    """Log in as many customers, fill their carts, and return their cookies, as a `cookie` header each.

    Raises RuntimeError if a page does not answer with success.
    """
    cookies = []
    for _ in range(count):
        with httpx.Client(base_url=address, timeout=30.0) as client:
            held = ""
            for path in ("/login", *(f"/cart/sku-{number}" for number in range(ITEMS))):
                # By hand, because cookies that are Secure do not go back over plain HTTP.
                answer = client.post(path, headers={"cookie": held} if held else {})
                if answer.status_code >= 300:
                    raise RuntimeError(f"{path} answered {answer.status_code}")
                for line in answer.headers.get_list("set-cookie"):
                    held = line.partition(";")[0]
            cookies.append(held)
    return cookies


def load(address: str, cookies: Sequence[str], mix: str, seconds: float) -> Loaded:
    """Keep all connections busy. Raises MissingError without wrk, RuntimeError if a page failed."""
    program = shutil.which("wrk")
    if program is None:
        raise MissingError("wrk is not installed: apt-get install wrk")
    pages = ",".join("{" + ",".join(map(json.dumps, page)) + "}" for page in MIXES[mix])
    script = _SCRIPT % {
        "cookies": "{" + ",".join(map(json.dumps, cookies)) + "}",
        "pages": "{" + pages + "}",
        "threads": THREADS,
    }
    with tempfile.TemporaryDirectory(prefix="greenroom-pages-") as folder:
        file = Path(folder) / "load.lua"
        file.write_text(script)
        command = [program, f"-t{THREADS}", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "-s", str(file), address]
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60)
    loaded = msgspec.json.decode(said.stdout.rstrip().rpartition("\n")[2], type=Loaded)
    if loaded.refused or loaded.broken:
        raise RuntimeError(f"{loaded.refused} pages failed, {loaded.broken} connections broke")
    return loaded
