"""How far a long command has come, on a terminal and elsewhere."""

import io

import pytest

from greenroom_cluster.backups.restoring import Restored
from greenroom_cluster.backups.taking import Copied
from greenroom_cluster.cli import progress
from greenroom_cluster.cli.progress import Progress

HALF = Copied(shards=4, of=8, sessions=1000, size_bytes=3 << 20)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which tests set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_elsewhere_it_is_a_line_a_second(clock: list[float]) -> None:
    out = io.StringIO()
    told = Progress(out, terminal=False)
    for seconds in (100.5, 101.5, 102.0, 102.6):
        clock[0] = seconds
        told.copied(HALF)
    told.clear()
    assert out.getvalue().splitlines() == [
        "greenroom: 4 of 8 shards copied, 1000 sessions, 3.0 MiB, 2.0 MiB/s",
        "greenroom: 4 of 8 shards copied, 1000 sessions, 3.0 MiB, 1.2 MiB/s",
    ]


def test_on_a_terminal_one_line_changes_and_goes(clock: list[float]) -> None:
    out = io.StringIO()
    told = Progress(out, terminal=True)
    clock[0] = 102.0
    told.restored(Restored(created=3, existed=1))
    clock[0] = 102.05
    told.restored(Restored(created=4, existed=1))
    told.clear()
    assert out.getvalue() == "\r\x1b[K4 sessions looked at, 3 created, 2/s\r\x1b[K"


def test_machines_are_not_told(clock: list[float]) -> None:
    with Progress.on_stderr(json=True) as told:
        clock[0] = 109.0
        told.copied(HALF)
