"""The command `greenroom tokens`, as it is typed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from greenroom.errors import UsageError
from greenroom.tokens import new_token, read_token
from greenroom_cluster.backups.restoring import RestoringStore
from greenroom_cluster.cli.commands import main
from greenroom_cluster.config import AccessOptions
from greenroom_cluster.tls_options import AccessTlsOptions, NodeTlsOptions
from greenroom_cluster.tokens.entries import parse_entries
from greenroom_cluster.tokens.files import text_of
from tests.authority import Authority

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Return what runs the command in an empty directory; nothing that it says shows a secret."""
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["greenroom", "tokens", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        for path in tmp_path.glob("*.token"):
            assert path.read_text().strip()[-20:] not in told.out + told.err
        return int(ended.value.code or 0), told.out, told.err

    return run_here


def ids() -> list[str]:
    return [each.token_id for each in parse_entries(text_of(Path("greenroom-tokens")))]


def test_token_is_issued_shown_and_revoked(typed: Typed) -> None:
    status, out, _ = typed("issue", "web", "--cluster", "shop", "--namespace", "shops", "--days", "30")
    assert status == 0
    token = read_token(Path("web.token"))
    (entry,) = parse_entries(text_of(Path("greenroom-tokens")))
    assert (entry.token_id, entry.digest) == (token.id, token.digest)
    assert entry.identity.uri == "greenroom://shop/client/web?ns=shops"
    assert f"{token.id} {token.digest.hex()} greenroom://shop/client/web?ns=shops" in out
    for path in ("web.token", "greenroom-tokens"):
        assert Path(path).stat().st_mode & 0o777 == 0o600
    status, out, _ = typed("show")
    assert (status, token.id in out, "valid" in out) == (0, True, True)
    status, out, _ = typed("revoke", token.id)
    assert (status, "1 tokens are revoked" in out) == (0, True)
    assert "revoked" in typed("show")[1]
    status, out, _ = typed("revoke", token.id)
    assert "0 tokens are revoked in greenroom-tokens; 1 were already" in out


@pytest.mark.parametrize(
    ("arguments", "uri", "namespace", "words"),
    [
        ([], "greenroom://shop/client/web", "web", "namespace web, that of its name: --namespace puts it"),
        (["--namespace", "web"], "greenroom://shop/client/web", "web", "namespace web, that of its name"),
        (["--namespace", "shops"], "greenroom://shop/client/web?ns=shops", "shops", "namespace shops\n"),
        (["--namespace", "default"], "greenroom://shop/client/web?ns=default", "", "namespace default\n"),
        (["--role", "observer"], "greenroom://shop/observer/web", "", ""),
    ],
)
def test_command_tells_whose_sessions_an_app_has(
    typed: Typed, arguments: list[str], uri: str, namespace: str, words: str
) -> None:
    """As for a certificate: those of a namespace of its own name, unless another is named."""
    status, out, _ = typed("issue", "web", "--cluster", "shop", *arguments)
    assert (status, words in out, "namespace" in out) == (0, True, bool(words)), out
    (entry,) = parse_entries(text_of(Path("greenroom-tokens")))
    assert (entry.identity.uri, entry.identity.namespace) == (uri, namespace)


def test_machines_get_json_without_the_secret(typed: Typed) -> None:
    status, out, _ = typed("issue", "grafana", "--role", "observer", "--cluster", "shop", "--json")
    issued = json.loads(out)
    assert (status, issued["identity"]) == (0, "greenroom://shop/observer/grafana")
    assert issued["line"] in text_of(Path("greenroom-tokens"))
    (listed,) = json.loads(typed("show", "--json")[1])["tokens"]
    assert (listed["id"], listed["state"], listed["problem"]) == (issued["id"], "valid", "")
    told = json.loads(typed("revoke", "greenroom://shop/observer/grafana", "--json")[1])
    assert told["revoked"] == [issued["id"]]
    assert json.loads(typed("revoke", issued["id"], "--json")[1])["already"] == [issued["id"]]


def test_successor_is_issued_beside_the_former(typed: Typed) -> None:
    typed("issue", "web", "--days", "5")
    status, out, _ = typed("show")
    assert (status, "it ends within 14 days: issue another" in out) == (1, True)
    status, _, error = typed("issue", "web")
    assert (status, "web.token is there already" in error) == (2, True)
    assert len(ids()) == 1, "no line without its file"
    status, out, _ = typed("issue", "web", "--out", "web-2.token")
    assert f"Valid for the same holder: {ids()[0]}" in out
    assert len(ids()) == 2


def test_token_for_another_cluster_is_not_put_beside_those_of_one(typed: Typed) -> None:
    typed("issue", "web", "--cluster", "shop")
    before = text_of(Path("greenroom-tokens"))
    status, _, error = typed("issue", "web", "--out", "next.token")
    assert (status, "is for the cluster 'shop': give --cluster shop" in error) == (2, True), error
    assert text_of(Path("greenroom-tokens")) == before
    assert not Path("next.token").exists()
    assert typed("issue", "web", "--cluster", "shop", "--out", "next.token")[0] == 0
    assert len(ids()) == 2


def test_token_of_no_file_is_left_if_the_servers_file_is_not_written(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "greenroom-tokens").mkdir()
    status, _, error = typed("issue", "web")
    assert (status, "is no regular file" in error) == (2, True)
    assert not (tmp_path / "web.token").exists()
    status, _, error = typed("issue", "web", "--tokens", "nowhere/tokens")
    assert (status, "--tokens" in error) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["issue", "a b"], "the name"),
        (["issue", "web", "--days", "0"], "--days must be 1 to 825"),
        (["issue", "web", "--cluster", "a b"], "--cluster"),
        (["issue", "web", "--namespace", "a b"], "--namespace"),
        (["issue", "web", "--role", "observer", "--namespace", "shop"], "--namespace is for apps"),
        (["issue", "web", "--role", "node"], "--role"),
        (["issue", "web", "--role", "operator"], "--role"),
        (["show"], "`greenroom tokens issue` makes it"),
    ],
)
def test_mistakes_are_told_by_their_option(typed: Typed, arguments: list[str], words: str) -> None:
    status, _, error = typed(*arguments)
    assert (status, words in error) == (2, True), error
    assert not list(Path().glob("*.token"))


