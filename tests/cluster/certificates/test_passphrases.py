"""Passphrases come from a file of this user alone."""

from pathlib import Path

import pytest

from greenroom.errors import UsageError
from greenroom_cluster.certificates.passphrases import check_passphrase, read_passphrase


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "content", [b"tr0ub4dor and three", b"tr0ub4dor and three\n", b"tr0ub4dor and three\r\nx\n"]
)
def test_first_line_is_the_passphrase(tmp_path: Path, content: bytes) -> None:
    assert read_passphrase(written(tmp_path / "p", content)) == b"tr0ub4dor and three"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "p", b"tr0ub4dor", mode)
    with pytest.raises(UsageError, match="chmod 600") as caught:
        read_passphrase(path)
    assert "tr0ub4dor" not in str(caught.value)


def test_missing_and_empty_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--passphrase-file"):
        read_passphrase(tmp_path / "none")
    with pytest.raises(UsageError, match="--passphrase-file"):
        read_passphrase(written(tmp_path / "p", b"\nsecond line"))


@pytest.mark.parametrize(("passphrase", "said"), [(b"x" * 15, "too short"), (b"x" * 1025, "too long")])
def test_new_passphrase_has_bounds(passphrase: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_passphrase(passphrase, "the passphrase")
    check_passphrase(b"x" * 16, "the passphrase")
