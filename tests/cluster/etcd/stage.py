"""Real members of etcd, on loopback or on hosts of their own, in processes that end with the test."""

import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import trio

from greenroom_cluster.runtime.ports import free_port

_PROGRAM = shutil.which("etcd")
needs_etcd = pytest.mark.skipif(_PROGRAM is None, reason="there is no etcd here: apt-get install etcd-server")


class Place(NamedTuple):
    """Where a member runs: what stands before its command, and where it listens."""

    enter: tuple[str, ...]
    client_url: str
    peer_url: str


def _on_loopback() -> Place:
    return Place((), f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}")


class Members:
    """One cluster of etcd whose members can be killed and started again, on loopback or at `places`."""

    def __init__(self, folder: Path, count: int = 1, places: Mapping[str, Place] | None = None) -> None:
        self._folder = folder
        self._places = dict(places or {f"m{number}": _on_loopback() for number in range(count)})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the members listen for clients."""
        return tuple(place.client_url for place in self._places.values())

    @property
    def running(self) -> tuple[str, ...]:
        """The members that were started and not killed since."""
        return tuple(self._processes)

    def start(self, name: str = "m0") -> None:
        """Start a member, for the first time or again."""
        assert _PROGRAM is not None
        place = self._places[name]
        options = {
            "name": name,
            "data-dir": str(self._folder / name),
            "listen-client-urls": place.client_url,
            "advertise-client-urls": place.client_url,
            "listen-peer-urls": place.peer_url,
            "initial-advertise-peer-urls": place.peer_url,
            "initial-cluster": ",".join(f"{each}={at.peer_url}" for each, at in self._places.items()),
        }
        command = [*place.enter, _PROGRAM, *(f"--{option}={value}" for option, value in options.items())]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def start_all(self) -> None:
        """Start every member."""
        for name in self._places:
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

    def pause_all(self) -> None:
        """Keep every member from running (SIGSTOP)."""
        for process in self._processes.values():
            process.send_signal(signal.SIGSTOP)

    def wake_all(self) -> None:
        """Let every member run again (SIGCONT)."""
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)

    async def until_healthy(self, name: str = "m0", seconds: float = 60.0) -> None:
        """Wait until a member serves, with a leader."""
        async with httpx.AsyncClient(trust_env=False) as http:
            with trio.fail_after(seconds):
                while True:
                    with suppress(httpx.HTTPError):  # at once, while nobody listens
                        answer = await http.get(f"{self._places[name].client_url}/health", timeout=5.0)
                        if answer.json().get("health") == "true":
                            return

    async def leader(self) -> str:
        """Return the member that leads, by its name; empty: none is known to."""
        for name in self.running:
            with suppress(httpx.HTTPError):
                member, leader = await self._status(name)
                if member == leader:
                    return name
        return ""

    async def hand_over(self, name: str) -> None:
        """Have the member that leads let another one lead."""
        with suppress(httpx.HTTPError):
            member, _ = await self._status(name)
            leader = self._places[await self.leader()].client_url
            async with httpx.AsyncClient(trust_env=False) as http:
                await http.post(f"{leader}/v3/maintenance/transfer-leadership", json={"targetID": member})

    async def _status(self, name: str) -> tuple[str, str]:
        """Return the ids of a member and of the one that leads."""
        async with httpx.AsyncClient(trust_env=False) as http:
            url = f"{self._places[name].client_url}/v3/maintenance/status"
            status = (await http.post(url, content=b"{}", timeout=2.0)).json()
        return status["header"]["member_id"], status.get("leader", "0")

    async def post(self, path: str, body: dict[str, object]) -> httpx.Response:
        """Ask the first member something that the client does not."""
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(f"{self.urls[0]}{path}", json=body, timeout=5.0)
        answer.raise_for_status()
        return answer
