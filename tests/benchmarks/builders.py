"""Results made by hand."""

from typing import Any

from benchmarks.results import FailoverReading, Reading, Run, StoredReading
from benchmarks.samples import Sample


def sample(rate: float = 1000.0, **more: Any) -> Sample:
    figures = {
        "p50": 0.001,
        "p99": 0.002,
        "p9999": 0.003,
        "worst": 0.004,
        "client_cpu": 1e-5,
        "server_cpu": 1e-5,
    }
    return Sample(operations=int(rate), rate=rate, **{**figures, **more})


def reading(
    contender: str, work: str = "get", callers: int = 64, rate: float = 1000.0, turn: int = 0, **more: Any
) -> Reading:
    return Reading(
        round=turn, contender=contender, work=work, size=300, callers=callers, sample=sample(rate, **more)
    )


def rounds(contender: str, *rates: float, **more: Any) -> list[Reading]:
    return [reading(contender, rate=rate, turn=turn, **more) for turn, rate in enumerate(rates)]


def run(kind: str = "full", **more: Any) -> Run:
    figures = {"when": "now", "rounds": 5, "seconds": 1.0, "took_seconds": 9.4, "load": 0.1}
    return Run(kind=kind, **{**figures, **more})


def stored(contender: str, count: int, bytes_each: int, p50: float = 0.001) -> StoredReading:
    one = sample(p50=p50)
    return StoredReading(
        contender=contender,
        stored=count,
        size=300,
        fill_seconds=1.0,
        grown_bytes=count * bytes_each,
        alone=[one],
        crowded=[one],
        paced=one,
    )


def failover(
    contender: str, scenario: str = "node_killed", recovered: float = 1.0, lost: int = 0
) -> FailoverReading:
    return FailoverReading(
        scenario=scenario,
        contender=contender,
        unavailable=recovered,
        recovered=recovered,
        whole=True,
        operations=100,
        failed=0,
        errors={},
        acknowledged_writes=50,
        lost_writes=lost,
        stale_reads=0,
    )
