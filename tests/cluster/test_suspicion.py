"""Which record is suspected when an actor hangs or ends."""

from greenroom_cluster.suspicion import HANG_SECONDS, KILL_SECONDS, InHand, Watch

FIRST = InHand(3, 1, 10)
SECOND = InHand(3, 1, 11)


def looked(*looks: tuple[InHand | None, float | None]) -> Watch:
    watch = Watch()
    for in_hand, busy in looks:
        watch.look(in_hand, busy)
    return watch


def test_a_record_that_takes_too_much_processor_time_is_suspected_until_it_is_passed() -> None:
    watch = looked((FIRST, 0.0))
    assert not watch.look(FIRST, HANG_SECONDS - 0.01)
    assert watch.suspect is None
    assert watch.look(FIRST, HANG_SECONDS)
    assert watch.suspect == FIRST
    assert not watch.look(FIRST, 6.0)
    assert watch.look(SECOND, 6.1)
    assert watch.suspect is None


def ended(watch: Watch, in_hand: InHand | None, busy: float | None, *, crashed: bool = False) -> Watch:
    watch.ended(in_hand, busy, crashed=crashed)
    return watch


def test_a_stopped_actor_works_on_nothing() -> None:
    """However long: its processor time stands still."""
    watch = looked(*[(FIRST, 0.0)] * 100)
    assert watch.suspect is None
    assert ended(watch, FIRST, 0.0).suspect is None


def test_an_actor_that_is_killed_at_work_accuses_no_record() -> None:
    watch = looked((FIRST, 5.0), (SECOND, 5.1))
    assert ended(watch, SECOND, 5.1 + KILL_SECONDS / 2).suspect is None
    assert ended(looked((FIRST, 0.0)), SECOND, 9.0).suspect is None
    assert ended(Watch(), FIRST, 9.0).suspect is None


def test_an_actor_that_is_killed_over_a_record_that_was_too_much_accuses_it() -> None:
    assert ended(looked((FIRST, 0.0)), FIRST, KILL_SECONDS).suspect == FIRST
    assert ended(looked((FIRST, 0.0), (FIRST, 0.2)), FIRST, None).suspect == FIRST


def test_a_crash_accuses_the_record_in_hand_and_no_other() -> None:
    assert ended(Watch(), FIRST, None, crashed=True).suspect == FIRST
    assert ended(looked((FIRST, 0.0)), None, 9.0, crashed=True).suspect is None


def test_a_record_that_was_suspected_counts_as_passed_only_once_another_is_in_hand() -> None:
    watch = looked((FIRST, 0.0), (FIRST, 1.0))
    assert (watch.suspect, watch.passed) == (FIRST, None)
    assert ended(watch, FIRST, 1.0).passed is None
    watch = looked((FIRST, 0.0), (FIRST, 1.0))
    assert ended(watch, SECOND, 1.1).passed == FIRST
    watch = looked((FIRST, 0.0), (FIRST, 1.0), (None, None))
    assert (watch.suspect, watch.passed) == (None, FIRST)
    watch.look(SECOND, 2.0)
    watch.look(SECOND, 3.0)
    assert (watch.suspect, watch.passed) == (SECOND, None)
