import pytest

from benchmarks.pages.figures import BASE, CLUSTER, COOKIES, PageReading, PageReport, page, ratios


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
