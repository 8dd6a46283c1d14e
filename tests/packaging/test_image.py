"""The image, built as deploy/Containerfile says, and deploy/compose.yaml, played as an engine would."""

import json
import os
import re
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.deployment.settings import DEPLOY
from tests.deployment.test_compose import SERVICES
from tests.hosts.network import Network
from tests.packaging.images import Images, layers, needs_overlays

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(900), *needs_overlays]

SECONDS = 90.0
VISITOR = "visitor"


@pytest.fixture(scope="module")
def images(overlays: None) -> Iterator[Images]:
    with layers() as folder:
        yield Images(DEPLOY / "Containerfile", folder)


class Play:
    """The services of the Compose file, each on a host of its own that is called like it."""

    def __init__(self, images: Images, folder: Path) -> None:
        self._images = images
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.network = Network((*SERVICES, VISITOR))
        names = "".join(f"{self.network.address(name)} {name}\n" for name in SERVICES)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a service as the file says, or with another command."""
        service = SERVICES[name]
        process = self._images.container(
            self._images.image(service["build"]["target"]),
            self.network.host(name),
            command=command or [each.replace("$$", "$") for each in service.get("command", ())],
            entrypoint=service.get("entrypoint", ()),
            variables=service.get("environment", {}),
            volumes={
                "/etc/hosts": (self._folder / "hosts", False),
                **dict(self._volume(each) for each in service["volumes"]),
            },
            log=self.log(name),
        )
        self._running[name] = process
        return process

    def _volume(self, told: str) -> tuple[str, tuple[Path, bool]]:
        volume, place, *mode = told.split(":")
        folder = self._folder / "volumes" / volume
        if not folder.exists():
            folder.mkdir(parents=True, mode=0o700)
            # An engine gives an empty volume what the image has there, which is the user's.
            subprocess.run(["chown", "7400:7400", str(folder)], check=True)
        return place, (folder, mode != ["ro"])

    def lend(self, name: str) -> None:
        """Have root own the files of a service, and its group read them, as Kubernetes hands over secrets."""
        folder = self._folder / "volumes/certificates" / name
        subprocess.run(["chown", "-R", "0:7400", str(folder)], check=True)
        folder.chmod(0o750)
        for path in folder.iterdir():
            path.chmod(0o440)

    def probe(self, name: str, path: str) -> int:
        """Ask the HTTP port of a node as the kubelet does, by TLS and without a certificate."""
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=unverified))
        with self.network.inside(name):
            try:
                with opener.open(f"https://127.0.0.1:7480{path}", timeout=10) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code
            except OSError:
                return 0  # it does not listen yet

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def stop(self, name: str) -> int:
        """Ask the first process of a container to end, as an engine does; return its status."""
        process = self._running.pop(name)
        for first in firsts(process):
            os.kill(first, signal.SIGTERM)
        return process.wait(SECONDS)

    def command(self, *arguments: str) -> str:
        """Run a command of the operator's, and return what it prints."""
        before = self.log("operator").stat().st_size if self.log("operator").exists() else 0
        status = self.start("operator", *arguments).wait(SECONDS)
        told = self.log("operator").read_bytes()[before:].decode()
        assert status == 0, told
        return told

    def close(self) -> None:
        for process in self._running.values():
            # With the first process of a namespace all others in it end. That `unshare` ends does not do: who
            # becomes another user is told of the end of no parent any more.
            for first in firsts(process):
                os.kill(first, signal.SIGKILL)
            process.kill()
            process.wait()
        self.network.close()


