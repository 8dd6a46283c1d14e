"""A cluster of the last release of version 3 is upgraded node by node, and keeps its sessions."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from greenroom import SessionData, new_session_id, store_from_url
from tests.packaging.environments import STOP_SECONDS, Environment, clean_environment, fresh_environment
from tests.packaging.former import build_former

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

NEW = Path(sys.executable).parent / "greenroom"
NAMES = ("a", "b", "c")
WHOLE_SECONDS = 60
SESSIONS = 100


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with both distributions of that release."""
    folder = tmp_path_factory.mktemp("former")
    wheels = build_former(folder)
    environment = fresh_environment(folder / "environment")
    environment.pip_install(wheels.facade, wheels.cluster)
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
        self.url = f"greenroom://{','.join(self._addresses[1:])}/mixed?loopback_proof=accept"

    def start_coordinator(self, greenroom: Path) -> None:
        data = ("--data-dir", str(self._folder / "map"), "--shards", "16")
        self._start("coordinator", greenroom, self._addresses[0], "coordinator", *data)

    def start_node(self, name: str, greenroom: Path) -> None:
        address = self._addresses[1 + NAMES.index(name)]
        options = ("--name", name, "--coordinator", self._addresses[0], "--actors", "1")
        self._start(name, greenroom, address, "node", *options)

    def _start(self, name: str, greenroom: Path, address: str, *command: str) -> None:
        log = self._ends.enter_context((self._folder / f"{name}.log").open("ab"))
        process = subprocess.Popen(
            [str(greenroom), *command, "--listen", address, "--cluster", "mixed"],
            stdout=log,
            stderr=log,
            cwd=self._folder,
            env=_environment(),
        )
        self._processes[name] = process
        self._ends.callback(process.kill)

    def stop(self, name: str, number: signal.Signals) -> None:
        process = self._processes.pop(name)
        process.send_signal(number)
        assert process.wait(STOP_SECONDS * 2) == 0, self._log(name)

    def wait_whole(self) -> None:
        """Wait until every shard has both its replicas, on nodes that are up."""
        deadline = time.monotonic() + WHOLE_SECONDS
        nodes = ("--connect", ",".join(self._addresses[1:]), "--nodes", str(len(NAMES)))
        while True:
            command = [str(NEW), "health", *nodes, "--cluster", "mixed"]
            asked = subprocess.run(command, capture_output=True, text=True, env=_environment())
            if asked.returncode == 0:
                return
            assert time.monotonic() < deadline, asked.stdout + asked.stderr + self._log("coordinator")

    def _log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()[-4000:]


def _environment() -> dict[str, str]:
    """Return the variables of a process of either release: the former can prove no secret."""
    return clean_environment(GREENROOM_LOOPBACK_PROOF="accept")


@contextmanager
def cluster_of(folder: Path) -> Iterator[Cluster]:
    with ExitStack() as ends:
        yield Cluster(folder, ends)


class Shop:
    """Sessions that are written at every stage, and what they must hold."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._expected: dict[str, dict[str, object]] = {}

    async def visit(self, stage: str) -> None:
        """Check every session, change it in every way, and add some."""
        async with store_from_url(self._url) as store:
            for session_id, data in list(self._expected.items()):
                found = await store.get(session_id)
                assert found is not None, stage
                assert found.data == data, stage
                assert found.user_id is not None
                assert len(await store.list_by_user(found.user_id)) == 1, stage
                patched = await store.patch(session_id, set={("seen", stage): 1}, unset=["absent"])
                rotated = await store.rotate(session_id, set={"stage": stage})
                assert rotated.version > patched.version > found.version
                del self._expected[session_id]
                if stage.startswith("last") or len(self._expected) % 10:
                    self._expected[rotated.session_id] = rotated.data
                else:
                    assert await store.delete_by_user(found.user_id) == 1
            for number in range(SESSIONS // 2):
                session = SessionData(
                    session_id=new_session_id(),
                    expires=datetime.now(UTC) + timedelta(hours=1),
                    user_id=f"{stage}-{number}",
                    data={"seen": {}, "text": "x" * 500, "big": 1 << 100},
                )
                await store.create(session)
                self._expected[session.session_id] = session.data


def test_a_cluster_of_version_3_is_upgraded_node_by_node(former: Environment, tmp_path: Path) -> None:
    """As the page on rolling restarts says, the coordinator first; data crosses every pair of releases."""
    with cluster_of(tmp_path) as cluster:
        cluster.start_coordinator(former.greenroom)
        for name in NAMES:
            cluster.start_node(name, former.greenroom)
        cluster.wait_whole()
        shop = Shop(cluster.url)
        asyncio.run(shop.visit("former"))

        cluster.stop("coordinator", signal.SIGTERM)
        cluster.start_coordinator(NEW)
        cluster.wait_whole()
        for name in NAMES:
            cluster.stop(name, signal.SIGTERM)
            cluster.start_node(name, NEW)
            cluster.wait_whole()
            asyncio.run(shop.visit(f"new {name}"))
        asyncio.run(shop.visit("last"))
        for name in (*NAMES, "coordinator"):
            cluster.stop(name, signal.SIGINT)
