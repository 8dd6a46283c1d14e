"""The same small app as it was before the switch, on the sessions of each library."""

import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp_session
import httpx
import litestar
import pytest
import quart
import starsessions
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from litestar.middleware.session.client_side import CookieBackendConfig
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.params import FromPath
from litestar.stores.memory import MemoryStore as LitestarMemory
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from greenroom import MemoryStore
from greenroom.integrations.litestar import GreenroomStore as LitestarOverGreenroom
from greenroom.integrations.moving import (
    AiohttpStorage,
    LitestarCookies,
    LitestarStore,
    OldSessions,
    OtherStore,
    QuartCookies,
    StarletteCookies,
    StarsessionsStore,
)
from greenroom.integrations.starsessions import GreenroomStore
from greenroom.web import Session
from greenroom.web import SessionMiddleware as GreenroomMiddleware

OLD_SECRET = "the secret of the old app, 32 bytes"
AGE = 14 * 86_400

READY_SECONDS = 20.0

Old = AbstractAsyncContextManager[tuple[Any, OldSessions]]
"""Yields the old app, and what reads its sessions."""


def user_of(data: dict[Any, Any]) -> Any:
    return data.get("user_id")


def starlette_app() -> Starlette:
    async def login(request: Request) -> JSONResponse:
        request.session["user_id"] = request.path_params["user"]
        request.session["theme"] = "dark"
        return JSONResponse({})

    return Starlette(routes=[Route("/login/{user}", login)])


@asynccontextmanager
async def starlette_cookies() -> AsyncIterator[tuple[Any, OldSessions]]:
    app = starlette_app()
    app.add_middleware(SessionMiddleware, secret_key=OLD_SECRET)
    yield app, StarletteCookies(OLD_SECRET, user=user_of)


def starsessions_app(store: Any) -> tuple[Any, OldSessions]:
    app = starlette_app()
    app.add_middleware(starsessions.SessionAutoloadMiddleware)
    app.add_middleware(
        starsessions.SessionMiddleware, store=store, lifetime=AGE, rolling=True, cookie_https_only=False
    )
    return app, StarsessionsStore(store, lifetime=AGE, user=user_of)


@asynccontextmanager
async def starsessions_memory() -> AsyncIterator[tuple[Any, OldSessions]]:
    yield starsessions_app(starsessions.InMemoryStore())


