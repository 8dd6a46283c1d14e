"""The verdict fails when anything confirmed was lost, wrong or resurrected, and only then."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from greenroom_cluster.demo.ledger import Mismatch
from greenroom_cluster.demo.report import print_result, result_json
from greenroom_cluster.demo.verdict import (
    EXIT_LOST,
    EXIT_NOT_MEASURED,
    EXIT_OK,
    SAMPLES_MAX,
    DemoResult,
    Verdict,
    quantile,
)

LOST = Mismatch("cart/mug", 3, frozenset({7}), 1)
DOUBLED = Mismatch("cart/mug", 11, frozenset({7}), 0)


@pytest.fixture
def verdict() -> Verdict:
    """A run in which one cart was right."""
    verdict = Verdict()
    verdict.request(0.01)
    verdict.confirmed()
    verdict.cart_checked("browser-00/visit-1", [[], []])
    verdict.login_ended("browser-00/visit-1/id-1")
    return verdict


def result_of(verdict: Verdict, **more: Any) -> DemoResult:
    figures = {
        "recover_actor_seconds": 0.3,
        "recover_node_seconds": 1.4,
        "browsers": 1,
        "seed": 0,
        "seconds": 9,
    }
    return verdict.result(**{**figures, **more})


def test_a_run_without_loss_passes(verdict: Verdict) -> None:
    result = result_of(verdict)
    assert result.exit_code == EXIT_OK
    assert (result.requests, result.confirmed_writes, result.carts_checked) == (1, 1, 1)
    assert (result.lost_writes, result.wrong_carts, result.resurrected, result.user_errors) == (0, 0, 0, 0)


def test_a_lost_write_fails_and_counts_once_for_both_workers(verdict: Verdict) -> None:
    verdict.cart_checked("browser-01/visit-1", [[LOST], [LOST]])
    result = result_of(verdict)
    assert (result.lost_writes, result.wrong_carts, result.exit_code) == (1, 1, EXIT_LOST)
    assert "cart/mug shows 3, confirmed was 7" in result.problems[0]


def test_a_cart_that_is_wrong_through_one_worker_fails(verdict: Verdict) -> None:
    verdict.cart_checked("browser-01/visit-1", [[], [DOUBLED]])
    result = result_of(verdict)
    assert (result.lost_writes, result.wrong_carts, result.exit_code) == (0, 1, EXIT_LOST)


def test_a_stale_read_fails_though_the_cart_is_right_in_the_end(verdict: Verdict) -> None:
    verdict.read_showed("browser-00/visit-1", [LOST])
    verdict.read_showed("browser-00/visit-1", [])
    result = result_of(verdict)
    assert (result.stale_reads, result.wrong_carts, result.exit_code) == (1, 1, EXIT_LOST)


def test_a_vanished_session_loses_what_was_confirmed_in_it(verdict: Verdict) -> None:
    verdict.session_lost("browser-02/visit-1", 12)
    result = result_of(verdict)
    assert (result.lost_writes, result.wrong_carts, result.exit_code) == (12, 1, EXIT_LOST)


def test_a_login_that_comes_back_fails_and_counts_once(verdict: Verdict) -> None:
    verdict.came_back("browser-00/visit-1/id-1", "seen at once by worker 0")
    verdict.came_back("browser-00/visit-1/id-1", "seen at the end by worker 1")
    result = result_of(verdict)
    assert (result.resurrected, result.exit_code) == (1, EXIT_LOST)


def test_errors_that_users_see_are_counted_but_lose_nothing(verdict: Verdict) -> None:
    verdict.user_error("POST /cart/add: not-done, 503 unavailable")
    result = result_of(verdict)
    assert (result.user_errors, result.exit_code) == (1, EXIT_OK)


@pytest.mark.parametrize("missing", ["recover_actor_seconds", "recover_node_seconds"])
def test_a_recovery_that_was_not_seen_does_not_pass(verdict: Verdict, missing: str) -> None:
    assert result_of(verdict, **{missing: None}).exit_code == EXIT_NOT_MEASURED


def test_a_durable_run_passes_only_if_all_came_back(verdict: Verdict) -> None:
    assert result_of(verdict, durability="fsync").exit_code == EXIT_NOT_MEASURED
    result = result_of(verdict, durability="fsync", recover_all_seconds=3.25)
    assert result.exit_code == EXIT_OK
    assert json.loads(result_json(result))["recover_all_seconds"] == 3.25
    out = io.StringIO()
    print_result(Console(file=out, width=100), result)
    assert "time to recover after everything's kill" in out.getvalue()
    assert "every process was killed at once: all shards served again after 3.25 s" in out.getvalue()


def test_a_run_on_etcd_passes_only_if_another_coordinator_led(verdict: Verdict) -> None:
    assert result_of(verdict, store="etcd://h").exit_code == EXIT_NOT_MEASURED
    result = result_of(verdict, store="etcd://h", new_leader_seconds=2.25)
    assert result.exit_code == EXIT_OK
    out = io.StringIO()
    print_result(Console(file=out, width=100), result)
    assert "time until another coordinator led" in out.getvalue()
    assert "2.25 s" in out.getvalue()
    out = io.StringIO()
    print_result(Console(file=out, width=100), result_of(verdict))
    assert "coordinator" not in out.getvalue()


def test_without_durability_nothing_is_told_of_it(verdict: Verdict) -> None:
    result = result_of(verdict)
    assert not {"durability", "recover_all_seconds"} & json.loads(result_json(result)).keys()
    out = io.StringIO()
    print_result(Console(file=out, width=100), result)
    assert "everything" not in out.getvalue()


def test_many_errors_do_not_hide_what_was_lost(verdict: Verdict) -> None:
    for _ in range(SAMPLES_MAX + 1):
        verdict.user_error("GET /cart: not-done, 503 unavailable")
    verdict.session_lost("browser-02/visit-1", 12)
    result = result_of(verdict)
    assert "the session is gone" in result.problems[0]
    assert len(result.problems) == SAMPLES_MAX


def test_a_run_in_which_nothing_was_confirmed_does_not_pass() -> None:
    assert result_of(Verdict()).exit_code == EXIT_NOT_MEASURED


def test_the_json_object_has_the_figures_by_name(verdict: Verdict) -> None:
    shown = json.loads(result_json(result_of(verdict)))
    names = ("requests", "user_errors", "confirmed_writes", "lost_writes", "wrong_carts", "resurrected")
    assert [shown[name] for name in names] == [1, 0, 1, 0, 0, 0]
    assert (shown["recover_actor_seconds"], shown["recover_node_seconds"]) == (0.3, 1.4)


def test_the_table_shows_the_figures_and_the_problems(verdict: Verdict) -> None:
    verdict.cart_checked("browser-01/visit-1", [[LOST], [LOST]])
    out = io.StringIO()
    print_result(Console(file=out, width=100), result_of(verdict, recover_node_seconds=None))
    shown = out.getvalue()
    for text in ("confirmed writes lost", "300 ms", "not seen", "browser-01/visit-1", "was lost, changed"):
        assert text in shown


def test_the_table_says_how_many_errors_it_does_not_list(verdict: Verdict) -> None:
    for number in range(SAMPLES_MAX + 17):
        verdict.user_error(f"request {number}")
    out = io.StringIO()
    print_result(Console(file=out, width=100), result_of(verdict))
    assert out.getvalue().count("error: request") == SAMPLES_MAX
    assert "and 17 more errors" in out.getvalue()


def test_quantiles_are_values_that_occurred() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1)) == (50, 99, 100)
    assert quantile([4.0], 0.5) == 4
    assert quantile([], 0.5) is None
