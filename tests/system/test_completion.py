"""Shells complete the command line, by the scripts that it prints."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.test_cli import run

pytestmark = pytest.mark.system

SECONDS = 60.0


def script_for(shell: str) -> str:
    return run("completion", shell).stdout


def completed_by(*shell: str, **variables: str) -> str:
    """Return what a shell, which finds the command, prints when it does what it is told."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    return subprocess.run(
        shell, capture_output=True, text=True, check=True, timeout=SECONDS, env=environment
    ).stdout


def test_bash_completes_commands_and_options() -> None:
    probe = """
        COMP_WORDS=($LINE); COMP_CWORD=$WORD; _greenroom_completion greenroom; echo "${COMPREPLY[*]}"
    """

    def completed(line: str, word: int) -> set[str]:
        return set(completed_by("bash", "-c", script_for("bash") + probe, LINE=line, WORD=str(word)).split())

    assert completed("greenroom sta", 1) == {"status"}
    assert {"--watch", "--shards"} <= completed("greenroom status --", 2)
    assert completed("greenroom node --durability f", 3) == {"fsync"}


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh here (apt-get install -y zsh)")
@pytest.mark.parametrize("load", ["fpath=($PWD $fpath)", "source ./_greenroom"], ids=["fpath", "sourced"])
def test_zsh_completes_at_the_first_tab(load: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would show is printed instead: there is no terminal."""
    (tmp_path / "_greenroom").write_text(script_for("zsh"))
    monkeypatch.chdir(tmp_path)
    begin = "autoload -Uz compinit; compinit -D -u"
    first_load, then_load = (load, "") if load.startswith("fpath") else ("", load)
    tab = """
        _arguments() { print -r -- "$@" }
        words=(greenroom to) CURRENT=2
        $_comps[greenroom]
    """
    told = completed_by("zsh", "-df", "-c", "\n".join([first_load, begin, then_load, tab]))
    assert '"top"' in told
    assert '"tokens"' in told
    assert '"status"' not in told


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish here (apt-get install -y fish)")
def test_fish_completes_commands_choices_and_files(tmp_path: Path) -> None:
    completions = tmp_path / "fish" / "completions"
    completions.mkdir(parents=True)
    (completions / "greenroom.fish").write_text(script_for("fish"))
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}

    def completed(line: str) -> list[str]:
        told = completed_by("fish", "-c", "complete -C $LINE", LINE=line, **home)
        return [line.split("\t")[0] for line in told.splitlines()]

    assert completed("greenroom to") == ["tokens", "top"]
    assert completed("greenroom up --durability f") == ["fsync"]
    (tmp_path / "sessions.jsonl").touch()
    assert completed(f"greenroom import {tmp_path}/sess") == [f"{tmp_path}/sessions.jsonl"]
