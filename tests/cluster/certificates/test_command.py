"""The command `greenroom certs`, as it is typed."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from cryptography import x509

from greenroom_cluster.certificates.examining import identity_in
from greenroom_cluster.cli.commands import main
from tests.cluster.certificates.test_holders import check_loads

COMMAND = str(Path(sys.executable).parent / "greenroom")
PASSPHRASE = "correct horse battery staple"


class Result:
    """What a run of the command wrote, and how it ended."""

    def __init__(self, status: int, out: str, error: str) -> None:
        self.status, self.out, self.error = status, out, error


def run(directory: Path, *arguments: str, **variables: str) -> Result:
    """Run `greenroom certs` as a process of its own, without a terminal."""
    done = subprocess.run(
        [COMMAND, "certs", *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**{name: each for name, each in os.environ.items() if "GREENROOM" not in name}, **variables},
    )
    assert "Traceback" not in done.stderr
    for secret in (PASSPHRASE, "PRIVATE KEY"):
        assert secret not in done.stdout + done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


Typed = Callable[..., Result]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Return what runs the same code within this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)

    def run_here(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["greenroom", "certs", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return Result(ended.value.code if isinstance(ended.value.code, int) else 0, told.out, told.err)

    return run_here


def test_a_first_cluster_gets_its_certificates(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    (tmp_path / "passphrase").chmod(0o600)
    variables = {"GREENROOM_CERTS_PASSPHRASE_FILE": "passphrase"}
    made = run(tmp_path, "init", "--cluster", "shop", **variables)
    assert made.status == 0, made.error
    assert "Next: `greenroom certs coordinator`" in made.out
    for role, name in (("coordinator", "coordinator"), ("node", "a"), ("client", "web")):
        arguments = [role] if role == "coordinator" else [role, name]
        issued = run(tmp_path, *arguments, **variables)
        assert issued.status == 0, issued.error
        assert f"greenroom://shop/{role}/{name}" in issued.out
        check_loads(tmp_path / name / f"{name}.pem")
    shown = run(tmp_path, "show", "--json")
    assert shown.status == 0, shown.error
    found = json.loads(shown.out)["certificates"]
    assert [each["role"] for each in found] == ["node", "coordinator", "client", "authority for all"]
    assert {each["chain"] for each in found} == {"good"}
    refused = run(tmp_path, "renew", ".")
    assert refused.status == 1
    assert "--passphrase-file" in refused.error


@pytest.fixture
def ca(typed: Typed) -> Typed:
    """Return what runs the command where there is an authority."""
    assert typed("init", "--cluster", "shop", "--no-passphrase").status == 0
    return typed


def test_an_app_is_put_into_the_namespace_that_is_named(ca: Typed) -> None:
    for name, arguments, uri, told in (
        ("web", [], "greenroom://shop/client/web", "namespace web, that of its name: --namespace puts it"),
        ("api", ["--namespace", "web"], "greenroom://shop/client/api?ns=web", "namespace web\n"),
        ("old", ["--namespace", "default"], "greenroom://shop/client/old?ns=default", "namespace default\n"),
        ("own", ["--namespace", "own"], "greenroom://shop/client/own", "namespace own, that of its name"),
    ):
        issued = ca("client", name, *arguments)
        assert issued.status == 0, issued.error
        assert f"certificate of {uri}, " in issued.out
        assert f"Its sessions are those of the {told}" in issued.out
    assert "namespace" not in ca("node", "a").out
    assert ca("renew", "api").status == 0
    again = ca("client", "api", "--namespace", "web", "--out", "api-2")
    assert "Valid for the same identity" in again.out
    assert "Valid for" not in ca("client", "api", "--out", "api-3").out, "of another namespace"
    assert "1 new" in ca("revoke", "greenroom://shop/client/api").out
    assert "Valid for" not in ca("client", "api", "--out", "api-4").out, "what it has is revoked"
    assert "3 new" in ca("revoke", "greenroom://shop/client/api?ns=web").out


@pytest.mark.parametrize("namespace", ["a/b", "a?b", "x" * 64, " "])
def test_no_other_name_is_a_namespace(ca: Typed, namespace: str) -> None:
    refused = ca("client", "web", "--namespace", namespace)
    assert refused.status == 2
    assert "--namespace takes 1 to 63 letters" in refused.error
    assert not Path("web").exists()


def shown(typed: Typed, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    result = typed("show", "--json", *arguments)
    return result.status, json.loads(result.out)["certificates"]


def test_what_is_revoked_is_shown_and_not_renewed_and_others_are(ca: Typed) -> None:
    for name in ("a", "b"):
        ca("node", name)
    serials = {each["file"]: each["serial"] for each in shown(ca, "a", "b")[1]}
    assert "1 new" in ca("revoke", "greenroom://shop/node/a").out
    assert Path("greenroom-ca/denied.txt").read_text() == serials["a/a.pem"] + "\n"
    assert "0 new" in ca("revoke", "a/a.pem", serials["a/a.pem"].lower()).out
    status, found = shown(ca, "a", "b")
    assert status == 1
    assert [bool(each["problems"]) for each in found] == [True, False]
    renewed = ca("renew", "a", "b")
    assert renewed.status == 1
    assert "a/a.pem: it is revoked" in renewed.error
    assert "renewed: 1, not yet due: 0, failed: 1" in renewed.out
    after = {each["file"]: each["serial"] for each in shown(ca, "a", "b")[1]}
    assert after["a/a.pem"] == serials["a/a.pem"]
    assert after["b/b.pem"] != serials["b/b.pem"]


def test_former_certificates_of_an_identity_are_revoked_too(ca: Typed) -> None:
    ca("node", "a")
    ca("renew", "a")
    assert "2 new" in ca("revoke", "greenroom://shop/node/a").out


def test_an_identity_that_lacks_its_namespace_is_not_said_to_be_gone(ca: Typed) -> None:
    ca("client", "api", "--namespace", "web")
    refused = ca("revoke", "greenroom://shop/client/api")
    assert refused.status == 2
    assert "still valid, but of greenroom://shop/client/api?ns=web\n" in refused.error


def test_a_serial_number_of_nobody_is_denied_and_told(ca: Typed) -> None:
    ca("node", "a")
    assert "Of no certificate" not in ca("revoke", "a/a.pem").out
    told = ca("revoke", "4F59")
    assert (told.status, "1 new" in told.out) == (0, True)
    assert "Of no certificate that this authority has issued, as far as it knows: 4F59\n" in told.out


def test_a_deny_list_is_there_before_anybody_is_revoked(ca: Typed) -> None:
    assert Path("greenroom-ca/denied.txt").read_text() == ""


def test_a_timer_renews_only_what_is_due(ca: Typed) -> None:
    ca("node", "a", "--days", "20")
    ca("node", "b")
    renewed = ca("renew", ".", "--days-left", "30")
    assert renewed.status == 0
    assert "a/a.pem is renewed" in renewed.out
    assert "renewed: 1, not yet due: 1, failed: 0" in renewed.out
    assert "renewed: 0, not yet due: 2" in ca("renew", ".", "--days-left", "10").out
    assert shown(ca, "a")[0] == 0


def test_a_timer_brings_to_holders_what_a_rotation_has_changed(ca: Typed) -> None:
    """A dropped authority came back on the hosts of all whose certificates were not due."""
    ca("node", "a")
    ca("client", "web")
    timer = ("renew", ".", "--days-left", "30")
    for step, authorities in (("trust-both", 2), ("issue-from-new", 2), ("drop-old", 1)):
        assert ca("rotate-ca", step).status == 0
        if step == "issue-from-new":
            ca("renew", ".")
        else:
            stale = [each["problems"] for each in shown(ca, "a", "web")[1]]
            assert ["is not that of the authority" in str(each) for each in stale] == [True, True]
            done = ca(*timer)
            assert "a/ca.pem is brought up to date" in done.out
            assert "renewed: 0, not yet due: 2, failed: 0\nNext: copy" in done.out
        for name in ("a", "web"):
            assert Path(name, "ca.pem").read_bytes().count(b"BEGIN CERTIFICATE") == authorities
            check_loads(Path(name, f"{name}.pem"))
        assert "up to date" not in ca(*timer).out
    assert shown(ca, "a", "web")[0] == 0


def test_holders_of_another_authority_keep_whom_they_trust(ca: Typed) -> None:
    ca("init", "--ca", "other", "--no-passphrase")
    ca("node", "a")
    ca("node", "b", "--ca", "other")
    before = Path("b/ca.pem").read_bytes()
    assert "brought" not in ca("renew", ".", "--days-left", "1").out
    assert Path("b/ca.pem").read_bytes() == before


def test_a_timer_that_names_no_authority_fails_before_anything_is_due(ca: Typed) -> None:
    ca("node", "a")
    refused = ca("renew", "a", "--days-left", "1", "--ca", "nowhere")
    assert (refused.status, "--ca" in refused.error) == (2, True)


def test_the_steps_of_a_rotation_say_what_comes_next(ca: Typed) -> None:
    ca("node", "a")
    assert "next is `greenroom certs rotate-ca trust-both`" in ca("rotate-ca", "drop-old").error
    first = ca("rotate-ca", "trust-both")
    assert "copy greenroom-ca/ca.pem to every holder" in first.out
    assert "`greenroom certs rotate-ca issue-from-new`" in first.out
    assert "`greenroom certs renew` for every holder" in ca("rotate-ca", "issue-from-new").out
    refused = ca("rotate-ca", "drop-old")
    assert refused.status == 2
    assert "greenroom://shop/node/a" in refused.error
    assert shown(ca)[0] == 1
    assert ca("renew", ".").status == 0
    assert ca("rotate-ca", "drop-old").status == 0
    ca("renew", ".")
    assert shown(ca)[0] == 0
    assert len(list(Path("greenroom-ca").glob("*.key"))) == 1


def test_two_authorities_each_issue_for_their_own(typed: Typed) -> None:
    for purpose in ("servers", "clients"):
        made = typed("init", "--for", purpose, "--ca", purpose, "--no-passphrase")
        assert "greenroom certs trust FILE" in made.out
    assert "certs trust" in typed("client", "web", "--ca", "clients").error
    assert typed("trust", "servers/authority.pem", "--ca", "clients").status == 0
    assert typed("trust", "clients/authority.pem", "--ca", "servers").status == 0
    assert typed("client", "web", "--ca", "clients").status == 0
    assert typed("node", "a", "--ca", "servers").status == 0
    assert "may not certify" in typed("node", "b", "--ca", "clients").error
    assert Path("web/ca.pem").read_bytes().count(b"BEGIN CERTIFICATE") == 2
    for name in ("web", "a"):
        check_loads(Path(name, f"{name}.pem"))
    assert shown(typed)[0] == 0


MISTAKES = (
    (["init", "--ca", "other"], "--passphrase-file"),
    (["init", "--ca", "other", "--no-passphrase", "--passphrase-file", "p"], "exclude each other"),
    (["init", "--no-passphrase"], "--ca"),
    (["init", "--ca", "other", "--cluster", "a b", "--no-passphrase"], "--cluster"),
    (["init", "--ca", "other", "--passphrase-file", "none"], "none cannot be read"),
    (["node", "../n1"], "letters"),
    (["node", "ca"], "'ca'"),
    (["node", "n1", "--days", "0"], "--days"),
    (["node", "n1", "--days", "826"], "--days"),
    (["node", "n1", "--hosts", "a b"], "--hosts"),
    (["node", "n1", "--ca", "none"], "--ca"),
    (["node", "n1", "--out", "full"], "--out"),
    (["show", "empty"], "no certificate in empty"),
    (["show", "none.pem"], "none.pem cannot be read"),
    (["show", "--deny", "none.txt"], "--deny"),
    (["renew", "empty"], "no certificate in empty"),
    (["revoke", "greenroom://shop/node/n9"], "greenroom://shop/node/n9"),
    (["revoke", "greenroom://shop/nobody/n9"], "ROLE is one of"),
    (["revoke", "n9"], "no file, no serial number"),
    (["trust", "passphrase"], "holds no certificate"),
    (["trust", "greenroom-ca/authority.pem"], "itself"),
)


@pytest.mark.parametrize(
    ("arguments", "said"), MISTAKES, ids=lambda each: " ".join(each) if isinstance(each, list) else ""
)
def test_mistakes_are_one_line_that_says_what_to_do(ca: Typed, arguments: list[str], said: str) -> None:
    Path("empty").mkdir()
    Path("full").write_text("a file")
    Path("passphrase").write_text(PASSPHRASE)
    before = sorted(each for each in Path().rglob("*") if each.is_file())
    result = ca(*arguments)
    assert result.status == 2
    assert said in result.error
    assert result.error.count("\n") == 1
    assert PASSPHRASE not in result.error
    assert sorted(each for each in Path().rglob("*") if each.is_file()) == before


def test_files_of_others_end_the_command_in_one_line(ca: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied", "secret")

    monkeypatch.setattr(Path, "iterdir", refuse)
    result = ca("show")
    assert result.status == 1
    assert result.error == "greenroom: secret cannot be used (Permission denied): run this as its owner\n"


def test_a_second_certificate_of_an_identity_is_said_to_be_one(ca: Typed) -> None:
    ca("client", "web")
    (former,) = shown(ca, "web")[1]
    again = ca("client", "web", "--out", "web2")
    assert again.status == 0
    assert former["serial"] in again.out


def test_an_app_gets_a_namespace_and_keeps_it(ca: Typed) -> None:
    """So sessions that were stored without a certificate stay those of the app that gets one."""
    issued = ca("client", "web", "--namespace", "default")
    assert issued.status == 0, issued.error
    assert ca("renew", "web").status == 0
    for path in (Path("web/web.pem"), *Path("greenroom-ca/issued").iterdir()):
        identity = identity_in(x509.load_pem_x509_certificates(path.read_bytes())[0])
        assert (identity.uri, identity.namespace) == ("greenroom://shop/client/web?ns=default", "")
    assert ca("revoke", "greenroom://shop/client/web?ns=default").status == 0
    wrong = ca("client", "other", "--namespace", "a/b")
    assert (wrong.status, "--namespace" in wrong.error) == (2, True)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_holder_that_is_there_is_renewed_and_not_issued_again(ca: Typed) -> None:
    assert ca("node", "a").status == 0
    before = sorted(Path("greenroom-ca/issued").iterdir())
    again = ca("node", "a")
    assert again.status == 2
    assert "`greenroom certs renew a/a.pem`" in again.error
    assert sorted(Path("greenroom-ca/issued").iterdir()) == before


def test_without_cryptography_it_says_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None;"
        "sys.argv = ['greenroom', 'certs', 'init', '--no-passphrase', '--ca', '/nonexistent/ca'];"
        "from greenroom_cluster.cli import main; main()"
    )
    done = python(code)
    assert done.returncode == 1
    assert 'pip install "cryptography>=42"' in done.stderr
    assert "Traceback" not in done.stderr


def test_help_needs_no_cryptography() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None; sys.argv = ['greenroom', 'certs', '--help'];"
        "from greenroom_cluster.cli import main; main()"
    )
    done = python(code)
    assert done.returncode == 0
    assert "rotate-ca" in done.stdout


def at_terminal(directory: Path, *arguments: str, answers: list[str]) -> tuple[int, str]:
    """Run the command at a terminal and answer its questions; return its status and all it showed."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(directory)
        os.execv(COMMAND, [COMMAND, "certs", *arguments])
    seen = b""
    try:
        for answer in answers:
            asked = seen.count(b": ")
            while seen.count(b": ") == asked:
                seen += os.read(terminal, 4096)
            os.write(terminal, answer.encode() + b"\n")
        while chunk := os.read(terminal, 4096):
            seen += chunk
    except OSError:
        # Linux says so when the last one has closed the other side.
        pass
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen.decode()


