"""The hosts of these tests themselves: faults do what they say, and nothing is left of them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.hosts.network import Network, needs_hosts

pytestmark = [pytest.mark.system, needs_hosts]

PORT = 4000
ROOT = Path(__file__).parents[2]


@contextmanager
def network() -> Iterator[Network]:
    made = Network(("a", "b", "c"))
    try:
        yield made
    finally:
        made.close()


@contextmanager
def listening(made: Network, name: str) -> Iterator[socket.socket]:
    with made.inside(name):
        listener = socket.create_server((made.address(name), PORT), backlog=100)
    with listener:
        yield listener


def reaches(made: Network, one: str, other: str, seconds: float = 5.0) -> float | None:
    """Return how long a connection to the other host takes to open; None: it does not."""
    with made.inside(one), socket.socket() as dialled:
        dialled.settimeout(seconds)
        began = time.monotonic()
        with suppress(TimeoutError):
            dialled.connect((made.address(other), PORT))
            return time.monotonic() - began
    return None


def test_each_fault_is_silent_and_ends() -> None:
    with network() as made, listening(made, "a"), listening(made, "b"):
        assert reaches(made, "b", "a") is not None
        made.cut("a")
        assert reaches(made, "b", "a", 0.2) is None
        assert reaches(made, "a", "a") is not None, "what is on the host"
        made.mend("a")
        assert reaches(made, "b", "a") is not None
        made.lose("b", *made.addresses("a"))
        assert reaches(made, "b", "a", 0.2) is None
        assert reaches(made, "c", "a") is not None
        assert reaches(made, "c", "b") is not None
        made.find("b", *made.addresses("a"))
        assert reaches(made, "b", "a") is not None


def test_a_host_is_far_away_for_all_that_it_sends_and_gets() -> None:
    with network() as made, listening(made, "a") as listener:
        made.slow("a", 0.05)
        taken = reaches(made, "b", "a")
        assert taken is not None
        assert taken > 0.1
        sent = os.urandom(1 << 17)
        listener.accept()[0].close()
        with made.inside("b"):
            dialled = socket.create_connection((made.address("a"), PORT), timeout=10)
        with dialled, listener.accept()[0] as accepted:
            accepted.settimeout(10)
            for source, target in ((dialled, accepted), (accepted, dialled)):
                source.sendall(sent)
                assert target.makefile("rb").read(len(sent)) == sent
        made.quicken("a")
        assert reaches(made, "b", "a") is not None


def test_two_networks_do_not_meet() -> None:
    with network() as one, network() as other, listening(one, "a"):
        assert reaches(one, "b", "a") is not None
        with pytest.raises(ConnectionRefusedError):
            reaches(other, "b", "a")


BUILT = """
import subprocess, sys, time
from tests.hosts.network import Network
made = Network(("a", "b"))
made.slow("a", 0.01)
subprocess.Popen([*made.host("b").bound, "sleep", "1000"])
print(*{each.stat().st_ino for each in made.namespaces()}, flush=True)
time.sleep(1000)
"""


def inhabited() -> set[int]:
    """The network namespaces with a process in them."""
    found = set()
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdecimal():
                found.add((process / "ns/net").stat().st_ino)
    return found


def test_nothing_is_left_of_a_run_that_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", BUILT], stdout=subprocess.PIPE, cwd=ROOT) as building:
        assert building.stdout is not None
        namespaces = {int(each) for each in building.stdout.readline().split()}
        assert len(namespaces) == 3
        assert namespaces <= inhabited()
        building.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while namespaces & inhabited():
        assert time.monotonic() < deadline, "processes are left"
