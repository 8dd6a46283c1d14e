"""From readings to figures: medians, spread, ratios, and whether what must be shown is shown. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

import msgspec

from benchmarks.results import FailoverReading, Reading, Results, StoredReading, TransferReading
from benchmarks.samples import Sample

SMALL = 300
CALLERS = 64
_MICRO = 1e6
_MILLION = 1_000_000
_PAUSE_SECONDS = 0.02

Key = tuple[str, str, int, int, int]
"""Contender, work, size, callers, client processes."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the rounds of one contender at one work; `low` and `high` are the extremes of the rate.

    Times and CPU per operation in microseconds.
    """

    contender: str
    work: str
    size: int
    callers: int
    clients: int
    rounds: int
    per_second: float
    low: float
    high: float
    p50_us: float
    p99_us: float
    p9999_us: float
    worst_us: float
    client_cpu_us: float
    server_cpu_us: float


def cells_of(readings: Iterable[Reading]) -> list[Cell]:
    """Return one cell for every contender and work, in the order in which they first appear."""
    found: dict[Key, list[Sample]] = defaultdict(list)
    for reading in readings:
        found[_key(reading)].append(reading.sample)
    return [_cell(key, samples) for key, samples in found.items()]


def _key(reading: Reading) -> Key:
    return (reading.contender, reading.work, reading.size, reading.callers, reading.clients)


def _cell(key: Key, samples: list[Sample]) -> Cell:
    contender, work, size, callers, clients = key

    def micros(of: Callable[[Sample], float]) -> float:
        return round(median(map(of, samples)) * _MICRO, 2)

    rates = sorted(sample.rate for sample in samples)
    return Cell(
        contender=contender,
        work=work,
        size=size,
        callers=callers,
        clients=clients,
        rounds=len(samples),
        per_second=round(median(rates)),
        low=round(rates[0]),
        high=round(rates[-1]),
        p50_us=micros(lambda sample: sample.p50),
        p99_us=micros(lambda sample: sample.p99),
        p9999_us=micros(lambda sample: sample.p9999),
        worst_us=micros(lambda sample: sample.worst),
        client_cpu_us=micros(lambda sample: sample.client_cpu),
        server_cpu_us=micros(lambda sample: sample.server_cpu),
    )


# --- ratios ----------------------------------------------------------------------------------------------

Of = Callable[[Sample], float]


def _rate(sample: Sample) -> float:
    return sample.rate


def _p50(sample: Sample) -> float:
    return sample.p50


def _p99(sample: Sample) -> float:
    return sample.p99


def _server(sample: Sample) -> float:
    return sample.server_cpu


def _client(sample: Sample) -> float:
    return sample.client_cpu


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return the median of the ratios round by round; None without two figures of one round."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=False) if b]
    return round(median(pairs), 4) if pairs else None


class Readings:
    """Readings by what they are of."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self._samples: dict[tuple[str, str, int, int], list[Sample]] = defaultdict(list)
        for reading in readings:
            self._samples[reading.contender, reading.work, reading.size, reading.callers].append(
                reading.sample
            )

    def figures(self, contender: str, work: str, callers: int, of: Of, size: int = SMALL) -> list[float]:
        """Return one figure of every round."""
        return [of(sample) for sample in self._samples.get((contender, work, size, callers), [])]

    def ratio(
        self, work: str, ours: str, theirs: str, of: Of = _rate, callers: int = CALLERS, size: int = SMALL
    ) -> float | None:
        """Return ours to theirs, both at the same work."""
        return ratio(
            self.figures(ours, work, callers, of, size), self.figures(theirs, work, callers, of, size)
        )


