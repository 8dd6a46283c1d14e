"""When a session ends: after `clear()` its id, user and cookie are dead; what follows is another's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp_session
import httpx
import litestar
import pytest
import quart
from aiohttp import web
from aiohttp.test_utils import TestServer
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from greenroom import MemoryStore
from greenroom.integrations.aiohttp import GreenroomStorage
from greenroom.integrations.fastapi import SessionDep
from greenroom.integrations.litestar import SessionDep as LitestarSessionDep
from greenroom.integrations.litestar import SessionPlugin
from greenroom.integrations.quart import GreenroomSessions
from greenroom.testing import FaultyStore
from greenroom.web import Session, SessionMiddleware

Opened = AbstractAsyncContextManager[httpx.AsyncClient]

HOST = "https://app.test"


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOST) as client:
        yield client


def empty_by_key(session: Any) -> None:
    """As apps do that hold a session for ended once nothing is left in it."""
    for index, key in enumerate(list(session)):
        if index % 2:
            session.pop(key)
        else:
            del session[key]


# --- one app in each framework: /login, /bye (a logout with a farewell), /relogin, /empty, /show ----------


def starlette_app(sessions: Session) -> Opened:
    async def login(request: Any) -> Response:
        sessions.login(request, "alice", {"cart": 1})
        return Response()

    async def bye(request: Any) -> Response:
        request.session.clear()
        request.session["flash"] = "bye"
        return Response()

    async def relogin(request: Any) -> Response:
        request.session.clear()
        sessions.login(request, "bob")
        return Response()

    async def empty(request: Any) -> Response:
        empty_by_key(request.session)
        return Response()

    async def show(request: Any) -> Response:
        return JSONResponse([sessions.of(request).greenroom.user_id, dict(request.session)])

    routes = [Route(f"/{each.__name__}", each) for each in (login, bye, relogin, empty, show)]
    app = Starlette(routes=routes)
    app.add_middleware(SessionMiddleware, session=sessions)
    return served(app)


def fastapi_app(sessions: Session) -> Opened:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, session=sessions)

    @app.get("/login")
    def login(session: SessionDep) -> None:
        session.greenroom.login("alice", {"cart": 1})

    @app.get("/bye")
    def bye(session: SessionDep) -> None:
        session.clear()
        session["flash"] = "bye"

    @app.get("/relogin")
    def relogin(session: SessionDep) -> None:
        session.clear()
        session.greenroom.login("bob")

    @app.get("/empty")
    def empty(session: SessionDep) -> None:
        empty_by_key(session)

    @app.get("/show")
    def show(session: SessionDep, request: Request) -> list[Any]:
        return [session.greenroom.user_id, dict(request.session)]

    return served(app)


def litestar_app(sessions: Session) -> Opened:
    @litestar.get("/login")
    async def login(session: LitestarSessionDep) -> None:
        session.greenroom.login("alice", {"cart": 1})

    @litestar.get("/bye")
    async def bye(session: LitestarSessionDep) -> None:
        session.clear()
        session["flash"] = "bye"

    @litestar.get("/relogin")
    async def relogin(session: LitestarSessionDep) -> None:
        session.clear()
        session.greenroom.login("bob")

    @litestar.get("/empty")
    async def empty(session: LitestarSessionDep) -> None:
        empty_by_key(session)

    @litestar.get("/show")
    async def show(session: LitestarSessionDep) -> list[Any]:
        return [session.greenroom.user_id, dict(session)]

    return served(litestar.Litestar([login, bye, relogin, empty, show], plugins=[SessionPlugin(sessions)]))


def quart_app(sessions: Session, *, middleware: bool) -> Opened:
    app = quart.Quart(__name__)
    interface = GreenroomSessions(sessions)
    if middleware:
        interface.init_app(app)
    else:
        app.session_interface = interface
    current: Any = quart.session

    @app.get("/login")
    async def login() -> str:
        current.greenroom.login("alice", {"cart": 1})
        return ""

    @app.get("/bye")
    async def bye() -> str:
        current.clear()
        await quart.flash("bye")
        return ""

    @app.get("/relogin")
    async def relogin() -> str:
        current.clear()
        current.greenroom.login("bob")
        return ""

    @app.get("/empty")
    async def empty() -> str:
        empty_by_key(current)
        return ""

    @app.get("/show")
    async def show() -> list[Any]:
        data = dict(current)
        flashed = data.pop("_flashes", None)
        return [current.greenroom.user_id, data if flashed is None else {**data, "flash": flashed[0][1]}]

    return served(app)


@asynccontextmanager
async def aiohttp_app(sessions: Session) -> AsyncIterator[httpx.AsyncClient]:
    async def login(request: web.Request) -> web.Response:
        session: Any = await aiohttp_session.get_session(request)
        session.greenroom.login("alice", {"cart": 1})
        return web.Response()

    async def bye(request: web.Request) -> web.Response:
        session: Any = await aiohttp_session.get_session(request)
        session.invalidate()
        session["flash"] = "bye"
        return web.Response()

    async def relogin(request: web.Request) -> web.Response:
        session: Any = await aiohttp_session.get_session(request)
        session.invalidate()
        session.greenroom.login("bob")
        return web.Response()

    async def empty(request: web.Request) -> web.Response:
        empty_by_key(await aiohttp_session.get_session(request))
        return web.Response()

    async def show(request: web.Request) -> web.Response:
        session: Any = await aiohttp_session.get_session(request)
        return web.json_response([session.greenroom.user_id, dict(session)])

    app = web.Application()
    aiohttp_session.setup(app, GreenroomStorage(sessions))
    app.add_routes([web.get(f"/{each.__name__}", each) for each in (login, bye, relogin, empty, show)])
    async with TestServer(app) as server, httpx.AsyncClient(base_url=str(server.make_url("/"))) as client:
        yield client


APPS: dict[str, Callable[[Session], Opened]] = {
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "litestar": litestar_app,
    "quart": lambda sessions: quart_app(sessions, middleware=False),
    "quart with middleware": lambda sessions: quart_app(sessions, middleware=True),
    "aiohttp": aiohttp_app,
}


class Visitor:
    """A browser of one of the apps, and what the store holds for it."""

    def __init__(self, sessions: Session, client: httpx.AsyncClient) -> None:
        self.sessions, self.client = sessions, client

    @property
    def session_id(self) -> str:
        signed = self.client.cookies.get(self.sessions.cookie.name)
        found = None if signed is None else self.sessions.signer.verify(signed.encode())
        assert found is not None
        return found

    async def get(self, path: str) -> Any:
        response = await self.client.get(path)
        assert response.status_code == 200
        return response

    async def show(self) -> Any:
        return (await self.get("/show")).json()


def story(name: str, told: Callable[[Visitor], Awaitable[None]]) -> None:
    async def main() -> None:
        sessions = Session(
            secret="a secret for tests only, long enough",
            store=FaultyStore(MemoryStore()),
            dev=name == "aiohttp",
        )
        async with APPS[name](sessions) as client:
            await told(Visitor(sessions, client))

    asyncio.run(main())


@pytest.mark.parametrize("name", APPS)
def test_a_farewell_after_clear_belongs_to_nobody(name: str) -> None:
    """The logout that most apps have: `session.clear()`, then a flash."""

    async def told(visitor: Visitor) -> None:
        await visitor.get("/login")
        assert await visitor.show() == ["alice", {"cart": 1}]
        before = visitor.session_id
        await visitor.get("/bye")
        assert visitor.session_id != before
        assert await visitor.sessions.store.get(before) is None
        assert await visitor.sessions.store.list_by_user("alice") == []
        assert await visitor.show() == [None, {"flash": "bye"}]

    story(name, told)


@pytest.mark.parametrize("name", APPS)
def test_a_login_after_clear_is_another_session(name: str) -> None:
    async def told(visitor: Visitor) -> None:
        await visitor.get("/login")
        before = visitor.session_id
        await visitor.get("/relogin")
        assert await visitor.sessions.store.get(before) is None
        assert await visitor.show() == ["bob", {}]
        assert await visitor.sessions.store.list_by_user("alice") == []

    story(name, told)


@pytest.mark.parametrize("name", APPS)
def test_clear_of_an_anonymous_session_ends_it_too(name: str) -> None:
    async def told(visitor: Visitor) -> None:
        await visitor.get("/bye")
        before = visitor.session_id
        await visitor.get("/bye")
        assert visitor.session_id != before
        assert await visitor.sessions.store.get(before) is None
        assert await visitor.show() == [None, {"flash": "bye"}]

    story(name, told)


@pytest.mark.parametrize("name", APPS)
def test_a_session_that_is_emptied_by_key_goes_on(name: str) -> None:
    """Only `clear` and `logout` end one: another request may be filling it at this moment."""

    async def told(visitor: Visitor) -> None:
        for begin, user in (("/bye", None), ("/login", "alice")):
            await visitor.get(begin)
            before = visitor.session_id
            response = await visitor.get("/empty")
            assert "set-cookie" not in response.headers
            assert await visitor.show() == [user, {}]
            assert visitor.session_id == before
            stored = await visitor.sessions.store.get(before)
            assert stored is not None
            assert stored.data == {}

    story(name, told)
