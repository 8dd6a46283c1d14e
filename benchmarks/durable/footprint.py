"""What durability takes: memory of the actors, and space on the disk for a state that is written again."""

import time

from benchmarks.durable.figures import FSYNC, NONE, STATE_BYTES_MIN, DiskReading, MemoryReading
from benchmarks.durable.stage import Party, Stage, demand_all
from benchmarks.orders import Measure
from benchmarks.processes import resident_bytes
from benchmarks.servers.cluster import ClusterServer

REWRITTEN_SIZE = 4096
_CALLERS = 64
_STRIDE = 97  # so far apart callers of a measurement start; each goes on to where the next one began
SLICE = _CALLERS * _STRIDE
_SETTLE_SECONDS = 2.0


def run(stage: Stage) -> None:
    """Fill a cluster of each mode, one after the other; rewrite the state of another again and again."""
    for name in (NONE, FSYNC):
        stage.say(f"footprint: memory, {name}")
        with stage.cluster(name) as party:
            stage.results.memory.append(_memory(party, stage.scale.stored))
    with stage.cluster(FSYNC) as party:
        _rewrite(stage, party)


def _memory(party: Party[ClusterServer], count: int) -> MemoryReading:
    empty = _actors_bytes(party.server)
    party.fill(count)
    demand_all(party.name, party.server, count)
    time.sleep(_SETTLE_SECONDS)
    return MemoryReading(
        contender=party.name,
        stored=count,
        empty_bytes=empty,
        resident_bytes=_actors_bytes(party.server),
    )


def _actors_bytes(server: ClusterServer) -> int:
    return sum(resident_bytes(server.actor(index).pid) for index in range(2))


def _rewrite(stage: Stage, party: Party[ClusterServer]) -> None:
    scale, server = stage.scale, party.server
    count = scale.slices * SLICE
    party.fill(count, REWRITTEN_SIZE)
    peaks: dict[int, int] = {}
    # A caller writes one session each period, and its own part of a slice within a measurement.
    period = _CALLERS / scale.pace
    order = Measure(work="update", callers=_CALLERS, seconds=(_STRIDE - 0.5) * period, period_seconds=period)
    for turn in range(1, scale.rewrites + 1):
        stage.say(f"footprint: {count:,} sessions of 4 KiB are replaced, {turn} of {scale.rewrites}")
        for number in range(scale.slices):
            party.choose(SLICE, REWRITTEN_SIZE, number * SLICE)
            party.client.measure(order)
            for index in range(2):
                peaks[index] = max(peaks.get(index, 0), server.disk_bytes(index))
        state = server.state_bytes()
        if max(state.values()) < STATE_BYTES_MIN:
            stage.say("with so little state the least size of a log decides: the figure says nothing")
        for index in range(2):
            slot = f"n{index + 1}/0"
            stage.results.disk.append(
                DiskReading(
                    slot=slot,
                    rewrites=turn,
                    state_bytes=state[slot],
                    disk_bytes=server.disk_bytes(index),
                    peak_bytes=peaks[index],
                )
            )
