"""Who an actor slot's directory is, and what is refused because it may be a copy."""

import os
import shutil
import stat
from pathlib import Path

import msgspec
import pytest

from greenroom.errors import UsageError
from greenroom_cluster.disk.batches import DamagedError
from greenroom_cluster.disk.directory import (
    INCARNATIONS_KEPT,
    Directory,
    Identity,
    Place,
    is_locked,
    read_identity,
)

HERE = Place("m", "boot", 1, 2, 3)


def entered(path: Path, incarnation: bytes = b"a" * 16, cluster: str = "shop") -> Identity:
    directory = Directory(path)
    try:
        return directory.enter(cluster, incarnation)
    finally:
        directory.close()


def test_it_stays_who_it_is_and_lists_who_opened_it(tmp_path: Path) -> None:
    first = entered(tmp_path / "d")
    assert len(first.directory) == 16
    names = [bytes([n]) * 16 for n in range(1, INCARNATIONS_KEPT + 3)]
    for name in names:
        last = entered(tmp_path / "d", name)
    assert last.directory == first.directory
    assert last.incarnations == tuple(names[-INCARNATIONS_KEPT:])
    assert read_identity(tmp_path / "d") == last


def test_another_one_is_another(tmp_path: Path) -> None:
    assert entered(tmp_path / "d").directory != entered(tmp_path / "e").directory


def test_nobody_else_can_read_who_it_is(tmp_path: Path) -> None:
    entered(tmp_path / "d")
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "d/identity").stat().st_mode) == 0o600


def check_moved(now: Place, former: Place, told: str) -> None:
    """Demand that a place differs from a former one by what is told, or not at all if that is empty."""
    moved = now.moved_from(former)
    assert bool(moved) == bool(told)
    assert told in moved


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (Place("other", "boot", 1, 2, 3), "another machine"),
        (Place("m", "boot", 1, 2, 4), "another directory"),
        (Place("m", "boot", 9, 2, 3), "another file system"),
        (Place("m", "boot", 1, 9, 3), "another file system"),
        (Place("m", "later", 1, 9, 3), "another file system"),
        (Place("m", "later", 9, 0, 3), "another file system"),
        (Place("m", "later", 1, 2, 3), ""),
        (Place("m", "later", 1, 0, 3), ""),
        # The numbers of devices are given out anew at each boot.
        (Place("m", "later", 9, 2, 3), ""),
    ],
)
def test_a_place_is_told_from_others(now: Place, told: str) -> None:
    check_moved(now, HERE, told)


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (Place("m", "boot", 7, 2, 3), ""),
        (Place("m", "later", 7, 2, 3), ""),
        (Place("m", "later", 9, 2, 3), "another file system"),
        (Place("m", "boot", 9, 9, 3), "another file system"),
    ],
)
def test_the_number_of_a_device_is_no_id_of_a_file_system(now: Place, told: str) -> None:
    """Former incarnations wrote the one for the other on XFS: it says no more than the device does."""
    check_moved(now, Place("m", "boot", 7, 7, 3), told)


def test_a_copy_is_refused_until_an_operator_adopts_it(tmp_path: Path) -> None:
    original = entered(tmp_path / "d")
    shutil.copytree(tmp_path / "d", tmp_path / "copy")
    with pytest.raises(UsageError, match=f"adopt-directory {tmp_path / 'copy'}`.*all of the node's"):
        entered(tmp_path / "copy")
    copy = Directory(tmp_path / "copy")
    copy.adopt()
    copy.close()
    assert entered(tmp_path / "copy").directory == original.directory


def test_a_directory_that_was_renamed_is_the_same(tmp_path: Path) -> None:
    original = entered(tmp_path / "d")
    (tmp_path / "d").rename(tmp_path / "e")
    assert entered(tmp_path / "e").directory == original.directory


