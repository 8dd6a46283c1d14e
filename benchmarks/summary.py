"""From readings to figures: medians, spread, ratios, and whether what must be shown is shown. Pure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import msgspec

from benchmarks.results import (
    FailoverReading,
    Reading,
    Results,
    StoredReading,
    TransferReading,
)
from benchmarks.samples import Sample
from benchmarks.verdicts import CPU_AT, Verdict, verdicts_of

SMALL = 300
CALLERS = 64
_MICRO = 1e6
_MILLION = 1_000_000

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


def p50_of(sample: Sample) -> float:
    """Return the median latency in seconds."""
    return sample.p50


def _p99(sample: Sample) -> float:
    return sample.p99


def _server(sample: Sample) -> float:
    return sample.server_cpu


def _client(sample: Sample) -> float:
    return sample.client_cpu


ByRound = Mapping[int, float]
"""A figure of each round that has one."""


def by_round(ours: ByRound, theirs: ByRound) -> list[float]:
    """Return the ratio of every round that has both figures."""
    return [figure / theirs[turn] for turn, figure in ours.items() if theirs.get(turn)]


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Return the ratio of two figures, None without both."""
    return round(ours / theirs, 4) if ours is not None and theirs else None


def _middle(figures: Iterable[float]) -> float | None:
    """Return the median, None of nothing."""
    every = list(figures)
    return median(every) if every else None


