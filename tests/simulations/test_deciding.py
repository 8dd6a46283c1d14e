"""Replicas decide hostile commands alike: below any stack, and under another version of Python."""

import os
import shutil
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from greenroom import table
from greenroom.patching import patch_data
from simulations.cli.main import main
from simulations.studies.deciding import Difference, decide

COMMANDS = 3000
VERSIONS = ("3.12", "3.11", "3.13")


def another_python() -> str:
    """A Python of another version that has msgspec: GREENROOM_OTHER_PYTHON, or one on the path."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    named = [
        os.environ.get("GREENROOM_OTHER_PYTHON"),
        *(f"python{each}" for each in VERSIONS if each != here),
    ]
    for name in filter(None, named):
        if path := shutil.which(name):
            found = subprocess.run([path, "-c", "import msgspec"], capture_output=True, check=False)
            if found.returncode == 0:
                return path
    pytest.skip("no Python of another version with msgspec; GREENROOM_OTHER_PYTHON names one")


def test_tables_decide_alike_below_any_stack() -> None:
    outcomes = decide(COMMANDS)
    assert set(outcomes) >= {"Written", "EncodedSession", "EXISTS", "NOT_FOUND", "CONFLICT", "INVALID"}
    assert outcomes["EncodedSession"] > COMMANDS / 20, "hostile, but not only refused"


def test_tables_decide_alike_in_another_process() -> None:
    decide(COMMANDS, seed=1, python=sys.executable)


def test_tables_decide_alike_in_another_python() -> None:
    decide(COMMANDS, seed=1, python=another_python())


def test_what_depends_on_the_stack_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was: what could not be decoded above this stack was taken for malformed."""

    def recursing(data: bytes, *changes: Any) -> bytes:
        try:
            msgspec.msgpack.decode(data)
        except RecursionError:
            raise ValueError("malformed") from None
        except ValueError:
            pass
        return patch_data(b"\x80", *changes)

    monkeypatch.setattr(table, "patch_data", recursing)
    with pytest.raises(Difference, match="below a deeper stack"):
        decide(10 * COMMANDS)


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decide", "--commands", "600", "--seed", "3", "--jobs", "2"]) == 0
    assert capsys.readouterr().out.startswith("600 commands, decided alike: {")
    assert main(["decide", "--commands", "600", "--python", "/nowhere/python"]) == 2
    assert "--python /nowhere/python cannot be started" in capsys.readouterr().err
