"""From where more came that is no token than is answered one by one."""

from greenroom_cluster.tokens.failures import FAILURES_MAX, MINUTE_SECONDS, SOURCES_MAX, Failures, source_of


def noted(failures: Failures, source: str, now: float, times: int) -> list[bool]:
    return [failures.note(source, now) for _ in range(times)]


def test_ten_failures_of_a_source_in_a_minute_are_answered_one_by_one() -> None:
    failures = Failures()
    assert not any(failures.note("10.0.0.1", float(number)) for number in range(FAILURES_MAX))
    assert noted(failures, "10.0.0.1", MINUTE_SECONDS - 0.1, 2) == [True, True]
    assert not failures.note("10.0.0.2", MINUTE_SECONDS - 0.1)
    assert not failures.note("10.0.0.1", MINUTE_SECONDS)


def test_minutes_are_counted_apart() -> None:
    failures = Failures()
    noted(failures, "a", 0.0, FAILURES_MAX - 1)
    assert not any(noted(failures, "a", MINUTE_SECONDS, FAILURES_MAX))
    assert failures.note("a", 2 * MINUTE_SECONDS - 1)
    assert not failures.note("a", 2 * MINUTE_SECONDS)


def test_clock_that_was_set_back_begins_anew() -> None:
    failures = Failures()
    noted(failures, "a", 1e9, FAILURES_MAX)
    assert not any(noted(failures, "a", 5.0, FAILURES_MAX))


def test_many_sources_cost_no_more_than_so_much_memory() -> None:
    failures = Failures()
    for number in range(SOURCES_MAX * 2):
        failures.note(str(number), 0.0)
    assert len(failures) == SOURCES_MAX


def test_who_fails_most_is_not_forgotten_first() -> None:
    failures = Failures()
    for number in range(SOURCES_MAX * 2):
        failures.note(str(number), 0.0)
        failures.note("again and again", 0.0)
    assert failures.note("again and again", 1.0)


def test_all_addresses_of_a_network_of_ipv6_are_one_source() -> None:
    assert source_of("2001:db8:1:2:3:4:5:6") == source_of("2001:db8:1:2::9")
    assert source_of("2001:db8:1:2::9") != source_of("2001:db8:1:3::9")
    assert source_of("::ffff:10.0.0.1") == source_of("10.0.0.1") == "10.0.0.1"
    assert source_of("10.0.0.1") != source_of("10.0.0.2")
    assert source_of("unknown") == "unknown"
