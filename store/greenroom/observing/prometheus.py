"""Metrics of an app's sessions for a Prometheus client, in the registry that the app exposes.

>>> observe(sessions, PrometheusObserver())

One for each registry. With several processes behind one port (`PROMETHEUS_MULTIPROC_DIR`) operations and
pages are added up by prometheus-client; events and near caches are not told then, since it has no collectors.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "greenroom.observing.prometheus needs prometheus-client; install it with: "
        "pip install 'prometheus-client>=0.21'",
        name=error.name,
    ) from None

from greenroom.observing.followed import Followed
from greenroom.observing.names import (
    BOUNDS_SECONDS,
    EVENTS,
    NEAR,
    OPERATIONS,
    PAGE_SECONDS,
    PAGES_OF_SESSIONS,
    SECONDS,
)
from greenroom.observing.observer import OUTCOMES, PAGES, Observer, Operation, Page

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

    from greenroom.dialog.near import NearCounts

__all__ = ["PrometheusObserver"]


class PrometheusObserver(Observer):
    """Counts in `registry`, by default prometheus-client's own, which raises ValueError for a second one."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._operations = Counter(OPERATIONS.name, OPERATIONS.help, OPERATIONS.labels, registry=registry)
        self._seconds, self._page_seconds = (
            Histogram(each.name, each.help, each.labels, registry=registry, buckets=BOUNDS_SECONDS)
            for each in (SECONDS, PAGE_SECONDS)
        )
        pages = PAGES_OF_SESSIONS
        counter = Counter(pages.name, pages.help, pages.labels, registry=registry)
        # All of them from the start, so that a rate is known from the first one on.
        self._pages = {
            outcome: (counter.labels(outcome), self._page_seconds.labels(outcome)) for outcome in PAGES
        }
        self._by_kind: dict[str, tuple[Mapping[str, Counter], Histogram]] = {}
        self._followed = Followed()
        registry.register(_Figures(self._followed))

    def operation(self, operation: Operation) -> None:
        """Count an operation, and how long it took."""
        found = self._by_kind.get(operation.kind)
        if found is None:
            found = self._by_kind[operation.kind] = self._of_kind(operation.kind)
        outcomes, seconds = found
        outcomes[operation.outcome].inc()
        seconds.observe(operation.seconds)

    def page(self, page: Page) -> None:
        """Count a page, and how long its session took."""
        counter, seconds = self._pages[page.outcome]
        counter.inc()
        seconds.observe(page.seconds)

    def follow_near(self, near: "Callable[[], NearCounts]") -> None:
        """Tell of the near caches of one store more."""
        self._followed.near_of_stores.append(near)

    def follow_events(self, events: Callable[[], Mapping[str, int]]) -> None:
        """Tell of the events of one `Session` more."""
        self._followed.events_of_sessions.append(events)

    def _of_kind(self, kind: str) -> tuple[Mapping[str, Counter], Histogram]:
        outcomes = {outcome: self._operations.labels(kind, outcome) for outcome in OUTCOMES}
        return outcomes, self._seconds.labels(kind)


class _Figures(Collector):
    """What is looked at only when somebody scrapes."""

    def __init__(self, followed: Followed) -> None:
        self._followed = followed

    def describe(self) -> "Iterable[Family]":
        """Tell the names, so that the registry need not collect to know them."""
        for each in NEAR.values():
            kind = GaugeMetricFamily if each.kind == "gauge" else CounterMetricFamily
            yield kind(each.name, each.help)
        yield CounterMetricFamily(EVENTS.name, EVENTS.help, labels=EVENTS.labels)

    def collect(self) -> "Iterable[Family]":
        """Tell the figures."""
        near = self._followed.near()
        if near is not None:
            for name, each in NEAR.items():
                kind = GaugeMetricFamily if each.kind == "gauge" else CounterMetricFamily
                yield kind(each.name, each.help, value=getattr(near, name))
        events = CounterMetricFamily(EVENTS.name, EVENTS.help, labels=EVENTS.labels)
        for name, count in self._followed.events().items():
            events.add_metric([name], count)
        yield events
