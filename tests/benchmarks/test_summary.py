"""From readings to figures."""

import json
import random

import pytest

from benchmarks.results import Results, merged
from benchmarks.summary import by_round, cells_of, judged, ratio, ratios_of, summary_of
from benchmarks.tables import obstacle_table, verdict_table
from benchmarks.verdicts import OBSTACLES, verdicts_of
from tests.benchmarks.builders import failover, reading, rounds, run, sample, stored

NAMED_BY_THE_PROJECT = (
    "reads_vs_redis_py",
    "replicated_writes_vs_redis_wait",
    "reads_vs_valkey_glide",
    "reads_vs_emcache",
    "replicated_writes_vs_emcache",
    "reads_vs_echo",
    "replicated_writes_vs_echo",
    "p50_get_vs_redis_py",
    "p50_replicated_write_vs_redis_wait",
    "server_cpu_get_vs_redis",
    "server_cpu_replicated_write_vs_redis",
    "client_cpu_vs_redis_py",
    "bytes_per_session_vs_redis",
)


def test_a_cell_is_the_median_of_its_rounds_with_their_extremes() -> None:
    (cell,) = cells_of(rounds("a", 300, 100, 200))
    assert (cell.per_second, cell.low, cell.high, cell.rounds) == (200, 100, 300, 3)
    assert cell.p50_us == 1000


def test_cells_keep_apart_what_is_not_the_same_work() -> None:
    readings = [reading("a"), reading("b"), reading("a", callers=1), reading("a", work="update")]
    assert len(cells_of(readings)) == 4


def test_a_ratio_compares_round_with_round() -> None:
    # The machine halved its speed in the second round; nobody's ratio may suffer from that.
    results = Results(throughput=rounds("greenroom", 600, 300, 620) + rounds("redis_py", 100, 50, 100))
    assert ratios_of(results)["reads_vs_redis_py"] == 6


def test_a_round_that_one_of_the_two_lacks_does_not_count() -> None:
    assert by_round({0: 6.0, 1: 3.0, 2: 6.2}, {0: 1.0, 2: 1.0}) == [6.0, 6.2]
    ours, theirs = rounds("greenroom", 600, 300, 620), rounds("redis_py", 100, 50, 100)
    # Not the third of ours with the second of theirs.
    assert ratios_of(Results(throughput=[ours[0], ours[2], *theirs[:2]]))["reads_vs_redis_py"] == 6


@pytest.mark.parametrize(("ours", "theirs"), [(None, 1.0), (1.0, None), (1.0, 0.0)])
def test_no_ratio_without_two_figures(ours: float | None, theirs: float | None) -> None:
    assert ratio(ours, theirs) is None


COMPARISONS = [
    ("reads_vs_redis_py", "get", 64, "redis_py", "rate"),
    ("replicated_writes_vs_redis_wait", "update", 64, "redis_wait", "rate"),
    ("reads_vs_valkey_glide", "get", 64, "valkey_glide", "rate"),
    ("replicated_writes_vs_valkey_glide", "update", 64, "valkey_glide", "rate"),
    ("reads_vs_emcache", "get", 64, "emcache", "rate"),
    ("replicated_writes_vs_emcache", "update", 64, "emcache", "rate"),
    ("reads_vs_echo", "get", 64, "echo", "rate"),
    ("replicated_writes_vs_echo", "update", 64, "echo", "rate"),
    ("p50_get_vs_redis_py", "get", 1, "redis_py", "p50"),
    ("p50_replicated_write_vs_redis_wait", "update", 1, "redis_wait", "p50"),
    ("server_cpu_get_vs_redis", "get", 64, "redis_py", "server_cpu"),
    ("server_cpu_get_vs_redis_at_1", "get", 1, "redis_py", "server_cpu"),
    ("server_cpu_get_vs_redis_at_8", "get", 8, "redis_py", "server_cpu"),
    ("server_cpu_get_vs_redis_at_512", "get", 512, "redis_py", "server_cpu"),
    ("server_cpu_replicated_write_vs_redis", "update", 64, "redis_wait", "server_cpu"),
    ("server_cpu_replicated_write_vs_redis_at_1", "update", 1, "redis_wait", "server_cpu"),
    ("server_cpu_replicated_write_vs_redis_at_8", "update", 8, "redis_wait", "server_cpu"),
    ("server_cpu_replicated_write_vs_redis_at_512", "update", 512, "redis_wait", "server_cpu"),
    ("client_cpu_vs_redis_py", "get", 64, "redis_py", "client_cpu"),
    ("client_cpu_replicated_write_vs_redis_wait", "update", 64, "redis_wait", "client_cpu"),
]


