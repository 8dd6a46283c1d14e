"""What TLS costs: ratios and the page from readings, and the command."""

import pytest

from benchmarks.tls.figures import (
    PLAIN,
    REDIS_PLAIN,
    REDIS_TLS,
    TARGETS,
    TLS,
    AttackReading,
    IdleReading,
    KillReading,
    Results,
    page,
    ratios_of,
    tables_of,
    verdicts_of,
)
from tests.benchmarks.builders import rounds, run
from tests.benchmarks.commands import figures_in, measured


def idle(contender: str, server_bytes: int) -> IdleReading:
    return IdleReading(contender=contender, connections=10, server_bytes=server_bytes, client_bytes=20_480)


def attack(ratio: float, changes: int = 0, *, at_actor: bool = True) -> AttackReading:
    return AttackReading(
        at_actor=at_actor,
        connections=2000,
        before_seconds=0.01,
        during_seconds=0.01 * ratio,
        epoch_changes=changes,
        errors=0,
    )


def kill(number: int, contender: str, seconds: float) -> KillReading:
    return KillReading(round=number, contender=contender, seconds=seconds)


@pytest.fixture
def results() -> Results:
    return Results(
        run=run(),
        speed=[
            *rounds(PLAIN, 1000.0, 2000.0),
            *rounds(TLS, 900.0, 1700.0),
            *rounds(PLAIN, 100.0, work="update"),
            *rounds(TLS, 70.0, work="update"),
            *rounds(REDIS_PLAIN, 10.0, work="update"),
            *rounds(REDIS_TLS, 5.0, work="update"),
            *rounds(PLAIN, 1.0, callers=1, p50=0.002),
            *rounds(TLS, 1.0, callers=1, p50=0.0022),
            *rounds(PLAIN, 1.0, work="update", callers=1, p50=0.002),
            *rounds(TLS, 1.0, work="update", callers=1, p50=0.003),
        ],
        idle=[idle(PLAIN, 102_400), idle(TLS, 409_600)],
        attacks=[attack(9.0, 5, at_actor=False), attack(1.5), attack(2.5), attack(1.7, 1)],
        kills=[kill(0, PLAIN, 0.05), kill(0, TLS, 0.06), kill(1, PLAIN, 0.1), kill(1, TLS, 0.05)],
    )


def test_ratios_are_of_tls_to_plaintext_within_a_round(results: Results) -> None:
    ratios = ratios_of(results)
    assert ratios.keys() == {target.ratio for target in TARGETS}
    assert ratios["reads"] == pytest.approx([0.9, 0.85])
    assert ratios["writes"] == pytest.approx([0.7])
    assert ratios["read_p50"] == pytest.approx([1.1])
    assert ratios["write_p50"] == pytest.approx([1.5])
    assert ratios["idle_kibibytes"] == pytest.approx([30.0])
    assert ratios["half_open_p99"] == pytest.approx([1.5, 2.5, 1.7])
    assert ratios["half_open_changes"] == [0, 0, 1]
    assert ratios["kill_seconds"] == pytest.approx([1.2, 0.5])


def test_what_was_not_measured_has_no_verdict(results: Results) -> None:
    assert {each.target.ratio: each.met for each in verdicts_of(results)} == {
        "reads": True,
        "writes": False,
        "read_p50": True,
        "write_p50": False,
        "idle_kibibytes": True,
        "half_open_p99": True,
        "half_open_changes": False,
        "kill_seconds": True,
    }
    assert all(each.met is None for each in verdicts_of(Results()))
    assert tables_of(Results()) == []


def test_the_page_shows_the_peer_beside_ours(results: Results) -> None:
    text = page(results)
    assert "| update | 64 | 0.70 (0.70 to 0.70) | 0.50 (0.50 to 0.50) |" in text
    assert "| get | 64 | 0.88 (0.85 to 0.90) |  |" in text
    assert "| at an actor | 2,000 | 10.0 | 15.0 | 1.50 | 0 | 0 |" in text
    assert "| greenroom, mutual TLS | 2 | 55 | 50 to 60 |" in text
    assert "Not measured yet" not in text
    assert "## Not measured yet" in page(Results())


@pytest.mark.system
@pytest.mark.timeout(400)
def test_everything_is_measured() -> None:
    told = measured("benchmarks.tls")
    found = figures_in(told)
    assert found.keys() == {target.ratio for target in TARGETS}
    assert all(found[name] > 0 for name in ("reads", "writes", "read_p50", "write_p50", "kill_seconds"))
    assert [each["at_actor"] for each in told["results"]["attacks"]] == [False, True]
    if skipped := told["results"]["run"]["skipped"]:
        pytest.skip(f"measured without Redis: {sorted(skipped)}: apt-get install redis-server, group bench")
