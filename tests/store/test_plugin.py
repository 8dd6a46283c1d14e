"""The pytest plugin: what it says where the command is missing, and what it makes of a command."""

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from greenroom import UnavailableError, UsageError
from greenroom.testing.clusters import find_command, running_cluster

USES = "def test_it(greenroom_cluster):\n    assert greenroom_cluster.url == 'greenroom://127.0.0.1:7400/x'\n"
FAKE = """#!{python}
import json, os, signal, sys
if sys.argv[1] == "up":
    signal.signal(signal.SIGINT, lambda *_: sys.exit())  # else a run in the background may ignore it
    assert not [name for name in os.environ if name.startswith("GREENROOM_")]
    print(json.dumps({{"url": "greenroom://127.0.0.1:7400/x", "seeds": ["127.0.0.1:7400"]}}), flush=True)
    signal.pause()
elif sys.argv[1] == "health":
    print(json.dumps({{"healthy": False}}))
    sys.exit(1)
else:
    sys.exit("no such cluster")
"""


def pytest_on(folder: Path, *arguments: str, path: str = "/nowhere") -> str:
    """Run pytest on one test that uses the fixture, with the Python of an environment without the command."""
    (folder / "test_app.py").write_text(USES)
    python = folder / "python"
    if not python.exists():
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
    code = f"import sys, pytest; sys.executable = {str(python)!r}; sys.exit(pytest.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "-rs", "-p", "no:cacheprovider", *arguments, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env={
            **os.environ,
            "PATH": path,
            "GREENROOM_SHARDS": "17",  # must not reach the cluster
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_PLUGINS": "greenroom.testing.plugin",
        },
    )
    return done.stdout + done.stderr


def fake_command(folder: Path, text: str = FAKE) -> Path:
    command = folder / "bin" / "greenroom"
    command.parent.mkdir()
    command.write_text(text.format(python=sys.executable))
    command.chmod(0o755)
    return command


def test_without_the_command_tests_are_skipped_and_say_what_to_install(tmp_path: Path) -> None:
    shown = pytest_on(tmp_path)
    assert "1 skipped" in shown
    assert "install the wheel of greenroom-cluster" in shown


def test_it_is_registered() -> None:
    found = {each.name: each.value for each in entry_points(group="pytest11")}
    assert found["greenroom"] == "greenroom.testing.plugin"


def test_a_command_that_is_named_must_be_there(tmp_path: Path) -> None:
    shown = pytest_on(tmp_path, "--greenroom-command", "/nowhere/greenroom")
    assert "1 error" in shown
    assert "--greenroom-command" in shown


@pytest.mark.parametrize("way", ["option", "ini", "path"])
def test_the_command_is_found(tmp_path: Path, way: str) -> None:
    command = fake_command(tmp_path)
    options = {
        "option": ("--greenroom-command", str(command)),
        "ini": ("-o", f"greenroom_command={command}"),
        "path": (),
    }
    shown = pytest_on(tmp_path, *options[way], path=str(command.parent) if way == "path" else "/nowhere")
    assert "1 passed" in shown, shown


def test_a_cluster_that_does_not_start_says_why(tmp_path: Path) -> None:
    command = fake_command(tmp_path, "#!{python}\nraise SystemExit('tractor is not installed')\n")
    with pytest.raises(UnavailableError, match="tractor is not installed"), running_cluster(str(command)):
        pass


def test_what_a_running_cluster_answers(tmp_path: Path) -> None:
    with running_cluster(str(fake_command(tmp_path))) as cluster:
        assert not cluster.is_healthy()
        with pytest.raises(UnavailableError, match="no such cluster"):
            cluster.status()


def test_a_path_counts_from_where_the_test_run_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster is started in a directory of its own."""
    fake_command(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = find_command("bin/greenroom")
    assert found is not None
    with running_cluster(found):
        pass


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(UsageError):
        find_command("/nowhere/greenroom")