@pytest.mark.parametrize(("name", "work", "callers", "peer", "figure"), COMPARISONS)
def test_a_ratio_is_of_what_its_name_says(name: str, work: str, callers: int, peer: str, figure: str) -> None:
    def measured(who: str, at: str, count: int) -> dict[str, float]:
        """Other figures everywhere."""
        draw = random.Random(f"{who} {at} {count}")
        return {each: draw.uniform(1, 100) for each in ("rate", "p50", "server_cpu", "client_cpu")}

    everybody = {"greenroom", *(other for _, _, _, other, _ in COMPARISONS)}
    found = ratios_of(
        Results(
            throughput=[
                reading(who, at, count, **measured(who, at, count))
                for who in everybody
                for at in ("get", "update")
                for count in (1, 8, 64, 512)
            ]
        )
    )
    expected = measured("greenroom", work, callers)[figure] / measured(peer, work, callers)[figure]
    assert found[name] == pytest.approx(expected, rel=1e-3)


def test_every_named_ratio_is_there_even_if_nothing_was_measured() -> None:
    ratios = ratios_of(Results())
    assert set(NAMED_BY_THE_PROJECT) <= set(ratios)
    assert all(ratios[name] is None for name in NAMED_BY_THE_PROJECT)
    assert all(verdict.met is None for verdict in verdicts_of(ratios))


def test_throughput_is_compared_at_64_callers_and_latency_at_one() -> None:
    results = Results(
        throughput=[
            reading("greenroom", rate=7000),
            reading("redis_py", rate=1000),
            reading("greenroom", callers=1, rate=1, p50=0.002),
            reading("redis_py", callers=1, rate=1, p50=0.001),
        ]
    )
    ratios = ratios_of(results)
    assert ratios["reads_vs_redis_py"] == 7
    assert ratios["p50_get_vs_redis_py"] == 2
    met = {verdict.target.ratio: verdict.met for verdict in verdicts_of(ratios)}
    assert met["reads_vs_redis_py"] is True
    assert met["p50_get_vs_redis_py"] is False


def test_memory_is_compared_at_a_million_sessions() -> None:
    results = Results(
        stored=[
            *(stored("greenroom", count, 1000) for count in (10_000, 1_000_000)),
            stored("greenroom", 5_000_000, 9000, p50=0.0011),
            *(stored("redis_py", count, 800) for count in (10_000, 1_000_000, 5_000_000)),
        ]
    )
    ratios = ratios_of(results)
    assert ratios["bytes_per_session_vs_redis"] == 1.25
    assert ratios["get_p50_most_vs_fewest_stored"] == 1.1


def test_memory_of_a_smaller_run_is_compared_at_what_both_have() -> None:
    results = Results(stored=[stored("greenroom", 20_000, 1000), stored("redis_py", 20_000, 500)])
    assert ratios_of(results)["bytes_per_session_vs_redis"] == 2


def test_lost_writes_of_every_scenario_count() -> None:
    results = Results(
        failovers=[
            failover("greenroom", recovered=1.0),
            failover("greenroom", "cut_from_majority", lost=3),
            failover("redis_sentinel", recovered=4.0, lost=100),
        ]
    )
    ratios = ratios_of(results)
    assert ratios["recovery_vs_sentinel"] == 0.25
    assert ratios["acknowledged_writes_lost"] == 3
    assert ratios["acknowledged_writes_lost_sentinel"] == 100
    met = {verdict.target.ratio: verdict.met for verdict in verdicts_of(ratios)}
    assert met["acknowledged_writes_lost"] is False


def test_a_pause_may_be_as_long_as_that_of_redis() -> None:
    ratios: dict[str, float | None] = {
        "pause_sweep_ms": 30.0,
        "pause_sweep_redis_ms": 40.0,
        "pause_most_stored_ms": 30.0,
    }
    met = {verdict.target.ratio: verdict.met for verdict in verdicts_of(ratios)}
    assert met["pause_sweep_ms"] is True
    assert met["pause_most_stored_ms"] is False


def test_the_summary_is_one_json_object_with_the_ratios() -> None:
    results = Results(
        throughput=[reading("greenroom"), reading("redis_py")], stored=[stored("greenroom", 10, 9)]
    )
    document = json.loads(json.dumps(summary_of(results)))
    assert document["ratios"]["reads_vs_redis_py"] == 1
    assert document["stored"][0]["bytes_per_session"] == 9


def test_parts_measured_before_are_kept_with_how_they_were_measured() -> None:
    older = Results(
        runs={
            "throughput": run(versions={"redis": "1"}),
            "failover": run(commit="a", versions={"redis": "1"}, skipped={"emcache": "it failed"}),
        },
        throughput=[reading("old")],
        failovers=[failover("old")],
    )
    newer = Results(runs={"throughput": run(versions={"redis": "2"})}, throughput=[reading("new")])
    result = merged(older, newer)
    assert result.runs == {"throughput": newer.runs["throughput"], "failover": older.runs["failover"]}
    assert [each.contender for each in result.throughput] == ["new"]
    assert [each.contender for each in result.failovers] == ["old"]


