"""What callers went through, from the times at which they were answered."""

from benchmarks.orders import Audited, Recorded
from benchmarks.work.failover import outage, reading_of


def test_a_caller_that_noticed_nothing() -> None:
    waited, recovered = outage([2.0, 2.1, 2.2, 2.3, 2.4], fault_at=2.15, ended=2.5)
    assert 0 < waited < 0.2
    assert recovered == 0


def test_the_longest_wait_counts_from_the_fault_on() -> None:
    assert outage([1.0, 2.0, 4.5, 4.6], fault_at=2.5, ended=4.7) == (2.0, 2.0)


def test_an_outage_may_begin_after_the_fault() -> None:
    # Leases run on for a while: answers still come, then none, then they are back.
    assert outage([1.0, 2.0, 2.7, 5.7, 5.8], fault_at=2.5, ended=5.9) == (3.0, 3.2)


def test_recovered_is_whoever_waits_no_more() -> None:
    # The longer wait is over first.
    assert outage([2.0, 5.0, 5.1, 6.5, 6.6], fault_at=2.5, ended=6.7) == (2.5, 4.0)


def test_a_caller_that_is_never_answered_again() -> None:
    assert outage([1.0], fault_at=2.0, ended=10.0) == (8.0, 8.0)
    assert outage([], fault_at=2.0, ended=10.0) == (8.0, 8.0)


USUAL = [number / 10 for number in range(100)]


def test_the_worst_caller_counts_and_of_it_the_worse_of_reads_and_writes() -> None:
    recorded = Recorded(
        began=0.0,
        ended=10.0,
        reads=[USUAL, USUAL],
        writes=[USUAL, [each for each in USUAL if each <= 1.0 or each >= 6.0]],
        failures=[3.0],
        errors={"TimeoutError": 1},
        stale_reads=0,
    )
    reading = reading_of("kill", "x", recorded, Audited(acknowledged_writes=9, lost_writes=2), fault_at=2.0)
    assert (reading.unavailable, reading.recovered) == (4.0, 4.0)
    assert (reading.operations, reading.failed, reading.lost_writes) == (352, 1, 2)
    assert reading.whole


def test_a_caller_without_answers_at_the_end_is_not_served() -> None:
    recorded = Recorded(
        began=0.0, ended=10.0, reads=[[]], writes=[[1.0, 5.0]], failures=[], errors={}, stale_reads=0
    )
    audited = Audited(acknowledged_writes=2, lost_writes=0)
    assert not reading_of("kill", "x", recorded, audited, fault_at=2.0).whole
