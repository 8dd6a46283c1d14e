"""Real members of etcd, on loopback or on hosts of their own, in processes that end with the test."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import trio

from greenroom_cluster.runtime.ports import free_port

_FAILED = 500
_PROGRAM = shutil.which("etcd")
needs_etcd = pytest.mark.skipif(_PROGRAM is None, reason="there is no etcd here: apt-get install etcd-server")


class Place(NamedTuple):
    """Where a member runs: what stands before its command, and where it listens."""

    enter: tuple[str, ...]
    client_url: str
    peer_url: str


def _on_loopback() -> Place:
    return Place((), f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}")


class _Told:
    """A socket on which a member says, as to systemd, that it has joined the others and listens."""

    def __init__(self) -> None:
        # The path of a socket must be short.
        self._folder = tempfile.TemporaryDirectory(prefix="etcd-")
        self.path = f"{self._folder.name}/ready"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)

    async def wait(self) -> None:
        """Return once it has said so."""
        await trio.lowlevel.wait_readable(self._socket)

    def close(self) -> None:
        self._socket.close()
        self._folder.cleanup()


class Members:
    """One cluster of etcd whose members can be killed and started again, on loopback or at `places`."""

    def __init__(self, folder: Path, count: int = 1, places: Mapping[str, Place] | None = None) -> None:
        self._folder = folder
        self._places = dict(places or {f"m{number}": _on_loopback() for number in range(count)})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._starting: dict[str, _Told] = {}

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
            "pre-vote": "true",  # the default from 3.5 on
            "initial-cluster": ",".join(f"{each}={at.peer_url}" for each, at in self._places.items()),
        }
        command = [*place.enter, _PROGRAM, *(f"--{option}={value}" for option, value in options.items())]
        told = self._starting[name] = _Told()
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "NOTIFY_SOCKET": told.path}
            )

    def start_all(self) -> None:
        """Start every member."""
        for name in self._places:
            self.start(name)

    def kill(self, name: str = "m0") -> None:
        """SIGKILL a member."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()
        if name in self._starting:
            self._starting.pop(name).close()

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
        with trio.fail_after(seconds):
            if name in self._starting:
                await self._starting[name].wait()
                self._starting.pop(name).close()
            # A read waits at the member for its leader, for some seconds. What asks for a user has one.
            async with httpx.AsyncClient(trust_env=False, timeout=20.0) as http:
                while True:
                    with suppress(httpx.HTTPError):
                        url = f"{self._places[name].client_url}/v3/kv/range"
                        if (await http.post(url, json={"key": "AA=="})).status_code < _FAILED:
                            return

    async def until_led(self) -> str:
        """Wait until one of the members that run leads; return its name."""
        while True:
            await self.until_healthy(self.running[0])
            if found := await self.leader():
                return found

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