def test_samples_of_a_cell_may_hold_no_distribution() -> None:
    assert sample().distribution == []


def test_what_is_missed_is_shown_with_what_stands_in_its_way() -> None:
    rounds_each = {"reads_vs_echo": [0.1] * 3, "replicated_writes_vs_echo": [0.9] * 3}
    ratios = {"reads_vs_echo": 0.1, "replicated_writes_vs_echo": 0.9, "stale_reads": 3.0}
    verdicts = verdicts_of(ratios, rounds_each)
    shown = obstacle_table(verdicts).rows
    assert shown == [("reads_vs_echo", OBSTACLES["reads_vs_echo"]), ("stale_reads", "not looked into")]


def shown_of(results: Results, name: str) -> tuple[str, str]:
    """Return verdict and cause as the tables have them."""
    verdicts = judged(results)
    verdict = next(row[-1] for row in verdict_table(verdicts).rows if row[0] == name)
    causes = obstacle_table(verdicts).rows
    return verdict, next((cause for missed, cause in causes if name in missed.split(", ")), "")


def echoed(*rates: float, quick: bool = False) -> Results:
    """Return rounds of reads, against an echo of 1000 a second."""
    return Results(
        runs={"throughput": run("quick" if quick else "full")},
        throughput=rounds("greenroom", *rates) + rounds("echo", *[1000.0] * len(rates)),
    )


def test_a_clear_miss_names_its_cause() -> None:
    results = echoed(300, 350, 400)
    assert shown_of(results, "reads_vs_echo") == ("**missed**", OBSTACLES["reads_vs_echo"])


def test_a_miss_within_the_spread_asks_for_more_rounds() -> None:
    """It names no cause: some rounds met the bound."""
    verdict, obstacle = shown_of(echoed(300, 350, 600), "reads_vs_echo")
    assert verdict == "**missed**, within the spread"
    assert "more rounds (`--rounds`)" in obstacle


def test_what_is_met_within_the_spread_says_so() -> None:
    assert shown_of(echoed(300, 600, 600), "reads_vs_echo") == ("met, within the spread", "")
    assert shown_of(echoed(600, 600, 700), "reads_vs_echo") == ("met", "")


def test_a_verdict_on_few_rounds_says_how_many() -> None:
    assert shown_of(echoed(600, 700), "reads_vs_echo") == ("met, in 2 rounds", "")
    assert shown_of(echoed(600), "reads_vs_echo") == ("met, in one round", "")
    verdict, obstacle = shown_of(echoed(300, 310), "reads_vs_echo")
    assert verdict == "**missed**, in 2 rounds"
    assert "more rounds (`--rounds`) than 2" in obstacle
    three = [failover("greenroom"), failover("greenroom", "cut_from_replicas")] * 3
    assert shown_of(Results(failovers=three), "stale_reads")[0] == "met"
    assert shown_of(Results(failovers=three[:5]), "stale_reads")[0] == "met, in 2 rounds"


def test_a_quick_run_is_no_verdict() -> None:
    verdict, obstacle = shown_of(echoed(300, 350, quick=True), "reads_vs_echo")
    assert verdict == "**missed**, in a quick run"
    assert "without `--quick`" in obstacle
    assert shown_of(echoed(600, 700, quick=True), "reads_vs_echo")[0] == "met, in a quick run"


def test_a_lost_write_is_no_noise_even_in_a_quick_run() -> None:
    results = Results(runs={"failover": run("quick")}, failovers=[failover("greenroom", lost=1)])
    assert shown_of(results, "acknowledged_writes_lost") == ("**missed**", "not looked into")
    assert shown_of(results, "stale_reads")[0] == "met, in a quick run"


def test_a_quick_run_of_one_part_says_nothing_of_another() -> None:
    results = echoed(600, 700, 650)
    results.runs["failover"] = run("quick")
    results.failovers = [failover("greenroom", recovered=2), failover("redis_sentinel", recovered=4)] * 2
    assert shown_of(results, "reads_vs_echo")[0] == "met"
    assert shown_of(results, "recovery_vs_sentinel")[0] == "met, in a quick run"
    assert next(each.spread for each in judged(results) if each.target.ratio == "recovery_vs_sentinel") == (
        0.5,
        0.5,
    )


def test_every_target_is_of_some_part() -> None:
    every = {part: run("quick") for part in ("throughput", "stored", "failover")}
    assert all(verdict.quick for verdict in judged(Results(runs=every)))


def test_obstacles_are_those_of_targets() -> None:
    assert set(OBSTACLES) <= {verdict.target.ratio for verdict in verdicts_of({})}
