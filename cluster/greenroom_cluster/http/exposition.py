"""Readings in the form in which Prometheus reads them. Only loaded when somebody asks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from greenroom_cluster.metrics.names import METRICS, PROCESS, Metric
from greenroom_cluster.metrics.readings import Reading

Told = Mapping[str, Sequence[Reading]]
"""Readings by the name of the process that told them."""


def expose(told: Told, accept: str) -> tuple[bytes, str]:
    """Return the text and its type: OpenMetrics for who accepts it, else the older form."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(told))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector(Collector):
    def __init__(self, told: Told) -> None:
        self._told = told

    def collect(self) -> Iterator[Any]:
        found: dict[str, list[tuple[str, Reading]]] = {}
        for process, readings in self._told.items():
            for reading in readings:
                found.setdefault(reading.name, []).append((process, reading))
        for name, metric in METRICS.items():
            if name in found:
                yield _family(metric, found[name])


def _family(metric: Metric, readings: Iterable[tuple[str, Reading]]) -> Any:
    labels = (PROCESS, *metric.labels)
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=labels)
        for process, reading in readings:
            histogram.add_metric((process, *reading.labels), _buckets(metric, reading), reading.value)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name.removesuffix("_total"), metric.help, labels=labels)
    for process, reading in readings:
        family.add_metric((process, *reading.labels), reading.value)
    return family


def _buckets(metric: Metric, reading: Reading) -> list[tuple[str, float]]:
    """Return how many values are no larger than each bound. One of n bits is below 2**n."""
    found = [(f"{2**bits * reading.unit:g}", float(sum(reading.counts[: bits + 1]))) for bits in metric.bits]
    return [*found, ("+Inf", float(sum(reading.counts)))]
