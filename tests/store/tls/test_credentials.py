"""Files of a holder: what is refused, by which option, and when they are read again."""

import os
import ssl
import time
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from greenroom import store_from_url
from greenroom.errors import UsageError
from greenroom.store_security import security_of
from greenroom.tls.channel import Channel
from greenroom.tls.credentials import LOOK_SECONDS, Credentials, Loaded, TlsFiles, load, serial_of
from tests.authority import Authority

NODE = "greenroom://shop/node/n1"
AUTHORITY = Authority()


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return AUTHORITY.issue(NODE).files(tmp_path, "n1")


def test_own_identity_and_end_are_known(tmp_path: Path) -> None:
    holder = AUTHORITY.issue(NODE, days=3)
    loaded = load(holder.files(tmp_path))
    assert (loaded.identity.uri, loaded.serial) == (NODE, holder.serial)
    assert 2.9 < (loaded.ends_at - time.time()) / 86_400 < 3.1


def test_store_that_names_another_cluster_is_told_how_to_name_it(tmp_path: Path) -> None:
    files = AUTHORITY.issue("greenroom://shop/client/web").files(tmp_path, "web")
    query = f"?tls_cert={files.cert}&tls_key={files.key}&tls_ca={files.ca}"
    with pytest.raises(UsageError, match=r"/greenroom/client/NAME; .*'shop' .*HOST:PORT/shop"):
        store_from_url(f"greenrooms://127.0.0.1:1{query}")
    store_from_url(f"greenrooms://127.0.0.1:1/shop{query}")


def test_each_option_is_named(files: TlsFiles, tmp_path: Path) -> None:
    for name in ("cert", "key", "ca", "deny"):
        broken = msgspec.structs.replace(files, **{name: str(tmp_path / "none")})
        with pytest.raises(UsageError, match=f"tls_{name}: .*none (cannot be read|is not there)"):
            load(broken)
    with pytest.raises(UsageError, match="while nobody is revoked, give an empty file"):
        load(msgspec.structs.replace(files, deny=str(tmp_path / "none")))
    flagged = msgspec.structs.replace(files, ca=str(tmp_path / "none"), flags=True)
    with pytest.raises(UsageError, match=r"--tls-ca \(GREENROOM_TLS_CA\): "):
        load(flagged)
    noise = tmp_path / "noise"
    noise.write_text("nothing here\n")
    for name in ("cert", "ca", "deny"):
        with pytest.raises(UsageError, match=f"tls_{name}: "):
            load(msgspec.structs.replace(files, **{name: str(noise)}))


def test_key_that_others_may_read_is_refused(files: TlsFiles) -> None:
    Path(files.key).chmod(0o640)
    with pytest.raises(UsageError, match=r"tls_key: .*n1.key has the mode 0640, .*chmod 600"):
        load(files)


def test_encrypted_key_is_refused_and_nobody_is_asked(files: TlsFiles) -> None:
    path = Path(files.key)
    key = load_pem_private_key(path.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, secret))
    with pytest.raises(UsageError, match=r"tls_key: .* is encrypted"):
        load(files)


def test_key_in_the_place_of_its_certificate_is_told(files: TlsFiles) -> None:
    Path(files.cert).chmod(0o600)
    with pytest.raises(UsageError, match=r"tls_cert: .*n1.key holds a key, and .*n1.pem a certificate"):
        load(msgspec.structs.replace(files, cert=files.key, key=files.cert))


def test_key_of_another_certificate_is_refused(files: TlsFiles, tmp_path: Path) -> None:
    other = AUTHORITY.issue(NODE).files(tmp_path)
    with pytest.raises(UsageError, match=r"tls_key: .* is not the key of the certificate"):
        load(msgspec.structs.replace(files, key=other.key))


@pytest.mark.parametrize(
    ("holder", "words"),
    [
        (AUTHORITY.issue(NODE, days=-0.5), "expired"),
        (AUTHORITY.issue(NODE, ago=-1), "not yet valid"),
        (AUTHORITY.issue(NODE, ca=Authority("another").pem), "issued by a CA in"),
        (AUTHORITY.issue(), "holds no URIs"),
        (AUTHORITY.issue(NODE, "greenroom://shop/node/n2"), "holds 2 URIs"),
        (AUTHORITY.issue("https://example.test/n1"), "names nobody"),
    ],
)
def test_certificate_that_would_be_refused_is_refused_here(
    tmp_path: Path, holder: object, words: str
) -> None:
    with pytest.raises(UsageError, match=f"(?s)tls_cert: .*{words}"):
        load(holder.files(tmp_path))  # type: ignore[attr-defined]


