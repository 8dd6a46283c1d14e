"""An operator hears that a disk fills up before it is full: that of an actor, and that of a coordinator."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from greenroom_cluster.coordination.genesis import ClusterOptions
from greenroom_cluster.runtime.disk_room import DiskRoom
from greenroom_cluster.runtime.map_store import FREE_BYTES_MIN, kept_in_file

BLOCK_BYTES = 4096


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(f_bavail=0, f_frsize=BLOCK_BYTES)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    return found


def test_little_room_is_told_once_a_minute(tmp_path: Path, space: SimpleNamespace) -> None:
    room = DiskRoom(tmp_path, "make room")
    with capture_logs() as logs:
        for space.f_bavail in (11, 10, 9, 8):
            assert room.measure() == space.f_bavail * BLOCK_BYTES
        assert logs == [], "how much is enough is not for it to say"
        for blocks in (9, 8):
            room.warn(blocks * BLOCK_BYTES)
    [line] = logs
    assert (line["event"], line["log_level"], line["directory"]) == (
        "disk_nearly_full",
        "warning",
        str(tmp_path),
    )
    assert (line["free_mib"], line["hint"]) == (0, "make room")


def test_a_disk_that_does_not_tell_is_left_to_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", fail)
    with capture_logs() as logs:
        assert DiskRoom(tmp_path, "make room").measure() is None
    assert logs == []


@pytest.mark.trio
async def test_a_coordinators_disk_is_measured_with_what_it_writes(
    tmp_path: Path, space: SimpleNamespace
) -> None:
    kept = kept_in_file(tmp_path, ClusterOptions("shop", 4, 2))
    space.f_bavail = FREE_BYTES_MIN // BLOCK_BYTES
    with capture_logs() as logs:
        await kept.store.save(kept.map, vouched=True)
        assert logs == []
        space.f_bavail -= 1
        await kept.store.save_marks({b"d" * 16: 7})
        await kept.store.save(kept.map, vouched=True)
    kept.store.close()
    [line] = logs
    assert (line["event"], line["directory"], line["free_mib"]) == ("disk_nearly_full", str(tmp_path), 15)
    assert "this coordinator ends" in line["hint"]
