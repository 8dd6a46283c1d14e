"""What a scrape of an app tells of its sessions."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

prometheus_client = pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest  # noqa: E402  skipped where it is not there
from prometheus_client.multiprocess import MultiProcessCollector  # noqa: E402
from prometheus_client.openmetrics import exposition as openmetrics  # noqa: E402
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families as parse  # noqa: E402

from greenroom import MemoryStore  # noqa: E402
from greenroom.dialog.near import NearCounts  # noqa: E402
from greenroom.observing import OUTCOMES, PAGES, ObservedStore  # noqa: E402
from greenroom.observing.names import METRICS, NEAR  # noqa: E402
from greenroom.observing.prometheus import PrometheusObserver  # noqa: E402
from greenroom.testing import Library  # noqa: E402
from tests.store.extras import requirements_of  # noqa: E402
from tests.store.observing.site import Site  # noqa: E402
from tests.store.web.web_stage import tell  # noqa: E402

Scrape = Mapping[tuple[str, ...], float]


def scraped(registry: CollectorRegistry) -> Scrape:
    """Return the samples of a scrape by name and values of labels."""
    found = {}
    for family in parse(generate_latest(registry).decode()):
        for sample in family.samples:
            found[(sample.name, *sample.labels.values())] = sample.value
    return found


def served(library: Library, *names: str) -> Scrape:
    registry = CollectorRegistry()
    site = Site(PrometheusObserver(registry))
    tell(library, lambda: site.visit(*names))
    return scraped(registry)


def test_a_scrape_tells_operations_and_pages(library: Library) -> None:
    found = served(library, "home", "add", "add", "look", "logout")
    for kind, outcome, count in (
        ("create", "done", 1),
        ("get", "done", 3),
        ("get", "missing", 0),
        ("get", "unavailable", 0),
        ("patch", "done", 1),
        ("delete", "done", 1),
    ):
        assert found["greenroom_store_operations_total", kind, outcome] == count
    assert found["greenroom_store_operation_seconds_count", "get"] == 3
    assert found["greenroom_store_operation_seconds_bucket", "get", "+Inf"] == 3
    assert 0 < found["greenroom_store_operation_seconds_sum", "get"] < 30
    pages = {outcome: found["greenroom_pages_total", outcome] for outcome in PAGES}
    assert {outcome: count for outcome, count in pages.items() if count} == {
        "anonymous": 1,
        "created": 1,
        "changed": 1,
        "read": 1,
        "ended": 1,
    }
    assert found["greenroom_session_events_total", "patches"] == 1
    assert found["greenroom_page_seconds_count", "read"] == 1
    assert 0 < found["greenroom_page_seconds_sum", "read"] < 30


def test_near_caches_are_told_for_all_stores_together() -> None:
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    assert not [each for each in scraped(registry) if each[0].startswith("greenroom_store_near_")]
    observer.follow_near(lambda: NearCounts(entries=3, hits=5, misses=2))
    observer.follow_near(lambda: NearCounts(entries=1, hits=1, evicted=7))
    found = scraped(registry)
    assert found["greenroom_store_near_entries",] == 4
    assert found["greenroom_store_near_hits_total",] == 6
    assert found["greenroom_store_near_misses_total",] == 2
    assert found["greenroom_store_near_evicted_total",] == 7


def test_the_names_are_those_of_the_page(library: Library) -> None:
    """In OpenMetrics as well, whose parser is the stricter."""
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    observer.follow_near(NearCounts)
    site = Site(observer)
    tell(library, lambda: site.visit("add"))
    families = {each.name: each for each in parse_openmetrics(openmetrics.generate_latest(registry).decode())}
    told = {each.name.removesuffix("_total"): each for each in METRICS}
    assert families.keys() == told.keys()
    for name, metric in told.items():
        assert (families[name].type, families[name].documentation) == (metric.kind, metric.help)
        for sample in families[name].samples:
            assert sample.labels.keys() - {"le"} == set(metric.labels)


def test_labels_are_words_of_the_code(library: Library) -> None:
    found = served(library, "add", "login", "fail", "look")
    values = {value for key in found for value in key[1:]}
    session_id_like = [each for each in values if len(each) > 20 and not each[0].isdigit()]
    assert session_id_like == []
    assert "alice" not in str(found)
    outcomes = {key[2] for key in found if key[0] == "greenroom_store_operations_total"}
    assert outcomes == set(OUTCOMES)


def test_bounds_are_bounds_of_the_servers() -> None:
    registry = CollectorRegistry()
    store = ObservedStore(MemoryStore(), PrometheusObserver(registry))
    store.watch("none", lambda _: None)
    bounds = [
        float(key[2]) for key in scraped(registry) if key[0] == "greenroom_store_operation_seconds_bucket"
    ]
    assert bounds == [*(pytest.approx(2**bit * 1e-9) for bit in range(13, 34, 2)), float("inf")]


def test_a_second_one_in_a_registry_is_refused() -> None:
    registry = CollectorRegistry()
    PrometheusObserver(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        PrometheusObserver(registry)


def test_every_counter_of_near_caches_is_told() -> None:
    assert set(NEAR) == set(NearCounts.__struct_fields__) - {"supported"}


WORKER = """
import asyncio, sys
from greenroom import MemoryStore
from greenroom.observing import ObservedStore, Page
from greenroom.observing.prometheus import PrometheusObserver
observer = PrometheusObserver()
asyncio.run(ObservedStore(MemoryStore(), observer).clean())
observer.page(Page("read", 0.5))
"""


def test_several_workers_are_added_up(tmp_path: Path) -> None:
    """By prometheus-client's files; what is only looked at is not in them."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", WORKER], env=environment, check=True, timeout=60)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(tmp_path))
    found = scraped(registry)
    assert found["greenroom_store_operations_total", "clean", "done"] == 2
    assert found["greenroom_store_operation_seconds_count", "clean"] == 2
    assert found["greenroom_pages_total", "read"] == 2
    assert found["greenroom_page_seconds_sum", "read"] == 1
    assert not [each for each in found if each[0].startswith(("greenroom_session", "greenroom_store_near"))]


def test_what_the_extra_requires_is_named() -> None:
    script = "import sys; sys.modules['prometheus_client'] = None; import greenroom.observing.prometheus"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert f"pip install {requirements_of('prometheus')}" in done.stderr
