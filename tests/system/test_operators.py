"""What an operator types, at a cluster that was started by the command: all of it as separate processes."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from greenroom import ClusterStore, SessionData, new_session_id
from tests.system.test_cli import COMMAND, run

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

SECONDS = 60.0


class Running:
    """A `greenroom up` whose log is a file of lines of JSON."""

    def __init__(self, ready: dict[str, Any], log: Path) -> None:
        self.ready = ready
        self.connect = ["--connect", ",".join(ready["seeds"])]
        self._log = log

    def logged(self) -> list[dict[str, Any]]:
        """Return the whole lines of the log so far."""
        return [
            json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line[-1] == "\n"
        ]

    def audited(self) -> list[tuple[str, str]]:
        """Return what the audit has told of: commands and outcomes."""
        return [
            (line["command"], line["outcome"])
            for line in self.logged()
            if line["event"] == "operator_command"
        ]

    def run(self, command: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command at it to its end."""
        return run(command, *arguments, *self.connect, **variables)

    def told(self, command: str, *arguments: str) -> list[dict[str, Any]]:
        """Run a command with --json, which must not fail, and return its lines."""
        done = self.run(command, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("up") / "log"
    command = [*COMMAND, "up", "--listen", "127.0.0.1:0", "--nodes", "2", "--actors", "1", "--shards", "8"]
    command += ["--json", "--log-format", "json", "--log-level", "info"]
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield Running(json.loads(line), log)
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS)
            process.kill()


def create(running: Running, user_id: str, *labels: str) -> list[str]:
    """Create a session of the user for each label, one after the other, and return their ids."""
    ids = [new_session_id() for _ in labels]

    async def work() -> None:
        async with ClusterStore(",".join(running.ready["seeds"])) as store:
            for session_id, label in zip(ids, labels, strict=True):
                expires = datetime.now(UTC) + timedelta(hours=1)
                await store.create(
                    SessionData(session_id=session_id, user_id=user_id, expires=expires, label=label)
                )

    trio.run(work)
    return ids


def left(running: Running, ids: list[str]) -> list[bool]:
    """Return which of these sessions there are."""
    found: list[bool] = []

    async def work() -> None:
        async with ClusterStore(",".join(running.ready["seeds"])) as store:
            found.extend([await store.get(each) is not None for each in ids])

    trio.run(work)
    return found


# --- greenroom user --------------------------------------------------------------------------------------


def test_a_users_sessions_are_listed_by_handle(running: Running) -> None:
    ids = create(running, "ann@shop", "Firefox", "Chromium", "a\x1b[31mred")
    (told,) = running.told("user", "ann@shop", "--namespace", "default")
    assert [each["label"] for each in told["sessions"]] == ["a\x1b[31mred", "Chromium", "Firefox"]
    assert (told["user"], told["namespace"], told["more"]) == ("ann@shop", "default", False)
    for each in told["sessions"]:
        begun, ends = (datetime.fromisoformat(each[key]) for key in ("created", "expires"))
        assert timedelta(minutes=59) < ends - begun < timedelta(minutes=61)

    shown = running.run("user", "ann@shop", "--namespace", "default")
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert lines[0] == "user ann@shop has 3 sessions in namespace default"
    for each in told["sessions"]:
        assert each["handle"] in shown.stdout
    assert "\x1b" not in shown.stdout
    log = json.dumps(running.logged())
    for session_id in ids:
        assert session_id not in shown.stdout + json.dumps(told) + log
    assert "ann@shop" not in log
    assert ("list-sessions", "done") in running.audited()


