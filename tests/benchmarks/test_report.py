"""Pages and options."""

import re
from argparse import ArgumentTypeError
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from benchmarks.__main__ import contenders_named, parts_named
from benchmarks.legend import WORKS as WORKS_TOLD
from benchmarks.legend import rounds_told, sections_of
from benchmarks.orders import WORKS
from benchmarks.report import PAGE_FILE, RESULTS_FILE, page, rounded, show, write
from benchmarks.results import Results, how_taken
from benchmarks.tables import markdown, tables_of
from tests.benchmarks.builders import failover, reading, stored

DOCUMENTS = Path(__file__).parent.parent.parent / "docs" / "benchmarks"
RESULTS = Results(
    machine={"cores": "2"},
    skipped={"emcache": "memcached is not installed: apt-get install memcached"},
    throughput=[reading("greenroom", rate=1234.5), reading("redis_py", rate=1000)],
    stored=[stored("greenroom", 1000, 700), stored("redis_py", 1000, 600)],
    failovers=[failover("greenroom"), failover("redis_sentinel", lost=12)],
)


def test_tables_have_a_cell_for_every_column() -> None:
    tables = tables_of(RESULTS)
    assert {len(row) - len(table.columns) for table in tables for row in table.rows} == {0}
    assert all(line.count("|") for line in markdown(tables[0]).splitlines()[2:])


def test_a_missed_figure_is_printed_as_missed() -> None:
    text = page(RESULTS, [])
    assert "| reads_vs_redis_py |" in text
    assert "| 1.23 |  | ≥ 6 | **missed** |" in text
    assert "apt-get install memcached" in text


def test_what_is_skipped_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show(RESULTS, Console())
    assert "skipped: emcache: memcached is not installed" in capsys.readouterr().out


def test_the_report_says_first_where_and_how_it_was_measured_and_what_names_mean(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = Results(
        machine={"cores": "2"},
        taken={"throughput": how_taken("2026-01-02", 9.4, 0.7, quick=True)},
        throughput=[reading(name, work) for name in ("echo", "redis_wait") for work in ("mix", "web")] * 2,
        failovers=[failover("redis_sentinel")],
    )
    show(results, Console())
    shown = capsys.readouterr().out
    above, _, _ = shown.partition("mix, 300 bytes")
    for line in (
        "cores: 2",
        "throughput: 2026-01-02, quick, 9 s, load before the run 0.7 (busy), 2 rounds",
        "redis_wait: redis-py, SET + WAIT 1: replicated",
        "redis_sentinel: redis-py, Redis with Sentinel",
        "mix: of five operations",
        "web: a web request",
        "node_killed: SIGKILL of all",
    ):
        assert f"\n  {line}" in above
        assert line in page(results, []).replace("`", "")
    assert "coredis:" not in above, "only who took part"


def test_every_work_is_told() -> None:
    assert set(WORKS_TOLD) == set(WORKS)


@pytest.mark.parametrize(
    ("turns", "told"), [([], ""), ([1, 1], "1 round"), ([5], "5 rounds"), ([10, 2, 2], "2 to 10 rounds")]
)
def test_rounds_are_told(turns: list[int], told: str) -> None:
    assert rounds_told(turns) == told


def test_the_published_page_is_what_its_raw_results_give() -> None:
    results = msgspec.json.decode((DOCUMENTS / RESULTS_FILE).read_bytes(), type=Results)
    published = (DOCUMENTS / PAGE_FILE).read_text()
    plots = [(file, caption) for caption, file in re.findall(r"^!\[(.*)\]\((.*)\)$", published, re.MULTILINE)]
    assert page(results, plots) == published, "uv run --group bench python -m benchmarks --render"
    named = {
        name
        for section in sections_of(results)
        for name in re.findall(r"^`(\w+)`", "\n".join(section.lines), re.MULTILINE)
    }
    assert {each.contender for each in (*results.throughput, *results.scaling, *results.failovers)} <= named


def test_results_can_be_read_back(tmp_path: Path) -> None:
    write(RESULTS, tmp_path, Console(quiet=True))
    write(Results(taken={"stored": "now"}), tmp_path, Console(quiet=True))
    found = msgspec.json.decode((tmp_path / RESULTS_FILE).read_bytes(), type=Results)
    assert found.taken == {"stored": "now"}
    assert (tmp_path / "index.md").read_text().startswith("# Benchmarks")


def test_results_of_another_version_are_replaced(tmp_path: Path) -> None:
    (tmp_path / RESULTS_FILE).write_text('{"sweeps": [{}]}')
    write(RESULTS, tmp_path, Console(quiet=True))
    found = msgspec.json.decode((tmp_path / RESULTS_FILE).read_bytes(), type=Results)
    assert len(found.throughput) == 2


def test_figures_are_kept_with_five_digits() -> None:
    kept = msgspec.convert(rounded(Results(throughput=[reading("a", rate=1234.56789)])), Results)
    assert kept.throughput[0].sample.rate == 1234.6


def test_parts_by_name_or_letter() -> None:
    assert parts_named("a,transfer") == ["throughput", "transfer"]
    with pytest.raises(ArgumentTypeError, match="--only takes throughput"):
        parts_named("f")


def test_contenders_by_name() -> None:
    assert contenders_named("greenroom, echo") == ("greenroom", "echo")
    with pytest.raises(ArgumentTypeError, match="not oracle"):
        contenders_named("oracle")
