"""When a supervised process is started again, and when not."""

import random

import pytest

from greenroom.errors import UsageError
from greenroom_cluster.restarts import GiveUp, Restart, RestartPolicy, RestartSettings

SECOND = 1_000_000_000


def policy(**settings: float) -> RestartPolicy:
    return RestartPolicy("actor a/0", RestartSettings(**settings), random.Random(1))


def test_the_first_restart_is_immediate_and_later_ones_wait_longer() -> None:
    p = policy(jitter=0.0, backoff_seconds=0.1, backoff_seconds_max=1.0)
    delays = []
    for _ in range(8):
        answer = p.exited(0)
        assert isinstance(answer, Restart)
        delays.append(answer.delay_ns / SECOND)
        p.started(0)
    assert delays == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])


def test_jitter_stays_within_its_fraction_and_comes_from_the_given_chance() -> None:
    def delays(seed: int) -> list[int]:
        p = RestartPolicy("x", RestartSettings(jitter=0.2), random.Random(seed))
        p.exited(0)
        return [p.exited(0).delay_ns for _ in range(4)]

    assert delays(7) == delays(7) != delays(8)
    for nominal, delay in zip((0.1, 0.2, 0.4, 0.8), delays(7), strict=True):
        assert 0.8 * nominal <= delay / SECOND <= 1.2 * nominal


def test_whoever_stayed_up_begins_anew() -> None:
    p = policy(sound_after_seconds=10)
    for _ in range(3):
        p.started(0)
        p.exited(0)
    p.started(0)
    assert p.exited(9 * SECOND).delay_ns > 0
    p.started(10 * SECOND)
    assert p.exited(20 * SECOND) == Restart(0, 1)


def test_a_start_that_failed_counts_like_an_exit() -> None:
    p = policy(sound_after_seconds=10)
    p.started(0)
    p.exited(SECOND)
    assert p.exited(100 * SECOND).attempt == 2


def test_too_many_restarts_within_the_window_give_up() -> None:
    p = policy(restarts_max=3, window_seconds=30)
    answers = [p.exited(second * SECOND) for second in (0, 5, 10, 15)]
    assert [type(answer) for answer in answers] == [Restart, Restart, Restart, GiveUp]
    assert "actor a/0" in answers[-1].reason


def test_restarts_far_enough_apart_go_on_for_ever() -> None:
    p = policy(restarts_max=3, window_seconds=30)
    for number in range(100):
        p.started(number * 15 * SECOND)
        assert isinstance(p.exited((number * 15 + 14) * SECOND), Restart)


def test_no_restart_at_all_may_be_asked_for() -> None:
    assert isinstance(policy(restarts_max=0).exited(0), GiveUp)


@pytest.mark.parametrize(
    "settings",
    [
        {"restarts_max": -1},
        {"jitter": 1.0},
        {"backoff_seconds": 3.0, "backoff_seconds_max": 2.0},
        {"backoff_seconds": 0.0},
        {"window_seconds": 0.0},
        {"window_seconds": float("inf")},
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        RestartSettings(**settings)
