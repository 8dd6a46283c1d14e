"""Pages of a real server over a real cluster, for browsers that were given bad cookies or a bad session."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Thread
from typing import Any

import httpx
import pytest
import trio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from greenroom import wire
from greenroom.ids import locate
from greenroom.routing import Router
from greenroom.web import RequestSession, Session, SessionMiddleware
from tests.store.poison import NEWER, POISONS
from tests.system.raw import greeted, hello
from tests.system.stage import SharedCluster

pytestmark = [pytest.mark.system, pytest.mark.trio]

SECRET = "a secret for tests only, long enough"
YEAR_9999_US = 253_402_300_799_999_999
START_SECONDS = 30.0


@pytest.fixture
def cluster(small_cluster: SharedCluster) -> SharedCluster:
    return small_cluster


async def who(request: Request) -> Response:
    session: RequestSession = request.session  # type: ignore[assignment]  # by the middleware
    return JSONResponse([session.greenroom.user_id, dict(session)])


async def login(request: Request) -> Response:
    session: RequestSession = request.session  # type: ignore[assignment]  # as above
    session.greenroom.login(request.path_params["user"], {"cart": 1})
    return JSONResponse({})


async def logout(request: Request) -> Response:
    session: RequestSession = request.session  # type: ignore[assignment]  # as above
    session.greenroom.logout()
    return JSONResponse({})


class Site:
    """A site on a port of this machine. Its sessions live in the cluster."""

    def __init__(self, sessions: Session, address: str) -> None:
        self.sessions = sessions
        self._address = address

    def ask(self, path: str, *cookies: str) -> httpx.Response:
        """Send a request with these values of the session's cookie, in this order."""
        name = self.sessions.cookie.name
        headers = {"cookie": "; ".join(f"{name}={each}" for each in cookies)} if cookies else {}
        return httpx.get(f"{self._address}{path}", headers=headers, timeout=30)

    def login(self, user: str) -> tuple[str, str]:
        """Log in; return the session's id and the value of its cookie."""
        set_cookie = self.ask(f"/login/{user}").headers["set-cookie"]
        value = set_cookie.partition("=")[2].partition(";")[0]
        return self.sessions.signer.verify(value.encode()) or "", value


@contextmanager
def served(url: str) -> Iterator[Site]:
    """Serve a site by uvicorn, in a thread and event loop of its own."""
    sessions = Session(secret=SECRET, store=url, secure=False)
    routes = [Route("/who", who), Route("/login/{user}", login), Route("/logout", logout)]
    app = Starlette(routes=routes)
    app.add_middleware(SessionMiddleware, session=sessions)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=partial(server.run, sockets=[listener]))
        thread.start()
        try:
            deadline = time.monotonic() + START_SECONDS
            while not server.started:
                assert time.monotonic() < deadline, "uvicorn did not start"
                time.sleep(0.01)
            yield Site(sessions, f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join()


async def poison(cluster: SharedCluster, session_id: str, data: bytes) -> Any:
    """Replace a session's data and end past every facade; return what the cluster made of it."""
    point, digest = locate(session_id)
    router = Router(await cluster.map())
    primary = router.primaries[router.shard_of(point)]
    assert primary is not None
    update = wire.Update(1, 1, 0, point, digest, "mallory", YEAR_9999_US, "", data, None)
    async with greeted(primary.address, hello(wire.ROLE_CLIENT, target=primary.incarnation)) as connection:
        await connection.send([update])
        with trio.fail_after(30):
            return await connection.receive()


@pytest.mark.parametrize("data", [NEWER, *POISONS.values()], ids=["newer", *POISONS])
async def test_no_stored_session_makes_every_page_fail(cluster: SharedCluster, data: bytes) -> None:
    def visit(site: Site, cookie: str) -> None:
        response = site.ask("/who", cookie)
        assert (response.status_code, response.json()) == (200, [None, {}])
        assert "Max-Age=0" in response.headers["set-cookie"]
        assert site.ask("/logout", cookie).status_code == 200
        assert "set-cookie" not in site.ask("/who", cookie).headers, "it is gone"
        assert site.sessions.statistics().failed == 0

    with served(cluster.url) as site:
        session_id, cookie = await trio.to_thread.run_sync(site.login, "alice")
        answer = await poison(cluster, session_id, data)
        if isinstance(answer, wire.Written):
            await trio.to_thread.run_sync(visit, site, cookie)
        else:
            # The cluster itself takes nothing of that kind, and what was there is whole.
            assert isinstance(answer, wire.Failed)
            response = await trio.to_thread.run_sync(site.ask, "/who", cookie)
            assert response.json() == ["alice", {"cart": 1}]


async def test_planted_cookies_neither_hide_nor_replace_a_session(cluster: SharedCluster) -> None:
    def visit(site: Site) -> None:
        _, own = site.login("alice")
        _, planted = site.login("mallory")
        junk = [f"gr-{number:04}-planted.{'x' * 43}" for number in range(30)]
        assert site.ask("/who", *junk, own).json() == ["alice", {"cart": 1}]
        assert site.ask("/who", planted, own).json() == [None, {}]
        for cookie in (planted, own):
            assert site.ask("/who", cookie).json() == [None, {}]
        statistics = site.sessions.statistics()
        assert (statistics.contested, statistics.failed) == (1, 0)
        _, fresh = site.login("alice")
        assert site.ask("/who", planted, fresh).json() == ["alice", {"cart": 1}]

    with served(cluster.url) as site:
        await trio.to_thread.run_sync(visit, site)
