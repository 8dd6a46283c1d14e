"""What one measurement yields."""

from collections.abc import Sequence

import msgspec

# Where the latency distribution is sampled, for the plots.
DISTRIBUTION = (
    0.01,
    0.05,
    *(step / 10 for step in range(1, 10)),
    0.95,
    0.98,
    0.99,
    0.995,
    0.998,
    0.999,
    0.9999,
)


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. Latencies in seconds, CPU in seconds per operation, `rate` in operations a second.

    `distribution` are the latencies at the quantiles of `DISTRIBUTION`. `server_cpu` is filled in by whoever
    started the servers.
    """

    operations: int
    rate: float
    p50: float
    p99: float
    p9999: float
    worst: float
    client_cpu: float
    server_cpu: float = 0.0
    errors: int = 0
    distribution: list[float] = msgspec.field(default_factory=list)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the ordered values lie; 0 if there are none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def sample_of(latencies: list[float], seconds: float, client_cpu: float, errors: int = 0) -> Sample:
    """Summarize the latencies of all operations that ended within `seconds`; sorts them in place."""
    latencies.sort()
    done = len(latencies)
    return Sample(
        operations=done,
        rate=done / seconds,
        p50=quantile(latencies, 0.5),
        p99=quantile(latencies, 0.99),
        p9999=quantile(latencies, 0.9999),
        worst=latencies[-1] if latencies else 0.0,
        client_cpu=client_cpu / max(1, done),
        errors=errors,
        distribution=[quantile(latencies, share) for share in DISTRIBUTION],
    )
