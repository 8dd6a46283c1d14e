"""When a log is synced and what a sync covers, on a clock of the test's own."""

from collections import deque
from random import Random

import pytest

from greenroom.deadlines import NEVER_NS
from greenroom_cluster.links.disk_schedule import DiskSchedule, End, Measure, Step, Sync, Wait
from greenroom_cluster.shard.effects import DropBefore, Persist

SECOND = 1_000_000_000
ROOMY = 1 << 40


def persist(position: int, *, at_once: bool = True) -> Persist:
    return Persist(position, (), at_once)


def fresh(interval_ns: int = 0) -> DiskSchedule:
    """Return a schedule that has looked at the room, of which there is enough."""
    schedule = DiskSchedule(interval_ns)
    assert schedule.next(0) == Measure()
    assert not schedule.measured(ROOMY)
    assert schedule.next(0) == Wait(NEVER_NS)
    return schedule


def test_what_is_written_is_synced_at_once() -> None:
    schedule = fresh()
    assert schedule.wrote(persist(1))
    schedule.heard()
    assert schedule.next(10) == Sync()
    assert schedule.ended() == 1
    assert schedule.next(20) == Wait(NEVER_NS)


def test_a_sync_covers_what_was_written_before_it_began() -> None:
    schedule = fresh()
    schedule.wrote(persist(1))
    schedule.wrote(persist(2))
    assert schedule.next(10) == Sync()
    schedule.wrote(persist(3))
    assert schedule.ended() == 2
    assert schedule.next(20) == Sync()
    assert schedule.ended() == 3


def test_one_word_is_enough_until_it_was_heard() -> None:
    schedule = fresh()
    assert [schedule.wrote(persist(position)) for position in (1, 2, 3)] == [True, False, False]
    schedule.heard()
    assert schedule.next(0) == Sync()
    assert [schedule.wrote(persist(position)) for position in (4, 5)] == [True, False]
    schedule.ended()
    assert schedule.next(0) == Sync()
    assert not schedule.wrote(persist(6)), "the word is still there"
    schedule.ended()
    schedule.heard()
    assert schedule.next(0) == Sync()
    assert schedule.wrote(persist(7))


