"""What OpenTelemetry's own exporters receive of an app's sessions."""

import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from greenroom import UnavailableError
from greenroom.dialog.near import NearCounts
from greenroom.observing.opentelemetry import BOUNDS, OpenTelemetryObserver
from greenroom.testing import Library
from tests.store.extras import requirements_of
from tests.store.observing.site import Site
from tests.store.web.web_stage import cancelled_at, tell


class Telemetry:
    """Providers whose exporters keep everything in memory, and a site that tells them."""

    def __init__(self, **options: Any) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = OpenTelemetryObserver(
            tracer_provider=self.tracers,
            meter_provider=MeterProvider([self.reader]),
            **options,
        )
        self.site = Site(self.observer)

    async def request(self, name: str) -> int:
        """Visit a page as an instrumented server does: within a span of the request."""
        tracer = self.tracers.get_tracer("server")
        with tracer.start_as_current_span(f"GET /{name}"):
            return (await self.site.visit(name))[0]

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def metrics(self) -> dict[str, Any]:
        """Return the metrics by name."""
        data = self.reader.get_metrics_data()
        assert data is not None
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        assert scope.scope.name == "greenroom"
        return {each.name: each for each in scope.metrics}

    def points(self, name: str, label: str) -> dict[Any, Any]:
        return {each.attributes[label]: each for each in self.metrics()[name].data.data_points}


def test_a_span_lies_below_that_of_the_request(library: Library) -> None:
    """Also that of a save, which is shielded from cancellation in a task of its own."""
    telemetry = Telemetry()

    async def story() -> None:
        for name in ("add", "login", "look", "logout"):
            assert await telemetry.request(name) == 200

    tell(library, story)
    by_id = {each.context.span_id: each for each in telemetry.spans() if each.context is not None}
    ours = [each for each in telemetry.spans() if each.kind == SpanKind.CLIENT]
    below = {}
    for each in ours:
        assert each.parent is not None
        parent = by_id[each.parent.span_id]
        below.setdefault(parent.name, []).append(each.name)
        assert None not in (parent.start_time, each.start_time, each.end_time, parent.end_time)
        assert parent.start_time <= each.end_time <= parent.end_time  # type: ignore[operator]
        assert each.start_time <= each.end_time  # type: ignore[operator]
    assert below == {
        "GET /add": ["create sessions"],
        "GET /login": ["get sessions", "rotate sessions"],
        "GET /look": ["get sessions"],
        "GET /logout": ["get sessions", *below["GET /logout"][1:]],
    }
    assert "delete sessions" in below["GET /logout"]


def test_a_save_that_outlives_its_request_lies_below_it(library: Library) -> None:
    telemetry = Telemetry()

    async def story() -> bool:
        await telemetry.request("add")
        gate = telemetry.site.stage.store.hold("patch")
        return await cancelled_at(library, lambda: telemetry.request("add"), gate)

    # Under trio nothing is left to be cancelled at once the save has ended.
    assert tell(library, story) or library.name == "trio"
    (patch,) = [each for each in telemetry.spans() if each.name == "patch sessions"]
    assert patch.attributes is not None
    assert patch.attributes["greenroom.outcome"] == "done"
    *_, request = [each for each in telemetry.spans() if each.name == "GET /add"]
    assert patch.parent is not None
    assert patch.parent == request.context


def test_attributes_are_those_of_the_conventions(library: Library) -> None:
    telemetry = Telemetry()
    tell(library, lambda: telemetry.request("add"))
    (span,) = [each for each in telemetry.spans() if each.kind == SpanKind.CLIENT]
    assert span.name == "create sessions"
    assert dict(span.attributes or {}) == {
        "db.system.name": "greenroom",
        "db.operation.name": "create",
        "db.collection.name": "sessions",
        "greenroom.outcome": "done",
    }
    assert span.status.status_code == StatusCode.UNSET
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "greenroom"


def test_a_failure_is_told_by_its_type_alone(library: Library) -> None:
    telemetry = Telemetry()
    telemetry.site.stage.store.fail("get", UnavailableError("the cart of alice"))

    async def story() -> None:
        await telemetry.request("add")
        assert await telemetry.request("look") == 503

    tell(library, story)
    span = telemetry.spans()[-2]
    assert span.attributes is not None
    assert span.attributes["error.type"] == "greenroom.errors.UnavailableError"
    assert span.attributes["greenroom.outcome"] == "unavailable"
    assert span.status.status_code == StatusCode.ERROR
    assert span.status.description is None
    assert "alice" not in span.to_json()
    assert span.events == ()


def test_no_id_no_user_and_no_data_is_told(library: Library) -> None:
    telemetry = Telemetry()
    ids: list[str | None] = []

    async def story() -> None:
        for name in ("add", "login", "count", "again", "fail", "logout"):
            await telemetry.request(name)
            ids.append(telemetry.site.stage.session_id(telemetry.site.jar))

    tell(library, story)
    metrics = telemetry.reader.get_metrics_data()
    assert metrics is not None
    told = "".join(each.to_json() for each in telemetry.spans()) + metrics.to_json()
    known = [each for each in ids if each is not None]
    assert len(known) == 5
    for secret in (*known, "alice", "cart"):
        assert secret not in told.replace("test_observed_by", "")


def test_durations_have_the_bounds_of_the_conventions(library: Library) -> None:
    telemetry = Telemetry()

    async def story() -> None:
        await telemetry.site.visit("add", "look", "look")

    tell(library, story)
    metric = telemetry.metrics()["db.client.operation.duration"]
    assert metric.unit == "s"
    points = telemetry.points("db.client.operation.duration", "db.operation.name")
    assert points.keys() == {"create", "get"}
    assert points["get"].count == 2
    assert points["get"].explicit_bounds == BOUNDS
    assert 0 < points["get"].sum < 30


def test_pages_events_and_near_caches_are_told(library: Library) -> None:
    telemetry = Telemetry()
    telemetry.observer.follow_near(lambda: NearCounts(entries=2, hits=9))
    tell(library, lambda: telemetry.site.visit("add", "look", "look"))
    pages = telemetry.points("greenroom.pages", "greenroom.outcome")
    assert {outcome: each.value for outcome, each in pages.items()} == {"created": 1, "read": 2}
    durations = telemetry.points("greenroom.page.duration", "greenroom.outcome")
    assert {outcome: each.count for outcome, each in durations.items()} == {"created": 1, "read": 2}
    assert all(0 < each.sum < 30 for each in durations.values())
    assert telemetry.points("greenroom.session.events", "greenroom.event")["loads"].value == 2
    metrics = telemetry.metrics()
    assert [each.value for each in metrics["greenroom.store.near.entries"].data.data_points] == [2]
    assert [each.value for each in metrics["greenroom.store.near.hits"].data.data_points] == [9]
    assert metrics["greenroom.store.near.hits"].data.is_monotonic


def test_without_spans_metrics_alone(library: Library) -> None:
    telemetry = Telemetry(spans=False)
    tell(library, lambda: telemetry.site.visit("add"))
    assert telemetry.spans() == ()
    assert "greenroom.pages" in telemetry.metrics()


def test_what_the_extra_requires_is_named() -> None:
    script = "import sys; sys.modules['opentelemetry'] = None; import greenroom.observing.opentelemetry"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert f"pip install {requirements_of('opentelemetry')}" in done.stderr
