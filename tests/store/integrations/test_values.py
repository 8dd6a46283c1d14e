"""What the frameworks' own sessions store does not fail on the day of the migration, in any of them."""

import collections
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import aiohttp_session
import httpx
import litestar
import pytest
import quart
from aiohttp import web
from aiohttp.test_utils import TestServer
from authlib.integrations.starlette_client import OAuth
from authlib.oauth2.rfc6749 import OAuth2Token
from authlib.oidc.core import UserInfo
from fastapi import FastAPI
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware as StarlettesOwn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from greenroom import MemoryStore
from greenroom.integrations.aiohttp import GreenroomStorage
from greenroom.integrations.fastapi import SessionDep
from greenroom.integrations.litestar import SessionDep as LitestarSessionDep
from greenroom.integrations.litestar import SessionPlugin
from greenroom.integrations.quart import GreenroomSessions
from greenroom.testing import library_named
from greenroom.web import Session, SessionMiddleware

SECRET = "a secret for tests only, long enough"
Site = AbstractAsyncContextManager[httpx.AsyncClient]


class Role(StrEnum):
    ADMIN = "admin"


class Level(IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: int


class LazyText:
    """As flask-babel has them: translated when it is shown."""

    def __html__(self) -> str:
        return "Saved."


@dataclasses.dataclass
class Address:
    street: str
    role: Role


def values() -> dict[Any, Any]:
    ordered = collections.OrderedDict(b=1, a=2)
    ordered.move_to_end("b")
    return {
        "role": Role.ADMIN,
        "level": Level.HIGH,
        "markup": Markup("<b>"),
        "token": OAuth2Token({"access_token": "t", "userinfo": UserInfo(sub="alice")}),
        "by_level": collections.defaultdict(list, x=[Level.HIGH]),
        "ordered": ordered,
        "counter": collections.Counter("aab"),
        "point": Point(1, 2),
        Role.ADMIN: {Role.ADMIN: Point(3, 4)},
    }


STORED = {
    "role": "admin",
    "level": 3,
    "markup": "<b>",
    "token": {"access_token": "t", "userinfo": {"sub": "alice"}},
    "by_level": {"x": [3]},
    "ordered": {"a": 2, "b": 1},
    "counter": {"a": 2, "b": 1},
    "point": [1, 2],
    "admin": {"admin": [3, 4]},
}


def new_session() -> Session:
    return Session(secret=SECRET, store=MemoryStore(), dev=True)


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as client:
        yield client


def starlette_site(middleware: Any = SessionMiddleware, **options: Any) -> Site:
    async def put(request: Request) -> JSONResponse:
        request.session.update(values())
        return JSONResponse({})

    async def show(request: Request) -> JSONResponse:
        return JSONResponse(dict(request.session))

    app = Starlette(routes=[Route("/put", put), Route("/show", show)])
    app.add_middleware(middleware, **(options or {"session": new_session()}))
    return served(app)


def starlettes_own_site() -> Site:
    """What the others are compared with."""
    return starlette_site(StarlettesOwn, secret_key=SECRET)


def fastapi_site() -> Site:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, session=new_session())

    @app.get("/put")
    def put(session: SessionDep) -> None:
        session.update(values())

    @app.get("/show")
    def show(session: SessionDep) -> Any:
        return dict(session)

    return served(app)


def litestar_site() -> Site:
    @litestar.get("/put")
    async def put(session: LitestarSessionDep) -> None:
        session.update(values())

    @litestar.get("/show")
    async def show(session: LitestarSessionDep) -> Any:
        return dict(session)

    return served(litestar.Litestar([put, show], plugins=[SessionPlugin(new_session())]))


def quart_site(*, own: bool = False) -> Site:
    app = quart.Quart(__name__)
    app.secret_key = SECRET
    if not own:
        GreenroomSessions(new_session()).init_app(app)

    @app.get("/put")
    async def put() -> Any:
        quart.session.update({"address": Address("High Street", Role.ADMIN), **values()})
        await quart.flash(LazyText(), "info")  # type: ignore[arg-type]  # as apps do
        return {}

    @app.get("/show")
    async def show() -> Any:
        found = dict(quart.session)
        flashes = found.pop("_flashes")
        assert [list(each) for each in flashes] == [["info", "Saved."]]
        assert found.pop("address") == {"street": "High Street", "role": "admin"}
        return found

    return served(app)


def quarts_own_site() -> Site:
    return quart_site(own=True)


@asynccontextmanager
async def aiohttp_site() -> AsyncIterator[httpx.AsyncClient]:
    async def put(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        session.update(values())
        return web.Response()

    async def show(request: web.Request) -> web.Response:
        return web.json_response(dict(await aiohttp_session.get_session(request)))

    app = web.Application()
    aiohttp_session.setup(app, GreenroomStorage(new_session()))
    app.add_routes([web.get("/put", put), web.get("/show", show)])
    async with TestServer(app) as server, httpx.AsyncClient(base_url=str(server.make_url("/"))) as client:
        yield client


@pytest.mark.parametrize(
    "site",
    [
        starlette_site,
        starlettes_own_site,
        fastapi_site,
        litestar_site,
        quart_site,
        quarts_own_site,
        aiohttp_site,
    ],
    ids=lambda site: site.__name__,
)
def test_values_of_libraries_are_stored(site: Callable[[], Site]) -> None:
    async def story() -> None:
        async with site() as client:
            assert (await client.get("/put")).is_success
            assert (await client.get("/show")).json() == STORED

    library_named("asyncio").run(story, 30)


def test_a_login_at_a_provider_by_authlib() -> None:
    """The whole way: its state in the session while the user is away, then the token that came of it."""

    def provider(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"access_token": "t", "token_type": "Bearer", "expires_in": 60})

    oauth = OAuth()
    oauth.register(
        "shop",
        client_id="id",
        client_secret="hidden",
        authorize_url="https://provider.test/authorize",
        access_token_url="https://provider.test/token",
        client_kwargs={"transport": httpx.MockTransport(provider)},
    )

    async def login(request: Request) -> Any:
        return await oauth.shop.authorize_redirect(request, "http://app.test/back")

    async def back(request: Request) -> JSONResponse:
        token = await oauth.shop.authorize_access_token(request)
        assert isinstance(token, OAuth2Token)
        request.session["token"] = token
        request.session["user"] = UserInfo(sub="alice", email="alice@shop.example")
        return JSONResponse({})

    async def show(request: Request) -> JSONResponse:
        return JSONResponse(dict(request.session))

    async def story() -> None:
        app = Starlette(routes=[Route("/login", login), Route("/back", back), Route("/show", show)])
        app.add_middleware(SessionMiddleware, session=new_session())
        async with served(app) as client:
            location = (await client.get("/login")).headers["location"]
            state = httpx.URL(location).params["state"]
            assert (await client.get("/back", params={"state": state, "code": "c"})).is_success
            found = (await client.get("/show")).json()
            assert found["token"]["access_token"] == "t"
            assert found["user"] == {"sub": "alice", "email": "alice@shop.example"}

    library_named("asyncio").run(story, 30)
