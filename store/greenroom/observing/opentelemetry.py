"""Metrics and spans of an app's sessions for OpenTelemetry, by its conventions for clients of databases.

>>> observe(sessions, OpenTelemetryObserver())

A span is made when its operation is over, with the times that it had, below the span of the task that asked.
What an operation raised is told by its type alone: its text may quote a key of the session.
"""

from collections.abc import Callable, Iterable, Mapping
from time import time_ns
from typing import TYPE_CHECKING

try:
    from opentelemetry.metrics import (
        CallbackOptions,
        MeterProvider,
        Observation,
        get_meter,
    )
    from opentelemetry.trace import SpanKind, StatusCode, TracerProvider, get_tracer
except ImportError as error:
    raise ImportError(
        "greenroom.observing.opentelemetry needs opentelemetry-api; install it with: "
        "pip install 'opentelemetry-api>=1.30'",
        name=error.name,
    ) from None

import greenroom
from greenroom.observing.followed import Followed
from greenroom.observing.names import BOUNDS_SECONDS, EVENTS, NEAR, PAGE_SECONDS, PAGES_OF_SESSIONS
from greenroom.observing.observer import CANCELLED, Observer, Operation, Page

if TYPE_CHECKING:
    from greenroom.dialog.near import NearCounts

__all__ = ["OpenTelemetryObserver"]

SCOPE = "greenroom"
SYSTEM = "greenroom"
COLLECTION = "sessions"
DURATION = "db.client.operation.duration"
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""The bounds of the buckets that the conventions ask for, in seconds."""


class OpenTelemetryObserver(Observer):
    """Tells the providers given, or those that the app has set. With `spans=False` metrics alone."""

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        spans: bool = True,
    ) -> None:
        version = greenroom.__version__
        self._tracer = get_tracer(SCOPE, version, tracer_provider) if spans else None
        meter = get_meter(SCOPE, version, meter_provider)
        self._followed = Followed()
        self._duration = meter.create_histogram(
            DURATION,
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=BOUNDS,
        )
        pages, events = PAGES_OF_SESSIONS, EVENTS
        self._pages = meter.create_counter("greenroom.pages", unit="{request}", description=pages.help)
        self._page_duration = meter.create_histogram(
            "greenroom.page.duration",
            unit="s",
            description=PAGE_SECONDS.help,
            explicit_bucket_boundaries_advisory=BOUNDS_SECONDS,
        )
        meter.create_observable_counter(
            "greenroom.session.events", [self._events], unit="{event}", description=events.help
        )
        for name, each in NEAR.items():
            create = (
                meter.create_observable_gauge if each.kind == "gauge" else meter.create_observable_counter
            )
            create(
                f"greenroom.store.near.{name}",
                [self._near_of(name)],
                unit="{session}",
                description=each.help,
            )

    def operation(self, operation: Operation) -> None:
        """Note how long an operation took, and make its span."""
        attributes = {
            "db.system.name": SYSTEM,
            "db.operation.name": operation.kind,
            "db.collection.name": COLLECTION,
            "greenroom.outcome": operation.outcome,
        }
        error = None if operation.outcome == CANCELLED else operation.error
        if error is not None:
            attributes["error.type"] = _name_of(type(error))
        self._duration.record(operation.seconds, attributes)
        if self._tracer is not None:
            ended_ns = time_ns()
            span = self._tracer.start_span(
                f"{operation.kind} {COLLECTION}",
                kind=SpanKind.CLIENT,
                attributes=attributes,
                start_time=ended_ns - int(operation.seconds * 1e9),
            )
            if error is not None:
                span.set_status(StatusCode.ERROR)
            span.end(ended_ns)

    def page(self, page: Page) -> None:
        """Count a page, and note how long its session took."""
        attributes = {"greenroom.outcome": page.outcome}
        self._pages.add(1, attributes)
        self._page_duration.record(page.seconds, attributes)

    def follow_near(self, near: "Callable[[], NearCounts]") -> None:
        """Tell of the near caches of one store more."""
        self._followed.near_of_stores.append(near)

    def follow_events(self, events: Callable[[], Mapping[str, int]]) -> None:
        """Tell of the events of one `Session` more."""
        self._followed.events_of_sessions.append(events)

    def _events(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(count, {"greenroom.event": name}) for name, count in self._followed.events().items()
        ]

    def _near_of(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def told(_options: CallbackOptions) -> Iterable[Observation]:
            near = self._followed.near()
            return [] if near is None else [Observation(getattr(near, name))]

        return told


def _name_of(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
