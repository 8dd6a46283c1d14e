"""Whose a replaced file is: that of whom it was, or a service could not read it any more."""

import os
from pathlib import Path

import pytest

from greenroom_cluster.lasting_files import replace_file

SERVICE = 7400

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give files to somebody else")


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, found.st_mode & 0o777


def test_new_file_is_this_users_alone(tmp_path: Path) -> None:
    replace_file(tmp_path / "key", b"new")
    assert owner_and_mode(tmp_path / "key") == (os.geteuid(), os.getegid(), 0o600)


def test_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "denied"
    path.write_bytes(b"former")
    path.chmod(0o640)
    replace_file(path, b"new")
    assert (path.read_bytes(), owner_and_mode(path)[2]) == (b"new", 0o640)


@as_root
def test_replaced_file_keeps_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(b"former")
    os.chown(path, SERVICE, SERVICE + 1)
    path.chmod(0o440)
    replace_file(path, b"new")
    assert (path.read_bytes(), owner_and_mode(path)) == (b"new", (SERVICE, SERVICE + 1, 0o440))


def test_file_that_cannot_be_given_to_its_owner_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another's file, in a directory that this user may write to."""
    path = tmp_path / "tokens"
    path.write_bytes(b"former")
    monkeypatch.setattr(os, "geteuid", lambda: SERVICE)

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    real = os.fstat

    def fstat(file: int) -> os.stat_result:
        found = real(file)
        return os.stat_result((*found[:4], SERVICE, *found[5:]))

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(PermissionError):
        replace_file(path, b"new")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("tokens", b"former")]
