"""The last release that speaks version 3 of the protocol, built from the history; clusters of it and this."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.packaging.environments import (
    INSTALL_SECONDS,
    ROOT,
    STOP_SECONDS,
    Environment,
    Wheels,
    clean_environment,
    fresh_environment,
    run,
    uv,
)

FORMER = "43bf513e21d52e9b619cb6e96ba6beec3d6449a9"
"""The last commit of version 3."""
NEW = Path(sys.executable).parent / "greenroom"
NAMES = ("a", "b", "c")
ZONES = {"a": "x", "b": "y", "c": "y"}
CLUSTER = "mixed"
WHOLE_SECONDS = 60


def build_former(folder: Path) -> Wheels:
    """Build its wheels; skips the test in a clone without that history."""
    archive = folder / "former.tar"
    made = subprocess.run(
        ["git", "archive", "--output", archive, FORMER], cwd=ROOT, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no history with commit {FORMER[:7]}: {made.stderr.strip()}")
    source = folder / "source"
    source.mkdir()
    run("tar", "-xf", archive, "-C", source)
    built = subprocess.run(
        [uv(), "build", "--all-packages", "--wheel", "--out-dir", folder],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
    )
    if built.returncode:
        pytest.skip(f"commit {FORMER[:7]} does not build here: {built.stderr.strip()[-500:]}")
    [facade] = folder.glob("greenroom-*.whl")
    [cluster] = folder.glob("greenroom_cluster-*.whl")
    return Wheels(facade, cluster)


def former_environment(folder: Path) -> Environment:
    """Make an environment with both its distributions; skips as `build_former` does."""
    wheels = build_former(folder)
    environment = fresh_environment(folder / "environment")
    # And what its web part needs.
    environment.pip_install(wheels.facade, wheels.cluster, "itsdangerous")
    environment.pip_install("--no-deps", "tractor==0.1.0a5")
    return environment


class Cluster:
    """A coordinator and three nodes at fixed addresses, each of one release or the other."""

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self._folder = folder
        self._ends = ends
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
        self._addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
        for each in sockets:
            each.close()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.former_url = f"greenroom://{','.join(self._addresses[1:])}/{CLUSTER}"
        """What a store of the former release is told."""
        self.url = f"{self.former_url}?loopback_proof=accept"

    def start_coordinator(self, greenroom: Path) -> None:
        data = ("--data-dir", str(self._folder / "map"), "--shards", "16")
        self._start("coordinator", greenroom, self._addresses[0], "coordinator", *data)

    def start_node(self, name: str, greenroom: Path) -> None:
        address = self._addresses[1 + NAMES.index(name)]
        options = ("--name", name, "--coordinator", self._addresses[0], "--actors", "1")
        # The former release knows no zones.
        zone = ("--zone", ZONES[name]) if greenroom == NEW else ()
        self._start(name, greenroom, address, "node", *options, *zone)

    def start(self, greenroom: Path) -> None:
        """Start all of one release, and wait until they are whole."""
        self.start_coordinator(greenroom)
        for name in NAMES:
            self.start_node(name, greenroom)
        self.wait_whole()

    def replace(self, name: str, greenroom: Path) -> None:
        """Stop a node or the coordinator in order, start it with a release, and wait until all is whole."""
        self.stop(name, signal.SIGTERM)
        self._start_again(name, greenroom)

    def lose(self, name: str, greenroom: Path) -> None:
        """Kill a node, its actors with it, start it again with its release, and wait until all is whole."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()
        self._start_again(name, greenroom)

    def _start_again(self, name: str, greenroom: Path) -> None:
        if name == "coordinator":
            self.start_coordinator(greenroom)
            self.wait_whole(self._addresses[:1])
        else:
            self.start_node(name, greenroom)
            self.wait_whole()

    def _start(self, name: str, greenroom: Path, address: str, *command: str) -> None:
        log = self._ends.enter_context((self._folder / f"{name}.log").open("ab"))
        process = subprocess.Popen(
            [str(greenroom), *command, "--listen", address, "--cluster", CLUSTER],
            stdout=log,
            stderr=log,
            cwd=self._folder,
            env=environment_of_both(),
        )
        self._processes[name] = process
        self._ends.callback(process.kill)

    def stop(self, name: str, number: signal.Signals) -> None:
        process = self._processes.pop(name)
        process.send_signal(number)
        assert process.wait(STOP_SECONDS * 2) == 0, self.log(name)

    def wait_whole(self, asked: Sequence[str] = ()) -> None:
        """Wait until every shard has both its replicas on nodes that are up, as these or the nodes see it."""
        deadline = time.monotonic() + WHOLE_SECONDS
        nodes = ("--connect", ",".join(asked or self._addresses[1:]), "--nodes", str(len(NAMES)))
        while True:
            command = [str(NEW), "health", *nodes, "--cluster", CLUSTER]
            told = subprocess.run(command, capture_output=True, text=True, env=environment_of_both())
            if told.returncode == 0:
                return
            assert time.monotonic() < deadline, told.stdout + told.stderr + self.log("coordinator")

    def zones(self) -> dict[str, str]:
        """Return the zones of the nodes, as the coordinator knows them."""
        command = (str(NEW), "status", "--json", "--connect", self._addresses[0], "--cluster", CLUSTER)
        told = subprocess.run(command, capture_output=True, check=True, env=environment_of_both())
        return {node["name"]: node["zone"] for node in json.loads(told.stdout)["nodes"]}

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()[-4000:]


def environment_of_both() -> dict[str, str]:
    """Return the variables of a process of either release: the former can prove no secret."""
    return clean_environment(GREENROOM_LOOPBACK_PROOF="accept")


@contextmanager
def cluster_of(folder: Path) -> Iterator[Cluster]:
    with ExitStack() as ends:
        yield Cluster(folder, ends)
