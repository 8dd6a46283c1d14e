"""A running cluster is moved from plaintext to TLS, process by process, and no caller notices."""

import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

import greenroom
from greenroom import UnavailableError
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom_cluster.inspection import inspect_cluster
from simulations.checks.linearizability import assert_explained
from tests.system.load import open_load
from tests.system.test_mistakes import CLUSTER, Command, Host
from tests.system.test_tls import NODES, Secured, new_session, refused, uri

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(600)]

BOTH = ("--plaintext-from", "127.0.0.0/8")
WORKERS = 4


class Moved(Secured):
    """A cluster whose processes are started without TLS, then with both, then with TLS alone."""

    def __init__(self, host: Host, folder: Path) -> None:
        super().__init__(host, folder)
        # Made once: a process that is started anew shows the same certificate.
        self._files = {name: Secured.options(self, "node", name) for name in NODES}
        self._files["c1"] = Secured.options(self, "coordinator", "c1")
        self._given: dict[str, list[str]] = {}
        self._secrets = LoopbackSecrets(CLUSTER)
        # What an app has stored without a certificate is in this namespace.
        self.app = self.url(self.authority.issue(f"{uri('client', 'web')}?ns=default"))
        self.plain = f"greenroom://{','.join(self.addresses)}/{CLUSTER}?deadline_seconds=10"

    def options(self, role: str, name: str) -> list[str]:
        return self._given.get(name, [])

    async def restart_all(self, *more: str) -> None:
        """Start each process anew, one after the other, with these options beside the files of TLS."""
        for name in ("c1", *NODES):
            self._given[name] = [*self._files[name], *more]
            command = self.commands[name]
            command.process.send_signal(signal.SIGTERM)
            assert await command.exit() == 0, command.events
            await (self.start_coordinator() if name == "c1" else self.start_node(name))
            with trio.fail_after(60):
                while not await self.is_healthy():
                    with trio.move_on_after(0.2):  # this process shares its processors with the cluster
                        await trio.sleep_forever()

    async def is_healthy(self) -> bool:
        """Whether all is well, asked in whichever way all answer at this stage."""
        for keys in (self._secrets, self.operator):
            try:
                found = await inspect_cluster(self.addresses, CLUSTER, credentials=keys)
            except UnavailableError:
                continue
            if found.healthy and found.nodes_up == len(NODES):
                return True
        return False

    @property
    def commands(self) -> dict[str, Command]:
        return {"c1": self.coordinator, **self.nodes}


async def test_running_cluster_is_moved_to_tls_without_an_error(tmp_path: Path) -> None:
    """Apps go on all the time: without TLS at first, then with it; what they have stored stays theirs."""
    (later := tmp_path / "later").mkdir()
    async with trio.open_nursery() as nursery, AsyncExitStack() as apps, AsyncExitStack() as former_apps:
        cluster = Moved(Host(nursery, tmp_path), tmp_path)
        await cluster.start()
        session = new_session()
        async with greenroom.store_from_url(cluster.plain) as store:
            await store.create(session)
        former = await former_apps.enter_async_context(
            open_load(cluster.plain, tmp_path, workers=WORKERS, seed=1)
        )
        await cluster.restart_all(*BOTH)
        latter = await apps.enter_async_context(open_load(cluster.app, later, workers=WORKERS, seed=2))
        await former_apps.aclose()
        for name, command in cluster.commands.items():
            warned = command.logged("plaintext_accepted")
            assert {line["networks"] for line in warned} == {"127.0.0.0/8"}, name
        await cluster.restart_all()
        assert not [line for each in cluster.commands.values() for line in each.logged("plaintext_accepted")]
        async with greenroom.store_from_url(cluster.app) as store:
            assert (await store.get(session.session_id)).data == session.data
        assert "only TLS is spoken here" in await refused(cluster.plain)
        await apps.aclose()
        for command in cluster.commands.values():
            command.process.kill()
        nursery.cancel_scope.cancel()
    for load in (former, latter):
        assert load.errors == Counter()
        assert load.acknowledged_writes > 100
        assert_explained(load.history)
