"""The log of an actor slot on a real disk: what comes back after an end, a kill, a cut, a flipped bit."""

import os
import shutil
import stat
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from greenroom.errors import UsageError
from greenroom_cluster.disk import journal as journal_module
from greenroom_cluster.disk import segment as segment_module
from greenroom_cluster.disk.batches import DamagedError
from greenroom_cluster.disk.directory import Directory
from greenroom_cluster.disk.entries import Committed, Entry, Left
from greenroom_cluster.disk.journal import DiskFailedError, Journal
from greenroom_cluster.disk.segment import HEADER_BYTES, Segment


def entry(number: int) -> Committed:
    return Committed(number % 7, number)


def opened(directory: Path, **options: Any) -> Journal:
    return Journal(Directory(directory), **options)


def write(journal: Journal, number: int) -> None:
    journal.append((entry(number),))
    journal.sync()


def filled(directory: Path, count: int, *, begin: int = 1, synced: bool = True, **options: Any) -> Journal:
    """Return a journal to which entries from `begin` on were appended."""
    journal = opened(directory, **options)
    mark = journal.synced
    for number in range(begin, begin + count):
        assert journal.append((entry(number),)) == mark + 1 + number - begin
        if synced:
            journal.sync()
    return journal


def killed(journal: Journal, to: Path) -> Path:
    """Return a copy of the directory as a kill leaves it: the kernel has all of it, and nothing is sealed."""
    shutil.copytree(journal.directory, to)
    return to


def held(directory: Path) -> list[Entry]:
    journal = opened(directory)
    try:
        return [entry for _, _, entries in journal.batches() for entry in entries]
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
    for begin in (1, 6, 11, 16):
        filled(tmp_path / "d", 5, begin=begin).close()
    assert held(tmp_path / "d") == [entry(number) for number in range(1, 21)]


def test_a_log_of_many_segments_comes_back(tmp_path: Path) -> None:
    journal = filled(tmp_path / "d", 50, segment_bytes=300)
    copy = killed(journal, tmp_path / "k")
    journal.close()
    assert len(list((tmp_path / "d").glob("log-*.log"))) > 4
    for directory in (tmp_path / "d", copy):
        assert held(directory) == [entry(number) for number in range(1, 51)]


def test_old_segments_go_and_the_rest_comes_back(tmp_path: Path) -> None:
    journal = filled(tmp_path / "d", 50, segment_bytes=300)
    journal.drop_before(30)
    journal.close()
    left = held(tmp_path / "d")
    assert left == [entry(number) for number in range(51 - len(left), 51)]
    assert 21 <= len(left) < 40


def logs(directory: Path) -> list[Path]:
    return sorted(directory.glob("log-*.log"))


@pytest.mark.parametrize("dropped", [0, 150])
def test_a_log_that_lost_its_beginning_is_damage(tmp_path: Path, dropped: int) -> None:
    """Else its holder seems to have come far, and to hold no shard."""
    journal = filled(tmp_path / "d", 300, segment_bytes=1000)
    journal.drop_before(dropped)
    journal.close()
    logs(tmp_path / "d")[0].unlink()
    with pytest.raises(DamagedError, match="begins with"):
        held(tmp_path / "d")


def test_a_log_that_lost_all_of_its_segments_is_damage(tmp_path: Path) -> None:
    filled(tmp_path / "d", 20).close()
    for path in logs(tmp_path / "d"):
        path.unlink()
    with pytest.raises(DamagedError, match="begins with"):
        held(tmp_path / "d")


def test_segments_that_a_crash_left_of_those_dropped_do_not_count(tmp_path: Path) -> None:
    """A power cut may have undone any of the deletions, and not those of others."""
    journal = filled(tmp_path / "d", 300, segment_bytes=1000)
    before = {path: path.read_bytes() for path in logs(tmp_path / "d")}
    journal.drop_before(150)
    journal.close()
    kept = logs(tmp_path / "d")
    back = sorted(before.keys() - set(kept))[1]
    back.write_bytes(before[back])
    assert held(tmp_path / "d")[-1] == entry(300)
    assert not back.exists()