def test_unknown_token_is_not_revoked_and_nothing_else_is(typed: Typed) -> None:
    typed("issue", "web")
    status, _, error = typed("revoke", ids()[0], "nobody")
    assert (status, "there is no token of nobody" in error) == (2, True)
    assert "revoked" not in text_of(Path("greenroom-tokens"))


def test_no_cryptography_is_needed(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['cryptography'] = None; sys.argv = ['greenroom', 'tokens', 'issue', 'web']; "
        "from greenroom_cluster.cli.commands import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "web.token").exists()


def test_sessions_are_not_restored_by_a_token_which_says_no_namespace(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(Authority().pem)
    token = new_token("web-1", lambda count: b"s" * count)
    (tmp_path / "app.token").touch(0o600)
    (tmp_path / "app.token").write_bytes(token.written())
    access = AccessTlsOptions(token_file=tmp_path / "app.token", tls_ca=tmp_path / "ca.pem")
    options = AccessOptions(tls=access).store_options()
    store = RestoringStore("127.0.0.1:7400", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"--token-file: .*--tls-cert and --tls-key"):
        _ = store.namespace


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"token_file": "t"}, "--token-file is sent within TLS only: give --tls-ca"),
        ({"token_file": "t", "tls_ca": "a", "tls_cert": "c"}, "--token-file is instead of a certificate"),
    ],
)
def test_options_of_commands_that_do_not_fit_are_named(given: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        AccessTlsOptions(**{name: Path(path) for name, path in given.items()}).check()


def test_node_takes_tokens_within_tls_alone() -> None:
    with pytest.raises(UsageError, match="--tokens: a token is taken within TLS only"):
        NodeTlsOptions(tokens=Path("tokens")).check()
