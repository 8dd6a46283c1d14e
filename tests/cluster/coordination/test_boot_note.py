"""What tells the map that was written last from an older copy of it."""

import shutil
from pathlib import Path

import msgspec
import pytest

from greenroom_cluster.coordination import boot_note
from greenroom_cluster.coordination.boot_note import BootNote
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.coordination.storage import MapStorage

FIRST = first_map("test", 4, 2)


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place that is this boot's."""
    place = tmp_path / "shm"
    place.mkdir()
    monkeypatch.setattr(boot_note, "SHARED_MEMORY", place)
    return place


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A directory whose coordinator has decided three times and was killed."""
    with MapStorage(tmp_path / "data") as storage:
        storage.vouch()
        for version in (1, 2, 3):
            storage.save(msgspec.structs.replace(FIRST, version=version))
    return tmp_path / "data"


def vouched(directory: Path) -> bool:
    with MapStorage(directory) as storage:
        storage.load()
        return storage.vouched


def test_a_killed_coordinator_is_the_one_that_ran_before(kept: Path) -> None:
    assert vouched(kept)
    assert vouched(kept), "looking changes nothing"


def test_an_older_copy_is_not(kept: Path, tmp_path: Path) -> None:
    copy = (kept / "map.bin").read_bytes()
    with MapStorage(kept) as storage:
        storage.load()
        storage.save(msgspec.structs.replace(FIRST, version=4))
    (kept / "map.bin").write_bytes(copy)
    assert not vouched(kept)


def test_the_newest_put_back_after_an_older_one_ran_is_not(kept: Path) -> None:
    """What the older one decided is not in it."""
    newest = (kept / "map.bin").read_bytes()
    with MapStorage(kept) as storage:
        storage.save(FIRST)
    boot_note.BootNote(kept).write(newest)
    assert not vouched(kept)
    (kept / "map.bin").write_bytes(newest)
    assert not vouched(kept)


def test_a_copy_of_the_directory_is_not(kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path / "copy")
    assert not vouched(tmp_path / "copy")
    assert vouched(kept)


def test_after_another_boot_nothing_is_vouched_for(
    kept: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot_note, "_BOOT", memory / "boot")
    (memory / "boot").write_text("another\n")
    assert not vouched(kept)


def test_without_shared_memory_nothing_is_vouched_for(kept: Path, memory: Path) -> None:
    shutil.rmtree(memory)
    assert not vouched(kept)
    with MapStorage(kept) as storage:
        storage.vouch()
        storage.save(FIRST)
        assert storage.load() == FIRST


def test_an_unproven_run_stays_so_over_its_restarts_until_it_vouches(kept: Path) -> None:
    BootNote(kept).void()
    with MapStorage(kept) as storage:
        storage.load()
        storage.save(msgspec.structs.replace(FIRST, version=4))
    assert not vouched(kept)
    with MapStorage(kept) as storage:
        storage.load()
        storage.vouch()
    assert vouched(kept)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_around_the_rename_costs_no_proof(
    kept: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def crash(path: Path, target: Path) -> Path:
        if path.name != "map.tmp":
            return rename(path, target)
        if when == "after":
            rename(path, target)
        raise KeyboardInterrupt

    with MapStorage(kept) as storage:
        storage.load()
        monkeypatch.setattr(Path, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            storage.save(msgspec.structs.replace(FIRST, version=4))
        monkeypatch.setattr(Path, "rename", rename)
    assert vouched(kept)


def test_a_note_that_others_could_have_written_is_not_believed(kept: Path, memory: Path) -> None:
    [note] = memory.iterdir()
    assert note.stat().st_mode & 0o777 == 0o600
    note.chmod(0o622)
    assert not BootNote(kept).vouches_for((kept / "map.bin").read_bytes())


def test_a_link_is_not_followed(kept: Path, memory: Path, tmp_path: Path) -> None:
    [note] = memory.iterdir()
    note.rename(tmp_path / "elsewhere")
    note.symlink_to(tmp_path / "elsewhere")
    assert not vouched(kept)


def test_a_map_is_vouched_for_if_it_is_written_so(kept: Path) -> None:
    for known in (False, True):
        with MapStorage(kept) as storage:
            storage.load()
            BootNote(kept).void()
            storage.save(msgspec.structs.replace(FIRST, version=4 + known), vouched=known)
        assert vouched(kept) is known
