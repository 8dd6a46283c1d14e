"""A new file takes its name when it is whole, and replaces nothing."""

import errno
import os
import stat
from pathlib import Path

import pytest

from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster.backups import new_file
from greenroom_cluster.backups.new_file import NewFile, NotWrittenError


@pytest.fixture(params=["without a name", "with a name"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have file systems know files without a name, or not."""
    if request.param == "with a name":
        really_open = os.open

        def no_unnamed(path: object, flags: int, *more: int) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "Operation not supported")
            return really_open(path, flags, *more)  # type: ignore[arg-type]  # what os.open takes

        monkeypatch.setattr(new_file.os, "open", no_unnamed)
    return str(request.param)


@pytest.mark.usefixtures("kind")
def test_it_is_there_when_it_is_finished(tmp_path: Path) -> None:
    with NewFile(tmp_path / "f") as file:
        file.write(b"whole")
        assert not (tmp_path / "f").exists()
        file.finish()
    assert (tmp_path / "f").read_bytes() == b"whole"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.usefixtures("kind")
def test_without_its_end_there_is_none(tmp_path: Path) -> None:
    with NewFile(tmp_path / "f") as file:
        file.write(b"half")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("kind")
def test_two_of_one_name_do_not_mix(tmp_path: Path) -> None:
    """The second must not end, rename or add to what the first has written."""
    with NewFile(tmp_path / "f") as first, NewFile(tmp_path / "f") as second:
        second.write(b"half of the ")
        first.write(b"first")
        first.finish()
        assert (tmp_path / "f").read_bytes() == b"first"
        second.write(b"second")
        with pytest.raises(UsageError, match="is there already"):
            second.finish()
    assert (tmp_path / "f").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.usefixtures("kind")
def test_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "f.part").write_text("mine")
    with NewFile(tmp_path / "f") as file:
        file.finish()
    assert (tmp_path / "f.part").read_text() == "mine"


def test_odd_names_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "fifo")
    odd = [Path(), Path(), Path(".."), Path("/"), tmp_path, tmp_path / "link", tmp_path / "fifo"]
    odd += [tmp_path / "file" / "f", tmp_path / "none" / "f", Path("/dev/full"), tmp_path / ("x" * 300)]
    for path in odd:
        with pytest.raises(UsageError, match="name a"):
            NewFile(path)


def test_a_full_disk_is_told_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with NewFile(tmp_path / "f") as file:
        monkeypatch.setattr(new_file.os, "write", full)
        with pytest.raises(NotWrittenError, match="No space left on device") as told:
            file.write(b"x")
    assert isinstance(told.value, GreenroomError)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_may_not_last_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was there, and the error said that it was not."""
    fsync = os.fsync

    def failing(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        fsync(file)

    with NewFile(tmp_path / "f") as file:
        file.write(b"x")
        monkeypatch.setattr(new_file.os, "fsync", failing)
        with pytest.raises(NotWrittenError, match="no such file now"):
            file.finish()
    assert list(tmp_path.iterdir()) == []