@pytest.mark.parametrize("harm", ["torn", "flipped"])
def test_what_stands_in_for_what_was_deleted_must_be_there(tmp_path: Path, harm: str) -> None:
    """A power cut may take along the hint that it was synced; then it is no torn end all the same."""
    journal = filled(tmp_path / "d", 50, segment_bytes=300)
    hint = (tmp_path / "d/synced").read_bytes()
    begin = journal._segment.used_bytes
    write(journal, 51)
    kept = killed(journal, tmp_path / "kept")
    journal.drop_before(30)
    dropped = killed(journal, tmp_path / "dropped")
    journal.close()
    for copy in (kept, dropped):
        (copy / "synced").write_bytes(hint)
        content = bytearray(logs(copy)[-1].read_bytes())
        content[begin:] = bytes(len(content) - begin) if harm == "torn" else flipped(content[begin:])
        logs(copy)[-1].write_bytes(content)
    assert held(kept)[-1] == entry(50), "nothing rested on it yet"
    with pytest.raises(DamagedError, match="batch 51 is missing or damaged"):
        held(dropped)


def flipped(data: bytes) -> bytes:
    return bytes((data[0] ^ 0x10,)) + data[1:]


def test_an_empty_log_may_lack_its_only_segment(tmp_path: Path) -> None:
    """A crash while it was opened may have left it so."""
    opened(tmp_path / "d").close()
    for path in logs(tmp_path / "d"):
        path.unlink()
    assert held(tmp_path / "d") == []


def test_a_beginning_of_which_nothing_was_noted_is_believed(tmp_path: Path) -> None:
    journal = filled(tmp_path / "d", 300, segment_bytes=1000)
    journal.drop_before(150)
    journal.close()
    (tmp_path / "d/oldest").write_bytes(b"?")
    assert held(tmp_path / "d")[-1] == entry(300)


def test_files_of_other_names_are_left_alone(tmp_path: Path) -> None:
    filled(tmp_path / "d", 20).close()
    foreign = [tmp_path / "d" / name for name in ("log-old.log", "log-1-2-3.log", "notes")]
    for path in foreign:
        path.write_text("mine")
    assert len(held(tmp_path / "d")) == 20
    assert all(path.read_text() == "mine" for path in foreign)


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    journal = filled(tmp_path / "d", 3)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    for path in (tmp_path / "d").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    journal.close()


def test_it_is_for_one_process(tmp_path: Path) -> None:
    journal = opened(tmp_path / "d")
    with pytest.raises(UsageError, match="--data-dir"):
        opened(tmp_path / "d")
    journal.close()
    opened(tmp_path / "d").close()


def test_what_is_in_the_kernel_only_is_written_anew(tmp_path: Path) -> None:
    """A sync that failed leaves pages which look written and are on no disk."""
    journal = filled(tmp_path / "d", 8)
    copy = killed(journal, tmp_path / "k")
    journal.close()
    [before] = copy.glob("log-*.log")
    copied = before.read_bytes()
    again = opened(copy)
    [after] = (path for path in copy.glob("log-*.log") if path != again._segment.path)
    assert after.name != before.name
    assert not before.exists()
    assert len(after.read_bytes()) < len(copied), "what was not used is cut off"
    again.close()


