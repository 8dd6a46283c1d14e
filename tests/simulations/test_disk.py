"""The simulated disk keeps what a real one keeps: after a kill, after a power cut, after a failed sync."""

from random import Random

import pytest

from greenroom_cluster.disk.entries import Committed
from greenroom_cluster.shard.effects import DropBefore, Persist
from simulations.kernel.disk import Directory, DiskThread, InUseError
from simulations.kernel.network import Network
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND, SECOND, Timeline


class Bench:
    """A directory, and processes that write to it one after the other."""

    def __init__(self, seed: int = 1) -> None:
        self.timeline = Timeline()
        self.network = Network(self.timeline, Random(seed), 100_000, 0)
        self.directory = Directory("n0/0", b"d" * 16, Random(seed))
        self.heard: list[tuple[str, int]] = []
        self.marks: list[int] = []
        self.sequence = 0
        self.process = self.start()

    def start(self, interval_ns: int = 0) -> Process:
        """Start another process on the directory."""
        process = Process(self.network, self.network.machine("n0"), "actor", Random(3))
        self.directory.open(process)
        self.read = self.directory.read()
        self.thread = DiskThread(
            process,
            self.directory,
            on_written=lambda position: self.heard.append(("written", position)),
            on_synced=self._synced,
            on_failed=process.kill,
            interval_ns=interval_ns,
        )
        self.process = process
        return process

    def _synced(self, position: int, mark: int, _stored_bytes: int) -> None:
        self.heard.append(("synced", position))
        self.marks.append(mark)

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


def test_what_comes_during_a_sync_goes_into_one_batch() -> None:
    bench = Bench()
    opened = bench.directory.synced
    bench.persist()
    bench.run(0)
    bench.persist()
    bench.persist()
    bench.run(0.1)
    assert bench.heard == [("synced", 1), ("synced", 3)]
    assert bench.marks == [opened + 1, opened + 2]
    assert bench.directory.stored_bytes > 0


def test_killed_process_leaves_what_was_written_and_no_more() -> None:
    bench = Bench()
    bench.persist()
    bench.run(0)
    bench.persist()
    bench.process.kill()
    bench.run(0.1)
    assert bench.heard == []
    assert bench.held() == [1]


def test_opening_makes_stable_what_it_shows() -> None:
    bench = Bench()
    bench.persist()
    bench.run(0)
    bench.process.kill()
    mark = bench.directory.synced
    assert bench.held() == [1]
    assert bench.directory.synced == mark + 1
    bench.process.kill()
    bench.directory.lose_unsynced()
    assert bench.held() == [1]


def test_power_cut_keeps_a_prefix_of_what_was_not_synced() -> None:
    kept = set()
    for seed in range(40):
        bench = Bench(seed)
        bench.process.kill()
        bench.start(interval_ns=SECOND)
        bench.persist()
        bench.run(1.5)
        for _ in range(3):
            bench.persist()
            bench.run(0.01)
        bench.process.vanish()
        bench.directory.lose_unsynced()
        held = bench.held()
        assert held == [1, 2, 3, 4][: len(held)]
        kept.add(len(held))
    assert kept == {1, 2, 3, 4}


def test_interval_tells_of_writing_at_once_and_syncs_when_due() -> None:
    bench = Bench()
    bench.process.kill()
    bench.start(interval_ns=SECOND)
    bench.persist()
    bench.run(0.5)
    bench.persist()
    bench.run(0.4)
    assert bench.heard == [("written", 1), ("written", 2)]
    bench.run(0.2)
    assert bench.heard[2:] == [("synced", 2)]


def test_interval_syncs_at_once_what_others_wait_for() -> None:
    bench = Bench()
    bench.process.kill()
    bench.start(interval_ns=SECOND)
    bench.persist()
    bench.persist(at_once=True)
    bench.run(0.1)
    assert bench.heard == [("written", 2), ("synced", 2)]


def test_failed_sync_ends_the_process() -> None:
    bench = Bench()
    bench.persist()
    bench.run(0.1)
    bench.directory.failing = True
    bench.persist()
    bench.run(0.1)
    assert not bench.process.alive
    assert bench.heard == [("synced", 1)]
    assert bench.held() in ([1], [1, 2])


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


def test_batches_before_a_mark_are_deleted_once_they_are_stable() -> None:
    bench = Bench()
    for _ in range(3):
        bench.persist()
        bench.run(0.1)
    mark = bench.directory.synced
    bench.thread.write([DropBefore(mark)])
    assert list(bench.directory.batches) == [mark]
    bench.directory.drop_before(mark + 5)
    assert list(bench.directory.batches) == [mark]
    bench.process.kill()
    assert bench.held() == [3]


def test_syncs_take_a_drawn_time_around_that_of_the_disk() -> None:
    directory = Directory("n0/0", b"d" * 16, Random(1), 10 * MILLISECOND)
    times = [directory.draw_sync_ns() for _ in range(300)]
    assert min(times) >= 5 * MILLISECOND
    assert 20 * MILLISECOND < max(times) <= 200 * MILLISECOND
