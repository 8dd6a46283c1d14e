"""Which member is asked, and for how long: as answers come, and as they do not."""

import pytest

from greenroom_cluster.coordination.etcd.members import PATIENCE_SECONDS, Members

ONE, TWO, THREE = "http://one", "http://two", "http://three"


def members() -> Members:
    """Return members who are known to answer soon."""
    found = Members((ONE, TWO, THREE))
    for _ in range(20):
        found.answered(0.01)
    return found


def test_patience_shrinks_while_answers_come_soon() -> None:
    found = Members((ONE, TWO))
    assert found.patience_seconds == 1.0
    found.answered(0.01)
    assert PATIENCE_SECONDS < found.patience_seconds < 1.0
    assert members().patience_seconds == PATIENCE_SECONDS


def test_an_answer_that_takes_long_is_remembered_for_a_while() -> None:
    """Renewals of leases come soon where whatever is written takes its time."""
    found = members()
    found.answered(0.25)
    for _ in range(3):
        assert found.patience_seconds > 0.3
        found.answered(0.01)
    for _ in range(10):
        found.answered(0.01)
    assert found.patience_seconds == PATIENCE_SECONDS


def test_silence_doubles_patience_up_to_the_most() -> None:
    found = members()
    seen = []
    for url in (ONE, TWO, THREE):
        found.silent(url)
        seen.append(found.patience_seconds)
    assert seen == [pytest.approx(0.6), 1.0, 1.0]
    found.answered(20.0)
    assert found.patience_seconds == 1.0


def test_all_that_one_silent_member_was_asked_counts_once() -> None:
    found = members()
    found.silent(ONE)
    found.silent(ONE)
    assert (found.current, found.patience_seconds) == (TWO, pytest.approx(0.6))


def test_a_refusal_is_no_reason_to_wait_longer() -> None:
    found = members()
    found.failed(ONE)
    assert (found.current, found.patience_seconds) == (TWO, PATIENCE_SECONDS)
