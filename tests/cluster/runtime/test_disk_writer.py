"""What the core persists is written, and synced by a thread, on a real directory."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from greenroom_cluster.disk.directory import Directory
from greenroom_cluster.disk.entries import Committed, EntryRead
from greenroom_cluster.disk.journal import DiskFailedError, Journal
from greenroom_cluster.disk.segment import Segment
from greenroom_cluster.runtime.disk_writer import EXIT_DISK_FAILED, DiskWriter
from greenroom_cluster.shard.effects import DropBefore, Persist
from greenroom_cluster.shard.inputs import DiskMeasured, Synced

SECONDS = 20.0


class Told:
    """What a writer tells, and with which status it leaves."""

    def __init__(self) -> None:
        self.events: list[Synced] = []
        self.free_bytes: list[int] = []
        self.status: int | None = None
        self._changed = threading.Condition()

    def tell(self, event: Synced | DiskMeasured) -> None:
        with self._changed:
            if isinstance(event, DiskMeasured):
                self.free_bytes.append(event.free_bytes)
            else:
                self.events.append(event)
            self._changed.notify_all()

    def leave(self, status: int) -> None:
        with self._changed:
            self.status = status
            self._changed.notify_all()

    def wait(self, what: Any) -> None:
        """Wait until `what` is told, or it left with that status."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: what == self.status or any(_matches(event, what) for event in self.events), SECONDS
            ), self.events

    def wait_synced(self, position: int) -> Synced:
        self.wait((Synced, position))
        return next(each for each in self.synced if each.position >= position)

    @property
    def synced(self) -> list[Synced]:
        return list(self.events)


def _matches(event: Synced, what: Any) -> bool:
    return isinstance(what, tuple) and isinstance(event, what[0]) and event.position >= what[1]


def persist(position: int, *, at_once: bool = True) -> Persist:
    return Persist(position, (Committed(1, position),), at_once)


def held(directory: Path) -> list[EntryRead]:
    journal = Journal(Directory(directory))
    try:
        return [entry for _, _, entries in journal.batches() for entry in entries]
    finally:
        journal.close()


