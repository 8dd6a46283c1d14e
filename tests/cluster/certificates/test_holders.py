"""The files of a holder: who can read them, and what an interruption leaves."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster.certificates.examining import public_bytes
from greenroom_cluster.certificates.holders import (
    TRUSTED,
    Holder,
    certificates_pem,
    check_free,
    find_key,
    read_certificates,
    replace,
    write_new,
)
from tests.cluster.certificates.stage import hold, make_authority

AUTHORITY = make_authority()
CALLS = ("open", "write", "fsync", "rename", "link", "unlink")
"""What the writing of files comes down to, and where it can fail, or end with its process."""


def modes(directory: Path) -> dict[str, int]:
    return {each.name: each.stat().st_mode & 0o777 for each in directory.iterdir()}


def check_loads(path: Path) -> None:
    """Have `ssl` read the files, which finds a key that does not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, path.with_suffix(".key"))
    context.load_verify_locations(path.with_name(TRUSTED))


def failing(monkeypatch: pytest.MonkeyPatch, at: int, fail: Callable[[], Any]) -> list[str]:
    """Have the call of that number fail, of those that write; return the calls that were made."""
    made: list[str] = []

    def wrap(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **more: Any) -> Any:
            made.append(name)
            if len(made) == at:
                fail()
            return real(*arguments, **more)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, wrap(name))
    return made


def no_room() -> None:
    raise OSError(28, "No space left on device")


def test_new_holder_has_three_files_that_nobody_else_can_read(tmp_path: Path) -> None:
    path = write_new(tmp_path / "n1", "n1", hold(AUTHORITY, "node"))
    assert path == tmp_path / "n1/n1.pem"
    assert (tmp_path / "n1").stat().st_mode & 0o777 == 0o700
    assert modes(path.parent) == {"n1.pem": 0o600, "n1.key": 0o600, "ca.pem": 0o600}
    check_loads(path)


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        path = write_new(tmp_path / "n1", "n1", hold(AUTHORITY, "node"))
        replace(path, hold(AUTHORITY, "node"))
    finally:
        os.umask(former)
    assert set(modes(path.parent).values()) == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give files to somebody else")
def test_service_can_read_what_root_has_renewed(tmp_path: Path) -> None:
    path = write_new(tmp_path, "n1", hold(AUTHORITY, "node"))
    for file in tmp_path.iterdir():
        os.chown(file, 7400, 7401)
        file.chmod(0o440)
    replace(path, hold(make_authority(), "node"))
    owners = {(each.stat().st_uid, each.stat().st_gid) for each in tmp_path.iterdir()}
    assert (owners, set(modes(tmp_path).values())) == ({(7400, 7401)}, {0o440})
    check_loads(path)


def test_who_was_revoked_is_told_where_a_new_certificate_goes(tmp_path: Path) -> None:
    """A renewal, which helps whoever comes back to a directory, is refused to them."""
    write_new(tmp_path, "n1", hold(AUTHORITY, "node"))
    with pytest.raises(UsageError, match=r"n1\.pem is there already: .* renew .*if it is revoked.* --out"):
        check_free(tmp_path, "n1")


def test_no_holder_is_replaced_by_a_new_one(tmp_path: Path) -> None:
    path = write_new(tmp_path, "n1", hold(AUTHORITY, "node"))
    before = path.read_bytes(), find_key(path)
    with pytest.raises(UsageError, match="is there already"):
        write_new(tmp_path, "n1", hold(AUTHORITY, "client"))
    path.unlink()
    with pytest.raises(UsageError, match=r"n1\.key is there already"):
        write_new(tmp_path, "n1", hold(AUTHORITY, "client"))
    assert find_key(path) == before[1]


def test_file_that_somebody_makes_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(directory: Path, trusted: object) -> None:
        (directory / "n1.pem").write_text("theirs")

    monkeypatch.setattr("greenroom_cluster.certificates.holders.write_trusted", meanwhile)
    with pytest.raises(UsageError, match="is there already"):
        write_new(tmp_path, "n1", hold(AUTHORITY, "node"))
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("n1.pem", "theirs")]


def test_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "n1.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is there already"):
        write_new(tmp_path, "n1", hold(AUTHORITY, "node"))
    assert not (tmp_path / "elsewhere").exists()