def test_one_session_is_ended_by_its_handle(running: Running) -> None:
    ids = create(running, "bob", "phone", "laptop", "tablet")
    (told,) = running.told("user", "bob", "--namespace", "default")
    handles = {each["label"]: each["handle"] for each in told["sessions"]}
    ended = running.run("user", "bob", "--namespace", "default", "--end", handles["laptop"])
    assert ended.stdout == "sessions ended in namespace default: 1\n"
    assert left(running, ids) == [True, False, True]
    assert ("end-session", "done") in running.audited()

    again = running.run("user", "bob", "--namespace", "default", "--end", handles["laptop"])
    assert again.returncode == 2
    assert "no session with the handle" in again.stderr
    other = running.run("user", "carol", "--namespace", "default", "--end", handles["phone"])
    assert other.returncode == 2
    assert left(running, ids) == [True, False, True]


def test_all_sessions_of_a_user_are_ended(running: Running) -> None:
    ids = create(running, "dora", "phone", "laptop")
    beside = create(running, "eve", "phone")
    assert running.told("user", "dora", "--namespace", "default", "--end-all") == [
        {"user": "dora", "namespace": "default", "ended": 2}
    ]
    assert left(running, [*ids, *beside]) == [False, False, True]
    assert ("end-sessions", "done") in running.audited()
    assert running.run("user", "dora", "--namespace", "default").stdout == (
        "user dora has 0 sessions in namespace default\n"
    )


def test_a_cluster_without_other_namespaces_needs_no_name_of_one(running: Running) -> None:
    ids = create(running, "gus", "phone", "laptop")
    (told,) = running.told("user", "gus")
    assert (told["namespace"], told["other_namespaces"], len(told["sessions"])) == ("default", [], 2)
    shown = running.run("user", "gus")
    assert shown.stdout.startswith("user gus has 2 sessions in namespace default\n")
    assert "--namespace" not in shown.stdout
    assert (
        running.run("user", "gus", "--end", told["sessions"][0]["handle"]).stdout
        == "sessions ended in namespace default: 1\n"
    )
    assert left(running, ids) == [True, False]
    assert running.run("end-sessions", "gus").stdout == "sessions ended in namespace default: 1\n"
    assert left(running, ids) == [False, False]
    empty = running.run("user", "gus", "--namespace", "")
    assert (empty.returncode, "--namespace" in empty.stderr) == (2, True)


def test_one_or_all_but_not_both(running: Running) -> None:
    both = running.run("user", "ann", "--namespace", "default", "--end-all", "--end", "x")
    assert both.returncode == 2
    assert "--end-all" in both.stderr


# --- greenroom top, status --watch -----------------------------------------------------------------------


def test_top_tells_machines_what_is_written(running: Running) -> None:
    looks = ["--interval", "0.3", "--count"]
    command = [*COMMAND, "top", "--json", *looks, "0", *running.connect]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as top:
        assert top.stdout is not None
        first = json.loads(top.stdout.readline())
        assert (first["healthy"], first["records_per_second"], first["changes"]) == (True, None, [])
        create(running, "frank", *("device" for _ in range(20)))
        rates: list[float] = []
        while not rates or not sum(rates):
            found = json.loads(top.stdout.readline())
            rates = [actor["records_per_second"] for actor in found["actors"]]
        assert found["records_per_second"] == pytest.approx(sum(rates), abs=1)
        assert found["sessions"] >= 20
        assert found["stored_bytes"] > 20 * 50
        top.send_signal(signal.SIGINT)
        assert top.wait(SECONDS) == 0


def test_without_a_terminal_looks_follow_each_other(running: Running) -> None:
    shown = running.run("top", "--count", "2", "--interval", "0.2")
    assert shown.returncode == 0, shown.stderr
    assert "\x1b" not in shown.stdout
    assert shown.stdout.count("records/s; nodes: n1 up, n2 up") == 2
    watched = running.run("status", "--watch", "--count", "3", "--interval", "0.2", "--shards")
    assert watched.stdout.count("cluster greenroom") == 3
    assert len(running.told("status", "--watch", "--count", "2", "--interval", "0.2")) == 2