def test_keys_are_not_written_for_a_debugger(
    files: TlsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    loaded = load(files)
    assert loaded.server.keylog_filename is None
    assert loaded.client.keylog_filename is None
    assert not (tmp_path / "keys").exists()


def test_revoked_serial_is_refused(files: TlsFiles, tmp_path: Path) -> None:
    deny = tmp_path / "deny"
    deny.write_text("# lost laptop\n0aFF\n\n1:02\n")
    loaded = load(msgspec.structs.replace(files, deny=str(deny)))
    assert loaded.trusted.revoked == {0xAFF, 0x102}


def test_changed_files_are_used_and_bad_ones_are_not(files: TlsFiles, tmp_path: Path) -> None:
    now, lines = 0.0, list[str]()
    credentials = Credentials(files, lines.append, clock=lambda: now)
    first = credentials.current()
    renewed = AUTHORITY.issue(NODE)
    Path(files.cert).write_bytes(renewed.certificate)
    assert credentials.current() is first, "no look is due"
    now += LOOK_SECONDS
    assert credentials.current() is first, "the certificate is new, and the key is not"
    assert credentials.failures == 1
    assert len(lines) == 1
    assert "the former ones stay in use: tls_key: " in lines[0]
    now += LOOK_SECONDS
    assert credentials.current() is first
    assert len(lines) == 1, "the same files are not tried twice"
    Path(files.key).write_bytes(renewed.key)
    now += LOOK_SECONDS
    assert credentials.current().serial == renewed.serial
    assert len(lines) == 1


def test_key_that_others_may_read_from_now_on_is_told(files: TlsFiles) -> None:
    now, lines = 0.0, list[str]()
    credentials = Credentials(files, lines.append, clock=lambda: now)
    first = credentials.current()
    Path(files.key).chmod(0o604)
    now += LOOK_SECONDS
    assert credentials.current() is first
    assert "n1.key has the mode 0604" in lines[0]
    Path(files.key).chmod(0o600)
    now += LOOK_SECONDS
    assert credentials.current() is not first
    assert len(lines) == 1


def test_reload_reads_unchanged_files_too_and_always_tells(files: TlsFiles) -> None:
    refused, taken = list[str](), list[Loaded]()
    credentials = Credentials(files, refused.append, taken.append, clock=lambda: 0.0)
    assert not taken
    assert credentials.reload()
    assert taken == [credentials.current()]
    Path(files.cert).write_text("no certificate")
    assert not credentials.reload()
    assert not credentials.reload()
    assert len(refused) == 2
    assert credentials.current() is taken[0]


def test_same_reason_is_told_once_however_often_files_change(files: TlsFiles) -> None:
    now, refused = 0.0, list[str]()
    credentials = Credentials(files, refused.append, clock=lambda: now)
    good = Path(files.cert).read_bytes()
    for content in (b"none", b"none of it", b"none at all"):
        Path(files.cert).write_bytes(content)
        now += LOOK_SECONDS
        credentials.current()
    assert (credentials.failures, len(refused)) == (3, 1)
    for content in (good, b"none"):
        Path(files.cert).write_bytes(content)
        now += LOOK_SECONDS
        credentials.current()
    assert len(refused) == 2, "after files that were good it is told again"


@pytest.mark.parametrize("late", ["the former key", "no key"])
def test_a_server_serves_on_while_a_renewal_is_half_written(
    files: TlsFiles, tmp_path: Path, late: str
) -> None:
    """A `load_cert_chain` that raises takes the certificate away from the context that it was called on."""
    now = 0.0
    credentials = Credentials(files, lambda _line: None, clock=lambda: now)
    open_since = credentials.current().server
    client = load(AUTHORITY.issue("greenroom://shop/client/web").files(tmp_path, "web")).client
    renewed = AUTHORITY.issue(NODE)
    Path(files.cert).write_bytes(renewed.certificate)
    if late == "no key":
        Path(files.key).unlink()
    now += LOOK_SECONDS
    assert shake_hands(client, credentials.current().server) != renewed.serial
    assert credentials.failures == 1
    Path(files.key).write_bytes(renewed.key)
    Path(files.key).chmod(0o600)
    now += LOOK_SECONDS
    assert shake_hands(client, credentials.current().server) == renewed.serial
    assert shake_hands(client, open_since) != renewed.serial, "a handshake that had begun goes on"


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> int:
    """Return the serial number of the certificate that the server has shown."""
    here, there = Channel(client, server_side=False), Channel(server, server_side=True)
    while not there.established:
        here.feed(there.take())
        if not here.established:
            here.handshake()
        there.feed(here.take())
        there.handshake()
    return serial_of(here.certificate)


@pytest.mark.parametrize("name", ["cert", "key", "ca", "deny"])
def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(files: TlsFiles, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UsageError, match=f"tls_{name}: .*pipe is no regular file"):
        load(msgspec.structs.replace(files, **{name: str(tmp_path / "pipe")}))


def test_the_certificate_of_another_is_not_taken_at_a_reload(tmp_path: Path) -> None:
    """A store goes on with its own, whatever was copied over that."""
    files = AUTHORITY.issue("greenroom://shop/client/web").files(tmp_path, "web")
    given = {"tls_cert": files.cert, "tls_key": files.key, "tls_ca": files.ca}
    security = security_of("shop", given)
    assert security is not None
    AUTHORITY.issue(NODE).files(tmp_path, "web")
    assert not security.reload()
    assert str(security.identity and security.identity.uri) == "greenroom://shop/client/web"
    AUTHORITY.issue("greenroom://shop/client/web2").files(tmp_path, "web")
    assert security.reload()