def test_with_an_interval_a_sync_waits_for_half_of_it() -> None:
    schedule = fresh(SECOND)
    assert schedule.wrote(persist(1, at_once=False))
    schedule.heard()
    assert schedule.next(100) == Wait(100 + SECOND // 2)
    assert not schedule.wrote(persist(2, at_once=False)), "it is known when to sync"
    assert schedule.next(200) == Wait(100 + SECOND // 2), "the oldest counts"
    assert schedule.next(100 + SECOND // 2) == Sync()
    assert schedule.ended() == 2


def test_with_an_interval_what_others_wait_for_is_synced_at_once() -> None:
    schedule = fresh(SECOND)
    schedule.wrote(persist(1, at_once=False))
    schedule.heard()
    assert isinstance(schedule.next(0), Wait)
    assert schedule.wrote(persist(2, at_once=True))
    assert not schedule.wrote(persist(3, at_once=False))
    schedule.heard()
    assert schedule.next(1) == Sync()
    assert schedule.ended() == 3
    assert schedule.wrote(persist(4, at_once=False))
    assert schedule.next(2) == Wait(2 + SECOND // 2)


def test_an_interval_counts_from_the_sync_during_which_it_was_written() -> None:
    """When during it is not known, and it must not be unsynced for longer than the interval."""
    schedule = fresh(SECOND)
    schedule.wrote(persist(1, at_once=True))
    assert schedule.next(100) == Sync()
    schedule.wrote(persist(2, at_once=False))
    schedule.wrote(persist(3, at_once=False))
    assert schedule.ended() == 1
    assert schedule.next(SECOND // 4) == Wait(100 + SECOND // 2)


def test_a_drop_comes_after_a_sync_that_is_due() -> None:
    schedule = fresh()
    assert schedule.drops(DropBefore(5))
    assert not schedule.wrote(persist(1))
    schedule.heard()
    assert schedule.next(0) == Sync()
    schedule.ended()
    assert schedule.next(0) == DropBefore(5)
    assert schedule.next(0) == Wait(NEVER_NS)


def test_only_the_newest_drop_is_done() -> None:
    schedule = fresh(SECOND)
    schedule.drops(DropBefore(5))
    schedule.drops(DropBefore(9))
    schedule.heard()
    assert schedule.next(0) == DropBefore(9)
    assert schedule.next(0) == Wait(NEVER_NS)


def test_a_failure_is_the_end() -> None:
    schedule = fresh()
    schedule.wrote(persist(1))
    assert schedule.next(0) == Sync()
    schedule.wrote(persist(2))
    schedule.fail()
    assert schedule.next(1) == End()
    assert schedule.next(SECOND) == End()


@pytest.mark.parametrize("interval_ns", [0, 3600 * SECOND])
def test_all_is_synced_before_an_orderly_end(interval_ns: int) -> None:
    schedule = fresh(interval_ns)
    schedule.wrote(persist(1, at_once=False))
    schedule.heard()
    assert schedule.close()
    assert schedule.next(0) == Sync()
    assert schedule.ended() == 1
    assert schedule.next(0) == End()


def test_room_is_looked_at_now_and_then_and_again_while_it_is_short() -> None:
    schedule = DiskSchedule(free_bytes_min=1000, look_ns=SECOND)
    assert schedule.next(0) == Measure()
    assert not schedule.measured(1000)
    assert schedule.next(1) == Wait(NEVER_NS), "nothing is written"
    assert schedule.next(SECOND) == Measure()
    assert schedule.measured(999)
    assert schedule.next(SECOND + 1) == Wait(2 * SECOND)
    assert schedule.next(2 * SECOND) == Measure()


def test_room_is_looked_at_before_an_orderly_end() -> None:
    schedule = DiskSchedule()
    schedule.wrote(persist(1))
    schedule.close()
    assert schedule.next(0) == Sync()
    schedule.ended()
    assert schedule.next(0) == Measure()
    assert schedule.next(0) == End()


class Thread:
    """Takes the steps of a schedule as a thread does, at times that the test chooses."""

    def __init__(self, schedule: DiskSchedule) -> None:
        self.schedule = schedule
        self.words = 0
        self.synced = self.covers = 0
        self.until_ns: int | None = 0
        self.dropped = 0

    def run(self, now_ns: int) -> Step | None:
        """Take one step, if it does not wait; return it."""
        if self.until_ns is not None:
            if self.words:
                self.words -= 1
                self.schedule.heard()
            elif now_ns < self.until_ns:
                return None
            self.until_ns = None
        step = self.schedule.next(now_ns)
        match step:
            case Wait(until_ns=until_ns):
                self.until_ns = until_ns
            case DropBefore(mark=mark):
                self.dropped = mark
            case Measure():
                self.schedule.measured(ROOMY)
        return step


@pytest.mark.parametrize("interval_ns", [0, 1000])
@pytest.mark.parametrize("seed", range(20))
def test_whenever_the_thread_runs_nothing_waits_for_too_long(seed: int, interval_ns: int) -> None:
    """In any order of writes, syncs and words: what is due is done, and no sync covers too much."""
    random, now_ns, position, mark = Random(seed), 0, 0, 0
    schedule = DiskSchedule(interval_ns)
    thread = Thread(schedule)
    unsynced: deque[tuple[int, int, bool]] = deque()
    syncing = False
    for _ in range(3000):
        now_ns += random.choice((0, 1, 30, 200))
        for _ in range(random.choice((0, 0, 1, 2))):
            position += 1
            at_once = not interval_ns or random.random() < 0.1
            unsynced.append((position, now_ns, at_once))
            thread.words += schedule.wrote(persist(position, at_once=at_once))
        if random.random() < 0.05:
            mark += 1
            thread.words += schedule.drops(DropBefore(mark))
        assert thread.words <= 1, "words do not pile up"
        if syncing and random.random() < 0.5:
            syncing = False
            thread.synced = schedule.ended()
            assert thread.synced == thread.covers, "a sync covers what was written when it began"
            while unsynced and unsynced[0][0] <= thread.synced:
                unsynced.popleft()
        while not syncing and (step := thread.run(now_ns)) is not None:
            if isinstance(step, Sync):
                syncing, thread.covers = True, position
        if not syncing:
            assert thread.dropped == mark
            for _, written_ns, at_once in unsynced:
                assert not at_once, "it is synced at once"
                assert now_ns < written_ns + interval_ns // 2, "it is synced after half of the interval"
    assert thread.synced > 100
