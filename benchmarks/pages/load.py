"""Loads one server with wrk (Debian's package), as visitors who ask for one page after the other."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec

from benchmarks.processes import MissingError

VISITORS = 32
"""Each is a thread of wrk with one connection."""
ITEMS = 8
"""Cart items of a customer: with the login, about 300 bytes of data."""

READ, CHANGE = ("GET", "/session"), ("POST", "/count")
MIXES: dict[str, tuple[tuple[str, str], ...]] = {
    "read": (READ,),
    "change": (CHANGE,),
    "nine reads, one change": (*(READ,) * 9, CHANGE),
}

# wrk runs this once a thread. Visitors do not all ask for the same page at once, also not if they are spread:
# then a session goes from thread to thread.
_SCRIPT = """
local cookies = %(cookies)s
local pages = %(pages)s
local threads = 0
local sent = 0
function setup(thread)
  thread:set("visitor", threads)
  threads = threads + 1
end
function request()
  sent = sent + 1
  local page = pages[(sent + 2 * visitor) %% #pages + 1]
  local mine = (visitor + sent * %(spread)d) %% #cookies + 1
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


def customers(address: str, count: int = VISITORS) -> list[str]:
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


def load(address: str, cookies: Sequence[str], mix: str, seconds: float, *, spread: bool = False) -> Loaded:
    """Let a visitor for each cookie ask for pages; if they are spread, each page on another connection.

    Raises MissingError without wrk, RuntimeError if a page failed.
    """
    program = shutil.which("wrk")
    if program is None:
        raise MissingError("wrk is not installed: apt-get install wrk")
    pages = ",".join("{" + ",".join(map(json.dumps, page)) + "}" for page in MIXES[mix])
    script = _SCRIPT % {
        "cookies": "{" + ",".join(map(json.dumps, cookies)) + "}",
        "pages": "{" + pages + "}",
        "spread": spread,
    }
    with tempfile.TemporaryDirectory(prefix="greenroom-pages-") as folder:
        file = Path(folder) / "load.lua"
        file.write_text(script)
        command = [
            program,
            f"-t{len(cookies)}",
            f"-c{len(cookies)}",
            f"-d{seconds:g}s",
            "-s",
            str(file),
            address,
        ]
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60)
    loaded = msgspec.json.decode(said.stdout.rstrip().rpartition("\n")[2], type=Loaded)
    if loaded.refused or loaded.broken:
        raise RuntimeError(f"{loaded.refused} pages failed, {loaded.broken} connections broke")
    return loaded
