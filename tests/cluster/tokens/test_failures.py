"""Who is not let in for a while, after hellos without a token that is known."""

from greenroom_cluster.tokens.failures import FAILURES_MAX, MINUTE_SECONDS, SOURCES_MAX, Failures, source_of


def test_source_is_barred_from_its_tenth_failure_to_the_end_of_the_minute() -> None:
    failures = Failures()
    for number in range(FAILURES_MAX):
        assert not failures.bars("10.0.0.1", float(number))
        failures.note("10.0.0.1", float(number))
    assert failures.bars("10.0.0.1", MINUTE_SECONDS - 0.1)
    assert not failures.bars("10.0.0.2", MINUTE_SECONDS - 0.1)
    assert not failures.bars("10.0.0.1", MINUTE_SECONDS)


def test_minutes_are_counted_apart() -> None:
    failures = Failures()
    for number in range(FAILURES_MAX - 1):
        failures.note("a", float(number))
    failures.note("a", MINUTE_SECONDS)
    assert not failures.bars("a", MINUTE_SECONDS)
    for _ in range(FAILURES_MAX - 1):
        failures.note("a", MINUTE_SECONDS + 1)
    assert failures.bars("a", 2 * MINUTE_SECONDS - 1)
    assert not failures.bars("a", 2 * MINUTE_SECONDS)


def test_clock_that_was_set_back_bars_nobody_for_long() -> None:
    failures = Failures()
    for _ in range(FAILURES_MAX):
        failures.note("a", 1e9)
    assert not failures.bars("a", 5.0)
    failures.note("a", 5.0)
    assert not failures.bars("a", 6.0)


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
    assert failures.bars("again and again", 1.0)


def test_all_addresses_of_a_network_of_ipv6_are_one_source() -> None:
    assert source_of("2001:db8:1:2:3:4:5:6") == source_of("2001:db8:1:2::9")
    assert source_of("2001:db8:1:2::9") != source_of("2001:db8:1:3::9")
    assert source_of("::ffff:10.0.0.1") == source_of("10.0.0.1") == "10.0.0.1"
    assert source_of("10.0.0.1") != source_of("10.0.0.2")
    assert source_of("unknown") == "unknown"
