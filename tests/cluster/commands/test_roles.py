"""Whose certificate a command shows: a wrong one is told before anybody is asked."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.authority import Authority

NOWHERE = "127.0.0.1:9"
AUTHORITY = Authority("shop")
LOOKS = ["status", "health", "top", "status --watch"]
CHANGES = [
    "user ann",
    "end-sessions ann",
    "drop-record 1",
    "backup new.backup",
    "export new.jsonl",
    "forget-node a",
    "declare-dead a",
]
CREATES = ["import {lines}"]


def failed(command: str, *options: str) -> tuple[int, str]:
    words = command.split()
    where = "--coordinator" if words[0] in {"forget-node", "declare-dead"} else "--connect"
    done = subprocess.run(
        [sys.executable, "-m", "greenroom_cluster", *words, "--cluster", "shop", where, NOWHERE, *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": ""},
    )
    return done.returncode, done.stderr


def shown(role: str, folder: Path) -> tuple[str, ...]:
    files = AUTHORITY.issue(f"greenroom://shop/{role}/n1").files(folder)
    return ("--tls-cert", files.cert, "--tls-key", files.key, "--tls-ca", files.ca)


@pytest.mark.parametrize(
    ("commands", "wrong", "right"),
    [
        (LOOKS, "client", "an observer or operator"),
        (LOOKS[:1], "coordinator", "an observer or operator"),
        (CHANGES, "observer", "an operator"),
        (CHANGES[:1], "node", "an operator"),
        (CREATES, "operator", "a client"),
    ],
)
def test_certificate_of_the_wrong_role_is_refused(
    commands: list[str], wrong: str, right: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = tmp_path / "some.jsonl"
    lines.write_text("")
    for command in commands:
        more = ("--accept-ended",) if command.startswith("import") else ()
        status, told = failed(command.format(lines=lines), *more, *shown(wrong, tmp_path))
        assert (status, told.count("\n")) == (2, 1), (command, told)
        assert f"is that of greenroom://shop/{wrong}/n1, and this needs that of {right}" in told, command


def test_no_token_is_for_what_changes_something(tmp_path: Path) -> None:
    token = tmp_path / "web.token"
    token.touch(0o600)
    token.write_text("greenroom-token web-1 x\n")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(AUTHORITY.pem)
    for command in ("forget-node a", "user ann"):
        status, told = failed(command, "--token-file", str(token), "--tls-ca", str(ca))
        assert (status, "--token-file" in told, "certificate of an operator" in told) == (2, True, True), told


def test_certificate_of_the_role_goes_on_to_ask(tmp_path: Path) -> None:
    for command, role in (("status", "observer"), ("status", "operator"), ("user ann", "operator")):
        status, told = failed(command, *shown(role, tmp_path))
        assert (status, "cannot be reached" in told) == (3, True), told