def ratios_of(results: Results) -> dict[str, float | None]:
    """Return every ratio by name; None stands for what was not measured."""
    readings = Readings(results.throughput)
    get, write, ours = "get", "update", "greenroom"
    found = {
        "reads_vs_redis_py": readings.ratio(get, ours, "redis_py"),
        "replicated_writes_vs_redis_wait": readings.ratio(write, ours, "redis_wait"),
        "reads_vs_valkey_glide": readings.ratio(get, ours, "valkey_glide"),
        "replicated_writes_vs_valkey_glide": readings.ratio(write, ours, "valkey_glide"),
        "reads_vs_emcache": readings.ratio(get, ours, "emcache"),
        "replicated_writes_vs_emcache": readings.ratio(write, ours, "emcache"),
        "reads_vs_echo": readings.ratio(get, ours, "echo"),
        "replicated_writes_vs_echo": readings.ratio(write, ours, "echo"),
        "p50_get_vs_redis_py": readings.ratio(get, ours, "redis_py", _p50, callers=1),
        "p50_replicated_write_vs_redis_wait": readings.ratio(write, ours, "redis_wait", _p50, callers=1),
        "p99_vs_p50_get": _p99_to_p50(readings, ours, get),
        "p99_vs_p50_replicated_write": _p99_to_p50(readings, ours, write),
        "server_cpu_get_vs_redis": readings.ratio(get, ours, "redis_py", _server),
        "server_cpu_replicated_write_vs_redis": readings.ratio(write, ours, "redis_wait", _server),
        "client_cpu_vs_redis_py": readings.ratio(get, ours, "redis_py", _client),
        "client_cpu_replicated_write_vs_redis_wait": readings.ratio(write, ours, "redis_wait", _client),
    }
    return found | _stored_ratios(results) | _failover_ratios(results) | _transfer_ratios(results)


def _p99_to_p50(readings: Readings, contender: str, work: str) -> float | None:
    return ratio(
        readings.figures(contender, work, CALLERS, _p99), readings.figures(contender, work, CALLERS, _p50)
    )


def bytes_per_session(reading: StoredReading) -> float:
    """Return the resident growth of all servers per session."""
    return reading.grown_bytes / reading.stored


def _stored_ratios(results: Results) -> dict[str, float | None]:
    """Return memory at a million sessions (or the most below that), latency and pauses at the most."""
    by_name: dict[str, list[StoredReading]] = defaultdict(list)
    for reading in results.stored:
        by_name[reading.contender].append(reading)
    ours, theirs = by_name.get("greenroom", []), by_name.get("redis_py", [])
    counts = {reading.stored for reading in ours} & {reading.stored for reading in theirs}
    found: dict[str, float | None] = {
        "bytes_per_session_vs_redis": None,
        "get_p50_most_vs_fewest_stored": None,
    }
    found["pause_most_stored_ms"] = found["pause_most_stored_redis_ms"] = None
    found["pause_sweep_ms"] = found["pause_sweep_redis_ms"] = None
    if counts:
        at = max((count for count in counts if count <= _MILLION), default=min(counts))
        mine, other = (next(reading for reading in side if reading.stored == at) for side in (ours, theirs))
        if other.grown_bytes:
            found["bytes_per_session_vs_redis"] = round(bytes_per_session(mine) / bytes_per_session(other), 4)
    if ours:
        fewest, most = min(ours, key=_count), max(ours, key=_count)
        found["get_p50_most_vs_fewest_stored"] = ratio(
            [median(sample.p50 for sample in most.crowded)], [median(sample.p50 for sample in fewest.crowded)]
        )
        found["pause_most_stored_ms"] = round(most.paced.p9999 * 1e3, 3)
    if theirs:
        found["pause_most_stored_redis_ms"] = round(max(theirs, key=_count).paced.p9999 * 1e3, 3)
    for sweep in results.sweeps:
        name = {"greenroom": "pause_sweep_ms", "redis_py": "pause_sweep_redis_ms"}.get(sweep.contender)
        if name is not None:
            found[name] = round(sweep.during.p9999 * 1e3, 3)
    return found


def _count(reading: StoredReading) -> int:
    return reading.stored


def failovers_by(readings: Iterable[FailoverReading]) -> dict[tuple[str, str], list[FailoverReading]]:
    """Return the readings by scenario and contender."""
    found: dict[tuple[str, str], list[FailoverReading]] = defaultdict(list)
    for reading in readings:
        found[reading.scenario, reading.contender].append(reading)
    return dict(found)


def _failover_ratios(results: Results) -> dict[str, float | None]:
    by = failovers_by(results.failovers)
    ours = by.get(("node_killed", "greenroom"), [])
    theirs = by.get(("node_killed", "redis_sentinel"), [])
    mine = [reading for reading in results.failovers if reading.contender == "greenroom"]
    others = [reading for reading in results.failovers if reading.contender == "redis_sentinel"]
    return {
        "recovery_vs_sentinel": ratio(
            [median(each.recovered for each in ours)] if ours else [],
            [median(each.recovered for each in theirs)] if theirs else [],
        ),
        "acknowledged_writes_lost": float(sum(each.lost_writes for each in mine)) if mine else None,
        "acknowledged_writes_lost_sentinel": float(sum(e.lost_writes for e in others)) if others else None,
        "stale_reads": float(sum(each.stale_reads for each in mine)) if mine else None,
    }