class Gate:
    """Holds up every sync of the journal while it is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = threading.Event()
        self.waiting = threading.Event()
        self.syncs = 0
        original = Segment.sync

        def sync(segment: Segment) -> None:
            self.syncs += 1
            self.waiting.set()
            assert self._open.wait(SECONDS)
            original(segment)

        monkeypatch.setattr(Segment, "sync", sync)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(Directory(tmp_path / "d"))
    yield journal
    journal.close()


def end(writer: DiskWriter) -> None:
    trio.run(writer.close)


def test_what_is_written_during_a_sync_is_synced_next(
    journal: Journal, told: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate = Gate(monkeypatch)
    writer = DiskWriter(journal, told.tell)
    writer.news.look_out(awaited=True)
    writer.write([persist(1)])
    assert gate.waiting.wait(SECONDS)
    for position in range(2, 9):
        writer.write([persist(position)])
    assert journal.appended == 8, "writing waits for no sync"
    assert not told.events, "nothing is told before it is on the disk"
    gate.open()
    told.wait_synced(8)
    assert gate.syncs == 2
    assert [(event.position, event.mark) for event in told.synced] == [(1, 1), (8, 8)]
    assert told.synced[-1].stored_bytes > 0
    end(writer)
    assert held(tmp_path / "d") == [Committed(1, position) for position in range(1, 9)]


def test_what_is_written_at_the_end_is_synced(
    journal: Journal, told: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate = Gate(monkeypatch)
    writer = DiskWriter(journal, told.tell)
    writer.news.look_out(awaited=True)
    for position in range(1, 6):
        writer.write([persist(position)])

    async def close() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.close)
            await trio.testing.wait_all_tasks_blocked()
            gate.open()

    trio.run(close)
    assert told.synced[-1].position == 5
    assert held(tmp_path / "d") == [Committed(1, position) for position in range(1, 6)]


def test_in_interval_mode_it_is_written_at_once_and_synced_later(journal: Journal, told: Told) -> None:
    writer = DiskWriter(journal, told.tell, interval_seconds=0.2)
    writer.news.look_out(awaited=True)
    began = time.monotonic()
    writer.write([persist(1, at_once=False)])
    assert (journal.appended, journal.synced) == (1, 0)
    told.wait_synced(1)
    assert time.monotonic() - began >= 0.1, "after half of the interval, so that it is over in time"
    end(writer)


def test_in_interval_mode_an_end_is_synced_at_once(journal: Journal, told: Told) -> None:
    writer = DiskWriter(journal, told.tell, interval_seconds=3600)
    writer.news.look_out(awaited=True)
    writer.write([persist(1, at_once=False)])
    assert journal.synced == 0
    writer.write([persist(2, at_once=True)])
    assert told.wait_synced(2).mark == 2
    writer.write([persist(3, at_once=False)])
    assert journal.appended == 3
    end(writer)
    assert told.synced[-1].position == 3, "an orderly end syncs what is left"


def test_in_interval_mode_a_steady_stream_is_synced_too(journal: Journal, told: Told) -> None:
    writer = DiskWriter(journal, told.tell, interval_seconds=0.05)
    writer.news.look_out(awaited=True)
    position = 0
    deadline = time.monotonic() + SECONDS
    while len(told.synced) < 3:
        assert time.monotonic() < deadline
        position += 1
        writer.write([persist(position, at_once=False)])
    assert told.synced[0].position < position
    end(writer)


def test_old_segments_are_dropped(tmp_path: Path, told: Told) -> None:
    journal = Journal(Directory(tmp_path / "d"), segment_bytes=500)
    writer = DiskWriter(journal, told.tell)
    writer.news.look_out(awaited=True)
    for position in range(1, 60):
        writer.write([persist(position)])
        mark = told.wait_synced(position).mark
    before = told.synced[-1].stored_bytes
    writer.write([DropBefore(mark)])
    for position in (60, 61):
        writer.write([persist(position)])
        after = told.wait_synced(position).stored_bytes
    assert after < before
    end(writer)


@pytest.mark.parametrize(
    ("error", "reason"), [(OSError(5, "I/O error"), "I/O error"), (KeyError(), "KeyError")]
)
def test_a_failed_sync_ends_the_process(
    journal: Journal, told: Told, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Segment, "sync", fail)
    with capture_logs() as logs:
        writer = DiskWriter(journal, told.tell, leave=told.leave)
        writer.news.look_out(awaited=True)
        writer.write([persist(1)])
        told.wait(EXIT_DISK_FAILED)
    assert not told.events
    [line] = (line for line in logs if line["event"] == "disk_failed")
    assert line["log_level"] == "critical"
    assert line["directory"] == str(journal.directory)
    assert reason in line["reason"]
    end(writer)


def test_a_failed_write_is_told_at_once(
    journal: Journal, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    writer = DiskWriter(journal, told.tell, interval_seconds=3600, leave=told.leave)
    writer.news.look_out(awaited=True)
    monkeypatch.setattr(Segment, "append", fail)
    with pytest.raises(DiskFailedError, match="No space left"):
        writer.write([persist(1, at_once=False)])
    assert journal.appended == 0
    end(writer)


def test_a_disk_that_fills_up_is_told_before(
    journal: Journal, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = SimpleNamespace(f_bavail=100, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: space)
    with capture_logs() as logs:
        writer = DiskWriter(journal, told.tell)
        writer.news.look_out(awaited=True)
        for position in (1, 2):
            writer.write([persist(position)])
            told.wait_synced(position)
        end(writer)
    [line] = (line for line in logs if line["event"] == "disk_nearly_full")
    assert line["directory"] == str(journal.directory)
    assert "make room" in line["hint"]
    assert told.free_bytes == [100 * 4096]


def test_of_a_sync_for_which_nobody_waits_nobody_is_told(journal: Journal, told: Told) -> None:
    marks: list[int] = []
    writer = DiskWriter(journal, told.tell, note=marks.append)
    writer.write([persist(1)])
    end(writer)
    assert (told.synced, marks) == ([], [1])
    synced = writer.news.take()
    assert synced is not None
    assert (synced.position, synced.mark) == (1, 1)
