"""What `--json` prints where a command fails: one line with the error, whatever the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOWHERE = "127.0.0.1:9"  # discard: nobody listens there


def failed(*arguments: str, **variables: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "greenroom_cluster", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "", **variables},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("status", "--connect", NOWHERE), 3),
        (("health", "--connect", "nonsense"), 2),
        (("user", "ann", "--connect", NOWHERE), 3),
        (("backup", "new.backup", "--connect", NOWHERE), 3),
        (("restore", "absent.backup", "--connect", NOWHERE), 2),
        (("import", "absent.jsonl", "--connect", NOWHERE), 2),
        (("inspect", "absent"), 2),
        (("certs", "show", "absent.pem"), 2),
        (("tokens", "show", "--tokens", "absent"), 2),
        (("up", "--nodes", "0"), 2),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_error_is_a_line_of_json_too(
    arguments: tuple[str, ...], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = failed(*arguments, "--json")
    (line,) = out.splitlines()
    assert (code, err) == (status, f"greenroom: {json.loads(line)['error']}\n")


def test_variable_asks_for_json_too(tmp_path: Path) -> None:
    code, out, _ = failed("inspect", str(tmp_path), GREENROOM_JSON="1")
    assert (code, "there is no directory" in json.loads(out)["error"]) == (2, True)


def test_nothing_is_printed_on_stdout_without_it(tmp_path: Path) -> None:
    code, out, err = failed("inspect", str(tmp_path))
    assert (code, out, err.startswith("greenroom: ")) == (2, "", True)