def _transfer_ratios(results: Results) -> dict[str, float | None]:
    ours = [reading for reading in results.transfers if reading.contender == "greenroom"]
    theirs = [reading for reading in results.transfers if reading.contender == "redis_py"]
    return {
        "transfer_seconds_vs_redis": ratio(
            [median(each.seconds for each in ours)] if ours else [],
            [median(each.seconds for each in theirs)] if theirs else [],
        ),
        "transfer_p99_vs_before": ratio(
            [median(map(p99_during, ours))] if ours else [],
            [median(each.before.p99 for each in ours)] if ours else [],
        ),
    }


def p99_during(reading: TransferReading) -> float:
    """Return the median over the slices' p99s while state was transferred."""
    return median(sample.p99 for sample in reading.during) if reading.during else 0.0


# --- what must be shown ----------------------------------------------------------------------------------


class Target(msgspec.Struct, frozen=True):
    """A bound for a ratio: at least, or at most."""

    ratio: str
    bound: float
    at_least: bool
    about: str


def _least(name: str, bound: float, about: str) -> Target:
    return Target(name, bound, at_least=True, about=about)


def _most(name: str, bound: float, about: str) -> Target:
    return Target(name, bound, at_least=False, about=about)


TARGETS = (
    _least("reads_vs_redis_py", 6, "reads a second at 64 callers, to redis-py"),
    _least("replicated_writes_vs_redis_wait", 6, "replicated writes a second at 64 callers, to SET + WAIT 1"),
    _least("reads_vs_valkey_glide", 3, "reads a second at 64 callers, to valkey-glide"),
    _least("replicated_writes_vs_valkey_glide", 3, "replicated writes, to valkey-glide's unreplicated"),
    _least("reads_vs_emcache", 1.5, "reads a second at 64 callers, to emcache"),
    _least("replicated_writes_vs_emcache", 1.5, "replicated writes, to emcache's unreplicated"),
    _least("reads_vs_echo", 0.55, "reads a second at 64 callers, to a bare echo"),
    _least("replicated_writes_vs_echo", 0.4, "replicated writes a second at 64 callers, to a bare echo"),
    _most("p50_get_vs_redis_py", 1.1, "one caller: p50 of a get, to redis-py's"),
    _most("p50_replicated_write_vs_redis_wait", 1.1, "one caller: p50 of a write, to SET + WAIT 1's"),
    _most("p99_vs_p50_get", 3, "64 callers: p99 of a get, to its p50"),
    _most("p99_vs_p50_replicated_write", 3, "64 callers: p99 of a replicated write, to its p50"),
    _most("server_cpu_get_vs_redis", 1, "server CPU of a get, to Redis's"),
    _most(
        "server_cpu_replicated_write_vs_redis", 1.5, "server CPU of a write, to master and replica of Redis"
    ),
    _most("client_cpu_vs_redis_py", 0.25, "client CPU of a get, to redis-py's"),
    _most("client_cpu_replicated_write_vs_redis_wait", 0.25, "client CPU of a write, to SET + WAIT 1's"),
    _most("bytes_per_session_vs_redis", 1.3, "memory of a session, one replica each, to Redis's"),
    _most("get_p50_most_vs_fewest_stored", 1.2, "p50 of a get with the most sessions stored, to the fewest"),
    _most("recovery_vs_sentinel", 1, "time to recover from a node's kill, to Redis with Sentinel"),
    _most("acknowledged_writes_lost", 0, "acknowledged writes lost in all failovers"),
    _most("stale_reads", 0, "answers older than what was acknowledged, in all failovers"),
)


_SERVERS = (
    "the servers' Python: most of an actor's time is the interpreter, for two logs, two applied states and "
    "three messages a write; the peers' servers are C"
)
_CLIENT = (
    "the client's Python: digest and routing of the id, request, reply, and the session built from it, "
    "beside the future and the task's step that the echo makes too"
)
OBSTACLES = {
    "reads_vs_redis_py": _CLIENT,
    "replicated_writes_vs_redis_wait": _SERVERS + ", which weighs less with more callers, as batches grow",
    "replicated_writes_vs_valkey_glide": _SERVERS,
    "replicated_writes_vs_emcache": _SERVERS + ", and memcached has no replica to write to",
    "reads_vs_echo": "the echo does nothing but a future a frame; " + _CLIENT,
    "replicated_writes_vs_echo": "an echo makes one hop, a replicated write two; " + _SERVERS,
    "p50_get_vs_redis_py": "waking a Python process takes longer than waking a C one",
    "p50_replicated_write_vs_redis_wait": (
        "two hops between Python processes, each of which is woken for one record; Redis's master answers a "
        "`WAIT` in C"
    ),
    "bytes_per_session_vs_redis": (
        "on each replica a session is a Struct with its bytes and ints, and entries of the table and of the "
        "expiry index"
    ),
    "pause_sweep_ms": (
        "a step of the sweep looks at sweep_looks_max sessions and its peer applies as many, in Python; "
        "steps follow each other after sweep_pause_seconds"
    ),
}
"""What stands in the way where a target is missed, as `benchmarks.costs` shows by stage."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether a target is met; `figure` None: it was not measured, so neither."""

    target: Target
    figure: float | None
    met: bool | None


