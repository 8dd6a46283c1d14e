"""The simulated disk keeps what a real one keeps: after a kill, after a power cut, after a failed sync."""

from random import Random

import pytest

from greenroom.errors import UsageError
from greenroom_cluster.disk.batches import DamagedError
from greenroom_cluster.disk.entries import Chunk, Committed
from greenroom_cluster.shard.effects import DropBefore, Persist
from simulations.kernel.directory import FLIPS, Directory, FailedError, InUseError
from simulations.kernel.disk import DiskWriter
from simulations.kernel.network import Network
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND, SECOND, Timeline
from simulations.mutants.hunt import planted


class Bench:
    """A directory, and processes that write to it one after the other."""

    def __init__(self, seed: int = 1) -> None:
        self.timeline = Timeline()
        self.network = Network(self.timeline, Random(seed), 100_000, 0)
        self.directory = Directory("n0/0", b"d" * 16, Random(seed), segment_bytes=1)
        self.heard: list[tuple[str, int]] = []
        self.marks: list[int] = []
        self.free: list[int] = []
        self.failures: list[str] = []
        self.sequence = 0
        self.process = self.start()

    def start(self, interval_ns: int = 0) -> Process:
        """Start another process on the directory."""
        process = Process(self.network, self.network.machine("n0"), "actor", Random(3))
        self.directory.open(process)
        self.read = self.directory.read()
        self.thread = DiskWriter(
            process,
            self.directory,
            on_synced=self._synced,
            on_measured=self.free.append,
            on_failed=self._failed,
            interval_ns=interval_ns,
        )
        self.thread.news.look_out(awaited=True)
        self.process = process
        return process

    def _synced(self) -> None:
        synced = self.thread.news.take()
        assert synced is not None
        self.heard.append(("synced", synced.position))
        self.marks.append(synced.mark)

    def _failed(self, how: str) -> None:
        self.failures.append(how)
        self.process.kill()

    def persist(self, *, at_once: bool = False) -> None:
        """Write another entry."""
        self.sequence += 1
        self.thread.write([Persist(self.sequence, (Committed(0, self.sequence),), at_once)])

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.timeline.run_until(self.timeline.now + int(seconds * SECOND))

    def held(self) -> list[int]:
        """Return what another process reads."""
        self.start()
        return [entry.sequence for entry in self.read if isinstance(entry, Committed)]


def test_what_is_written_during_a_sync_is_synced_next() -> None:
    bench = Bench()
    opened = bench.directory.synced
    bench.persist()
    bench.run(0)
    bench.persist()
    bench.persist()
    bench.run(0.1)
    assert bench.heard == [("synced", 1), ("synced", 3)]
    assert bench.marks == [opened + 1, opened + 3]
    assert bench.directory.stored_bytes > 0


def test_killed_process_leaves_what_was_written_and_no_more() -> None:
    bench = Bench()
    bench.persist()
    bench.run(0)
    bench.persist()
    bench.process.kill()
    bench.persist()
    bench.run(0.1)
    assert bench.heard == []
    assert bench.held() == [1, 2]


def test_opening_makes_stable_what_it_shows() -> None:
    bench = Bench()
    bench.persist()
    bench.run(0)
    bench.process.kill()
    mark = bench.directory.synced
    assert bench.held() == [1]
    assert bench.directory.synced == mark + 1
    bench.process.kill()
    bench.directory.lose_power()
    assert bench.held() == [1]


def cut_off(seed: int) -> Bench:
    """Return a bench whose power was cut with one batch synced and three written."""
    bench = Bench(seed)
    bench.process.kill()
    bench.start(interval_ns=2 * SECOND)
    bench.persist()
    bench.run(1.5)
    for _ in range(3):
        bench.persist()
        bench.run(0.01)
    bench.process.vanish()
    bench.directory.lose_power()
    return bench


def test_power_cut_keeps_a_prefix_of_what_was_not_synced() -> None:
    kept = set()
    for seed in range(60):
        bench = cut_off(seed)
        held = bench.held()
        assert held == [1, 2, 3, 4][: len(held)]
        assert not bench.directory.lacks
        kept.add(len(held))
    assert kept == {1, 2, 3, 4}


