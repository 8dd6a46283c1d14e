import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any, ClassVar

import pytest

from benchmarks.pages.figures import BASE, CLUSTER, COOKIES, PageReading, PageReport, page, ratios
from benchmarks.pages.load import CHANGE, load


def reading(title: str, per_second: float, turn: int = 0, mix: str = "read") -> PageReading:
    return PageReading(
        round=turn,
        title=title,
        mix=mix,
        per_second=per_second,
        p50_us=2000.0,
        p99_us=9000.0,
        app_cpu=1e-4,
        server_cpu=2e-5,
    )


def test_ratios_compare_within_a_round_and_a_mix() -> None:
    readings = [
        reading(COOKIES, 100.0),
        reading(CLUSTER, 150.0),
        reading(COOKIES, 200.0, turn=1),
        reading(CLUSTER, 100.0, turn=1),
        reading(CLUSTER, 999.0, turn=2),
        reading(CLUSTER, 1.0, mix="change"),
    ]
    assert ratios(readings, CLUSTER, COOKIES, "read") == pytest.approx([1.5, 0.5])
    assert ratios(readings, CLUSTER, COOKIES, "change") == []


def test_the_page_shows_every_contender_and_what_was_left_out() -> None:
    report = PageReport(
        when="2026-01-02",
        commit="abc",
        load=0.1,
        machine={"cores": "2"},
        versions={"uvicorn": "1"},
        skipped={"redis": "not installed"},
        readings=[reading(BASE, 400.0), reading(COOKIES, 200.0), reading(CLUSTER, 100.0)],
    )
    text = page(report)
    assert "| Greenroom, cluster | 100 | 100 | 2.00 | 9.00 | 100 | 20 |" in text
    assert "| read | Greenroom, cluster | Starlette's cookies | 0.50 | 0.50 to 0.50 |" in text
    assert "left out: redis: not installed" in text


class _Asked(BaseHTTPRequestHandler):
    """Answers pages, and notes who asked for which."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[dict[str, list[tuple[str, str]]]]

    def do_GET(self) -> None:  # the name that http.server looks for
        self.seen.setdefault(self.headers["cookie"], []).append((self.command, self.path))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815  # as above

    def log_message(self, *args: Any) -> None:
        """Nothing is said."""


needs_wrk = pytest.mark.skipif(
    shutil.which("wrk") is None, reason="wrk is not installed: apt-get install wrk"
)


@contextmanager
def asked() -> Iterator[tuple[str, dict[str, list[tuple[str, str]]]]]:
    """Serve around the body; give the address, and which pages were asked for with which cookie."""
    _Asked.seen = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), _Asked) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", _Asked.seen
        finally:
            server.shutdown()
            serving.join()


@needs_wrk
def test_every_visitor_reads_nine_pages_and_changes_one() -> None:
    with asked() as (address, seen):
        cookies = ["id=a", "id=b", "id=c"]
        loaded = load(address, cookies, "nine reads, one change", 1)
    assert loaded.answered > 60
    assert set(seen) == set(cookies)
    starts = set()
    for pages in seen.values():
        changes = [number for number, page in enumerate(pages) if page == CHANGE]
        assert [b - a for a, b in pairwise(changes)] == [10] * (len(changes) - 1)
        starts.add(changes[0])
    assert len(starts) > 1, "not all at once"


@needs_wrk
def test_visitors_who_are_spread_read_nine_pages_and_change_one_too() -> None:
    with asked() as (address, seen):
        cookies = [f"id={number}" for number in range(8)]
        load(address, cookies, "nine reads, one change", 1, spread=True)
    for pages in seen.values():
        changes = sum(page == CHANGE for page in pages)
        assert 0.05 * len(pages) < changes < 0.2 * len(pages)
