"""One small app in every framework: who is logged in, fill a cart, log in in three ways, log out."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp_session
import httpx
import litestar
import quart
from aiohttp import web
from aiohttp.test_utils import TestServer
from fastapi import FastAPI
from litestar.params import FromPath

from greenroom.integrations.aiohttp import GreenroomStorage
from greenroom.integrations.fastapi import SessionDep
from greenroom.integrations.litestar import SessionDep as LitestarSessionDep
from greenroom.integrations.litestar import SessionPlugin
from greenroom.integrations.quart import GreenroomSessions
from greenroom.web import Session, SessionMiddleware

MONTH_SECONDS = 30 * 86_400
FILLED = {"cart": {"mug": 1}, "return_to": "https://evil.example"}
REMEMBERED: dict[str, Any] = {"idle_seconds": MONTH_SECONDS, "persistent": True}

Site = AbstractAsyncContextManager[httpx.AsyncClient]


def fastapi_site(sessions: Session) -> Site:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, session=sessions)

    @app.get("/who")
    def who(session: SessionDep) -> list[Any]:
        return [session.greenroom.user_id, dict(session)]

    @app.get("/login/{user}")
    async def login(user: str, session: SessionDep) -> None:
        session.greenroom.login(user)

    @app.get("/remember/{user}")
    def remember(user: str, session: SessionDep) -> None:
        session.greenroom.login(user, **REMEMBERED)

    @app.get("/fill")
    async def fill(session: SessionDep) -> None:
        session.update(FILLED)

    @app.get("/keep/{user}")
    async def keep(user: str, session: SessionDep) -> None:
        session.greenroom.login(user, keep=("cart",))

    @app.get("/logout")
    async def logout(session: SessionDep) -> None:
        session.greenroom.logout()

    return served(app)


def litestar_site(sessions: Session) -> Site:
    @litestar.get("/who")
    async def who(session: LitestarSessionDep) -> list[Any]:
        return [session.greenroom.user_id, dict(session)]

    @litestar.get("/login/{user:str}")
    async def login(user: FromPath[str], session: LitestarSessionDep) -> None:
        session.greenroom.login(user)

    @litestar.get("/remember/{user:str}")
    async def remember(user: FromPath[str], session: LitestarSessionDep) -> None:
        session.greenroom.login(user, **REMEMBERED)

    @litestar.get("/fill")
    async def fill(session: LitestarSessionDep) -> None:
        session.update(FILLED)

    @litestar.get("/keep/{user:str}")
    async def keep(user: FromPath[str], session: LitestarSessionDep) -> None:
        session.greenroom.login(user, keep=("cart",))

    @litestar.get("/logout")
    async def logout(session: LitestarSessionDep) -> None:
        session.greenroom.logout()

    return served(
        litestar.Litestar([who, login, remember, fill, keep, logout], plugins=[SessionPlugin(sessions)])
    )


def quart_site(sessions: Session, *, middleware: bool = False) -> Site:
    app = quart.Quart(__name__)
    interface = GreenroomSessions(sessions)
    if middleware:
        interface.init_app(app)
    else:
        app.session_interface = interface

    @app.get("/who")
    async def who() -> list[Any]:
        current: Any = quart.session
        return [current.greenroom.user_id, dict(current)]

    @app.get("/login/<user>")
    async def login(user: str) -> str:
        current: Any = quart.session
        current.greenroom.login(user)
        return "welcome"

    @app.get("/remember/<user>")
    async def remember(user: str) -> str:
        current: Any = quart.session
        current.greenroom.login(user, **REMEMBERED)
        assert current.permanent
        return "welcome"

    @app.get("/fill")
    async def fill() -> str:
        quart.session.update(FILLED)
        return "filled"

    @app.get("/keep/<user>")
    async def keep(user: str) -> str:
        current: Any = quart.session
        current.greenroom.login(user, keep=("cart",))
        return "welcome"

    @app.get("/logout")
    async def logout() -> str:
        current: Any = quart.session
        current.greenroom.logout()
        return "bye"

    return served(app)


def quart_site_with_middleware(sessions: Session) -> Site:
    return quart_site(sessions, middleware=True)


@asynccontextmanager
async def aiohttp_site(sessions: Session) -> AsyncIterator[httpx.AsyncClient]:
    async def who(request: web.Request) -> web.Response:
        session: Any = await aiohttp_session.get_session(request)
        return web.json_response([session.greenroom.user_id, dict(session)])

    async def login(request: web.Request) -> web.Response:
        session: Any = await aiohttp_session.get_session(request)
        session.greenroom.login(request.match_info["user"])
        return web.Response()

    async def remember(request: web.Request) -> web.Response:
        session: Any = await aiohttp_session.get_session(request)
        session.greenroom.login(request.match_info["user"], **REMEMBERED)
        return web.Response()

    async def fill(request: web.Request) -> web.Response:
        (await aiohttp_session.get_session(request)).update(FILLED)
        return web.Response()

    async def keep(request: web.Request) -> web.Response:
        session: Any = await aiohttp_session.get_session(request)
        session.greenroom.login(request.match_info["user"], keep=("cart",))
        return web.Response()

    async def logout(request: web.Request) -> web.Response:
        session: Any = await aiohttp_session.get_session(request)
        session.greenroom.logout()
        return web.Response()

    app = web.Application()
    aiohttp_session.setup(app, GreenroomStorage(sessions))
    app.add_routes([web.get("/who", who), web.get("/login/{user}", login), web.get("/logout", logout)])
    app.add_routes([web.get("/remember/{user}", remember)])
    app.add_routes([web.get("/fill", fill), web.get("/keep/{user}", keep)])
    async with TestServer(app) as server, httpx.AsyncClient(base_url=str(server.make_url("/"))) as client:
        yield client


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://app.test") as client:
        yield client


SITES: dict[str, Callable[[Session], Site]] = {
    "fastapi": fastapi_site,
    "litestar": litestar_site,
    "quart": quart_site,
    "quart with middleware": quart_site_with_middleware,
    "aiohttp": aiohttp_site,
}
