"""What processes count, and how that is told."""

import random

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from greenroom import near_messages, wire
from greenroom_cluster.coordination.messages import Decided, Decision, Proposal, Propose
from greenroom_cluster.coordination.rules import RULES
from greenroom_cluster.http.exposition import expose
from greenroom_cluster.metrics import traffic as traffic_module
from greenroom_cluster.metrics.decisions import Decisions
from greenroom_cluster.metrics.names import METRICS
from greenroom_cluster.metrics.readings import NS, Reading, Readings, Spread, decode_readings
from greenroom_cluster.metrics.traffic import FAILURES, KINDS, OUTCOMES, Traffic
from greenroom_cluster.shard.clients.operations import Operation, Request
from greenroom_cluster.shard.messages import Prepare, PrepareOk, ShardRecords

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def told(traffic: Traffic) -> dict[tuple[str, ...], Reading]:
    readings = Readings()
    traffic.tell(readings)
    return {(each.name, *each.labels): each for each in decode_readings(readings.encoded())}


def by_label(traffic: Traffic, name: str) -> dict[str, float]:
    return {labels[1]: each.value for labels, each in told(traffic).items() if labels[0] == name}


def samples(told: dict[str, list[Reading]]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text, kind = expose(told, OPEN_METRICS)
    assert kind.startswith("application/openmetrics-text")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_requests_and_replies_are_counted_by_what_they_are() -> None:
    traffic = Traffic()
    traffic.asked([wire.Get(1, 0, b"d"), wire.Get(2, 0, b"d"), wire.Delete(3, 0, 0, 0, b"d")])
    traffic.replied([wire.Missing(1), wire.Failed(2, wire.FailureCode.CONFLICT), wire.Written(3, 0)])
    traffic.replied([wire.Failed(4, wire.FailureCode.CONFLICT), wire.Failed(5, wire.FailureCode.FULL)])
    kinds = by_label(traffic, "greenroom_requests_total")
    assert {kind: count for kind, count in kinds.items() if count} == {"get": 2, "delete": 1}
    outcomes = by_label(traffic, "greenroom_replies_total")
    assert {each: count for each, count in outcomes.items() if count} == {
        "missing": 1,
        "written": 1,
        "conflict": 2,
        "full": 1,
    }
    assert outcomes.keys() == {*OUTCOMES.values(), *FAILURES.values()}


@pytest.mark.parametrize("gets", range(4))
@pytest.mark.parametrize("deletes", range(4))
def test_what_comes_together_is_counted_one_by_one(gets: int, deletes: int) -> None:
    traffic = Traffic()
    for _ in range(2):
        traffic.asked([wire.Get(1, 0, b"d")] * gets + [wire.Delete(3, 0, 0, 0, b"d")] * deletes)
    kinds = by_label(traffic, "greenroom_requests_total")
    assert (kinds["get"], kinds["delete"]) == (2 * gets, 2 * deletes)
    assert sum(kinds.values()) == 2 * (gets + deletes)


def test_all_that_clients_and_operators_ask_has_a_name() -> None:
    asked = set(Request.__args__) | set(Operation.__args__)  # type: ignore[attr-defined]
    lacking = asked - KINDS.keys()
    assert {each.__name__ for each in lacking} == {"EndSession", "EndSessions", "ListSessions"}, (
        "which come otherwise"
    )


def test_every_answer_to_a_client_has_a_name() -> None:
    answers = set(wire.EncodedReply.__args__) | {near_messages.EncodedHeld}  # type: ignore[attr-defined]
    lacking = answers - OUTCOMES.keys() - {wire.Failed}
    assert {each.__name__ for each in lacking} == {"Inspection"}, "which is for operators"
    assert FAILURES.keys() == set(wire.FailureCode)


def test_a_batch_is_timed_until_its_backup_has_it() -> None:
    traffic = Traffic()
    traffic.sent([Prepare(7, (ShardRecords(1, 1, 0, ()),))], lambda: 1_000)
    traffic.heard([PrepareOk(7)], 4_001_000)
    traffic.heard([PrepareOk(7), PrepareOk(8)], 9_000_000)
    seconds = told(traffic)[("greenroom_replication_seconds",)]
    assert seconds.value == pytest.approx(0.004)
    assert sum(seconds.counts) == 1


def test_what_broken_links_leave_unanswered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic_module, "_UNANSWERED_MAX", 8)
    traffic = Traffic()
    for batch in range(100):
        traffic.sent([Prepare(batch, ())], lambda: 100)
    assert len(traffic._sent_ns) <= 8
    traffic.heard([PrepareOk(99)], 200)
    assert sum(told(traffic)[("greenroom_replication_seconds",)].counts) == 1