class Ends:
    """A directory of eight batches as a kill leaves it, of which seven are noted as synced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        journal = filled(folder / "ends", 6)
        begin = journal._segment.used_bytes
        write(journal, 7)
        note = (folder / "ends/synced").read_bytes()
        write(journal, 8)
        self.last_batches = range(begin, journal._segment.used_bytes)
        self._source = killed(journal, folder / "source")
        (self._source / "synced").write_bytes(note)
        journal.close()
        [self.log] = (each.name for each in self._source.glob("log-*.log"))
        self.content = (self._source / self.log).read_bytes()
        assert len(self.content) > self.last_batches.stop + 1000, "zeros follow"

    def with_log(self, content: bytes) -> Path:
        target = self._folder / "damaged"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self._source, target)
        (target / self.log).write_bytes(content)
        return target


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    return Ends(tmp_path)


@pytest.mark.parametrize("zeros", [True, False])
def test_a_log_cut_at_any_byte_of_its_last_batches(ends: Ends, zeros: bool) -> None:
    """A crash leaves zeros where nothing was written, or no bytes at all if the file had just grown."""
    seen = set()
    for size in ends.last_batches:
        rest = bytes(len(ends.content) - size) if zeros else b""
        directory = ends.with_log(ends.content[:size] + rest)
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
    for place in ends.last_batches:
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
    second = sorted((tmp_path / "d").glob("log-*.log"))[1]
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    with pytest.raises(DamagedError):
        held(tmp_path / "d")


def test_no_changed_byte_of_a_file_goes_unseen(tmp_path: Path) -> None:
    filled(tmp_path / "d", 20).close()
    [log] = (tmp_path / "d").glob("log-*.log")
    content = log.read_bytes()
    for place in range(len(content)):
        for change in (0x01, 0xFF):
            changed = bytearray(content)
            changed[place] ^= change
            work = tmp_path / "work"
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(tmp_path / "d", work)
            (work / log.name).write_bytes(changed)
            with pytest.raises(DamagedError):
                held(work)


def test_a_lost_header_is_damage_even_without_a_note(tmp_path: Path) -> None:
    """A segment that holds a batch has had its header on the disk."""
    journal = filled(tmp_path / "d", 1)
    copy = killed(journal, tmp_path / "k")
    journal.close()
    (copy / "synced").unlink()
    [log] = copy.glob("log-*.log")
    content = log.read_bytes()
    log.write_bytes(bytes(HEADER_BYTES) + content[HEADER_BYTES:])
    with pytest.raises(DamagedError, match="has lost its header"):
        held(copy)


@pytest.mark.parametrize("left", [0, 5, HEADER_BYTES - 1, HEADER_BYTES])
def test_a_segment_that_a_crash_left_without_batches_is_none(tmp_path: Path, left: int) -> None:
    filled(tmp_path / "d", 3).close()
    begun = tmp_path / "d/log-0000000000000004-000000.log"
    Segment(begun).abandon()
    begun.write_bytes(begun.read_bytes()[:left])
    assert held(tmp_path / "d") == [entry(number) for number in range(1, 4)]


def test_a_segment_in_the_place_of_another_is_damage(tmp_path: Path) -> None:
    filled(tmp_path / "d", 50, segment_bytes=300).close()
    second, third, *_ = sorted((tmp_path / "d").glob("log-*.log"))[1:]
    third.rename(second)
    with pytest.raises(DamagedError, match="is missing or damaged"):
        held(tmp_path / "d")


def test_a_format_of_another_release_is_refused(tmp_path: Path) -> None:
    """It is neither damaged nor empty: what it holds is of use to the release that wrote it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(segment_module, "FORMAT_VERSION", 2)
        filled(tmp_path / "d", 3).close()
    before = sorted((tmp_path / "d").iterdir())
    with pytest.raises(UsageError, match="has format 2, this greenroom reads format 1"):
        held(tmp_path / "d")
    assert sorted((tmp_path / "d").iterdir()) == before


def test_a_log_in_a_database_is_refused(tmp_path: Path) -> None:
    """It was never released, and is neither damaged nor empty."""
    filled(tmp_path / "d", 3).close()
    for log in (tmp_path / "d").glob("log-*.log"):
        log.rename(log.with_suffix(".db"))
    before = sorted((tmp_path / "d").iterdir())
    with pytest.raises(UsageError, match="is an SQLite database"):
        opened(tmp_path / "d")
    assert sorted((tmp_path / "d").iterdir()) == before


@pytest.mark.parametrize("what", ["append", "sync"])
def test_after_a_failed_write_nothing_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    journal = filled(tmp_path / "d", 3)
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise OSError(28, "No space left")

        patched.setattr(Segment, what, fail)
        with pytest.raises(DiskFailedError, match="disk is writable and has room"):
            write(journal, 4)
    for again in (partial(journal.append, (Left(1),)), journal.sync, partial(journal.drop_before, 1)):
        with pytest.raises(DiskFailedError):
            again()
    journal.close()
    assert held(tmp_path / "d")[:3] == [entry(number) for number in range(1, 4)]


def test_a_segment_that_cannot_be_sealed_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path / "d", segment_bytes=1000)

    def fail(_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Segment, "seal", fail)
    for _ in range(100):
        try:
            write(journal, 1)
        except DiskFailedError:
            break
    else:
        pytest.fail("no append failed")
    journal.close()


def test_a_note_that_was_torn_says_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "d", 3).close()
    os.truncate(tmp_path / "d" / "synced", 5)
    assert len(held(tmp_path / "d")) == 3


def test_opening_does_not_raise_the_mark(tmp_path: Path) -> None:
    """Else a copy that is put back comes as far as the newest one, if it is only opened often enough."""
    filled(tmp_path / "d", 3).close()
    for number in range(3):
        journal = opened(tmp_path / "d")
        assert journal.synced == 3
        copy = killed(journal, tmp_path / f"k{number}")
        journal.close()
        journal = opened(copy)
        assert journal.synced == 3
        journal.close()