def test_holders_of_one_authority_share_a_directory(tmp_path: Path) -> None:
    for name in ("n1", "n2", "a.b"):
        write_new(tmp_path, name, hold(AUTHORITY, "node", name))
    replace(tmp_path / "a.b.pem", hold(AUTHORITY, "node", "a.b"))
    assert find_key(tmp_path / "a.b.pem").public
    assert len(list(tmp_path.iterdir())) == 7


def test_directory_of_another_clusters_holders_is_left_alone(tmp_path: Path) -> None:
    write_new(tmp_path, "n1", hold(make_authority(cluster="other"), "node", cluster="other"))
    before = (tmp_path / TRUSTED).read_bytes()
    with pytest.raises(UsageError, match="--out"):
        write_new(tmp_path, "n2", hold(AUTHORITY, "node", "n2"))
    assert (tmp_path / TRUSTED).read_bytes() == before
    assert not (tmp_path / "n2.key").exists()


def test_holder_cannot_take_the_name_of_whom_it_trusts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'ca'"):
        write_new(tmp_path, "ca", hold(AUTHORITY, "client", "ca"))


def test_key_with_a_passphrase_or_none_at_all_is_told(tmp_path: Path) -> None:
    path = write_new(tmp_path, "n1", hold(AUTHORITY, "node"))
    (tmp_path / "n1.key").write_text("no key")
    assert "is none, or has a passphrase" in find_key(path).error
    (tmp_path / "n1.key").unlink()
    assert "is not there" in find_key(path).error


def test_renewal_that_fails_anywhere_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = 0
    for at in range(1, 100):
        path = write_new(tmp_path / str(at), "n1", hold(AUTHORITY, "node"))
        before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
        failed = False
        with monkeypatch.context() as patched:
            made = failing(patched, at, no_room)
            try:
                replace(path, hold(AUTHORITY, "node"))
            except (GreenroomError, OSError):
                failed = True
        if len(made) < at:
            break
        failures += failed
        check_loads(path)
        after = {each.name: each.read_bytes() for each in path.parent.iterdir()}
        if made[:at].count("rename") < 4 or made[at - 1] == "rename":
            assert {name: after[name] for name in before} == before, made[:at]
        if made[at - 1] != "unlink":
            assert after.keys() == before.keys(), "nothing of a key is left over"
    assert failures > 10
    assert at > failures


def test_new_holder_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 0
    for at in range(1, 100):
        directory = tmp_path / str(at)
        failed = False
        with monkeypatch.context() as patched:
            made = failing(patched, at, no_room)
            try:
                write_new(directory, "n1", hold(AUTHORITY, "node"))
            except (GreenroomError, OSError):
                failed = True
        if len(made) < at:
            break
        failures += failed
        if failed and not (directory / "n1.pem").exists():
            assert not (directory / "n1.key").exists(), made[:at]
            write_new(directory, "n1", hold(AUTHORITY, "node"))
        check_loads(directory / "n1.pem")
    assert failures > 5
    assert at > failures


def killed_at(at: int, work: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run work in a process that ends at that call; return whether it did."""
    child = os.fork()
    if child == 0:
        try:
            failing(monkeypatch, at, lambda: os._exit(9))
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_renewal_that_is_killed_anywhere_is_mended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is the old or the new one; the two of a pair may differ, which the next renewal ends."""
    torn = 0
    for at in range(1, 100):
        directory = tmp_path / str(at)
        path = write_new(directory, "n1", hold(AUTHORITY, "node"))
        former, following = find_key(path).public, hold(AUTHORITY, "node")
        if not killed_at(at, lambda path=path, new=following: replace(path, new), monkeypatch):
            break
        certified = public_bytes(read_certificates(path)[0].public_key())
        assert find_key(path).public in {former, public_bytes(following.key.public_key())}
        assert certified in {former, public_bytes(following.key.public_key())}
        torn += certified != find_key(path).public
        replace(path, hold(AUTHORITY, "node"))
        check_loads(path)
        assert set(modes(directory)) == {"n1.pem", "n1.key", "ca.pem"}
        assert set(modes(directory).values()) == {0o600}
    assert at > 10
    assert torn == 1, "between the two renames only"


def test_what_is_written_is_pkcs8_without_a_passphrase(tmp_path: Path) -> None:
    holder: Holder = hold(AUTHORITY, "client", "shop")
    path = write_new(tmp_path, "shop", holder)
    content = (tmp_path / "shop.key").read_bytes()
    assert content.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert public_bytes(load_pem_private_key(content, None).public_key()) == find_key(path).public
    assert path.read_bytes() == certificates_pem([holder.certificate])
