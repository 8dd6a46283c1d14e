"""Which record is suspected when an actor hangs or ends."""

import signal

import pytest

from greenroom_cluster.coordination.messages import SUSPICIONS_MAX
from greenroom_cluster.suspect_records import (
    CRASH_SIGNALS,
    EXIT_CORE_FAILED,
    HANG_SECONDS,
    KILL_SECONDS,
    PASSED_MAX,
    InHand,
    Watch,
    bounded,
    has_crashed,
)

FIRST = InHand(3, 1, 10)
SECOND = InHand(3, 1, 11)
OTHER = InHand(4, 2, 7)


def looked(*looks: tuple[InHand | None, float | None]) -> Watch:
    watch = Watch()
    for in_hand, busy in looks:
        watch.look(in_hand, busy)
    return watch


def test_a_record_that_takes_too_long_is_suspected() -> None:
    """Until it is passed; what counts is processor time."""
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


def test_an_actor_killed_over_a_costly_record_accuses_it() -> None:
    assert ended(looked((FIRST, 0.0)), FIRST, KILL_SECONDS).suspect == FIRST
    assert ended(looked((FIRST, 0.0), (FIRST, 0.2)), FIRST, None).suspect == FIRST


def test_a_crash_accuses_the_record_in_hand_and_no_other() -> None:
    assert ended(Watch(), FIRST, None, crashed=True).suspect == FIRST
    assert ended(looked((FIRST, 0.0)), None, 9.0, crashed=True).suspect is None


def test_a_suspected_record_is_passed_once_another_is_in_hand() -> None:
    watch = looked((FIRST, 0.0), (FIRST, 1.0))
    assert (watch.suspect, passed(watch)) == (FIRST, [])
    assert passed(ended(watch, FIRST, 1.0)) == []
    watch = looked((FIRST, 0.0), (FIRST, 1.0))
    assert passed(ended(watch, SECOND, 1.1)) == [FIRST]
    watch = looked((FIRST, 0.0), (FIRST, 1.0), (None, None))
    assert (watch.suspect, passed(watch)) == (None, [FIRST])
    watch.look(SECOND, 2.0)
    watch.look(SECOND, 3.0)
    assert (watch.suspect, passed(watch)) == (SECOND, []), "of this shard only the newest is noted"


def passed(watch: Watch) -> list[InHand]:
    return list(watch.passed.values())


def test_a_record_stays_passed_while_those_of_other_shards_are_suspected() -> None:
    """Its shard may have been taken over meanwhile, and waits for word of it."""
    watch = looked((FIRST, 0.0), (FIRST, 1.0), (OTHER, 1.0), (OTHER, 2.0))
    assert (watch.suspect, passed(watch)) == (OTHER, [FIRST])
    told = watch.suspicions(b"a")
    assert [(each.shard, each.record.sequence) for each in told] == [(4, 7), (3, 10)]
    assert [each.passed for each in told] == [False, True]
    ended(watch, None, 2.0)
    assert passed(watch) == [FIRST, OTHER]


def test_what_an_actor_passed_is_bounded() -> None:
    watch, busy = Watch(), 0.0
    for shard in range(PASSED_MAX + 3):
        for _ in range(2):
            watch.look(InHand(shard, 1, 1), busy)
            busy += 1
    assert [each.shard for each in passed(watch)] == [*range(2, PASSED_MAX + 2)]
    told = bounded(
        each for actor in range(SUSPICIONS_MAX) for each in watch.suspicions(actor.to_bytes(2, "big"))
    )
    assert len(told) == SUSPICIONS_MAX
    assert not any(each.passed for each in told), "what hangs now goes before what is over"


@pytest.mark.parametrize(
    ("status", "crashed"),
    [(0, False), (-signal.SIGKILL, False), (-signal.SIGTERM, False), (EXIT_CORE_FAILED, True), (None, False)],
)
def test_who_is_ended_by_others_has_not_crashed(*, status: int | None, crashed: bool) -> None:
    assert has_crashed(status) is crashed


def test_signals_of_crashes_are_those_of_this_system() -> None:
    names = ("SIGILL", "SIGABRT", "SIGBUS", "SIGFPE", "SIGSEGV", "SIGSYS")
    assert {int(signal.Signals[name]) for name in names} == CRASH_SIGNALS
