"""The mark that an actor leaves of the record in hand, as its supervisor reads it."""

import os
import signal
import stat
from pathlib import Path

import pytest

from greenroom_cluster.runtime.marks import MarkFile, MarkFiles, open_mark
from greenroom_cluster.runtime.supervision import ChildProcess
from greenroom_cluster.shard.step import MARK_DIRECTORY
from greenroom_cluster.suspect_records import InHand


def test_the_supervisor_reads_what_the_actor_marks() -> None:
    file = MarkFile()
    assert stat.S_IMODE(Path(file.path).stat().st_mode) == 0o600
    mark = open_mark(file.path)
    assert mark is not None
    assert not Path(file.path).exists()
    assert file.read() is None
    mark[0], mark[1], mark[2] = 4095, 1 << 22, 1 << 39
    assert file.read() == InHand(4095, 1 << 22, 1 << 39)
    mark[2] = 0
    assert file.read() is None
    file.close()


def test_the_mark_outlives_a_process_that_dies_at_once() -> None:
    file = MarkFile()
    child = os.fork()
    if not child:
        mark = open_mark(file.path)
        assert mark is not None
        mark[0], mark[1], mark[2] = 1, 2, 3
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert file.read() == InHand(1, 2, 3)
    file.close()


def test_how_far_the_directory_has_come_is_read_beside_it() -> None:
    file = MarkFile()
    mark = open_mark(file.path)
    assert mark is not None
    assert file.directory_mark() == 0
    mark[MARK_DIRECTORY] = 1 << 61
    assert file.directory_mark() == 1 << 61
    assert file.read() is None
    file.close()


def test_the_file_is_gone_when_the_actor_never_came() -> None:
    files = MarkFiles()
    first = Path(files.open("n1/0", b"a" * 16))
    second = Path(files.open("n1/0", b"b" * 16))
    assert not first.exists()
    assert second.exists()
    files.close()
    assert not second.exists()


def test_an_actor_without_a_mark_serves_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    files = MarkFiles()
    assert files.open("n1/0", b"a" * 16) == ""
    assert open_mark("") is None
    ended = files.ended(child("n1/0", b"a" * 16, -signal.SIGSEGV))
    assert ended.mark.in_hand is None
    assert ended.exit_status == -signal.SIGSEGV


def test_the_end_of_an_actor_tells_its_last_record() -> None:
    status = -signal.SIGBUS
    files = MarkFiles()
    path = files.open("n1/0", b"a" * 16)
    mark = open_mark(path)
    assert mark is not None
    mark[0], mark[1], mark[2] = 1, 2, 3
    ended = files.ended(child("n1/0", b"a" * 16, status))
    assert (ended.mark.in_hand, ended.exit_status) == (InHand(1, 2, 3), status)
    assert files.ended(child("n1/0", b"a" * 16, status)).mark.in_hand is None


def test_only_marks_of_actors_that_serve_are_read() -> None:
    files = MarkFiles()
    files.open("n1/0", b"a" * 16)
    starting, former, serving = (child("n1/0", key * 16, None) for key in (b"a", b"b", b"a"))
    former.address = serving.address = "127.0.0.1:1"
    assert [each.incarnation for each in files.read([starting, former, serving])] == [b"a" * 16]
    files.close()


def child(name: str, incarnation: bytes, status: int | None) -> ChildProcess:
    process = ChildProcess(name, incarnation)
    process.exit_status = status
    return process