def test_what_a_power_cut_leaves_is_torn_or_has_holes() -> None:
    ways = set()
    for seed in range(60):
        bench = cut_off(seed)
        for data in bench.directory._debris.values():
            ways.add("none" if not any(data) else "whole" if data[-1] else "part")
    assert ways == {"none", "part", "whole"}


def test_a_power_cut_may_tear_several_segments() -> None:
    torn = set()
    for seed in range(30):
        bench = Bench(seed)
        bench.process.kill()
        bench.start(interval_ns=2 * SECOND)
        bench.persist()
        bench.persist(at_once=True)
        bench.run(0.5)
        for _ in range(3):
            bench.persist()
        begun = [segment.first for segment in bench.directory._segments]
        assert begun[-1] > bench.directory.synced, "a segment was begun without waiting for a sync"
        bench.process.vanish()
        bench.directory.lose_power()
        held = bench.held()
        assert held == [1, 2, 3, 4, 5][: len(held)]
        torn.add(len(held))
    assert torn == {2, 3, 4, 5}


def test_what_was_not_written_anew_no_sync_makes_stable() -> None:
    bench = Bench()
    bench.directory.hang()
    bench.persist()
    bench.run(0.1)
    bench.process.kill()
    bench.directory.hanging = False
    with planted("reads its tail back without writing it anew"):
        assert bench.held() == [1]
    bench.persist()
    bench.run(0.1)
    bench.process.vanish()
    bench.directory.lose_power()
    assert bench.held() == []


def test_interval_syncs_when_due() -> None:
    bench = Bench()
    bench.process.kill()
    bench.start(interval_ns=SECOND)
    bench.persist()
    bench.run(0.3)
    bench.persist()
    bench.run(0.15)
    assert bench.heard == []
    bench.run(0.2)
    assert bench.heard == [("synced", 2)]


def test_interval_syncs_at_once_what_others_wait_for() -> None:
    bench = Bench()
    bench.process.kill()
    bench.start(interval_ns=SECOND)
    bench.persist()
    bench.persist(at_once=True)
    bench.run(0.1)
    assert bench.heard == [("synced", 2)]


def failed(seed: int = 1) -> Bench:
    """Return a bench whose sync has failed with one batch synced and one written."""
    bench = Bench(seed)
    bench.persist()
    bench.run(0.1)
    bench.directory.failing = True
    bench.persist()
    bench.run(0.1)
    return bench


def test_failed_sync_ends_the_process() -> None:
    bench = failed()
    assert not bench.process.alive
    assert bench.failures == ["sync failed"]
    assert bench.heard == [("synced", 1)]


def test_a_disk_whose_syncs_fail_cannot_be_opened() -> None:
    bench = failed()
    with pytest.raises(FailedError):
        bench.start()
    bench.directory.failing = False
    assert bench.held()[:1] == [1]


def test_what_a_failed_sync_did_not_write_may_show_until_power_is_cut() -> None:
    held = set()
    for seed in range(20):
        bench = failed(seed)
        bench.directory.failing = False
        if seed % 2:
            bench.directory.lose_power()
            assert bench.held() == [1]
        else:
            held.add(tuple(bench.held()))
    assert held == {(1,), (1, 2)}


def test_hanging_sync_ends_when_the_disk_goes_on() -> None:
    bench = Bench()
    bench.directory.hang()
    bench.persist()
    bench.run(60)
    assert bench.heard == []
    bench.directory.go_on()
    bench.run(0.1)
    assert bench.heard == [("synced", 1)]


def test_stopped_process_hears_of_a_sync_when_it_goes_on() -> None:
    bench = Bench()
    bench.persist()
    bench.run(0)
    bench.process.pause()
    bench.run(0.1)
    assert bench.directory.synced == bench.directory.newest
    assert bench.heard == []
    bench.process.resume()
    assert bench.heard == [("synced", 1)]


def test_older_copy_put_back_has_an_older_mark() -> None:
    bench = Bench()
    bench.persist()
    bench.run(0.1)
    backup = bench.directory.copy()
    bench.persist()
    bench.run(0.1)
    newest = bench.directory.synced
    with pytest.raises(InUseError):
        bench.directory.put_back(backup)
    bench.process.kill()
    bench.directory.put_back(backup)
    assert bench.directory.synced < newest
    assert bench.held() == [1]


