"""Pages and options."""

import json
import re
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from benchmarks.__main__ import contenders_named, measured, parts_named
from benchmarks.clients import ContenderError
from benchmarks.legend import WORKS as WORKS_TOLD
from benchmarks.legend import names_of, rounds_told, runs_of
from benchmarks.orders import WORKS
from benchmarks.processes import descendants
from benchmarks.report import (
    PAGE_FILE,
    RESULTS_FILE,
    TABLES_DIRECTORY,
    page,
    rounded,
    show,
    siblings_in,
    table_pages,
    write,
)
from benchmarks.results import Results
from benchmarks.stage import QUICK, Stage
from benchmarks.tables import markdown, tables_of
from tests.benchmarks.builders import failover, reading, rounds, run, stored

DOCUMENTS = Path(__file__).parent.parent.parent / "docs" / "benchmarks"
RESULTS = Results(
    runs={
        "throughput": run(
            machine={"cores": "2"},
            skipped={"emcache": "memcached is not installed: apt-get install memcached"},
        ),
    },
    throughput=[reading("greenroom", rate=1234.5), reading("redis_py", rate=1000)],
    stored=[stored("greenroom", 1000, 700), stored("redis_py", 1000, 600)],
    failovers=[failover("greenroom"), failover("redis_sentinel", lost=12)],
)


HOW = "1 s a measurement, 9 s in all"


def test_tables_have_a_cell_for_every_column() -> None:
    tables = tables_of(RESULTS)
    assert {len(row) - len(table.columns) for table in tables for row in table.rows} == {0}
    assert all(line.count("|") for line in markdown(tables[0]).splitlines()[2:])


def test_a_missed_figure_is_printed_as_missed() -> None:
    text = page(RESULTS, [])
    assert "| reads_vs_redis_py |" in text
    assert "| 1.23 |  | ≥ 6 | **missed**, in one round |" in text
    assert "apt-get install memcached" in text


def test_what_is_skipped_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show(RESULTS, Console())
    assert "skipped: emcache: memcached is not installed" in capsys.readouterr().out


def test_the_report_begins_with_the_machine_and_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    """It says first where and how it was measured, and what the names mean."""
    results = Results(
        runs={
            "throughput": run("quick", when="2026-01-02", load=0.7, machine={"cores": "2"}),
            "failover": run("reduced", machine={"cores": "2"}, versions={"redis": "1"}, commit="0123ab"),
        },
        throughput=[
            each
            for name in ("echo", "redis_wait")
            for work in ("mix", "web")
            for each in rounds(name, 1, 2, work=work)
        ],
        failovers=[failover("redis_sentinel")],
    )
    show(results, Console())
    shown = capsys.readouterr().out
    above, _, _ = shown.partition("mix, 300 bytes")
    for line in (
        "cores: 2",
        "versions: redis 1",
        f"throughput: 2026-01-02, quick, 2 rounds, {HOW}, load before the run 0.7 (busy)",
        f"failover: now, reduced, 1 round, {HOW}, load before the run 0.1, commit 0123ab",
        "redis_wait: redis-py, SET + WAIT 1: replicated",
        "redis_sentinel: redis-py, Redis with Sentinel",
        "mix: of five operations",
        "web: a web request",
        "node_killed: SIGKILL of all",
    ):
        assert f"\n  {line}" in above
        assert line in "".join([page(results, []), *table_pages(results).values()]).replace("`", "")
    assert "coredis:" not in above, "only who took part"


def test_what_differs_between_parts_is_told_by_part() -> None:
    runs = {
        "throughput": run(machine={"python": "3.11", "cores": "2"}, versions={"redis": "1"}),
        "failover": run(machine={"python": "3.12", "cores": "2"}, versions={"redis": "2"}),
        "transfer": run(machine={"python": "3.12", "cores": "2"}, versions={"trio": "1"}, skipped={"x": "y"}),
    }
    lines = {line for section in runs_of(Results(runs=runs)) for line in section.lines}
    assert "python: 3.11 (throughput), 3.12 (failover and transfer)" in lines
    assert "cores: 2" in lines
    assert "versions: redis 1 (throughput), 2 (failover), trio 1" in lines
    assert "transfer: x: y" in lines


def test_json_comes_last_and_alone_on_stdout(tmp_path: Path) -> None:
    write(RESULTS, tmp_path, Console(quiet=True))
    command = [sys.executable, "-m", "benchmarks", "--render", "--write", str(tmp_path), "--json"]
    ended = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    document = json.loads(ended.stdout)
    assert document["ratios"]["reads_vs_redis_py"] == 1.2345
    assert "Aims" in ended.stderr


def test_one_that_is_terminated_stops_what_it_started() -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "a", "--contenders", "echo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "throughput: 300 bytes" not in process.stderr.readline():
            assert process.poll() is None
        started = descendants(process.pid)
        assert started
        process.terminate()
        assert process.stderr.read().rstrip().endswith("ended by SIGTERM")
    assert process.returncode == 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)


def test_a_part_that_breaks_off_is_told_and_the_rest_is_kept() -> None:
    stage = Stage(QUICK, (), Console(quiet=True))

    def breaks_off(stage: Stage) -> None:
        stage.results.throughput.append(reading("greenroom"))
        raise ContenderError("out of order")

    kept = measured("throughput", breaks_off, stage, "quick", 0.1)
    assert kept.skipped == {"what was left of throughput": "ContenderError: out of order"}
    assert (kept.kind, kept.rounds, len(stage.results.throughput)) == ("quick", 2, 1)


def test_every_work_is_told() -> None:
    assert set(WORKS_TOLD) == set(WORKS)


@pytest.mark.parametrize(
    ("turns", "told"), [([], ""), ([1, 1], "1 round"), ([5], "5 rounds"), ([10, 2, 2], "2 to 10 rounds")]
)
def test_rounds_are_told(turns: list[int], told: str) -> None:
    assert rounds_told(turns) == told


def test_the_published_pages_are_what_their_raw_results_give() -> None:
    results = msgspec.json.decode((DOCUMENTS / RESULTS_FILE).read_bytes(), type=Results)
    published = (DOCUMENTS / PAGE_FILE).read_text()
    plots = [(file, caption) for caption, file in re.findall(r"^!\[(.*)\]\((.*)\)$", published, re.MULTILINE)]
    again = "uv run --group bench python -m benchmarks --render"
    assert page(results, plots, siblings_in(DOCUMENTS)) == published, again
    assert len(published.encode()) <= 10_000, "tables belong on pages of their own"
    tables = {each.name: each.read_text() for each in (DOCUMENTS / TABLES_DIRECTORY).iterdir()}
    assert tables == table_pages(results), again
    named = {
        name
        for section in names_of(results)
        for name in re.findall(r"^`(\w+)`", "\n".join(section.lines), re.MULTILINE)
    }
    assert {each.contender for each in (*results.throughput, *results.scaling, *results.failovers)} <= named


def test_results_can_be_read_back(tmp_path: Path) -> None:
    write(RESULTS, tmp_path, Console(quiet=True))
    write(Results(runs={"stored": run()}), tmp_path, Console(quiet=True))
    found = msgspec.json.decode((tmp_path / RESULTS_FILE).read_bytes(), type=Results)
    assert found.runs == {**RESULTS.runs, "stored": run()}
    assert found.throughput == RESULTS.throughput
    assert (tmp_path / "index.md").read_text().startswith("# Benchmarks")
    assert (tmp_path / "tables" / "get.md").read_text().startswith("# Throughput: get")


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
