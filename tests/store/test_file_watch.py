"""When files are read again."""

import os
from pathlib import Path

import pytest

from greenroom.file_watch import Mark, Watch, mark_at, mark_of
from greenroom.private_files import is_private, objection

EVERY = 10.0
FIRST: tuple[Mark, ...] = ((1, 1, 1),)


def test_look_is_due_once_in_a_while() -> None:
    watch = Watch(FIRST, 100.0, EVERY)
    assert not watch.is_due(100.0 + EVERY - 1)
    assert watch.is_due(100.0 + EVERY)
    assert not watch.is_due(100.5 + EVERY)


def test_clock_that_was_set_back_does_not_delay_a_look() -> None:
    watch = Watch(FIRST, 100.0, EVERY)
    assert watch.is_due(50.0)
    assert not watch.is_due(51.0)


def test_change_is_seen_once() -> None:
    watch = Watch(FIRST, 100.0, EVERY)
    assert not watch.has_changed(FIRST)
    assert watch.has_changed((None,))
    assert not watch.has_changed((None,))


@pytest.mark.parametrize("change", ["content", "mode", "replaced", "gone"])
def test_whatever_changes_a_file_changes_its_mark(tmp_path: Path, change: str) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("a")
    before = mark_at(file)
    assert before == mark_of(file.stat())
    match change:
        case "content":
            file.write_text("ab")
        case "mode":
            file.chmod(0o640)
        case "replaced":
            other.write_text("a")
            os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
            other.rename(file)
        case "gone":
            file.unlink()
    assert mark_at(file) != before


def test_path_that_is_none_has_no_mark() -> None:
    assert mark_at(Path("a\0b")) is None


@pytest.mark.parametrize("mode", [0o100600, 0o100400, 0o40700])
def test_file_of_its_owner_alone_is_private(mode: int) -> None:
    assert is_private(mode)
    assert objection(mode, 1000, 1000) == ""


@pytest.mark.parametrize("mode", [0o100640, 0o100604, 0o100620, 0o100602, 0o100601])
def test_file_that_others_can_open_is_not_private(mode: int) -> None:
    assert not is_private(mode)
    for owner, user in ((1000, 1000), (0, 0), (1001, 1000)):
        assert f"has the mode {mode & 0o777:04o}" in objection(mode, owner, user)


@pytest.mark.parametrize("mode", [0o100440, 0o100640, 0o100400])
def test_root_may_let_a_group_read_a_secret(mode: int) -> None:
    """So Kubernetes hands files to a container that does not run as root."""
    assert objection(mode, 0, 7400) == ""


@pytest.mark.parametrize("mode", [0o100444, 0o100660, 0o100460, 0o100441])
def test_root_may_let_no_more_than_a_group_read(mode: int) -> None:
    assert f"has the mode {mode & 0o777:04o}" in objection(mode, 0, 7400)
