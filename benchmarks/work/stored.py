"""(c) Many sessions stored: memory, the latency of a get, pauses, and a million that expire at once.

Ours and Redis hold one replica each; memcached holds none. All of them grow step by step side by side.
"""

import time
from contextlib import suppress
from typing import Protocol

from benchmarks.clients import ContenderError
from benchmarks.orders import Measure, Measured
from benchmarks.processes import Server
from benchmarks.results import StoredReading, SweepReading
from benchmarks.samples import Sample
from benchmarks.servers.redis import RedisServer
from benchmarks.stage import Part, Stage
from benchmarks.work.throughput import turned, without_distribution
from greenroom import UnavailableError

NAMES = ("greenroom", "redis_py", "emcache")
SIZE = 300
SAMPLE = 10_000
PACED_CALLERS = 8
PERIOD_SECONDS = 0.002
# Of a session, both replicas, generously: for the decision whether it fits.
_BYTES_EXPECTED = {"greenroom": 1500, "redis_py": 1000, "emcache": 600}
_SHARE_OF_MEMORY = 0.7
_POLL_SECONDS = 0.2
_SWEEP_LEAD_SECONDS = 2.0


class Counting(Protocol):
    """Servers that can tell how many sessions they hold."""

    def stored(self) -> int:
        """Return how many."""


def run(stage: Stage) -> None:
    """Grow step by step, measure at each, and let some expire at the end."""
    with stage.clients(stage.asked(*NAMES), {"redis": lambda: RedisServer(replicas=1)}) as opened:
        parts = dict(opened)
        empty = {name: _resident(part) for name, part in parts.items()}
        have = 0
        for count in stage.scale.stored:
            need = (count - have) * sum(_BYTES_EXPECTED[name] for name in parts)
            if need > available_bytes() * _SHARE_OF_MEMORY:
                stage.skip(
                    f"{count:,} stored sessions", f"the machine lacks {need >> 20:,} MiB of free memory"
                )
                break
            took = _fill(stage, parts, count - have, have)
            have = count
            stage.say(f"stored: {count:,} sessions")
            for reading in _readings(stage, parts, count, took, empty):
                stage.results.stored.append(reading)
        for name, part in parts.items():
            if isinstance(part.server, Server) and hasattr(part.server, "stored"):
                stage.say(f"stored: {stage.scale.swept:,} sessions of {name} expire")
                stage.results.sweeps.append(_sweep(stage, name, part, part.server, have))
            else:
                stage.skip(f"{name} while sessions expire", "its server does not tell how many are left")


def _fill(stage: Stage, parts: dict[str, Part], count: int, have: int) -> dict[str, float]:
    """Store more sessions everywhere; return the seconds. Who fails at it takes no further part, visibly."""
    took = {}
    for name, part in list(parts.items()):
        try:
            took[name] = part.fill(count, SIZE, skip=have)
        except ContenderError as error:
            stage.skip(f"{name} with {have + count:,} stored sessions", str(error))
            del parts[name]
    return took


def available_bytes() -> int:
    """Return the memory that the kernel says is available."""
    with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123  not a file on disk
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _resident(part: Part) -> int:
    assert part.server is not None
    return part.server.resident_bytes()


def _readings(
    stage: Stage, parts: dict[str, Part], count: int, took: dict[str, float], empty: dict[str, int]
) -> list[StoredReading]:
    for part in parts.values():
        part.choose(count, SAMPLE, SIZE)
    grown = {name: _resident(part) - empty[name] for name, part in parts.items()}
    alone: dict[str, list[Sample]] = {name: [] for name in parts}
    crowded: dict[str, list[Sample]] = {name: [] for name in parts}
    for turn in range(stage.scale.rounds):
        for name in turned(list(parts), turn):
            for callers, samples in ((1, alone), (64, crowded)):
                order = Measure(work="get", callers=callers, seconds=stage.scale.seconds)
                samples[name].append(without_distribution(parts[name].client.measure(order)))
    return [
        StoredReading(
            contender=name,
            stored=count,
            size=SIZE,
            fill_seconds=took[name],
            grown_bytes=grown[name],
            alone=alone[name],
            crowded=crowded[name],
            paced=without_distribution(part.client.measure(_paced(stage.scale.paced_seconds))),
        )
        for name, part in parts.items()
    ]


def _paced(seconds: float) -> Measure:
    return Measure(work="get", callers=PACED_CALLERS, seconds=seconds, period_seconds=PERIOD_SECONDS)


def _sweep(stage: Stage, name: str, part: Part, server: Counting, have: int) -> SweepReading:
    """Store sessions that all expire in the same second and watch them go while others are read."""
    before = part.client.measure(_paced(stage.scale.paced_seconds))
    speed = part.fill(1000, SIZE, skip=have) / 1000
    kept = have + 1000
    swept = stage.scale.swept
    expires_at = time.time() + swept * speed * 1.5 + _SWEEP_LEAD_SECONDS
    part.fill(swept, SIZE, skip=kept, expires_at=expires_at)
    time.sleep(max(0.0, expires_at - 1 - time.time()))
    part.client.begin(_paced(stage.scale.sweep_seconds))
    gone: float | None = None
    left = swept
    while not part.client.answered(_POLL_SECONDS):
        if gone is None:
            with suppress(UnavailableError):
                left = max(0, server.stored() - kept)
            gone = None if left else time.time() - expires_at
    during = part.client.finish(Measured).sample
    if during.operations == 0:
        raise ContenderError(f"{name} answered nothing while sessions expired")
    return SweepReading(
        contender=name,
        stored=kept,
        swept=swept,
        seconds=gone,
        left=left,
        before=without_distribution(before),
        during=without_distribution(during),
    )
