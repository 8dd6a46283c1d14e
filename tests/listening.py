"""On which ports processes listen, by the kernel's tables."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="processes that hold keys show their descriptors to root alone"
)
"""For tests that look into processes of a cluster."""


def listening_ports(pids: Iterable[int]) -> set[int]:
    """Return the TCP ports on which these processes listen; of those of a cluster only root learns it."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                target = str(descriptor.readlink())
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        found |= {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in inodes}
    return found
