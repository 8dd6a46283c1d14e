"""Real members of etcd on loopback, in processes that end with the test."""

import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
import trio

from greenroom_cluster.runtime.ports import free_port

_PROGRAM = shutil.which("etcd")
needs_etcd = pytest.mark.skipif(_PROGRAM is None, reason="there is no etcd here: apt-get install etcd-server")


class Members:
    """One cluster of etcd, whose members can be killed and started again."""

    def __init__(self, folder: Path, count: int = 1) -> None:
        names = [f"m{number}" for number in range(count)]
        self._folder = folder
        self._clients = {name: f"http://127.0.0.1:{free_port()}" for name in names}
        self._peers = {name: f"http://127.0.0.1:{free_port()}" for name in names}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the members listen for clients."""
        return tuple(self._clients.values())

    def start(self, name: str = "m0") -> None:
        """Start a member, for the first time or again."""
        assert _PROGRAM is not None
        options = {
            "name": name,
            "data-dir": str(self._folder / name),
            "listen-client-urls": self._clients[name],
            "advertise-client-urls": self._clients[name],
            "listen-peer-urls": self._peers[name],
            "initial-advertise-peer-urls": self._peers[name],
            "initial-cluster": ",".join(f"{each}={url}" for each, url in self._peers.items()),
        }
        command = [_PROGRAM, *(f"--{option}={value}" for option, value in options.items())]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def start_all(self) -> None:
        """Start every member."""
        for name in self._clients:
            self.start(name)

    def kill(self, name: str = "m0") -> None:
        """SIGKILL a member."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def kill_all(self) -> None:
        """SIGKILL every member that runs."""
        for name in list(self._processes):
            self.kill(name)

    async def until_healthy(self, name: str = "m0", seconds: float = 60.0) -> None:
        """Wait until a member serves, with a leader."""
        async with httpx.AsyncClient(trust_env=False) as http:
            with trio.fail_after(seconds):
                while True:
                    try:
                        answer = await http.get(f"{self._clients[name]}/health", timeout=5.0)
                        if answer.json().get("health") == "true":
                            return
                    except httpx.HTTPError:
                        pass
                    await trio.sleep(0.05)

    async def post(self, path: str, body: dict[str, object]) -> httpx.Response:
        """Ask the first member something that the client does not."""
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(f"{self.urls[0]}{path}", json=body, timeout=5.0)
        answer.raise_for_status()
        return answer
