"""The readings of a supervisor and its children, gathered when somebody asks for metrics."""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Protocol

import msgspec
import structlog

from greenroom_cluster.metrics.readings import Reading, Readings, decode_readings
from greenroom_cluster.runtime.host_memory import resident_bytes
from greenroom_cluster.runtime.processes import busy_seconds, start_ticks
from greenroom_cluster.runtime.proving import Keys, credentials_in
from greenroom_cluster.runtime.tasks import open_tasks

ANSWER_SECONDS = 1.0
"""How long a child may take to answer. A scraper waits for ten by default."""

_log = structlog.get_logger(__name__)


class Child(Protocol):
    """A process that a supervisor keeps running."""

    @property
    def ready(self) -> bool:
        """Whether it has said that it serves."""

    @property
    def pid(self) -> int:
        """Its process id; 0 before its start."""

    @property
    def started_ticks(self) -> int:
        """When it started, in clock ticks since boot."""


class Asked(Protocol):
    """A supervisor."""

    @property
    def starts(self) -> Mapping[str, int]:
        """How often each child was started."""

    async def ask(self, name: str, seconds: float) -> bytes | None:
        """Return a child's readings; None if it does not answer in time, or does not run."""


Gather = Callable[[], Awaitable[Mapping[str, Sequence[Reading]]]]


async def gather(
    supervisor: Asked | None, children: Mapping[str, Child], up: str
) -> dict[str, Sequence[Reading]]:
    """Return what the children tell, and what is seen of them. `up` is the metric of whether one answered."""
    told: dict[str, Sequence[Reading]] = {}

    async def ask(name: str, child: Child) -> None:
        answer = None if supervisor is None else await supervisor.ask(name, ANSWER_SECONDS)
        readings = Readings()
        readings.tell(up, float(answer is not None))
        starts = 0 if supervisor is None else supervisor.starts.get(name, 0)
        readings.tell("greenroom_restarts_total", max(0, starts - 1))
        _tell_process(readings, child.pid, child.started_ticks)
        told[name] = [*readings.all, *_decoded(answer, name)]

    async with open_tasks() as tasks:
        for name, child in children.items():
            tasks.start_soon(ask, name, child)
    return told


def _decoded(answer: bytes | None, name: str) -> Sequence[Reading]:
    try:
        return decode_readings(answer) if answer else ()
    except msgspec.MsgspecError as error:
        _log.error("readings_unreadable", process=name, error=str(error))
        return ()


def _tell_process(readings: Readings, pid: int, ticks: int) -> None:
    """Add what the kernel knows of a process, if it is there."""
    if not pid:
        return
    try:
        readings.tell("greenroom_resident_memory_bytes", resident_bytes(pid))
    except (OSError, IndexError):
        return
    if (seconds := busy_seconds(pid, ticks)) is not None:
        readings.tell("greenroom_cpu_seconds_total", seconds)


def tell_self(readings: Readings, keys: Keys | None, *, ready: bool) -> None:
    """Add what every supervisor tells of itself."""
    readings.tell("greenroom_build_info", 1, _version())
    readings.tell("greenroom_ready", float(ready))
    _tell_process(readings, os.getpid(), start_ticks(os.getpid()) or 0)
    if (credentials := credentials_in(keys)) is not None:
        readings.tell("greenroom_certificate_end_timestamp_seconds", credentials.current().ends_at)


@cache
def _version() -> str:
    from importlib.metadata import version  # slow, and only needed here

    return version("greenroom-cluster")