def firsts(process: subprocess.Popen[bytes]) -> list[int]:
    """Return the first process of a container, if it runs: what is started is `unshare`, above that."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    except OSError:
        return []
    return [int(pid) for pid in children.split()]


@pytest.fixture(scope="module")
def play(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    playing = Play(images, tmp_path_factory.mktemp("play"))
    try:
        assert playing.start("certificates").wait(SECONDS) == 0, playing.log("certificates").read_text()
        playing.lend("node-3")
        for name, service in SERVICES.items():
            if name != "certificates" and not service.get("profiles"):
                playing.start(name)
        yield playing
    finally:
        playing.close()


class Visitor:
    """A browser on another host."""

    def __init__(self, play: Play) -> None:
        self._play = play
        cookies = urllib.request.HTTPCookieProcessor(CookieJar())
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)

    def ask(self, path: str, **form: str) -> Any:
        data = urllib.parse.urlencode(form).encode() if form else None
        address = self._play.network.address("shop")
        request = urllib.request.Request(f"http://{address}:8000{path}", data, {"accept": "application/json"})
        with self._play.network.inside(VISITOR), self._opener.open(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")


def until_it_serves(visitor: Visitor) -> Any:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return visitor.ask("/cart/add", sku="mug", quantity="2")
        except OSError:  # also what urllib raises
            if time.monotonic() > deadline:
                raise


def until(condition: Callable[[], bool]) -> None:
    """Wait for the condition."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "in vain"


def healthy(play: Play) -> None:
    """Wait until the cluster is whole, on three nodes."""
    deadline = time.monotonic() + SECONDS
    while play.start("operator", "health", "--nodes", "3").wait(SECONDS) != 0:
        assert time.monotonic() < deadline, play.log("operator").read_text()


def test_the_compose_file_runs_the_shop(play: Play) -> None:
    """Three nodes, two coordinators, etcd and the shop, with TLS, as nobody in particular."""
    visitor = Visitor(play)
    until_it_serves(visitor)
    healthy(play)
    status = json.loads(play.command("status", "--json").splitlines()[-1])
    assert {node["name"] for node in status["nodes"]} == {"node-1", "node-2", "node-3"}
    assert len(status["coordinator"]["others"]) == 1
    # Each actor's supervisor is the first process of its container, and numbers begin anew there.
    assert all(0 < actor["pid"] < 50 for actor in status["actors"])
    assert "mug" in json.dumps(visitor.ask("/cart"))
    for path, status in (("/livez", 200), ("/readyz?cluster", 200), ("/status.json", 401)):
        assert {play.probe(f"node-{number}", path) for number in (1, 2, 3)} == {status}


class Shopper(Thread):
    """Puts one mug after the other into a cart, and counts those that the shop has confirmed."""

    def __init__(self, play: Play) -> None:
        super().__init__()
        self.visitor = Visitor(play)
        self.mugs = 0
        self.error: Exception | None = None
        self._over = Event()

    def run(self) -> None:
        try:
            while not self._over.is_set():
                self.visitor.ask("/cart/add", sku="mug", quantity="1")
                self.mugs += 1
        except Exception as error:  # noqa: BLE001  handed to the test
            self.error = error

    def finish(self) -> None:
        self._over.set()
        self.join()


def test_nodes_are_replaced_as_a_statefulset_does(play: Play) -> None:
    """From the last to the first, each once the one before is ready, by the signals and probes of a kubelet.

    The supervisor is process 1 of its container. No shopper meets an error, and none loses a mug.
    """
    until_it_serves(Visitor(play))
    healthy(play)
    shopper = Shopper(play)
    shopper.start()
    try:
        for name in ("node-3", "node-2", "node-1"):
            before = shopper.mugs
            assert play.stop(name) == 0, play.log(name).read_text()
            assert "not_all_handed_over" not in play.log(name).read_text()
            play.start(name)
            until(lambda name=name: play.probe(name, "/livez") == 200)
            until(lambda name=name: play.probe(name, "/readyz?cluster") == 200)
            assert shopper.error is None
            assert shopper.mugs > before
    finally:
        shopper.finish()
    assert shopper.error is None
    assert shopper.visitor.ask("/cart")["cart"]["mug"] == shopper.mugs


def test_nothing_complains_of_its_container(play: Play) -> None:
    """The root is read-only, there is no home but a volume, and there are no rights."""
    for name in SERVICES:
        if name.startswith(("node", "coordinator")):
            log = play.log(name).read_text()
            assert not re.search("Read-only|Permission denied|Traceback|record_mark_unavailable", log), log
