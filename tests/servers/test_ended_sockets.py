"""Sockets of one worker whose sessions end in another, on a real cluster that loses a primary meanwhile."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.servers.running import SERVERS, Server, is_here, running
from tests.system.stage import SharedCluster, shared_cluster

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore:connect.. must be used")]

UVICORN = next(each for each in SERVERS if each.name.startswith("uvicorn httptools websockets-sansio"))
CLOSED_SECONDS = 2.0
"""For a busy machine: it takes a few milliseconds."""
FAILED_OVER_SECONDS = 20.0
USERS = 24


@pytest.fixture(scope="module")
def cluster() -> Iterator[SharedCluster]:
    with shared_cluster() as started:
        yield started


class Workers:
    """Two workers of one app, and browsers of users who have logged in at the first."""

    def __init__(self, first: int, second: int) -> None:
        self.first, self.second = first, second

    def login(self) -> str:
        """Return the cookie of a user who has logged in."""
        with httpx.Client(base_url=f"http://127.0.0.1:{self.first}", timeout=30) as client:
            assert client.get("/starlette/login").status_code == 200
            return "; ".join(f"{name}={value}" for name, value in client.cookies.items())

    def logout(self, cookie: str) -> float:
        """Log a user out at the other worker; return when that was acknowledged."""
        url = f"http://127.0.0.1:{self.second}/starlette/logout"
        assert httpx.get(url, headers={"cookie": cookie}, timeout=30).status_code == 200
        return time.monotonic()

    def socket(self, cookie: str) -> ClientConnection:
        """Open a WebSocket at the first worker, and use it once."""
        url = f"ws://127.0.0.1:{self.first}/starlette/socket/echo"
        opened = connect(url, additional_headers={"cookie": cookie})
        opened.send("one")
        assert opened.recv() == "ok"
        return opened


@pytest.fixture
def workers(cluster: SharedCluster, tmp_path: Path) -> Iterator[Workers]:
    server: Server = UVICORN
    if not is_here(server):
        pytest.skip(f"{server.name} is not installed: {', '.join(server.needs)}")
    with (
        running(server, tmp_path / "first", store=cluster.url) as first,
        running(server, tmp_path / "second", store=cluster.url) as second,
    ):
        yield Workers(first, second)


def closed_after(opened: ClientConnection, since: float, seconds: float) -> float:
    """Wait until a WebSocket is closed for its session's end; return how long that took."""
    with pytest.raises(ConnectionClosed) as closed:
        opened.recv(seconds)
    took = time.monotonic() - since
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401
    return took


def test_a_logout_at_another_worker_closes_the_socket(workers: Workers) -> None:
    took = []
    for _ in range(USERS):
        cookie = workers.login()
        opened = workers.socket(cookie)
        took.append(closed_after(opened, workers.logout(cookie), CLOSED_SECONDS))
    print(f"closed {sorted(took)[USERS // 2] * 1000:.1f} ms after the logout, at most {max(took) * 1000:.1f}")
    assert max(took) < CLOSED_SECONDS


def test_a_primary_that_is_killed_keeps_no_socket_open(workers: Workers, cluster: SharedCluster) -> None:
    """Nor does it close one: what is watched is watched at the next primary."""
    cookies = [workers.login() for _ in range(USERS)]
    opened = [workers.socket(cookie) for cookie in cookies]
    os.kill(trio.run(cluster.busiest_primary).pid, signal.SIGKILL)
    for each in opened:
        each.send("two")
        assert each.recv(FAILED_OVER_SECONDS) == "ok"
    for cookie, each in zip(cookies, opened, strict=True):
        closed_after(each, workers.logout(cookie), FAILED_OVER_SECONDS)
    trio.run(cluster.healthy)
