"""Tokens: their form, the file of one, and that nothing shows what they are."""

import copy
import io
import os
import pickle
import traceback
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest
from rich.console import Console
from rich.pretty import pretty_repr

from greenroom import ClusterStore, store_from_url, wire
from greenroom.errors import UsageError
from greenroom.framing import encode_greeting
from greenroom.negotiation import hello
from greenroom.tokens import Token, digest_of, id_in, new_token, read_token
from tests.authority import Authority

SECRET = b"0123456789abcdef0123456789abcdef"
TEXT = "gt1.web-1.MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
HELLO = hello("shop", wire.ROLE_CLIENT, b"t" * 16)


def made(token_id: str = "web-1") -> Token:
    return new_token(token_id, lambda count: SECRET[:count])


def file_with(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "app.token"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_token_is_256_random_bits_behind_its_id() -> None:
    token = made()
    assert token.id == "web-1"
    assert token.written() == f"{TEXT}\n".encode()
    assert new_token("a", os.urandom).written() != new_token("a", os.urandom).written()


def test_hello_holds_the_token_and_servers_keep_its_digest() -> None:
    token = made()
    asked = token.asking(HELLO)
    assert asked.auth == TEXT.encode()
    assert id_in(asked.auth) == "web-1"
    assert digest_of(asked.auth) == token.digest
    assert token.proof(asked, HELLO) is None
    assert len(encode_greeting(made("i" * 63).asking(HELLO))) < 4096, "no hello may be longer"


@pytest.mark.parametrize(
    "shown",
    [
        b"",
        bytes(32),
        TEXT.encode()[:-1],
        TEXT.encode() + b"A",
        TEXT.encode() + b"\n",
        TEXT.replace("gt1", "gt2").encode(),
        TEXT.replace("web-1", "").encode(),
        TEXT.replace("web-1", "a.b").encode(),
        TEXT.replace("web-1", "i" * 64).encode(),
        TEXT.replace("web-1", "wéb").encode(),
        b"\xff" + TEXT.encode(),
    ],
)
def test_what_is_no_token_names_nobody(shown: bytes) -> None:
    assert id_in(shown) == ""


def test_file_of_a_token_is_read(tmp_path: Path) -> None:
    for mode in (0o600, 0o400):
        path = file_with(tmp_path, made().written(), mode)
        assert read_token(path).digest == made().digest
        path.unlink()


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (f"{TEXT}\n".encode(), 0o640, "has the mode 0640"),
        (f"{TEXT}\n".encode(), 0o604, "has the mode 0604"),
        (b"", 0o600, "holds none"),
        (f"{TEXT}\n{TEXT}\n".encode(), 0o600, "holds none"),
        (f"{TEXT} # of the shop\n".encode(), 0o600, "holds none"),
        (b"\xff" * 60, 0o600, "holds none"),
    ],
)
def test_file_that_cannot_serve_is_refused_and_not_shown(
    tmp_path: Path, content: bytes, mode: int, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        read_token(file_with(tmp_path, content, mode))
    assert "app.token" in str(caught.value)
    assert secret_in(told(caught.value)) == []


def test_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there"):
        read_token(tmp_path / "none")
    with pytest.raises(UsageError, match="is no regular file"):
        read_token(tmp_path)


def secret_in(text: str) -> list[str]:
    """Which parts of the secret stand in a text."""
    parts = {TEXT[10:30], TEXT[-20:], SECRET[:16].decode(), made().digest.hex()[:16]}
    return sorted(part for part in parts if part in text)


def told(error: BaseException) -> str:
    """All that is shown of an error, with the variables of each frame below that of the test."""
    assert error.__traceback__ is not None
    error = error.with_traceback(error.__traceback__.tb_next)
    plain = "".join(traceback.format_exception(error))
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    console = Console(file=io.StringIO(), width=200)
    try:
        raise error
    except UsageError:
        console.print_exception(show_locals=True)
    return plain + "".join(shown.format()) + console.file.getvalue()  # type: ignore[attr-defined]


def test_nothing_shows_a_token() -> None:
    token = made()
    asked = token.asking(HELLO)
    for each in (token, asked, [asked], {"token": token}):
        assert secret_in(repr(each) + str(each) + pretty_repr(each)) == []
    assert "cluster='shop'" in repr(asked)


def test_token_is_neither_pickled_nor_copied() -> None:
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="the path of its file"):
            take(made())
    with pytest.raises(TypeError):
        msgspec.msgpack.encode(made())


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    """The files of an app with a token, and of one with a certificate."""
    authority = Authority()
    holder = authority.issue("greenroom://shop/client/web").files(tmp_path, "web")
    token = file_with(tmp_path, made().written())
    return {"token_file": str(token), "tls_ca": holder.ca, "tls_cert": holder.cert, "tls_key": holder.key}


NODES = "10.0.0.1:7400"


def test_store_takes_a_token_instead_of_a_certificate(paths: dict[str, str]) -> None:
    given = {name: paths[name] for name in ("token_file", "tls_ca")}
    store = ClusterStore(NODES, cluster="shop", **given)
    by_url = store_from_url(f"greenrooms://{NODES}/shop?{urlencode(given)}")
    for each in (store, by_url):
        assert secret_in(repr(each) + repr(vars(each)) + pretty_repr(vars(each))) == []
        with pytest.raises((TypeError, AttributeError)):
            pickle.dumps(each)
    assert store.reload_tls()
    Path(paths["token_file"]).chmod(0o644)
    assert not store.reload_tls(), "the former token stays in use"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("token_file",), "token_file is sent only within TLS.*give tls_ca too"),
        (("token_file", "tls_ca", "tls_cert"), "give it, or tls_cert, not both"),
        (("token_file", "tls_ca", "tls_cert", "tls_key"), "give it, or tls_cert and tls_key, not both"),
        (("tls_ca",), "TLS needs tls_cert and tls_key too"),
    ],
)
def test_options_that_do_not_fit_are_named(paths: dict[str, str], names: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ClusterStore(NODES, cluster="shop", **{name: paths[name] for name in names})


def test_token_in_the_url_of_plaintext_is_told_by_its_option(paths: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"'token_file'.*sent within TLS only.*greenrooms://"):
        store_from_url(f"greenroom://127.0.0.1:7400?token_file={paths['token_file']}")
    with pytest.raises(UsageError, match="tls_ca is missing"):
        store_from_url(f"greenrooms://127.0.0.1:7400?token_file={paths['token_file']}")


def test_file_of_a_token_that_cannot_serve_is_told_by_its_option(paths: dict[str, str]) -> None:
    Path(paths["token_file"]).chmod(0o640)
    with pytest.raises(UsageError, match=r"^token_file: .*has the mode 0640"):
        ClusterStore(NODES, token_file=paths["token_file"], tls_ca=paths["tls_ca"])
