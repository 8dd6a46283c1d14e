"""The units of systemd: by systemd itself where it is, and by what Greenroom needs of them."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from greenroom_cluster.config import CoordinatorProcessSettings, NodeSettings
from tests.deployment.settings import DEPLOY, taken, variables_of

UNITS = DEPLOY / "systemd"
NAMES = ("greenroom-coordinator.service", "greenroom-node.service", "greenroom-node@.service")
EXPOSURE_MAX = 2.0

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")


def entries(name: str) -> list[tuple[str, str]]:
    """Return the settings of a unit, in order."""
    lines = (UNITS / name).read_text().splitlines()
    return [
        (key, value)
        for key, found, value in (line.partition("=") for line in lines)
        if found and key[0] != "#"
    ]


def variables(name: str) -> dict[str, str]:
    """Return what a file of variables sets, without the lines that are only proposed."""
    return dict(re.findall(r"^(GREENROOM_\w+)=(.*)$", (UNITS / name).read_text(), re.MULTILINE))


def proposed(name: str) -> set[str]:
    return set(re.findall(r"^#?(GREENROOM_\w+)=", (UNITS / name).read_text(), re.MULTILINE))


def command(name: str) -> list[str]:
    (started,) = [value for key, value in entries(name) if key == "ExecStart"]
    program, *arguments = shlex.split(started.replace("%i", "a"))
    assert program == "/opt/greenroom/bin/greenroom"
    return arguments


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units in a folder, with a program that is there: systemd looks for it."""
    program = Path(sys.executable).parent / "greenroom"
    for name in NAMES:
        text = (UNITS / name).read_text().replace("/opt/greenroom/bin/greenroom", str(program))
        (tmp_path / name.replace("@.", "@a.")).write_text(text)
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_systemd_has_nothing_to_say_against_it(name: str, installed: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(installed / name.replace("@.", "@a."))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if "greenroom" in line]
    assert (done.returncode, told) == (0, []), done.stderr


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_a_unit_may_do_little(name: str, installed: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(installed / name.replace("@.", "@a."))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = re.search(r"exposure level for .*: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= EXPOSURE_MAX


@pytest.mark.parametrize("name", NAMES)
def test_variables_are_those_of_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = command(name)
    file = "coordinator.env" if arguments[0] == "coordinator" else "node.env"
    assert proposed(file) <= variables_of(arguments[0])
    own = dict(value.split("=", 1) for key, value in entries(name) if key == "Environment")
    settings = taken(arguments, {**variables(file), **own}, monkeypatch)
    assert settings.tls.files() is not None
    (directory,) = [value for key, value in entries(name) if key == "StateDirectory"]
    assert str(settings.data_dir) == f"/var/lib/{directory}"


def test_a_node_has_the_time_to_hand_over(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES[1:]:
        settings = taken(command(name), variables("node.env"), monkeypatch)
        assert isinstance(settings, NodeSettings)
        told = dict(entries(name))
        assert int(told["TimeoutStopSec"]) >= settings.node.drain_seconds + 10
        assert told["KillMode"] == "mixed", "actors end when their node has handed over"
        assert told["OOMPolicy"] == "continue", "one actor's death is no reason to end the node"


@pytest.mark.parametrize("name", NAMES)
def test_unit_starts_again_for_as_long_as_it_takes(name: str) -> None:
    """A certificate that was unreadable for ten tries left a node down for good."""
    told = dict(entries(name))
    assert (told["Restart"], told["StartLimitIntervalSec"]) == ("on-failure", "0")
    assert int(told["RestartSec"]) >= 1


def test_coordinator_of_the_units_keeps_its_map(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = taken(command(NAMES[0]), variables("coordinator.env"), monkeypatch)
    assert isinstance(settings, CoordinatorProcessSettings)
    assert settings.listen == "10.0.0.1:7300"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_fails_kills(name: str) -> None:
    """A system call that is filtered fails, and what wanted it goes on without; see docs/operations.md."""
    told = dict(entries(name))
    assert told["SystemCallErrorNumber"] == "EPERM"
    assert told["RestrictAddressFamilies"].split() == ["AF_UNIX", "AF_INET", "AF_INET6"]
    assert "ProcSubset" not in told, "boot ids are in /proc/sys"
