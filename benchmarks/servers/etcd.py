"""One member of etcd, from the distribution's package."""

import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.processes import MissingError, Process, Server

_READY_SECONDS = 30.0


class EtcdServer(Server):
    """A member that is a cluster by itself, with its data in a temporary directory on disk."""

    def start(self) -> None:
        """Start it."""
        program = shutil.which("etcd")
        if program is None:
            raise MissingError("etcd is not installed: apt-get install etcd-server")
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="greenroom-etcd-")))
        clients, peers = (f"http://127.0.0.1:{self.port()}" for _ in range(2))
        options = {
            "name": "m0",
            "data-dir": str(folder),
            "listen-client-urls": clients,
            "advertise-client-urls": clients,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"m0={peers}",
        }
        self._process = self.run([program, *(f"--{name}={value}" for name, value in options.items())])
        self.addresses["etcd"] = clients.removeprefix("http://")
        _until_healthy(f"{clients}/health")
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        self.versions["etcd"] = version.splitlines()[0].split()[-1]

    @property
    def store(self) -> str:
        """What `--store` is given."""
        return f"etcd://{self.addresses['etcd']}"

    def processes(self) -> list[Process]:
        """Return the one process."""
        return [self._process]


def _until_healthy(url: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5.0):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
