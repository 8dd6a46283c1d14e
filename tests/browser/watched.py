"""A cluster whose dashboard a browser watches, with sessions in it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import trio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from msgspec.structs import replace

from greenroom import SessionData, new_session_id, store_from_url
from greenroom.identities import IdentityRole
from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.demo.faults import actor_victim
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.runtime.local import LocalCluster, open_local_cluster
from tests.browser.conftest import HEALTHY_SECONDS, SETTINGS

WATCHED = replace(SETTINGS, http="127.0.0.1:0")
USER, DATUM = "somebody-with-a-name", "a-datum-of-theirs"


class Watched:
    """A running cluster. Its methods block."""

    def __init__(self, portal: BlockingPortal, cluster: LocalCluster, settings: LocalClusterSettings) -> None:
        self._portal = portal
        self._cluster = cluster
        self._settings = settings
        self.url = cluster.dashboard_url
        self.ids: list[str] = []

    @property
    def token(self) -> str:
        """What `greenroom http-token` prints."""
        secrets = self._settings.proof.secrets(self._settings.cluster)
        assert secrets is not None
        return secrets.http_token()

    def files_of(self, role: IdentityRole) -> dict[str, str]:
        """Return the options of TLS of somebody in this role."""
        return self._cluster._files(role, "eva")

    def status(self) -> ClusterStatus:
        """Return what `greenroom status --json` is made of."""
        return self._portal.call(self._cluster.status)

    def wait_healthy(self) -> None:
        self._portal.call(self._cluster.wait_healthy, HEALTHY_SECONDS)

    def kill_actor(self, slot: str) -> None:
        actors = self._portal.call(self._cluster.actors)
        actor_victim(actors[slot]).kill()

    def kill_node(self, name: str) -> None:
        """Kill a node, which stays away until `start_node`."""
        self._cluster.restart_nodes = False
        self._portal.call(self._cluster.kill_node, name)

    def start_node(self, name: str) -> None:
        self._portal.call(self._cluster.start_node, name)

    def write(self, sessions: int) -> None:
        """Make sessions, and change each of them."""
        self._portal.call(self._write, sessions)

    async def _write(self, sessions: int) -> None:
        async with store_from_url(self._cluster.url) as store:
            for _ in range(sessions):
                session_id = new_session_id()
                expires = datetime.now(UTC) + timedelta(hours=1)
                made = SessionData(
                    session_id=session_id, expires=expires, data={"datum": DATUM}, user_id=USER
                )
                await store.create(made)
                await store.patch(session_id, set={("more",): 1})
                self.ids.append(session_id)

    @contextmanager
    def load(self) -> Iterator[None]:
        """Write sessions around the body, about twenty a second."""

        async def write_on(*, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
            with trio.CancelScope() as scope:
                task_status.started(scope)
                while True:
                    await self._write(1)
                    await trio.sleep(0.05)

        future, scope = self._portal.start_task(write_on)
        try:
            yield
        finally:
            self._portal.call(scope.cancel)
            future.result()


@contextmanager
def watched_cluster(settings: LocalClusterSettings = WATCHED) -> Iterator[Watched]:
    """Run a cluster around the body."""
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal("trio"))
        opened = portal.wrap_async_context_manager(open_local_cluster(settings))
        yield Watched(portal, stack.enter_context(opened), settings)


def show_token(page: Any, watched: Watched) -> None:
    """Open the dashboard as an operator does who has never been there."""
    page.goto(watched.url)
    page.get_by_label("Token").fill(watched.token)
    page.get_by_role("button", name="Show the dashboard").click()
    page.locator("#shards > li").first.wait_for()
