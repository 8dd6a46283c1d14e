"""Where the secret of a cluster lies, who makes it, and when it is not used."""

import os
import stat
from pathlib import Path
from threading import Thread

import pytest

from greenroom.errors import UsageError
from greenroom.loopback_secrets import LoopbackSecrets, usual_files
from greenroom.proofs import NONCE_BYTES

NONCE = bytes(NONCE_BYTES)
HERE = "127.0.0.1:7400"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def secret_of(secrets: LoopbackSecrets, address: str = HERE) -> bytes | None:
    challenge = secrets.challenge(address, NONCE)
    return None if challenge is None else challenge.secret


def written(path: Path, content: str = "x" * 43 + "\n", mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


def test_it_is_made_for_its_owner_alone(places: Path) -> None:
    former = os.umask(0)
    try:
        LoopbackSecrets("shop").make()
    finally:
        os.umask(former)
    path = places / "run" / "greenroom" / "shop.secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]
    assert len(path.read_text().strip()) >= 43


def test_it_is_made_once() -> None:
    """Of many processes that start together, all end up with one secret."""
    many = [LoopbackSecrets("shop") for _ in range(16)]
    threads = [Thread(target=each.make) for each in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({secret_of(each) for each in many}) == 1


def test_another_of_the_same_user_finds_it() -> None:
    store = LoopbackSecrets("shop")
    assert secret_of(store) is None
    LoopbackSecrets("shop").make()
    assert secret_of(store)
    assert secret_of(LoopbackSecrets("another")) is None


def test_without_a_directory_of_the_login_it_is_in_the_home(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster and its apps may differ in that: both look into both."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    LoopbackSecrets("shop").make()
    assert (places / "home/.local/state/greenroom/shop.secret").exists()
    secret = secret_of(LoopbackSecrets("shop"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(places / "run"))
    LoopbackSecrets("shop").make()
    assert secret_of(LoopbackSecrets("shop")) == secret


def test_who_has_no_home_is_told_what_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.delenv("HOME")
    with pytest.raises(UsageError, match="--secret-file"):
        LoopbackSecrets("shop", option="--secret-file").make()


@pytest.mark.parametrize("cluster", ["../../etc/passwd", "a/b", "..", "ü" * 200])
def test_name_of_a_cluster_leads_nowhere_else(places: Path, cluster: str) -> None:
    for path in usual_files(cluster):
        assert path.parent.name == "greenroom"
        assert path.resolve().parent == path.parent
    LoopbackSecrets(cluster).make()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_file_that_others_can_open_is_refused(places: Path, mode: int) -> None:
    written(places / "run/greenroom/shop.secret", mode=mode)
    with pytest.raises(UsageError, match="chmod 600"):
        LoopbackSecrets("shop").make()
    with pytest.raises(UsageError, match="chmod 600"):
        secret_of(LoopbackSecrets("shop"))


@pytest.mark.parametrize("content", ["", "short\n", "x" * 43 + "\n" + "y" * 43 + "\n"])
def test_file_without_one_long_secret_is_refused(places: Path, content: str) -> None:
    file = written(places / "mine", content)
    with pytest.raises(UsageError, match="secret"):
        secret_of(LoopbackSecrets("shop", file))


def test_directory_that_others_can_open_is_not_used(places: Path) -> None:
    (places / "run" / "greenroom").mkdir(parents=True)
    (places / "run" / "greenroom").chmod(0o755)
    LoopbackSecrets("shop").make()
    assert not list((places / "run" / "greenroom").iterdir())
    assert (places / "home/.local/state/greenroom/shop.secret").exists()


def test_file_of_another_user_is_refused(places: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path = written(places / "run/greenroom/shop.secret")
    os.chown(path, 65534, 65534)
    with pytest.raises(UsageError, match="another user"):
        secret_of(LoopbackSecrets("shop"))


def test_only_loopback_is_covered_unless_a_file_is_named(places: Path) -> None:
    LoopbackSecrets("shop").make()
    assert secret_of(LoopbackSecrets("shop"), "10.0.0.1:7400") is None
    file = written(places / "mine")
    assert secret_of(LoopbackSecrets("shop", file), "10.0.0.1:7400") == b"x" * 43


def test_beyond_loopback_a_proof_is_given_and_not_demanded(places: Path) -> None:
    LoopbackSecrets("shop").make()
    beyond = LoopbackSecrets("shop").challenge_at("0.0.0.0", "10.0.0.1:7400", NONCE)
    here = LoopbackSecrets("shop").challenge_at("127.0.0.1", "127.0.0.1:7400", NONCE)
    assert beyond is not None
    assert here is not None
    assert (beyond.required, here.required) == (False, True)


def test_who_demands_a_proof_and_knows_no_secret_serves_nobody(places: Path) -> None:
    """As a process that is started again when the login has ended, and the file has gone with it."""
    with pytest.raises(UsageError, match="--secret-file"):
        LoopbackSecrets("shop", option="--secret-file").challenge_at("127.0.0.1", HERE, NONCE)
    assert LoopbackSecrets("shop", required=False).challenge_at("127.0.0.1", HERE, NONCE) is None
    assert LoopbackSecrets("shop").challenge_at("0.0.0.0", HERE, NONCE) is None


@pytest.mark.parametrize(
    ("reached", "came_in_at"),
    [
        ("[::ffff:127.0.0.1]:7400", "127.0.0.1:7400"),
        ("127.0.0.1:7400", "[::ffff:127.0.0.1]:7400"),
        ("[0:0:0:0:0:0:0:1]:7400", "[::1]:7400"),
        ("[fe80::1%eth0]:7400", "[fe80::1%eth1]:7400"),
    ],
)
def test_both_ends_name_an_address_alike(places: Path, reached: str, came_in_at: str) -> None:
    secrets = LoopbackSecrets("shop", written(places / "mine"))
    dials, answers = secrets.challenge(reached, NONCE), secrets.challenge_at("::", came_in_at, NONCE)
    assert dials is not None
    assert dials == answers


def test_secret_that_was_replaced_is_read_anew(places: Path) -> None:
    secrets = LoopbackSecrets("shop")
    file = written(places / "run/greenroom/shop.secret")
    assert secret_of(secrets) == b"x" * 43
    written(places / "new", "y" * 43).rename(file)
    assert secret_of(secrets) == b"y" * 43


def test_secret_stays_when_its_file_goes_bad_or_away(places: Path) -> None:
    """The directory of a login ends with it; a cluster that runs on goes on."""
    secrets = LoopbackSecrets("shop")
    file = written(places / "run/greenroom/shop.secret")
    assert secret_of(secrets) == b"x" * 43
    file.chmod(0o644)
    assert secret_of(secrets) == b"x" * 43
    file.unlink()
    assert secret_of(secrets) == b"x" * 43


def test_nothing_of_it_is_shown(places: Path) -> None:
    secrets = LoopbackSecrets("shop", written(places / "mine"))
    challenge = secrets.challenge(HERE, NONCE)
    assert "xxx" not in repr(secrets) + repr(challenge)