def test_passphrase_is_asked_at_the_terminal_and_not_shown(tmp_path: Path) -> None:
    status, seen = at_terminal(tmp_path, "init", answers=[PASSPHRASE, "something else altogether"])
    assert status == 2
    assert "differ" in seen
    assert not (tmp_path / "greenroom-ca").exists()
    status, seen = at_terminal(tmp_path, "init", answers=[PASSPHRASE, PASSPHRASE])
    assert (status, PASSPHRASE in seen) == (0, False)
    status, seen = at_terminal(tmp_path, "node", "a", answers=["wrong"])
    assert (status, "wrong" in seen) == (2, False)
    assert "does not open" in seen
    status, seen = at_terminal(tmp_path, "node", "a", answers=[PASSPHRASE])
    assert (status, PASSPHRASE in seen) == (0, False)
    check_loads(tmp_path / "a/a.pem")


def test_no_option_takes_a_secret() -> None:
    """A secret is the path of a file: arguments and variables are for all to see."""
    group = typer.main.get_command(__import__("greenroom_cluster.cli.certs", fromlist=["certs"]).certs)
    names = {name for command in group.commands.values() for each in command.params for name in each.opts}  # type: ignore[attr-defined]
    assert {name for name in names if "pass" in name} == {"--passphrase-file", "--no-passphrase"}
