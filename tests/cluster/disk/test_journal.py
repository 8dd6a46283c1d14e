"""The log of an actor slot on a real disk: what comes back after an end, a kill, a cut, a flipped bit."""

import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from greenroom.errors import UsageError
from greenroom_cluster.disk.batches import DamagedError
from greenroom_cluster.disk.entries import Committed, Entry, Left
from greenroom_cluster.disk.journal import DiskFailedError, Journal
from greenroom_cluster.disk.segment import Segment

STEP = int(os.environ.get("GREENROOM_DISK_STEP", "61"))
"""Of so many bytes one is cut at, or changed; 1 takes minutes."""


def entry(number: int) -> Committed:
    return Committed(number % 7, number)


def filled(directory: Path, count: int, **options: int) -> Journal:
    journal = Journal(directory, **options)
    begin = journal.synced + 1
    for number in range(begin, begin + count):
        assert journal.append((entry(number),)) == number
    return journal


def killed(journal: Journal, to: Path) -> Path:
    """Return a copy of the directory as a kill leaves it: the kernel has all of it, and nothing is sealed."""
    shutil.copytree(journal._directory, to)
    return to


def held(directory: Path) -> list[Entry]:
    journal = Journal(directory)
    try:
        return list(journal.entries())
    finally:
        journal.close()


def test_all_comes_back_after_an_orderly_end(tmp_path: Path) -> None:
    filled(tmp_path / "d", 20).close()
    assert held(tmp_path / "d") == [entry(number) for number in range(1, 21)]
    assert held(tmp_path / "d") == [entry(number) for number in range(1, 21)], "reading changes nothing"


def test_all_comes_back_after_a_kill(tmp_path: Path) -> None:
    journal = filled(tmp_path / "d", 20)
    assert held(killed(journal, tmp_path / "k")) == [entry(number) for number in range(1, 21)]
    journal.close()


def test_it_goes_on_after_what_it_held(tmp_path: Path) -> None:
    for _ in range(4):
        filled(tmp_path / "d", 5).close()
    assert held(tmp_path / "d") == [entry(number) for number in range(1, 21)]


def test_a_log_of_many_segments_comes_back(tmp_path: Path) -> None:
    journal = filled(tmp_path / "d", 50, segment_bytes=300)
    copy = killed(journal, tmp_path / "k")
    journal.close()
    assert len(list((tmp_path / "d").glob("log-*.db"))) > 4
    for directory in (tmp_path / "d", copy):
        assert held(directory) == [entry(number) for number in range(1, 51)]


def test_old_segments_go_and_the_rest_comes_back(tmp_path: Path) -> None:
    journal = filled(tmp_path / "d", 50, segment_bytes=300)
    journal.drop_before(30)
    journal.close()
    left = held(tmp_path / "d")
    assert left == [entry(number) for number in range(51 - len(left), 51)]
    assert 21 <= len(left) < 40


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    journal = filled(tmp_path / "d", 3)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    for path in (tmp_path / "d").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    journal.close()


def test_it_is_for_one_process(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "d")
    with pytest.raises(UsageError, match="--data-dir"):
        Journal(tmp_path / "d")
    journal.close()
    Journal(tmp_path / "d").close()


def test_a_file_in_the_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("")
    with pytest.raises(UsageError, match="--data-dir"):
        Journal(tmp_path / "d")


def test_what_is_in_the_kernel_only_is_written_anew(tmp_path: Path) -> None:
    """A sync that failed leaves pages which look written and are on no disk."""
    journal = filled(tmp_path / "d", 8)
    copy = killed(journal, tmp_path / "k")
    journal.close()
    [before] = copy.glob("log-*.db")
    again = Journal(copy)
    [after] = (path for path in copy.glob("log-*.db") if path != again._segment.path)
    assert after.name != before.name
    assert not before.exists()
    assert not after.with_name(after.name + "-wal").exists(), "all of it is in the file itself"
    again.close()


class Ends:
    """A directory of eight batches as a kill leaves it, of which seven are noted as synced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        journal = filled(folder / "ends", 7)
        journal.note_synced()
        journal.append((entry(8),))
        self._source = killed(journal, folder / "source")
        journal.close()
        [self.log] = (each.name for each in self._source.glob("log-*.db-wal"))
        self.size = (self._source / self.log).stat().st_size
        self.content = (self._source / self.log).read_bytes()

    def with_log(self, content: bytes) -> Path:
        target = self._folder / "damaged"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self._source, target)
        (target / self.log).write_bytes(content)
        return target


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    return Ends(tmp_path)


def last_batches(ends: Ends) -> range:
    """The bytes of the write-ahead log that the last two batches take: a frame of a page each."""
    return range(ends.size - 2 * (4096 + 24), ends.size)


def test_a_log_cut_at_any_byte_of_its_last_batches(ends: Ends) -> None:
    seen = set()
    for size in (*last_batches(ends)[::STEP], ends.size - 1):
        directory = ends.with_log(ends.content[:size])
        try:
            found = held(directory)
        except DamagedError:
            seen.add("damaged")
        else:
            seen.add(len(found))
            assert found == [entry(number) for number in range(1, len(found) + 1)]
    assert seen == {"damaged", 7}, "the seventh is noted as synced, the eighth may be torn"


def test_a_bit_flipped_in_any_byte_of_the_last_batches(ends: Ends) -> None:
    seen = set()
    for place in last_batches(ends)[::STEP]:
        flipped = bytearray(ends.content)
        flipped[place] ^= 0x10
        try:
            found = held(ends.with_log(bytes(flipped)))
        except DamagedError:
            seen.add("damaged")
        else:
            seen.add(len(found))
            assert found == [entry(number) for number in range(1, len(found) + 1)]
    assert seen == {"damaged", 7}


def test_a_sealed_segment_must_be_whole(tmp_path: Path) -> None:
    filled(tmp_path / "d", 50, segment_bytes=300).close()
    second = sorted((tmp_path / "d").glob("log-*.db"))[1]
    content = bytearray(second.read_bytes())
    where = content.rindex(b"GRB1")
    content[where + 20] ^= 1
    second.write_bytes(content)
    with pytest.raises(DamagedError):
        held(tmp_path / "d")


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), OSError(28, "No space left")])
def test_after_a_failed_write_nothing_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    journal = filled(tmp_path / "d", 3)
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise error

        patched.setattr(Segment, "append", fail)
        with pytest.raises(DiskFailedError, match="disk is writable and has room"):
            journal.append((Left(1),))
    with pytest.raises(DiskFailedError):
        journal.append((Left(1),))
    journal.close()
    assert held(tmp_path / "d") == [entry(number) for number in range(1, 4)]


def test_a_segment_that_cannot_be_sealed_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "d", segment_bytes=1)

    def fail(_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Segment, "seal", fail)
    journal.append((entry(1),))
    journal._wait_sealed()
    with pytest.raises(DiskFailedError):
        journal.append((entry(2),))


def test_a_note_that_was_torn_says_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "d", 3).close()
    os.truncate(tmp_path / "d" / "synced", 5)
    assert len(held(tmp_path / "d")) == 3
