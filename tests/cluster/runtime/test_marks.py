"""The mark that an actor leaves of the record in hand, as its supervisor reads it."""

import os
import signal
import stat
from pathlib import Path

import pytest

from greenroom_cluster.runtime.marks import MarkFile, RecordWatches, open_mark
from greenroom_cluster.suspicion import InHand


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


def test_the_file_is_gone_when_the_actor_never_came() -> None:
    watches = RecordWatches()
    first = Path(watches.begin("n1/0", b"a" * 16))
    second = Path(watches.begin("n1/0", b"b" * 16))
    assert not first.exists()
    assert second.exists()
    watches.close()
    assert not second.exists()


def test_an_actor_without_a_mark_serves_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    watches = RecordWatches()
    assert watches.begin("n1/0", b"a" * 16) == ""
    assert open_mark("") is None
    assert watches.suspicions == ()
