"""A shard's time: it follows the host's clock, never goes back and never leaps."""

from hypothesis import given
from hypothesis import strategies as st

from greenroom_cluster.shard.state.clock import BELIEVED_AHEAD_US, SLEW_DIVISOR, ShardClock
from tests.cluster.shard.probe import WALL_US

SECOND_US = 1_000_000
SECOND_NS = 1_000_000_000


@given(
    st.lists(st.tuples(st.integers(0, 20 * SECOND_NS), st.integers(-7200, 7200), st.booleans()), max_size=40)
)
def test_shard_time_never_goes_back_and_never_leaps(steps: list[tuple[int, int, bool]]) -> None:
    clock = ShardClock()
    now_ns, offset_us = 0, 0
    last_us = clock.read(now_ns, WALL_US)
    for elapsed_ns, jump_seconds, jumps in steps:
        now_ns += elapsed_ns
        if jumps:
            offset_us += jump_seconds * SECOND_US
        time_us = clock.read(now_ns, WALL_US + now_ns // 1000 + offset_us)
        # What is too short to be slewed is made up for by the next read.
        elapsed_us = elapsed_ns // 1000 + SLEW_DIVISOR
        assert last_us <= time_us <= last_us + elapsed_us + max(elapsed_us // 10, BELIEVED_AHEAD_US) + 1
        last_us = time_us


def test_a_clock_that_goes_right_is_followed() -> None:
    clock = ShardClock()
    for second in range(100):
        assert clock.read(second * SECOND_NS, WALL_US + second * SECOND_US) == WALL_US + second * SECOND_US
        assert clock.doubted_us == 0


def test_a_clock_far_ahead_is_reported_and_caught_up_with_slowly() -> None:
    clock = ShardClock()
    clock.read(0, WALL_US)
    time_us = clock.read(SECOND_NS, WALL_US + 3600 * SECOND_US)
    assert time_us == WALL_US + 1_100_000
    assert clock.doubted_us == WALL_US + 3600 * SECOND_US - time_us


def resumed(wall_us: int, recovered_us: int) -> int:
    """The time of a shard that was without power for a day, as it is read first."""
    clock = ShardClock()
    clock.heard(WALL_US - 86_400 * SECOND_US, 0)
    clock.resume(SECOND_NS, wall_us, recovered_us)
    return clock.read(SECOND_NS + 1000, wall_us + 1)


def test_time_without_power_counts_once_the_coordinator_has_seen_it() -> None:
    assert resumed(WALL_US, WALL_US) == WALL_US + 1
    assert resumed(WALL_US + 4 * SECOND_US, WALL_US) == WALL_US + 4 * SECOND_US + 1
    assert resumed(WALL_US, 0) == WALL_US + 1, "a coordinator of a former release does not say"


def test_one_clock_far_ahead_ends_nothing_early_at_a_recovery() -> None:
    ahead_us = 3600 * SECOND_US
    assert resumed(WALL_US + ahead_us, WALL_US) <= WALL_US + BELIEVED_AHEAD_US
    assert resumed(WALL_US, WALL_US + ahead_us) == WALL_US + 1, "the coordinator's clock alone does neither"


def test_a_clock_behind_at_a_recovery_never_turns_time_back() -> None:
    assert resumed(WALL_US - 2 * 86_400 * SECOND_US, WALL_US) >= WALL_US - 86_400 * SECOND_US


def test_a_clock_behind_slows_time_down_but_does_not_stop_it() -> None:
    clock = ShardClock()
    clock.read(0, WALL_US)
    assert clock.read(10 * SECOND_NS, WALL_US - 3600 * SECOND_US) == WALL_US + 9 * SECOND_US
    assert clock.doubted_us == 0


def test_many_reads_in_short_time_do_not_stop_a_slewed_clock() -> None:
    clock = ShardClock()
    clock.read(0, WALL_US)
    for step in range(1, 100_001):
        clock.read(step * 1000, WALL_US - 3600 * SECOND_US)
    assert clock.last_us - WALL_US >= 80_000


def test_time_goes_on_at_takeover_from_what_was_heard_last() -> None:
    clock = ShardClock()
    clock.heard(WALL_US, 5 * SECOND_NS)
    clock.heard(WALL_US - 7, 6 * SECOND_NS)
    assert clock.read(15 * SECOND_NS, WALL_US - 3600 * SECOND_US) == WALL_US + 9 * SECOND_US