def test_it_is_for_one_process(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "d")
    assert is_locked(tmp_path / "d")
    with pytest.raises(UsageError, match=r"another process uses .*--data-dir"):
        Directory(tmp_path / "d")
    directory.close()
    directory.close()
    assert not is_locked(tmp_path / "d")


def test_a_file_in_the_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("")
    with pytest.raises(UsageError, match="--data-dir"):
        Directory(tmp_path / "d")


def test_the_directory_of_another_cluster_is_refused(tmp_path: Path) -> None:
    entered(tmp_path / "d", cluster="shop")
    with pytest.raises(UsageError, match=r"cluster 'shop', and this one is 'other': .*--cluster"):
        entered(tmp_path / "d", cluster="other")


def test_what_is_no_directory_of_an_actor_is_not_adopted(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "d")
    with pytest.raises(UsageError, match="no directory of an actor"):
        directory.adopt()
    directory.close()


@pytest.mark.parametrize("place", range(0, 60, 4))
def test_a_changed_byte_of_the_identity_is_seen(tmp_path: Path, place: int) -> None:
    entered(tmp_path / "d")
    content = bytearray((tmp_path / "d/identity").read_bytes())
    content[place] ^= 1
    (tmp_path / "d/identity").write_bytes(content)
    # The format is not in the checksum: another one is told as such.
    with pytest.raises(UsageError if place in {8, 9} else DamagedError, match=r"format|identity"):
        entered(tmp_path / "d")


def test_a_log_without_an_identity_is_damage(tmp_path: Path) -> None:
    entered(tmp_path / "d")
    (tmp_path / "d/log-0000000000000001-000000.log").touch()
    (tmp_path / "d/identity").unlink()
    with pytest.raises(DamagedError, match="missing"):
        entered(tmp_path / "d")


def test_what_is_damaged_is_set_aside_once(tmp_path: Path) -> None:
    former = entered(tmp_path / "d")
    (tmp_path / "d/synced").touch()
    directory = Directory(tmp_path / "d")
    aside = directory.set_aside()
    assert {each.name for each in aside.iterdir()} == {"identity", "synced"}
    assert directory.enter("shop", b"b" * 16).directory != former.directory
    with pytest.raises(UsageError, match="replace the disk, or remove"):
        directory.set_aside()
    directory.close()


@pytest.mark.parametrize("moves", range(5))
def test_a_crash_while_it_is_set_aside_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    names = {"identity", "synced", "log-0000000000000001-000000.log", "log-0000000000000009-000000.log"}
    former = entered(tmp_path / "d")
    for name in names - {"identity"}:
        (tmp_path / "d" / name).touch()
    left = moves
    original = Path.rename

    def rename(path: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(5, "killed")
        return original(path, target)

    directory = Directory(tmp_path / "d")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(OSError, match="killed"):
            directory.set_aside()
    try:
        fresh = directory.enter("shop", b"b" * 16)
    except DamagedError:
        directory.set_aside()
        fresh = directory.enter("shop", b"b" * 16)
    if moves:
        assert fresh.directory != former.directory
    else:
        assert fresh.directory == former.directory, "nothing was done yet, and the damage is found again"
    there = {each.name for each in (tmp_path / "d").rglob("*") if each.is_file()}
    assert there >= names, "nothing is lost"
    assert all(each.stat().st_size for each in (tmp_path / "d").rglob("identity"))
    directory.close()


def test_a_crash_while_it_is_written_leaves_the_former(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = entered(tmp_path / "d")

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            entered(tmp_path / "d", b"b" * 16)
    assert read_identity(tmp_path / "d") == former


def test_the_present_place_is_noted_at_each_opening(tmp_path: Path) -> None:
    first = entered(tmp_path / "d")
    earlier = msgspec.structs.replace(first.place, boot="earlier", device=first.place.device + 1)
    assert not Place.of(tmp_path / "d").moved_from(earlier) or not first.place.filesystem
    assert entered(tmp_path / "d").place == Place.of(tmp_path / "d")