def verdicts_of(ratios: dict[str, float | None]) -> list[Verdict]:
    """Hold the ratios against the targets, and the pauses against Redis's."""
    return [_verdict(target, ratios.get(target.ratio)) for target in (*TARGETS, *_pause_targets(ratios))]


def _pause_targets(ratios: dict[str, float | None]) -> list[Target]:
    """Return the bounds of pauses: 20 ms, or what Redis has if that is more."""
    found = []
    for name, when in (("most_stored", "with the most sessions stored"), ("sweep", "while sessions expire")):
        redis = ratios.get(f"pause_{name}_redis_ms")
        bound = max(_PAUSE_SECONDS * 1e3, redis or 0.0)
        found.append(_most(f"pause_{name}_ms", bound, f"p99.99 of a get {when}, ms, to 20 or Redis's"))
    return found


def _verdict(target: Target, figure: float | None) -> Verdict:
    if figure is None:
        return Verdict(target, None, None)
    return Verdict(target, figure, figure >= target.bound if target.at_least else figure <= target.bound)


def summary_of(results: Results) -> dict[str, Any]:
    """Return everything as one JSON-ready object, `ratios` and verdicts included."""
    ratios = ratios_of(results)
    return {
        "taken": results.taken,
        "machine": results.machine,
        "versions": results.versions,
        "skipped": results.skipped,
        "throughput": msgspec.to_builtins(cells_of(results.throughput)),
        "scaling": msgspec.to_builtins(cells_of(results.scaling)),
        **_sizes(results),
        "failovers": msgspec.to_builtins(results.failovers),
        "transfers": _transfers(results),
        "ratios": ratios,
        "targets": [
            {
                "ratio": verdict.target.ratio,
                "figure": verdict.figure,
                "bound": verdict.target.bound,
                "at_least": verdict.target.at_least,
                "met": verdict.met,
            }
            for verdict in verdicts_of(ratios)
        ],
    }


def _sizes(results: Results) -> dict[str, Any]:
    return {
        "stored": [
            {
                "contender": each.contender,
                "stored": each.stored,
                "bytes_per_session": round(bytes_per_session(each)),
                "fill_seconds": round(each.fill_seconds, 2),
                "get_p50_us_1": round(median(s.p50 for s in each.alone) * _MICRO, 1),
                "get_p50_us_64": round(median(s.p50 for s in each.crowded) * _MICRO, 1),
                "get_p99_us_64": round(median(s.p99 for s in each.crowded) * _MICRO, 1),
                "paced_p9999_us": round(each.paced.p9999 * _MICRO, 1),
                "paced_worst_us": round(each.paced.worst * _MICRO, 1),
            }
            for each in results.stored
        ],
        "sweeps": [
            {
                "contender": each.contender,
                "swept": each.swept,
                "seconds": each.seconds,
                "left": each.left,
                "before_p9999_us": round(each.before.p9999 * _MICRO, 1),
                "during_p9999_us": round(each.during.p9999 * _MICRO, 1),
                "during_worst_us": round(each.during.worst * _MICRO, 1),
            }
            for each in results.sweeps
        ],
    }


def _transfers(results: Results) -> list[dict[str, Any]]:
    return [
        {
            "contender": each.contender,
            "stored_bytes": each.stored_bytes,
            "seconds": round(each.seconds, 3),
            "startup_seconds": round(each.startup, 3),
            "before_p99_us": round(each.before.p99 * _MICRO, 1),
            "during_p99_us": round(p99_during(each) * _MICRO, 1),
            "during_worst_us": round(max(s.worst for s in each.during) * _MICRO, 1),
        }
        for each in results.transfers
    ]