def test_what_was_not_synced_survives_a_kill(tmp_path: Path) -> None:
    journal = filled(tmp_path / "d", 20, synced=False)
    assert (journal.appended, journal.synced) == (20, 0)
    assert held(killed(journal, tmp_path / "k")) == [entry(number) for number in range(1, 21)]
    journal.sync()
    assert journal.synced == 20
    journal.close()


def test_what_was_not_synced_may_be_cut_off(tmp_path: Path) -> None:
    """What was synced must be there."""
    journal = filled(tmp_path / "d", 4, synced=False)
    journal.sync()
    ends = [journal._segment.used_bytes - 1]
    for number in range(5, 9):
        ends.append(journal._segment.used_bytes)
        journal.append((entry(number),))
    ends.append(journal._segment.used_bytes)
    copy = killed(journal, tmp_path / "k")
    journal.close()
    [log] = copy.glob("log-*.log")
    seen = set()
    for size in reversed(ends):
        os.truncate(log, size)
        work = tmp_path / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(copy, work)
        try:
            seen.add(len(held(work)))
        except DamagedError:
            seen.add(-1)
    assert seen == {-1, 4, 5, 6, 7, 8}


class Unsynced:
    """A directory whose last synced batch is 14; what follows, to 40, was written to three segments."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        journal = opened(folder / "d", segment_bytes=450)
        for number in range(1, 41):
            journal.append((entry(number),))
            if number <= 14:
                journal.sync()
            elif journal._next is None:
                # A sync has seen to the next segment, and has not told yet how far it came.
                journal._next = Segment(folder / "d/next.log")
        assert journal.synced == 14
        self.source = killed(journal, folder / "k")
        journal.close()
        self.logs = sorted(each.name for each in self.source.glob("log-*.log"))

    def with_log(self, name: str, content: bytes) -> Path:
        target = self._folder / "work"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.source, target)
        (target / name).write_bytes(content)
        return target


def test_nothing_waits_for_a_sync_when_a_segment_is_full(tmp_path: Path) -> None:
    """So after a power cut several segments may be torn, and what follows a tear is void."""
    unsynced = Unsynced(tmp_path)
    entries = [entry(number) for number in range(1, 41)]
    assert len(unsynced.logs) == 4
    whole = unsynced.with_log("synced", (unsynced.source / "synced").read_bytes())
    assert held(whole) == held(whole) == entries
    seen = set()
    for name in unsynced.logs:
        content = (unsynced.source / name).read_bytes().rstrip(b"\0")
        for size in range(0, len(content), 11):
            directory = unsynced.with_log(name, content[:size])
            try:
                found = held(directory)
            except DamagedError:
                seen.add(-1)
                continue
            seen.add(len(found))
            assert found == entries[: len(found)]
            filled(directory, 2, begin=len(found) + 1).close()
            assert held(directory) == [entry(each) for each in range(1, len(found) + 3)]
    assert seen == {-1, *range(14, 40)}, "what was synced must be there"


def test_one_thread_may_append_while_another_syncs(tmp_path: Path) -> None:
    journal = opened(tmp_path / "d", segment_bytes=2000)
    ended = threading.Event()

    def sync() -> None:
        while not ended.is_set():
            journal.sync()

    thread = threading.Thread(target=sync)
    thread.start()
    number = 0
    deadline = time.monotonic() + 20
    while len(journal._sealed) < 5:
        assert time.monotonic() < deadline
        number += 1
        journal.append((entry(number),))
    ended.set()
    thread.join()
    copy = killed(journal, tmp_path / "k")
    journal.close()
    for directory in (tmp_path / "d", copy):
        assert held(directory) == [entry(each) for each in range(1, number + 1)]


def test_what_is_stored_counts_all_segments(tmp_path: Path) -> None:
    journal = filled(tmp_path / "d", 50, segment_bytes=300)
    taken = sum(path.stat().st_size for path in (tmp_path / "d").glob("log-*.log"))
    assert journal.stored_bytes == taken
    before = journal.stored_bytes
    journal.drop_before(30)
    assert journal.stored_bytes < before
    journal.close()


def test_a_batch_of_a_later_release_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(journal_module, "encode_entries", lambda _: b"\xc1")
        filled(tmp_path / "d", 1).close()
    with pytest.raises(DamagedError, match="batch 1 holds what this release cannot read"):
        held(tmp_path / "d")