@asynccontextmanager
async def starsessions_cookies() -> AsyncIterator[tuple[Any, OldSessions]]:
    yield starsessions_app(starsessions.CookieStore(OLD_SECRET))


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """Run a Redis of one's own on a socket in this directory; yield the socket's path."""
    program = which("redis-server") or which("valkey-server")
    if program is None:
        pytest.skip("there is no redis-server here")
    path = directory / "redis"
    command = [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
        try:
            deadline = time.monotonic() + READY_SECONDS
            while not path.exists():
                assert process.poll() is None, "redis-server ended at its start"
                assert time.monotonic() < deadline, "redis-server did not start in time"
                time.sleep(0.02)
            yield str(path)
        finally:
            process.terminate()


@asynccontextmanager
async def starsessions_redis() -> AsyncIterator[tuple[Any, OldSessions]]:
    redis = pytest.importorskip("redis.asyncio")
    from starsessions.stores.redis import RedisStore

    with TemporaryDirectory() as directory, redis_server(Path(directory)) as path:
        async with redis.Redis(unix_socket_path=path) as connection:
            yield starsessions_app(RedisStore(connection=connection))


@asynccontextmanager
async def starsessions_bridge() -> AsyncIterator[tuple[Any, OldSessions]]:
    yield starsessions_app(GreenroomStore(MemoryStore(), user_key="user_id"))


def quart_app() -> quart.Quart:
    app = quart.Quart(__name__)
    app.secret_key = OLD_SECRET

    @app.get("/login/<user>")
    async def login(user: str) -> dict[str, str]:
        quart.session["user_id"] = user
        quart.session["theme"] = "dark"
        quart.session.permanent = True
        return {}

    return app


@asynccontextmanager
async def quart_cookies() -> AsyncIterator[tuple[Any, OldSessions]]:
    app = quart_app()
    yield app, QuartCookies(app, user=user_of)


@litestar.get("/login/{user:str}", sync_to_thread=False)
def litestar_login(request: litestar.Request[Any, Any, Any], user: FromPath[str]) -> None:
    request.set_session({"user_id": user, "theme": "dark"})


@asynccontextmanager
async def litestar_store() -> AsyncIterator[tuple[Any, OldSessions]]:
    store = LitestarMemory()
    config = ServerSideSessionConfig()
    app = litestar.Litestar([litestar_login], middleware=[config.middleware], stores={"sessions": store})
    yield app, LitestarStore(store, user=user_of)


@asynccontextmanager
async def litestar_cookies() -> AsyncIterator[tuple[Any, OldSessions]]:
    config = CookieBackendConfig(secret=OLD_SECRET.encode()[:32])
    app = litestar.Litestar([litestar_login], middleware=[config.middleware])
    yield app, LitestarCookies(config, user=user_of)


@asynccontextmanager
async def litestar_over_greenroom() -> AsyncIterator[tuple[Any, OldSessions]]:
    store = LitestarOverGreenroom(MemoryStore())
    config = ServerSideSessionConfig()
    app = litestar.Litestar([litestar_login], middleware=[config.middleware], stores={"sessions": store})
    yield app, LitestarStore(store, user=user_of)


async def aiohttp_login(request: web.Request) -> web.Response:
    session = await aiohttp_session.get_session(request)
    session["user_id"] = request.match_info["user"]
    session["theme"] = "dark"
    return web.Response()


@asynccontextmanager
async def aiohttp_site(storage: Any) -> AsyncIterator[tuple[Any, OldSessions]]:
    app = web.Application()
    aiohttp_session.setup(app, storage)
    app.add_routes([web.get("/login/{user}", aiohttp_login)])
    async with TestServer(app) as server:
        yield str(server.make_url("/")), AiohttpStorage(storage, user=user_of)


@asynccontextmanager
async def aiohttp_cookies() -> AsyncIterator[tuple[Any, OldSessions]]:
    async with aiohttp_site(EncryptedCookieStorage(OLD_SECRET.encode()[:32])) as found:
        yield found


@asynccontextmanager
async def aiohttp_redis() -> AsyncIterator[tuple[Any, OldSessions]]:
    redis = pytest.importorskip("redis.asyncio")
    from aiohttp_session.redis_storage import RedisStorage

    with TemporaryDirectory() as directory, redis_server(Path(directory)) as path:
        connection = redis.Redis(unix_socket_path=path)
        async with connection, aiohttp_site(RedisStorage(connection)) as found:
            yield found


@asynccontextmanager
async def other_store() -> AsyncIterator[tuple[Any, OldSessions]]:
    store = MemoryStore()
    sessions = Session(secret=OLD_SECRET, store=store, dev=True)

    async def login(request: Request) -> JSONResponse:
        data = {"user_id": request.path_params["user"], "theme": "dark"}
        sessions.login(request, request.path_params["user"], data)
        return JSONResponse({})

    app = Starlette(routes=[Route("/login/{user}", login)])
    app.add_middleware(GreenroomMiddleware, session=sessions)
    yield app, OtherStore(sessions)


OLD_SITES: dict[str, Callable[[], Old]] = {
    "Starlette's cookies": starlette_cookies,
    "starsessions in memory": starsessions_memory,
    "starsessions in cookies": starsessions_cookies,
    "starsessions on Redis": starsessions_redis,
    "the bridge from starsessions": starsessions_bridge,
    "Quart's cookies": quart_cookies,
    "a store of Litestar's": litestar_store,
    "Litestar's cookies": litestar_cookies,
    "Litestar's middleware over Greenroom": litestar_over_greenroom,
    "aiohttp-session in cookies": aiohttp_cookies,
    "aiohttp-session on Redis": aiohttp_redis,
    "another store of Greenroom's": other_store,
}


async def cookies_of(app: Any, user: str) -> dict[str, str]:
    """Return the cookies of a browser in which a user has logged in at the old app."""
    served = isinstance(app, str)
    transport = None if served else httpx.ASGITransport(app)
    base_url = app if served else "http://app.test"
    async with httpx.AsyncClient(transport=transport, base_url=base_url) as visitor:
        answer = await visitor.get(f"/login/{user}")
        assert answer.status_code == 200
        assert len(visitor.cookies) == 1
        return dict(visitor.cookies)
