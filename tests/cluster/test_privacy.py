"""A process that keeps to itself: another of the same user gets nothing out of it."""

import inspect
import os
import shutil
import subprocess
from typing import Any

from greenroom_cluster import privacy

NOBODY = 65534
HOLDER = (
    inspect.getsource(privacy)
    + """
import sys
if sys.argv[1] == "private":
    keep_to_itself()
print(len(os.listdir("/proc/self/fd")) > 0 and os.stat("/proc/self/ns/pid").st_ino > 0, flush=True)
sys.stdin.read()
"""
)
THIEF = """
import ctypes, sys
pid = int(sys.argv[1])
for name in ("environ", "mem", "maps"):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            print("got", name, b"hunter2" in (file.read(65536) if name != "mem" else b""))
    except OSError as error:
        print("refused", name)
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
print("refused ptrace" if libc.ptrace(16, pid, None, None) else "got ptrace")
print("limit", open(f"/proc/{pid}/limits").read().partition("Max core file size")[2].split()[:2])
"""


def same_user() -> dict[str, Any]:
    """Who both are: not root, who may look into every process."""
    return {} if os.getuid() else {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def stolen_from(kind: str) -> list[str]:
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    assert python is not None
    common: dict[str, Any] = {"text": True, "cwd": "/", **same_user()}
    with subprocess.Popen(
        [python, "-I", "-c", HOLDER, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"SECRET": "hunter2"},
        **common,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        thief = [python, "-I", "-c", THIEF, str(holder.pid)]
        try:
            done = subprocess.run(thief, stdout=subprocess.PIPE, check=True, timeout=30, **common)
        finally:
            holder.kill()
        return str(done.stdout).splitlines()


def test_nothing_is_got_from_it() -> None:
    """Its own look into `/proc/self` goes on working, which is asserted when it starts."""
    assert stolen_from("private") == [
        "refused environ",
        "refused mem",
        "refused maps",
        "refused ptrace",
        "limit ['0', '0']",
    ]


def test_from_others_it_is() -> None:
    """The thief is able: what the test above shows is not its clumsiness."""
    assert "got environ True" in stolen_from("open")