@pytest.mark.parametrize("arguments", [["--interval", "0"], ["--count", "-1"]])
def test_looks_that_cannot_be_name_their_option(running: Running, arguments: list[str]) -> None:
    for command in (["top"], ["status", "--watch"]):
        done = running.run(*command, *arguments)
        assert (done.returncode, arguments[0] in done.stderr) == (2, True)


def test_nobody_who_reads_ends_a_watch(running: Running) -> None:
    command = [*COMMAND, "status", "--watch", "--json", "--interval", "0.2", *running.connect]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert watch.stdout.readline()
        watch.stdout.close()
        assert watch.wait(SECONDS) == 0
        assert watch.stderr.read() == b""


@pytest.mark.parametrize("command", [["top"], ["status", "--watch"]])
@pytest.mark.parametrize("ending", ["q", "ctrl-c"])
def test_a_terminal_is_left_as_it_was(running: Running, command: list[str], ending: str) -> None:
    """It has a screen of its own meanwhile, and each look replaces the one before."""
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (20, 100))
    before = termios.tcgetattr(side)
    with subprocess.Popen(
        [*COMMAND, *command, "--interval", "0.2", *running.connect],
        stdin=side,
        stdout=side,
        stderr=side,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        told = b""
        deadline = time.monotonic() + SECONDS
        while told.count(b"\x1b[H") < 3:
            assert time.monotonic() < deadline, told
            if select.select([main], [], [], 1.0)[0]:
                told += os.read(main, 65_536)
        if ending == "q":
            os.write(main, b"q")
        else:
            process.send_signal(signal.SIGINT)
        while process.poll() is None:
            assert time.monotonic() < deadline, told
            if select.select([main], [], [], 0.1)[0]:
                told += os.read(main, 65_536)
        while select.select([main], [], [], 0)[0]:
            told += os.read(main, 65_536)
        assert process.returncode == 0
    assert termios.tcgetattr(side) == before
    os.close(side)
    os.close(main)
    text = told.decode()
    assert text.startswith("\x1b[?1049h\x1b[?25l")
    assert text.rstrip("\r\n").endswith("\x1b[?25h\x1b[?1049l")
    frames = text.split("\x1b[H")[1:]
    assert all(frame.count("\r\n") <= 20 for frame in frames)
    plain = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in frames[0].split("\r\n")]
    assert all(len(line) <= 100 for line in plain)
    assert "cluster greenroom" in plain[0]


# --- the log, progress -----------------------------------------------------------------------------------


def test_each_line_of_the_log_tells_who_wrote_it(running: Running) -> None:
    (status,) = running.told("status")
    lines = running.logged()
    assert all("from" in line and "from_pid" in line for line in lines)
    writers = {(line["from"], line["from_pid"]) for line in lines}
    assert {(actor["slot"], actor["pid"]) for actor in status["actors"]} <= writers
    assert set(running.ready["nodes"].items()) <= writers
    names = {name for name, _ in writers}
    assert (
        {"coordinator", "n1", "n2", "n1/0", "n2/0"}
        <= names
        <= {"up", "coordinator", "n1", "n2", "n1/0", "n2/0"}
    )
    started = [line for line in lines if line["event"] == "actor_started"]
    assert all(line["from"] == line["slot"] for line in started)


def test_a_backup_on_a_terminal_shows_how_far_it_has_come(running: Running, tmp_path: Path) -> None:
    create(running, "gina", *("device" for _ in range(50)))
    main, side = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "export", str(tmp_path / "lines"), *running.connect],
        stdout=subprocess.PIPE,
        stderr=side,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(side)
        told = b""
        with suppress(OSError):  # the other side was closed
            while chunk := os.read(main, 65_536):
                told += chunk
        assert process.wait(SECONDS) == 0
    os.close(main)
    assert len((tmp_path / "lines").read_text().splitlines()) >= 50
    assert re.search(rb"\r\x1b\[K\d of 8 shards copied, \d+ sessions, 0\.\d MiB, \d+\.\d MiB/s", told), told
    assert told.endswith(b"\r\x1b[K")
