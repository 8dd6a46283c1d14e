"""Which file system a directory lies on."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from greenroom_cluster.disk import filesystem_ids
from greenroom_cluster.disk.directory import Directory, Place
from greenroom_cluster.disk.filesystem_ids import filesystem_id

UUID = bytes(range(1, 17))
OTHER = bytes(range(3, 19))
NEW_KERNEL, XFS_OF_OLD_KERNELS = 0x80111500, 0x80705864


def answering(request: int, uuid: bytes) -> Callable[[int, int, bytes], bytes]:
    """Return what answers one question of the two, as the kernel lays the answer out."""

    def ioctl(_file: int, asked: int, buffer: bytes) -> bytes:
        if asked != request:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        answer = b"\x10" + uuid if asked == NEW_KERNEL else bytes(64) + uuid + bytes(32)
        assert len(answer) == len(buffer)
        return answer

    return ioctl


@pytest.fixture
def device_as_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have statvfs say what it says of XFS."""

    def statvfs(path: Path) -> SimpleNamespace:
        return SimpleNamespace(f_fsid=path.stat().st_dev)

    monkeypatch.setattr(filesystem_ids.os, "statvfs", statvfs)


def test_most_file_systems_say_it_themselves(tmp_path: Path) -> None:
    told = os.statvfs(tmp_path).f_fsid
    assert filesystem_id(tmp_path, told + 1) == told


@pytest.mark.usefixtures("device_as_id")
@pytest.mark.parametrize("request_", [NEW_KERNEL, XFS_OF_OLD_KERNELS])
def test_of_xfs_it_is_read_from_the_disk(
    request_: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for uuid in (UUID, OTHER):
        monkeypatch.setattr(filesystem_ids.fcntl, "ioctl", answering(request_, uuid))
        found[uuid] = filesystem_id(tmp_path, tmp_path.stat().st_dev)
    assert found[UUID] != found[OTHER]
    assert all(0 < each < 1 << 64 for each in found.values())


@pytest.mark.usefixtures("device_as_id")
def test_one_that_nobody_tells_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem_ids.fcntl, "ioctl", answering(0, UUID))
    assert filesystem_id(tmp_path, tmp_path.stat().st_dev) == 0


@pytest.mark.usefixtures("device_as_id")
def test_a_boot_that_numbers_devices_anew_moves_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of the device was taken for the id: after a boot the node refused its own directory."""
    monkeypatch.setattr(filesystem_ids.fcntl, "ioctl", answering(NEW_KERNEL, UUID))
    directory = Directory(tmp_path / "d")
    former = Place.of(directory.path)
    directory.close()
    now = Place(former.machine, "later", former.device + 1, former.filesystem, former.inode)
    assert now.moved_from(former) == ""
    monkeypatch.setattr(filesystem_ids.fcntl, "ioctl", answering(NEW_KERNEL, OTHER))
    assert "another file system" in Place.of(directory.path).moved_from(now)
