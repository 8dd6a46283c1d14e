"""The readings of a supervisor and its children, gathered when somebody asks for metrics."""

import os
from collections.abc import Sequence
from functools import cache

import msgspec
import structlog

from greenroom_cluster.metrics.readings import Reading, Readings, decode_readings
from greenroom_cluster.runtime.host_memory import resident_bytes
from greenroom_cluster.runtime.processes import busy_seconds, start_ticks
from greenroom_cluster.runtime.proving import Keys, credentials_in
from greenroom_cluster.runtime.supervision import ChildProcess, Supervisor
from greenroom_cluster.runtime.tasks import open_tasks

ANSWER_SECONDS = 1.0
"""How long a child may take to answer. A scraper waits for ten by default."""

_log = structlog.get_logger(__name__)


async def gather(supervisor: Supervisor | None, up: str) -> dict[str, Sequence[Reading]]:
    """Return what the children tell, and what is seen of them. `up` is the metric of whether one answered."""
    if supervisor is None:
        return {}
    told: dict[str, Sequence[Reading]] = {}

    async def ask(name: str, child: ChildProcess) -> None:
        answer = await supervisor.ask(name, ANSWER_SECONDS)
        readings = Readings()
        readings.tell(up, float(answer is not None))
        readings.tell("greenroom_restarts_total", max(0, supervisor.starts[name] - 1))
        _tell_process(readings, child.pid, child.started_ticks)
        told[name] = [*readings.all, *_decoded(answer, name)]

    async with open_tasks() as tasks:
        for name, child in supervisor.children.items():
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