def test_buckets_hold_what_is_no_larger_than_their_bound() -> None:
    """Against a count one by one."""
    chance = random.Random(5)
    values = [chance.randrange(1 << chance.randrange(1, 40)) for _ in range(2000)]
    spread, readings = Spread(), Readings()
    for value in values:
        spread.note(value)
    readings.tell_spread("greenroom_step_seconds", spread, NS)
    found = samples({"n1/0": readings.all})
    checked = 0
    for (name, labels), count in found.items():
        if name == "greenroom_step_seconds_bucket":
            bound = float(dict(labels)["le"])
            # A bound is a power of two in nanoseconds, written with six digits.
            exact = min((1 << bits for bits in range(64)), key=lambda power: abs(power * NS - bound))
            expected = len(values) if bound == float("inf") else sum(value < exact for value in values)
            assert count == expected, bound
            checked += 1
    assert checked > 20
    key = ("greenroom_step_seconds_sum", (("process", "n1/0"),))
    assert found[key] == pytest.approx(sum(values) * NS)


def test_a_changed_shard_is_counted_once_however_often_it_was_proposed() -> None:
    decisions, readings = Decisions(), Readings()
    takeover = Proposal(1, 5, b"n" * 12, "takeover", b"p", ())
    removal = Proposal(2, 5, b"m" * 12, "remove", b"p", ())
    for _ in range(3):
        decisions.asked([Propose(1, b"p", (takeover, removal))])
        told = (Decision(1, takeover.nonce, True, ""), Decision(2, removal.nonce, False, "stale"))
        decisions.answered([Decided(1, told)])
    decisions.tell(readings)
    counts = {(each.name, each.labels[0]): each.value for each in readings.all}
    assert counts["greenroom_epoch_changes_total", "takeover"] == 1
    assert counts["greenroom_proposals_refused_total", "remove"] == 1
    assert sum(counts.values()) == 2
    assert {label for _, label in counts} == set(RULES)


def test_a_made_up_kind_of_proposal_makes_no_new_label() -> None:
    decisions, readings = Decisions(), Readings()
    strange = Proposal(1, 5, b"n" * 12, "alice@example.com", b"p", ())
    decisions.asked([Propose(1, b"p", (strange,))])
    decisions.answered([Decided(1, (Decision(1, strange.nonce, False, "unknown"),))])
    decisions.tell(readings)
    assert {each.labels[0] for each in readings.all} == set(RULES)


def test_what_is_remembered_of_proposals_is_bounded() -> None:
    decisions = Decisions()
    for number in range(20_000):
        proposal = Proposal(1, 5, number.to_bytes(12, "big"), "takeover", b"p", ())
        decisions.asked([Propose(1, b"p", (proposal,))])
    assert len(decisions._kinds) <= 16_384


def test_metrics_follow_the_conventions() -> None:
    for name, metric in METRICS.items():
        assert name.startswith("greenroom_")
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert (metric.kind == "histogram") == bool(metric.bits), name
        units = ("_seconds", "_bytes", "_ratio", "_total", "_info", "_records")
        countable = metric.kind == "gauge" and not any(unit in name for unit in units)
        assert countable or name.endswith((*units, "_seconds_total")), name
        assert metric.help[0].islower() or metric.help[0].isdigit(), name
        assert not set(metric.labels) & {"session", "user", "namespace", "address", "digest", "le", "process"}


def test_older_scrapers_get_the_older_form() -> None:
    text, kind = expose({"n1": [Reading("greenroom_ready", 1.0)]}, "")
    assert kind.startswith("text/plain")
    assert 'greenroom_ready{process="n1"} 1.0' in text.decode()
