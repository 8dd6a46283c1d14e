"""What is kept over an end comes back once, and lies where nobody's file is written over."""

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from greenroom import UsageError
from greenroom_cluster.backups import keeping
from greenroom_cluster.backups.files import FORMAT_VERSION, BackupWriter, Heading
from greenroom_cluster.backups.keeping import KeptSessions
from greenroom_cluster.backups.new_file import NotWrittenError
from greenroom_cluster.backups.restoring import NotAllRestoredError, Restored
from greenroom_cluster.backups.taking import Taken
from greenroom_cluster.cli.cluster_up import _keep

pytestmark = pytest.mark.trio


def backup(path: Path) -> bytes:
    with BackupWriter(path, Heading(FORMAT_VERSION, "greenroom", 0, 0)) as writer:
        writer.finish()
    return path.read_bytes()


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let a restore and a backup do nothing but tell; a start may then be tested without a cluster."""
    seen: list[str] = []
    really_fsync = os.fsync

    async def restore(*_: object, **__: object) -> Restored:
        seen.append("restored")
        return Restored(created=1)

    async def freeze(*_: object) -> None:
        seen.append("frozen")

    async def take(_addresses: object, _cluster: str, path: Path, **_more: object) -> Taken:
        return Taken(0, 0, len(backup(path)))

    def fsync(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            seen.append("synced")
        really_fsync(file)

    monkeypatch.setattr(keeping, "restore_sessions", restore)
    monkeypatch.setattr(keeping, "freeze_actors", freeze)
    monkeypatch.setattr(keeping, "take_backup", take)
    monkeypatch.setattr(os, "fsync", fsync)
    return seen


async def test_no_power_cut_brings_them_back_again(tmp_path: Path, restored: list[str]) -> None:
    """The file has lost its old name for good before the first session is created."""
    backup(tmp_path / "sessions.backup")
    restored.clear()
    assert await KeptSessions(tmp_path, "greenroom").bring_back(["127.0.0.1:1"]) == Restored(created=1)
    assert restored[:2] == ["synced", "restored"]
    assert names_in(tmp_path) == []


async def test_a_restore_that_fails_says_where_they_are(
    tmp_path: Path, restored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> Restored:
        raise NotAllRestoredError("full")

    monkeypatch.setattr(keeping, "restore_sessions", fail)
    backup(tmp_path / "sessions.backup")
    kept = KeptSessions(tmp_path, "greenroom")
    with pytest.raises(NotAllRestoredError, match=r"sessions\.restoring.*greenroom restore"):
        await kept.bring_back(["127.0.0.1:1"])
    with pytest.raises(UsageError, match=r"sessions\.restoring.*greenroom restore"):
        kept.check()


async def test_what_is_of_another_namespace_is_not_removed(
    tmp_path: Path, restored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else has it."""

    async def restore(*_: object) -> Restored:
        return Restored(created=1, elsewhere=2)

    monkeypatch.setattr(keeping, "restore_sessions", restore)
    backup(tmp_path / "sessions.backup")
    with pytest.raises(NotAllRestoredError, match=r"^2 sessions .*sessions\.restoring.*certificate"):
        await KeptSessions(tmp_path, "greenroom").bring_back(["127.0.0.1:1"])
    assert names_in(tmp_path) == ["sessions.restoring"]


async def test_a_file_that_was_put_there_meanwhile_stays(tmp_path: Path, restored: list[str]) -> None:
    (tmp_path / "sessions.backup").write_text("mine")
    await KeptSessions(tmp_path, "greenroom").keep(["127.0.0.1:1"], lambda _: None, None)
    assert "frozen" in restored
    kept, mine = names_in(tmp_path)
    assert kept == "sessions.backup"
    assert (tmp_path / mine).read_text() == "mine"


async def test_a_file_that_cannot_come_back_says_what_to_do(tmp_path: Path) -> None:
    whole = backup(tmp_path / "sessions.backup")
    with pytest.raises(UsageError, match=r"is of the cluster 'greenroom'.*--cluster"):
        KeptSessions(tmp_path, "shop").check()
    KeptSessions(tmp_path, "greenroom").check()
    (tmp_path / "sessions.backup").write_bytes(whole[:-1])
    with pytest.raises(UsageError, match=r"is damaged.*Move it away"):
        KeptSessions(tmp_path, "greenroom").check()


class FullDisk:
    """Kept sessions that cannot be written so often."""

    def __init__(self, times: int) -> None:
        self.times = times

    async def keep(self, *_: object) -> Taken:
        self.times -= 1
        if self.times >= 0:
            raise NotWrittenError("no room")
        return Taken(1, 2, 3)


@pytest.mark.parametrize(("times", "lost"), [(0, ""), (3, ""), (1000, "no room")])
async def test_a_full_disk_at_the_end_may_get_room(times: int, lost: str, autojump_clock: object) -> None:
    told: list[str] = []
    cluster = SimpleNamespace(seeds=[], credentials=None)
    assert await _keep(FullDisk(times), cluster, told.append) == lost  # type: ignore[arg-type]  # they stand in
    if not lost:
        assert len(told) == times + 1
        assert told[-1] == "sessions kept for the next start: 2"