def test_one_process_at_a_time_opens_a_directory() -> None:
    bench = Bench()
    with pytest.raises(InUseError):
        bench.start()
    bench.process.kill()
    bench.start()


def test_files_of_batches_before_a_mark_are_deleted() -> None:
    bench = Bench()
    for _ in range(3):
        bench.persist()
        bench.run(0.1)
    stored, mark = bench.directory.stored_bytes, bench.directory.synced
    bench.thread.write([DropBefore(mark)])
    bench.run(0)
    assert list(bench.directory.batches) == [mark]
    assert 0 < bench.directory.stored_bytes < stored
    bench.directory.drop_before(mark + 5)
    assert list(bench.directory.batches) == [mark]
    bench.process.kill()
    assert bench.held() == [3]


@pytest.mark.parametrize("where", FLIPS[:2])
def test_a_flipped_bit_is_damage(where: str) -> None:
    bench = Bench()
    for _ in range(3):
        bench.persist()
        bench.run(0.1)
    bench.process.kill()
    assert bench.directory.flip(where)
    with pytest.raises(DamagedError):
        bench.start()


def test_a_flipped_tail_of_which_no_note_is_left_is_cut_off() -> None:
    outcomes = set()
    for seed in range(30):
        bench = Bench(seed)
        for _ in range(3):
            bench.persist()
            bench.run(0.1)
        bench.process.vanish()
        bench.directory.lose_power()
        bench.directory.flip("tail")
        try:
            outcomes.add((len(bench.held()), bench.directory.lacks))
        except DamagedError:
            outcomes.add((0, False))
        assert not bench.directory.misjudged
    assert outcomes == {(2, True), (0, False)}


def test_a_flipped_tail_for_which_files_were_deleted_is_damage() -> None:
    """Whatever is left of the note of its sync: it stands in for what they held."""
    for seed in range(30):
        bench = Bench(seed)
        for _ in range(3):
            bench.persist()
            bench.run(0.1)
        bench.thread.write([DropBefore(bench.directory.synced)])
        bench.run(0)
        bench.process.vanish()
        bench.directory.lose_power()
        bench.directory.flip("tail")
        with pytest.raises(DamagedError):
            bench.start()
        assert not bench.directory.misjudged


def test_a_chunk_of_a_snapshot_can_flip() -> None:
    bench = Bench()
    bench.persist()
    bench.run(0.1)
    assert not bench.directory.flip("chunk")
    bench.thread.write([Persist(2, (Chunk(0, 1, 0, b"body"),))])
    bench.run(0.1)
    assert bench.directory.flip("chunk")


def test_an_actor_hears_how_much_room_there_is() -> None:
    bench = Bench()
    bench.directory.room = 1000
    bench.persist()
    bench.run(0.1)
    assert 0 < bench.free[0] < 1000
    bench.directory.room = None
    bench.run(2)
    assert bench.free[-1] > 1 << 30
    told = len(bench.free)
    bench.persist()
    bench.run(2)
    assert len(bench.free) == told


def test_a_full_disk_ends_the_process_and_cannot_be_opened() -> None:
    bench = Bench()
    bench.persist()
    bench.run(0.1)
    bench.directory.room = 10
    with pytest.raises(FailedError):
        bench.persist()
    bench.run(0.1)
    assert bench.failures == ["write failed"]
    with pytest.raises(FailedError):
        bench.start()
    bench.directory.room = None
    assert bench.held() == [1]


@pytest.mark.parametrize("what", ["inode", "filesystem", "machine"])
def test_a_moved_directory_is_refused_until_it_is_adopted(what: str) -> None:
    bench = Bench()
    bench.persist()
    bench.run(0.1)
    bench.process.kill()
    bench.directory.move(what)
    with pytest.raises(UsageError, match="adopt-directory"):
        bench.start()
    bench.directory.adopt()
    assert bench.held() == [1]


def test_syncs_take_a_drawn_time_around_that_of_the_disk() -> None:
    directory = Directory("n0/0", b"d" * 16, Random(1), 10 * MILLISECOND)
    times = [directory.draw_sync_ns() for _ in range(300)]
    assert min(times) >= 5 * MILLISECOND
    assert 20 * MILLISECOND < max(times) <= 200 * MILLISECOND
