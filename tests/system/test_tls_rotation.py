"""The whole authority is rotated under load, by `greenroom certs`, and one client is revoked."""

import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import trio

import greenroom
from greenroom import UnavailableError
from greenroom.tls.credentials import Credentials, TlsFiles
from greenroom_cluster.questions import fetch_map
from simulations.checks.linearizability import assert_explained
from tests.system.load import Load, open_load
from tests.system.test_mistakes import CLUSTER, Command, Host
from tests.system.test_tls import NODES, Secured, new_session, refused

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(300)]

PROCESSES = 2
"""A supervisor and its child, at the coordinator as at a node of one actor."""
CALLERS = 8
"""In each of two processes, one of asyncio and one of trio."""
PAUSE_SECONDS = 0.02
"""Of a caller, on average: who waits too long for a processor loses leases without a rotation, too."""
CALM_SECONDS = 3.0
"""More than the time between two sweeps."""


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():
            with trio.move_on_after(0.05):  # this process shares its processors with the cluster
                await trio.sleep_forever()


class Certified(Secured):
    """A cluster whose certificates are files that `greenroom certs` writes."""

    def __init__(self, host: Host, folder: Path) -> None:
        super().__init__(host, folder)
        self.hosts = folder / "hosts"
        self.hosts.mkdir()
        self.denied = self.hosts / "greenroom-ca" / "denied.txt"

    async def certify(self) -> None:
        await self.certs("init", "--cluster", CLUSTER, "--no-passphrase")
        await self.certs("coordinator")
        for role, name in (*(("node", name) for name in NODES), ("client", "web"), ("client", "eve")):
            await self.certs(role, name)
        await self.certs("operator", "ops")
        self.denied.touch(0o600)
        self.operator = Credentials(self.files("ops"), print)

    async def certs(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "greenroom_cluster", "certs", *arguments]
        await trio.run_process(command, cwd=self.hosts, capture_stdout=True)

    def files(self, name: str) -> TlsFiles:
        folder = self.hosts / name
        paths = {"cert": folder / f"{name}.pem", "key": folder / f"{name}.key", "ca": folder / "ca.pem"}
        return TlsFiles(**{option: str(path) for option, path in paths.items()})

    def options(self, role: str, name: str) -> list[str]:
        files = self.files("coordinator" if role == "coordinator" else name)
        given = ["--tls-cert", files.cert, "--tls-key", files.key, "--tls-ca", files.ca]
        return [*given, "--tls-deny", str(self.denied)]

    def url_of(self, name: str) -> str:
        files = self.files(name)
        options = f"tls_cert={files.cert}&tls_key={files.key}&tls_ca={files.ca}&deadline_seconds=10"
        return f"greenrooms://{','.join(self.addresses)}/{CLUSTER}?{options}"

    def hand_out_authorities(self) -> None:
        """Copy whom to trust to every holder, as an operator does between two steps."""
        for folder in self.hosts.iterdir():
            if folder.name != "greenroom-ca":
                shutil.copy(self.hosts / "greenroom-ca" / "ca.pem", folder / "ca.pem")

    @property
    def commands(self) -> tuple[Command, ...]:
        return self.coordinator, *self.nodes.values()

    async def reload(self, load: Load) -> None:
        """Have all processes and callers read their files anew; return when they have."""
        before = [len(command.logged("tls_files_read")) for command in self.commands]
        for command in self.commands:
            command.process.send_signal(signal.SIGHUP)
        await load.hang_up()
        assert self.operator.reload()
        for command, count in zip(self.commands, before, strict=True):
            await until(lambda c=command, n=count: len(c.logged("tls_files_read")) >= n + PROCESSES)  # type: ignore[misc]
        assert not [line for command in self.commands for line in command.logged("tls_files_refused")]

    async def epochs(self) -> tuple[int, ...]:
        """Return the epoch of each shard: a failover changes it."""
        return (await fetch_map(self.addresses, CLUSTER, credentials=self.operator)).epochs

    def renewed(self, reason: str) -> int:
        """Return how many links had another connection take their place for this reason."""
        lines = [line for command in self.commands for line in command.logged("link_renewed")]
        return sum(reason in line["reason"] for line in lines)

    async def until_settled(self) -> tuple[int, ...]:
        """Wait until no shard has moved for a while, as after a start; return their epochs."""
        while True:
            before = await self.epochs()
            with trio.move_on_after(CALM_SECONDS):
                await trio.sleep_forever()
            if await self.epochs() == before:
                return before

    def told(self, event: str) -> int:
        """Return how many lines of this event there are."""
        return sum(len(command.logged(event)) for command in self.commands)

    async def until_calm(self) -> None:
        """Wait until no connection has ended, and none was replaced, for a few sweeps."""
        seen, since = -1, trio.current_time()

        def is_calm() -> bool:
            nonlocal seen, since
            count = self.ended("") + self.renewed("")
            if count != seen:
                seen, since = count, trio.current_time()
            return trio.current_time() - since > CALM_SECONDS

        await until(is_calm)

    def ended(self, reason: str) -> int:
        """Return how many open connections ended for this reason."""
        lines = [line for command in self.commands for line in command.logged("connection_refused")]
        return sum(reason in line.get("detail", "") for line in lines)


