"""A cluster as a subprocess, for tests of apps on any Python; the `greenroom` command runs it.

The command belongs to the distribution greenroom-cluster, which is installed in an environment of its own.
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from greenroom.errors import UnavailableError, UsageError
from greenroom.options import TESTING
from greenroom.sessions import BaseSessionStore
from greenroom.urls import store_from_url

READY_SECONDS = 60.0
STOP_SECONDS = 30.0
COMMAND_SECONDS = 30.0

_STRANGE = ("GREENROOM_", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class RunningCluster:
    """A cluster that `greenroom up` runs on this machine. `url` is the URL for a store."""

    def __init__(self, command: str, ready: dict[str, Any]) -> None:
        self.command = command
        self.url: str = ready["url"]
        self.seeds: list[str] = ready["seeds"]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def store(self) -> BaseSessionStore:
        """Return a new store in this cluster; the caller closes it."""
        return store_from_url(self.url)

    def status(self) -> dict[str, Any]:
        """Return the output of `greenroom status --json`."""
        found: dict[str, Any] = json.loads(self._answer("status", "--json"))
        return found

    def is_healthy(self) -> bool:
        """Return whether every shard answers and has all its replicas, not all on one node."""
        return bool(json.loads(self._answer("health", "--json", statuses=(0, 1)))["healthy"])

    def kill_actor(self) -> int:
        """Kill the process that is primary of the most shards, with SIGKILL; return its process id.

        Its supervisor starts another at once; check what the app under test notices of that.
        """
        actors = [actor for actor in self.status()["actors"] if actor["state"] == "up" and actor["pid"]]
        busiest: int = max(actors, key=lambda actor: actor["primaries"] or 0)["pid"]
        os.kill(busiest, signal.SIGKILL)
        return busiest

    def _answer(self, *arguments: str, statuses: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(  # noqa: S603  the command that the test run names
            [self.command, *arguments, "--connect", ",".join(self.seeds)],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env=_environment(),
            check=False,
        )
        if done.returncode not in statuses:
            raise UnavailableError(f"greenroom {arguments[0]} exited with {done.returncode}: {done.stderr}")
        return done.stdout


def find_command(named: str | None = None) -> str | None:
    """Return the path of the `greenroom` command: the one named, beside this Python, or on the PATH.

    None if it is nowhere. Raises UsageError if one is named and is not there.
    """
    if named:
        found = shutil.which(named)
        if found is None:
            raise UsageError(
                f"there is no command {named}; --greenroom-command names `greenroom`, or its path"
            )
        return str(Path(found).absolute())  # the cluster is started in another directory
    beside = Path(sys.executable).parent / "greenroom"
    return shutil.which(str(beside)) or shutil.which("greenroom")


@contextmanager
def running_cluster(
    command: str, *, nodes: int = 2, actors: int = 1, ready_seconds: float = READY_SECONDS
) -> Iterator[RunningCluster]:
    """Run a cluster around the body, on free ports of loopback, in a directory that is removed afterwards.

    Raises UnavailableError with what the command printed if it does not get ready in time.
    """
    TESTING.check(nodes=nodes, actors=actors, ready_seconds=ready_seconds)
    with tempfile.TemporaryDirectory(prefix="greenroom-") as folder:
        errors = Path(folder) / "errors"
        with errors.open("w") as stderr:
            process = subprocess.Popen(  # noqa: S603  as above
                [
                    *(command, "up", "--json", "--listen", "127.0.0.1:0"),
                    *("--nodes", str(nodes), "--actors", str(actors)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=folder,
                env=_environment(),
                start_new_session=True,  # Ctrl-C reaches the tests alone, which then end the cluster
            )
        try:
            line = _first_line(process, ready_seconds)
            if not line:
                raise UnavailableError(
                    f"`{command} up` was not ready within {ready_seconds:g} s: {errors.read_text()[-2000:]}"
                )
            yield RunningCluster(command, json.loads(line))
        finally:
            _stop(process)


def _first_line(process: subprocess.Popen[str], seconds: float) -> str:
    assert process.stdout is not None
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    Thread(target=lambda out: lines.put(out.readline()), args=(process.stdout,), daemon=True).start()
    try:
        return lines.get(timeout=seconds)
    except queue.Empty:
        return ""


def _stop(process: subprocess.Popen[str]) -> None:
    """End it as Ctrl-C does; if that takes too long, with SIGKILL, which no part of a cluster outlives."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _environment() -> dict[str, str]:
    """Return this process's variables without those that mean another Python or another cluster."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_STRANGE)}
