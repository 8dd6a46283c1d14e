"""When a child counts as hanging, and what follows its end."""

import random

import pytest

from greenroom_cluster.keeper import WATCH_SECONDS, Keeper, SupervisionSettings
from greenroom_cluster.restarts import GiveUp, Restart, RestartSettings

SECOND = 1_000_000_000
SETTINGS = SupervisionSettings(hang_seconds=2.0, start_seconds=5.0, stop_seconds=1.5)


def keeper(**restarts: float) -> Keeper:
    fresh = Keeper("actor a/0", SETTINGS, RestartSettings(**restarts), random.Random(1))
    fresh.start(0)
    return fresh


def hangs_after(child: Keeper, since: float = 0.0) -> float:
    """Ask as often as is due; return when the child hangs."""
    asked = since
    while not child.hangs(round(asked * SECOND)):
        asked += WATCH_SECONDS
        assert asked < since + 60
    return asked - since


def test_a_child_that_never_gets_ready_hangs_although_it_beats() -> None:
    child = keeper()
    asked = 0.0
    while not child.hangs(round(asked * SECOND)):
        child.heard()
        asked += WATCH_SECONDS
    assert asked == pytest.approx(SETTINGS.start_seconds + WATCH_SECONDS)


def test_a_long_start_that_goes_on_is_no_hang() -> None:
    child = keeper()
    asked = 0.0
    for _ in range(200):
        assert not child.hangs(round(asked * SECOND))
        child.heard(goes_on=True)
        asked += WATCH_SECONDS
    assert hangs_after(child, asked) == pytest.approx(SETTINGS.start_seconds, abs=WATCH_SECONDS)


def test_a_child_hangs_once_it_was_silent_for_too_long() -> None:
    child = keeper()
    child.heard(ready=True)
    assert hangs_after(child) == pytest.approx(SETTINGS.hang_seconds + WATCH_SECONDS)
    child.heard()
    assert hangs_after(child, 60.0) > SETTINGS.hang_seconds / 2


def test_a_pause_of_the_supervisor_is_no_silence_of_its_child() -> None:
    child = keeper()
    child.heard(ready=True)
    assert not child.hangs(SECOND)
    assert not child.hangs(3600 * SECOND)
    assert not child.hangs(7200 * SECOND)


def test_a_new_incarnation_has_all_its_time() -> None:
    child = keeper()
    child.heard(ready=True)
    hangs_after(child)
    child.start(100 * SECOND)
    assert hangs_after(child, 100.0) == pytest.approx(SETTINGS.start_seconds + WATCH_SECONDS)


def test_a_child_that_ended_is_started_again_until_that_does_not_help() -> None:
    child = keeper(restarts_max=1)
    assert child.exited(SECOND) == Restart(0, 1)
    assert isinstance(child.exited(2 * SECOND), GiveUp)


@pytest.mark.parametrize(("ready", "seconds"), [(False, 0.0), (True, SETTINGS.stop_seconds)])
def test_a_child_that_serves_has_time_to_clean_up(ready: bool, seconds: float) -> None:
    child = keeper()
    child.heard(ready=ready)
    assert child.stop() == seconds
    assert child.exited(SECOND) is None