class Stalls:
    """How long this process has waited for a processor, as those of the cluster do beside it."""

    def __init__(self) -> None:
        self.longest_seconds = 0.0

    async def watch_forever(self) -> NoReturn:
        while True:
            due = trio.current_time() + 0.01
            await trio.sleep_until(due)
            self.longest_seconds = max(self.longest_seconds, trio.current_time() - due)


async def test_authority_is_rotated_and_a_client_revoked_without_an_error(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """16 callers go on meanwhile: no call fails, no acknowledged write is lost, and no shard fails over.

    No link is down either, for another one is up before: not even for the moment that a redial takes.
    """
    stalls = Stalls()
    async with trio.open_nursery() as nursery:
        cluster = Certified(Host(nursery, tmp_path), tmp_path)
        await cluster.certify()
        await cluster.start()
        nursery.start_soon(stalls.watch_forever)
        shutil.copytree(cluster.hosts / "web", tmp_path / "former")
        async with open_load(
            cluster.url_of("web"), tmp_path, workers=CALLERS, stores=2, pause_seconds=PAUSE_SECONDS
        ) as load:
            before, down = await cluster.until_settled(), cluster.told("link_down")
            await cluster.certs("rotate-ca", "trust-both")
            cluster.hand_out_authorities()
            await cluster.reload(load)
            await cluster.certs("rotate-ca", "issue-from-new")
            await cluster.certs("renew", ".")
            await cluster.reload(load)
            # At least those of three supervisors and three actors to the coordinator.
            await until(lambda: cluster.renewed("our certificate was renewed") >= 2 * len(NODES))
            assert not cluster.ended("trusted no more")
            await cluster.certs("rotate-ca", "drop-old")
            cluster.hand_out_authorities()
            await cluster.reload(load)
            # The connections of apps were made before the renewal: each ends in its turn, and is made anew.
            await until(lambda: cluster.ended("trusted no more") >= len(NODES) + CALLERS // 4)
            await cluster.until_calm()
            await check_former(cluster, tmp_path / "former")
            await check_revoked(cluster, load)
            assert await cluster.is_healthy()
            after = await cluster.epochs()
            down = cluster.told("link_down") - down
        nursery.cancel_scope.cancel()
    record_property("longest_stall_seconds", stalls.longest_seconds)
    record_property("longest_call_seconds", load.longest_seconds())
    assert after == before, f"this process waited {stalls.longest_seconds:.3f} s for a processor at most"
    assert (down, cluster.told("link_not_renewed")) == (0, 0)
    assert load.errors == Counter()
    assert load.acknowledged_writes > 200
    assert_explained(load.history)


async def check_former(cluster: Certified, folder: Path) -> None:
    """A certificate of the authority that was dropped lets nobody in."""
    shutil.copy(cluster.hosts / "web" / "ca.pem", folder / "both.pem")
    with (folder / "both.pem").open("ab") as both:
        both.write((folder / "ca.pem").read_bytes())
    url = cluster.url_of("web").replace(str(cluster.hosts / "web" / "ca.pem"), str(folder / "both.pem"))
    assert "does not trust the CA" in await refused(url.replace(str(cluster.hosts / "web"), str(folder)))


async def check_revoked(cluster: Certified, load: Load) -> None:
    """One client is cut off within seconds, and the others, with load on them, go on."""
    async with greenroom.store_from_url(cluster.url_of("eve").replace("=10", "=2")) as store:
        session = new_session()
        await store.create(session)
        await cluster.certs("revoke", f"greenroom://{CLUSTER}/client/eve")
        began = trio.current_time()
        await cluster.reload(load)
        await until(lambda: cluster.ended("its certificate is revoked") > 0)
        # Each process judges its own connections, a moment after it has read the files.
        with pytest.raises(UnavailableError):
            await read_until(store, session.session_id, began + 10)


async def read_until(store: greenroom.BaseSessionStore, session_id: str, end: float) -> None:
    """Read a session again and again."""
    while trio.current_time() < end:
        await store.get(session_id)
