"""A backup file is whole or refused, whatever became of it."""

import stat
from pathlib import Path

import pytest

from greenroom import wire
from greenroom.codec import encode_data
from greenroom.errors import UsageError
from greenroom_cluster.backups.files import FORMAT_VERSION, Backup, BackupWriter, Heading, Part
from greenroom_cluster.shard.state.records import StoredSession

HEADING = Heading(FORMAT_VERSION, "greenroom", 1_800_000_000_000_000, 2)


def session(number: int) -> StoredSession:
    state = wire.SessionState(1, 2, 3, None, "alice", "", number, encode_data({"n": number}))
    return StoredSession(bytes([number]) * 32, state)


def written(path: Path, heading: Heading = HEADING) -> Path:
    with BackupWriter(path, heading) as writer:
        writer.add(Part(0, 3, 10, (session(1), session(2))))
        writer.add(Part(0, 3, 10, (session(3),)))
        writer.add(Part(1, 4, 0, ()))
        writer.finish()
        assert writer.sessions == 3
    return path


def test_a_backup_is_read_as_it_was_written(tmp_path: Path) -> None:
    backup = Backup(written(tmp_path / "b"))
    assert backup.heading == HEADING
    assert backup.sessions == 3
    assert list(backup.stored()) == [session(1), session(2), session(3)]


def test_it_is_for_its_user_alone(tmp_path: Path) -> None:
    assert stat.S_IMODE(written(tmp_path / "b").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_was_not_finished_leaves_no_file(tmp_path: Path) -> None:
    with BackupWriter(tmp_path / "b", HEADING) as writer:
        writer.add(Part(0, 3, 10, (session(1),)))
    assert list(tmp_path.iterdir()) == []


def test_no_file_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        BackupWriter(tmp_path / "b", HEADING)
    assert (tmp_path / "b").read_text() == "mine"


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        BackupWriter(tmp_path / "none" / "b", HEADING)


def test_a_backup_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "b")
    for size in range(path.stat().st_size):
        cut = tmp_path / "cut"
        cut.write_bytes(path.read_bytes()[:size])
        with pytest.raises(UsageError, match=r"damaged|no backup"):
            Backup(cut)


def test_a_bit_flipped_in_any_byte_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "b")
    for place in range(path.stat().st_size):
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        flipped = tmp_path / "flipped"
        flipped.write_bytes(content)
        with pytest.raises(UsageError, match=r"damaged|no backup"):
            Backup(flipped)


def test_a_backup_that_lacks_a_shard_is_refused(tmp_path: Path) -> None:
    with BackupWriter(tmp_path / "b", HEADING) as writer:
        writer.add(Part(0, 3, 10, (session(1),)))
        writer.finish()
    with pytest.raises(UsageError, match="parts of it are missing"):
        Backup(tmp_path / "b")


def test_what_follows_the_end_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "b")
    other = written(tmp_path / "c").read_bytes()
    with path.open("ab") as file:
        file.write(other[8:])
    with pytest.raises(UsageError, match="follows its end"):
        Backup(path)


def test_a_later_format_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "b", Heading(FORMAT_VERSION + 1, "greenroom", 1, 2))
    with pytest.raises(UsageError, match="restore it with the version that wrote it"):
        Backup(path)


@pytest.mark.parametrize("content", [b"", b"GREENMAP", b"x" * 100])
def test_another_file_is_no_backup(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(UsageError, match="no backup of greenroom"):
        Backup(tmp_path / "b")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Backup(tmp_path / "b")


def test_a_descriptor_is_given_back(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(5):
        Backup(written(tmp_path / str(number)))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
