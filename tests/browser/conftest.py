"""A real Chromium, and the demo's shop on a real cluster for it to walk through.

Everything asynchronous runs under trio in a thread of its own, because Playwright's plain functions keep the
test's thread for themselves.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from greenroom.cluster_map import ClusterMap
from greenroom.ids import point_of
from greenroom_cluster.config import NodeOptions, ProcessOptions
from greenroom_cluster.demo.faults import actor_victim
from greenroom_cluster.demo.shop import COOKIE
from greenroom_cluster.demo.workers import shop_workers
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.logs import LogSettings
from greenroom_cluster.runtime.local import LocalCluster, open_local_cluster

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHROMIUM = "GREENROOM_TEST_CHROMIUM"
POINT_BITS = 16
# A machine with other work to do needs patience.
PAGE_MILLISECONDS = 30_000.0
HEALTHY_SECONDS = 60.0
SETTINGS = LocalClusterSettings(
    nodes=3,
    node=NodeOptions(actors=1),
    shards=16,
    listen="127.0.0.1:0",
    coordinator_listen="127.0.0.1:0",
    process=ProcessOptions(logs=LogSettings(level="error")),
)


def what_is_missing() -> str | None:
    """Return what to install before these tests can run, or None."""
    wanted = []
    if importlib.util.find_spec("playwright") is None:
        wanted.append("Playwright for Python: uv sync")
    if chromium() is None:
        wanted.append(f"Chromium: apt-get install -y chromium, or {CHROMIUM}=/path/to/chromium")
    explained = "these tests drive a real browser; install {}, or leave them out: -m 'not browser'"
    return explained.format("; ".join(wanted)) if wanted else None


def chromium() -> str | None:
    """Return the path of Chromium: the one that is named, or what is on the PATH, as Debian has it."""
    named = os.environ.get(CHROMIUM)
    return shutil.which(named) if named else shutil.which("chromium")


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    """A browser with no window; every context opened in it is a device of its own."""
    if missing := what_is_missing():
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield browser
        browser.close()


class Shop:
    """The shop's two workers, and the cluster beneath them. Its methods block."""

    def __init__(self, portal: BlockingPortal, cluster: LocalCluster, addresses: tuple[str, ...]) -> None:
        self._portal = portal
        self._cluster = cluster
        self.addresses = addresses

    def map(self) -> ClusterMap:
        return self._portal.call(self._cluster.fetch_map)

    def wait_healthy(self) -> None:
        """Wait until every shard has its two replicas: two failures at once are more than is promised."""
        self._portal.call(self._cluster.wait_healthy, HEALTHY_SECONDS)

    def kill_the_primary_of(self, cookie: str) -> Callable[[], None]:
        """Return what kills the actor that answers for this session; there is nothing left to find out."""
        cluster_map = self.map()
        primary = cluster_map.shards[_shard_of(cookie, cluster_map)].primary
        return actor_victim(cluster_map.actors[primary]).kill

    def epoch_of(self, cookie: str) -> int:
        """Return the epoch of the shard of this session: it rises when another actor takes over."""
        cluster_map = self.map()
        return cluster_map.shards[_shard_of(cookie, cluster_map)].epoch


def _shard_of(cookie: str, cluster_map: ClusterMap) -> int:
    session_id, _, _signature = cookie.rpartition(".")
    return point_of(session_id) >> POINT_BITS - (cluster_map.shard_count.bit_length() - 1)


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """The shop of `greenroom demo`: uvicorn workers over a coordinator and three nodes."""
    if missing := what_is_missing():
        pytest.skip(missing)
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal("trio"))
        opened = portal.wrap_async_context_manager(open_local_cluster(SETTINGS))
        cluster = stack.enter_context(opened)
        workers = portal.wrap_async_context_manager(shop_workers(cluster.url))
        yield Shop(portal, cluster, stack.enter_context(workers))


class Device:
    """One device of a customer: a browser profile whose User-Agent names it, with as many tabs as wanted."""

    def __init__(self, chrome: Any, name: str) -> None:
        self.context = chrome.new_context(user_agent=name)
        self.context.set_default_timeout(PAGE_MILLISECONDS)

    def tab(self) -> Any:
        return self.context.new_page()

    @property
    def cookie(self) -> dict[str, Any]:
        """The session cookie as the browser keeps it. Never shown: it logs in."""
        (found,) = [each for each in self.context.cookies() if each["name"] == COOKIE]
        return dict(found)


@pytest.fixture
def device(chrome: Any) -> Iterator[Callable[[str], Device]]:
    """Make devices, and close them with the test."""
    with ExitStack() as stack:

        def make(name: str) -> Device:
            made = Device(chrome, name)
            stack.callback(made.context.close)
            return made

        yield make
