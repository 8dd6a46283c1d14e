"""The memory that this process uses and may use, as the kernel reports it."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import structlog

from greenroom_cluster.config import MEMORY_BYTES_MIN

_LOOKS_AFTER = 120  # half a minute of them
_M_ARENA_MAX = -8
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")

_log = structlog.get_logger(__name__)

SHARE = 0.75
"""The default share of the machine's or container's memory for all its actors together."""


def resident_bytes(pid: int | str = "self") -> int:
    """Return how much memory a process has in use. Raises OSError if there is no such process."""
    with open(f"/proc/{pid}/statm", "rb") as statm:  # noqa: PTH123  asked for twice a second, by a process with other things to do
        return int(statm.read().split()[1]) * _PAGE_BYTES


def share_arena() -> None:
    """Have all threads take memory from one place, so that all of it can be given back.

    glibc returns the free end of no arena (a thread's place) but the main one, which is 20 MB and more after
    a thread has read from disk: `malloc_trim` of glibc 2.36. To be called before there are other threads.
    Where the C library is not glibc this does nothing.
    """
    _call_of_glibc("mallopt", _M_ARENA_MAX, 1)


def give_back() -> None:
    """Return to the kernel what was freed and glibc keeps; it blocks, some 10 ms per 100 MB.

    Where the C library is not glibc this does nothing.
    """
    _call_of_glibc("malloc_trim", 0)


def _call_of_glibc(name: str, *arguments: int) -> None:
    """Call a function of glibc, if it is there: other C libraries lack it."""
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)


class Settling:
    """When an actor that began from disk gives memory back, until what it found there is long taken in.

    What was read is freed piece by piece, amid what is kept. The C library keeps that, and what is taken in
    is mostly of other sizes: both would add up beyond the bound, and as far as anyone can tell from the
    resident size all of it is in use, so that writes would be refused. Later nothing is given back: it costs
    more the more sizes are mixed (60 ms and more where half of 700 MB is free).
    """

    def __init__(self, found_bytes: int, resident: int) -> None:
        self._looks = _LOOKS_AFTER if found_bytes else 0
        self._settled = resident

    def is_due(self, found_bytes: int, resident: int) -> bool:
        """Whether to do it now, if so much is yet to be taken in.

        It is whenever memory has grown by an eighth since the last time, which the next look sees the effect
        of, and at the end.
        """
        if not self._looks:
            return False
        if not found_bytes:
            self._looks -= 1
        self._settled = min(self._settled, resident)
        due = not self._looks or resident > self._settled + self._settled // 8
        if due:
            self._settled = resident
        return due


def available_bytes(groups: Path = _CONTROL_GROUPS, own_groups: Path = Path("/proc/self/cgroup")) -> int:
    """Return the memory available to this process: the machine's, or what its control groups allow."""
    least = os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES
    for directory in _directories(groups, own_groups):
        try:
            text = (directory / "memory.max").read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            least = min(least, int(text))
    return least


def _directories(groups: Path, own_groups: Path) -> list[Path]:
    """Return the control group of this process (version 2) and those around it, the root last."""
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:
        return [groups]
    # In a container this may be a path of the host, which does not exist; the root is then the container's.
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    directory = groups / own
    return [directory, *(each for each in directory.parents if each == groups or groups in each.parents)]


def warn_if_short(actors: int, bytes_max: int) -> None:
    """Log a warning if this many actors, each at its bound, would need more memory than there is."""
    available = available_bytes()
    if actors * bytes_max > available:
        _log.warning(
            "memory_overcommitted",
            actors=actors,
            memory_mib_max_per_actor=bytes_max >> 20,
            memory_mib_available=available >> 20,
            hint="the kernel may kill actors before they are full: lower --memory-max (GREENROOM_MEMORY_MAX) "
            "or --actors (GREENROOM_ACTORS)",
        )


def default_bytes(actors: int) -> int:
    """Return the bound of each of this many actors that share the machine or container."""
    return max(int(available_bytes() * SHARE) // actors, MEMORY_BYTES_MIN)