class Readings:
    """Readings by what they are of."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self._samples: dict[tuple[str, str, int, int], dict[int, Sample]] = defaultdict(dict)
        for each in readings:
            self._samples[each.contender, each.work, each.size, each.callers][each.round] = each.sample

    def figures(self, contender: str, work: str, callers: int, of: Of, size: int = SMALL) -> dict[int, float]:
        """Return the figure of every round."""
        samples = self._samples.get((contender, work, size, callers), {})
        return {turn: of(sample) for turn, sample in samples.items()}

    def ratios(
        self, work: str, ours: str, theirs: str, of: Of = _rate, callers: int = CALLERS, size: int = SMALL
    ) -> list[float]:
        """Return ours to theirs of every round, both at the same work."""
        return by_round(
            self.figures(ours, work, callers, of, size), self.figures(theirs, work, callers, of, size)
        )


def rounds_of(results: Results) -> dict[str, list[float]]:
    """Return the ratios of every round by name, of those that are measured in rounds."""
    return _throughput_rounds(results) | {
        "get_p50_most_vs_fewest_stored": _stored_rounds(results),
        "recovery_vs_sentinel": _recovery_rounds(results),
    }


def _throughput_rounds(results: Results) -> dict[str, list[float]]:
    readings = Readings(results.throughput)
    get, write, ours = "get", "update", "greenroom"
    return {
        "reads_vs_redis_py": readings.ratios(get, ours, "redis_py"),
        "replicated_writes_vs_redis_wait": readings.ratios(write, ours, "redis_wait"),
        "reads_vs_valkey_glide": readings.ratios(get, ours, "valkey_glide"),
        "replicated_writes_vs_valkey_glide": readings.ratios(write, ours, "valkey_glide"),
        "reads_vs_emcache": readings.ratios(get, ours, "emcache"),
        "replicated_writes_vs_emcache": readings.ratios(write, ours, "emcache"),
        "reads_vs_echo": readings.ratios(get, ours, "echo"),
        "replicated_writes_vs_echo": readings.ratios(write, ours, "echo"),
        "p50_get_vs_redis_py": readings.ratios(get, ours, "redis_py", p50_of, callers=1),
        "p50_replicated_write_vs_redis_wait": readings.ratios(write, ours, "redis_wait", p50_of, callers=1),
        "p99_vs_p50_get": _p99_to_p50(readings, ours, get),
        "p99_vs_p50_replicated_write": _p99_to_p50(readings, ours, write),
        **{
            f"server_cpu_get_vs_redis{suffix}": readings.ratios(get, ours, "redis_py", _server, callers)
            for callers, suffix in CPU_AT.items()
        },
        **{
            f"server_cpu_replicated_write_vs_redis{suffix}": readings.ratios(
                write, ours, "redis_wait", _server, callers
            )
            for callers, suffix in CPU_AT.items()
        },
        "client_cpu_vs_redis_py": readings.ratios(get, ours, "redis_py", _client),
        "client_cpu_replicated_write_vs_redis_wait": readings.ratios(write, ours, "redis_wait", _client),
    }


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 4)


def ratios_of(results: Results) -> dict[str, float | None]:
    """Return every ratio by name; None stands for what was not measured."""
    found = {name: _rounded(_middle(rounds)) for name, rounds in _throughput_rounds(results).items()}
    return found | _stored_ratios(results) | _failover_ratios(results) | _transfer_ratios(results)


def _p99_to_p50(readings: Readings, contender: str, work: str) -> list[float]:
    return by_round(
        readings.figures(contender, work, CALLERS, _p99), readings.figures(contender, work, CALLERS, p50_of)
    )


def bytes_per_session(reading: StoredReading) -> float:
    """Return the resident growth of all servers per session."""
    return reading.grown_bytes / reading.stored


def _stored_ratios(results: Results) -> dict[str, float | None]:
    """Return memory at a million sessions (or the most below that), latency and pauses at the most.

    Redis's own latency, with which ours took turns, tells what the machine did between fewest and most.
    """
    by_name: dict[str, list[StoredReading]] = defaultdict(list)
    for reading in results.stored:
        by_name[reading.contender].append(reading)
    ours, theirs = by_name.get("greenroom", []), by_name.get("redis_py", [])
    counts = {reading.stored for reading in ours} & {reading.stored for reading in theirs}
    found: dict[str, float | None] = {
        "bytes_per_session_vs_redis": None,
        "get_p50_most_vs_fewest_stored": _most_to_fewest(ours),
        "get_p50_most_vs_fewest_stored_redis": _most_to_fewest(theirs),
    }
    found["pause_most_stored_ms"] = found["pause_most_stored_redis_ms"] = None
    found["pause_sweep_ms"] = found["pause_sweep_redis_ms"] = None
    if counts:
        at = max((count for count in counts if count <= _MILLION), default=min(counts))
        mine, other = (next(reading for reading in side if reading.stored == at) for side in (ours, theirs))
        if other.grown_bytes:
            found["bytes_per_session_vs_redis"] = ratio(bytes_per_session(mine), bytes_per_session(other))
    if ours:
        found["pause_most_stored_ms"] = round(max(ours, key=_count).paced.p9999 * 1e3, 3)
    if theirs:
        found["pause_most_stored_redis_ms"] = round(max(theirs, key=_count).paced.p9999 * 1e3, 3)
    for sweep in results.sweeps:
        name = {"greenroom": "pause_sweep_ms", "redis_py": "pause_sweep_redis_ms"}.get(sweep.contender)
        if name is not None:
            found[name] = round(sweep.during.p9999 * 1e3, 3)
    return found


def _most_to_fewest(readings: Sequence[StoredReading]) -> float | None:
    if not readings:
        return None
    fewest, most = min(readings, key=_count), max(readings, key=_count)
    return ratio(_crowded_p50(most), _crowded_p50(fewest))


def _crowded_p50(reading: StoredReading) -> float:
    return median(sample.p50 for sample in reading.crowded)


def _stored_rounds(results: Results) -> list[float]:
    """Return every figure with the most stored, to the median with the fewest: those are other rounds."""
    ours = [reading for reading in results.stored if reading.contender == "greenroom"]
    if not ours:
        return []
    fewest = _crowded_p50(min(ours, key=_count))
    return [sample.p50 / fewest for sample in max(ours, key=_count).crowded] if fewest else []


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
            _middle(each.recovered for each in ours), _middle(each.recovered for each in theirs)
        ),
        "acknowledged_writes_lost": float(sum(each.lost_writes for each in mine)) if mine else None,
        "acknowledged_writes_lost_sentinel": float(sum(e.lost_writes for e in others)) if others else None,
        "stale_reads": float(sum(each.stale_reads for each in mine)) if mine else None,
    }


def _recovery_rounds(results: Results) -> list[float]:
    by = failovers_by(results.failovers)
    ours, theirs = (by.get(("node_killed", name), []) for name in ("greenroom", "redis_sentinel"))
    usual = _middle(each.recovered for each in theirs)
    return [each.recovered / usual for each in ours] if usual else []


def _transfer_ratios(results: Results) -> dict[str, float | None]:
    ours = [reading for reading in results.transfers if reading.contender == "greenroom"]
    theirs = [reading for reading in results.transfers if reading.contender == "redis_py"]
    return {
        "transfer_seconds_vs_redis": ratio(
            _middle(each.seconds for each in ours), _middle(each.seconds for each in theirs)
        ),
        "transfer_p99_vs_before": ratio(
            _middle(map(p99_during, ours)), _middle(each.before.p99 for each in ours)
        ),
    }


def p99_during(reading: TransferReading) -> float:
    """Return the median over the slices' p99s while state was transferred."""
    return median(sample.p99 for sample in reading.during) if reading.during else 0.0


# --- what must be shown ----------------------------------------------------------------------------------


def judged(results: Results) -> list[Verdict]:
    """Return the verdicts on the results, with the spread of their rounds."""
    quick = {part for part, run in results.runs.items() if run.quick}
    ours = [reading for reading in results.failovers if reading.contender == "greenroom"]
    failures = min(Counter(reading.scenario for reading in ours).values(), default=0)
    stored = {"bytes_per_session_vs_redis", "get_p50_most_vs_fewest_stored"}
    names = {
        "throughput": set(_throughput_rounds(Results())),
        "stored": stored | {"pause_most_stored_ms", "pause_sweep_ms"},
        "failover": {"recovery_vs_sentinel", "acknowledged_writes_lost", "stale_reads"},
    }
    return verdicts_of(
        ratios_of(results),
        rounds_of(results),
        {name for part, own in names.items() if part in quick for name in own},
        dict.fromkeys(("acknowledged_writes_lost", "stale_reads"), failures),
    )


def summary_of(results: Results) -> dict[str, Any]:
    """Return everything as one JSON-ready object, `ratios` and verdicts included."""
    ratios = ratios_of(results)
    return {
        "runs": msgspec.to_builtins(results.runs),
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
                "spread": verdict.spread,
                "quick": verdict.quick,
                "rounds": verdict.rounds,
            }
            for verdict in judged(results)
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
