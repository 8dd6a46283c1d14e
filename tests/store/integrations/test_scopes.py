"""One scope, several keepers of sessions: what is mounted below an app leaves its sessions alone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import litestar
import pytest
import quart
from fastapi import FastAPI
from litestar.handlers import ASGIRouteHandler
from sqladmin import Admin
from sqladmin.authentication import AuthenticationBackend
from sqlalchemy import create_engine
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as CookieSessions
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from greenroom import MemoryStore
from greenroom.integrations.fastapi import SessionDep, UserIdDep
from greenroom.integrations.litestar import SessionPlugin
from greenroom.integrations.quart import GreenroomSessions
from greenroom.testing import FaultyStore
from greenroom.web import Session, SessionMiddleware

HOST = "https://app.test"
SECRET = "a secret for tests only, long enough"
SHOP: dict[str, Any] = {"cart": {"mug": 1}}

GREENROOM: Any = SessionMiddleware


def shop_sessions() -> Session:
    return Session(secret=SECRET, store=FaultyStore(MemoryStore()))


def admin_sessions() -> Session:
    return Session(secret=SECRET, store=MemoryStore(), cookie_name="admin")


def told(app: Any, story: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOST) as client:
            await story(client)

    asyncio.run(main())


async def json(client: httpx.AsyncClient, path: str) -> Any:
    response = await client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


# --- the shop, and what is mounted below it --------------------------------------------------------------


async def add(request: Request) -> Response:
    request.session.update(SHOP)
    return Response()


async def show(request: Request) -> Response:
    return JSONResponse(request.session)


async def write(request: Request) -> Response:
    request.session["token"] = request.session.get("token", 0) + 1
    return JSONResponse(request.session)


async def wipe(request: Request) -> Response:
    request.session.clear()
    return Response()


ROUTES = [Route(f"/{each.__name__}", each) for each in (add, show, write, wipe)]
PAGES = ("show", "write", "show", "wipe", "show", "write")


def mounted_cookies() -> Any:
    middleware = Middleware(CookieSessions, secret_key=SECRET, session_cookie="admin", https_only=True)
    return Starlette(routes=ROUTES, middleware=[middleware])


def mounted_greenroom() -> Any:
    return Starlette(routes=ROUTES, middleware=[Middleware(GREENROOM, session=admin_sessions())])


def mounted_quart(interface: Any = None, *, middleware: bool = False) -> Any:
    app = quart.Quart(__name__)
    app.secret_key = SECRET
    app.config["SESSION_COOKIE_NAME"] = "admin"
    if middleware:
        interface.init_app(app)
    elif interface is not None:
        app.session_interface = interface

    @app.get("/show")
    async def show() -> Any:
        return dict(quart.session)

    @app.get("/write")
    async def write() -> Any:
        quart.session["token"] = quart.session.get("token", 0) + 1
        return dict(quart.session)

    @app.get("/wipe")
    async def wipe() -> Any:
        quart.session.clear()
        return ""

    return app


MOUNTED: dict[str, Callable[[], Any]] = {
    "Starlette's cookies": mounted_cookies,
    "another Session": mounted_greenroom,
    "Quart's cookies": mounted_quart,
    "Quart, another Session": lambda: mounted_quart(GreenroomSessions(admin_sessions())),
    "Quart, another Session with middleware": lambda: mounted_quart(
        GreenroomSessions(admin_sessions()), middleware=True
    ),
}


def starlette_shop(sessions: Session, mounted: Any) -> Any:
    return Starlette(
        routes=[Mount("/admin", mounted), *ROUTES], middleware=[Middleware(GREENROOM, session=sessions)]
    )


def fastapi_shop(sessions: Session, mounted: Any) -> Any:
    app = FastAPI()
    app.add_middleware(GREENROOM, session=sessions)
    app.mount("/admin", mounted)

    @app.get("/add")
    def add(session: SessionDep) -> None:
        session.update(SHOP)

    @app.get("/show")
    def show(session: SessionDep) -> Any:
        return dict(session)

    @app.get("/write")
    def write(session: SessionDep) -> Any:
        session["token"] = session.get("token", 0) + 1
        return dict(session)

    return app


def litestar_shop(sessions: Session, mounted: Any) -> Any:
    @litestar.get("/add")
    async def add(request: litestar.Request[Any, Any, Any]) -> None:
        request.set_session(SHOP)

    @litestar.get("/show")
    async def show(request: litestar.Request[Any, Any, Any]) -> Any:
        return dict(request.session)

    @litestar.get("/write")
    async def write(request: litestar.Request[Any, Any, Any]) -> Any:
        request.session["token"] = request.session.get("token", 0) + 1
        return dict(request.session)

    async def below(scope: Any, receive: Any, send: Any) -> None:
        scope["path"] = scope["path"].rstrip("/")  # Litestar ends the paths below a mount with a slash
        await mounted(scope, receive, send)

    mount = ASGIRouteHandler("/admin", is_mount=True, copy_scope=False)(below)
    return litestar.Litestar([mount, add, show, write], plugins=[SessionPlugin(sessions)])


SHOPS: dict[str, Callable[[Session, Any], Any]] = {
    "starlette": starlette_shop,
    "fastapi": fastapi_shop,
    "litestar": litestar_shop,
}


@pytest.mark.parametrize("mounted", MOUNTED)
@pytest.mark.parametrize("shop", SHOPS)
def test_two_sessions_stay_apart(shop: str, mounted: str) -> None:
    sessions = shop_sessions()

    async def story(client: httpx.AsyncClient) -> None:
        await client.get("/add")
        expected: dict[str, Any] = {}
        for page in PAGES:
            response = await client.get(f"/admin/{page}")
            assert response.status_code == 200
            if page == "write":
                expected = {"token": expected.get("token", 0) + 1}
            if page == "wipe":
                expected = {}
            else:
                assert response.json() == expected
            assert await json(client, "/show") == SHOP
        assert await json(client, "/write") == {**SHOP, "token": 1}
        assert await json(client, "/admin/show") == {"token": 1}
        assert sessions.statistics().creates == 1
        assert sessions.statistics().patches == 1

    told(SHOPS[shop](sessions, MOUNTED[mounted]()), story)


@pytest.mark.parametrize("mounted", MOUNTED)
@pytest.mark.parametrize("shop", SHOPS)
def test_a_visitor_without_a_session_gets_only_the_one_that_is_written(shop: str, mounted: str) -> None:
    sessions = shop_sessions()

    async def story(client: httpx.AsyncClient) -> None:
        await client.get("/admin/show")
        assert not client.cookies
        await client.get("/admin/write")
        assert {cookie.name.removeprefix("__Host-") for cookie in client.cookies.jar} == {"admin"}
        assert await json(client, "/show") == {}
        assert sessions.statistics().creates == 0

    told(SHOPS[shop](sessions, MOUNTED[mounted]()), story)


# --- sqladmin --------------------------------------------------------------------------------------------


class Gatekeeper(AuthenticationBackend):
    """As sqladmin's manual has it: the token stands in the session of its own middleware."""

    async def login(self, request: Request) -> bool:
        form = await request.form()
        request.session.update({"token": str(form["username"])})
        return True

    async def logout(self, request: Request) -> bool:
        request.session.clear()
        return True

    async def authenticate(self, request: Request) -> bool:
        return "token" in request.session


@pytest.mark.parametrize("shop", ["starlette", "fastapi"])
def test_sqladmin_keeps_its_token_and_the_shop_its_cart(shop: str) -> None:
    sessions = shop_sessions()
    app = SHOPS[shop](sessions, Starlette())
    app.routes[:] = [route for route in app.routes if getattr(route, "path", "") != "/admin"]
    engine = create_engine("sqlite://")
    Admin(app, engine, authentication_backend=Gatekeeper(SECRET))

    async def story(client: httpx.AsyncClient) -> None:
        await client.get("/add")
        signed = client.cookies[sessions.cookie.name]
        assert (await client.get("/admin/")).status_code == 302, "nobody is logged in there"
        assert await json(client, "/show") == SHOP
        response = await client.post("/admin/login", data={"username": "root", "password": "x"})
        assert response.status_code == 302
        assert (await client.get("/admin/", headers={"cookie": cookies(client)})).status_code == 200
        assert await json(client, "/show") == SHOP
        await client.get("/admin/logout")
        assert await json(client, "/show") == SHOP
        assert client.cookies[sessions.cookie.name] == signed
        session_id = sessions.signer.verify(signed.encode()) or ""
        record = await sessions.store.get(session_id)
        assert record is not None
        assert record.data == SHOP

    told(app, story)
    engine.dispose()


def cookies(client: httpx.AsyncClient) -> str:
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)


# --- the same session twice ------------------------------------------------------------------------------


def added_twice(sessions: Session) -> Any:
    app = Starlette(routes=[Route("/login", login), Route("/who", who)])
    app.add_middleware(GREENROOM, session=sessions)
    app.add_middleware(GREENROOM, session=sessions)
    return app


def on_the_app_and_on_a_mount(sessions: Session) -> Any:
    middleware = [Middleware(GREENROOM, session=sessions)]
    below = Starlette(routes=[Route("/login", login), Route("/who", who)], middleware=middleware)
    return Starlette(routes=[Mount("/", below)], middleware=middleware)


def around_another(sessions: Session) -> Any:
    """With the middleware of another `Session` between the two."""
    below = Starlette(
        routes=[Route("/login", login), Route("/who", who)],
        middleware=[Middleware(GREENROOM, session=admin_sessions()), Middleware(GREENROOM, session=sessions)],
    )
    return Starlette(routes=[Mount("/", below)], middleware=[Middleware(GREENROOM, session=sessions)])


def in_quart(sessions: Session) -> Any:
    app = quart.Quart(__name__)
    GreenroomSessions(sessions).init_app(app)
    current: Any = quart.session

    @app.get("/login")
    async def login() -> str:
        current.greenroom.login("alice", SHOP)
        return ""

    @app.get("/who")
    async def who() -> Any:
        return [current.greenroom.user_id, dict(current)]

    return Starlette(routes=[Mount("/", app)], middleware=[Middleware(GREENROOM, session=sessions)])


async def login(request: Request) -> Response:
    request.session.greenroom.login("alice", SHOP)  # type: ignore[attr-defined]  # Starlette calls it a dict
    return Response()


async def who(request: Request) -> Response:
    session: Any = request.session
    return JSONResponse([session.greenroom.user_id, session])


@pytest.mark.parametrize("twice", [added_twice, on_the_app_and_on_a_mount, around_another, in_quart])
def test_the_same_session_twice_is_one(twice: Callable[[Session], Any]) -> None:
    sessions = shop_sessions()

    async def story(client: httpx.AsyncClient) -> None:
        response = await client.get("/login")
        assert len(response.headers.get_list("set-cookie")) == 1
        assert await json(client, "/who") == ["alice", SHOP]
        assert sessions.statistics().creates == 1
        assert sessions.statistics().loads == 1

    told(twice(sessions), story)


def test_the_inner_one_loads_what_the_outer_one_did_not() -> None:
    sessions = shop_sessions()
    store: Any = sessions.store
    below = Starlette(routes=[Route("/who", who)], middleware=[Middleware(GREENROOM, session=sessions)])
    app = Starlette(
        routes=[Route("/login", login_later), Mount("/", below)],
        middleware=[Middleware(GREENROOM, session=sessions, autoload=False)],
    )

    async def story(client: httpx.AsyncClient) -> None:
        await client.get("/login")
        assert await json(client, "/who") == ["alice", SHOP]
        store.fail("get", times=1)
        assert (await client.get("/who")).status_code == 503

    told(app, story)


async def login_later(request: Request) -> Response:
    await request.session.greenroom.load()  # type: ignore[attr-defined]  # as above
    return await login(request)


# --- the scope itself ------------------------------------------------------------------------------------


def test_what_stood_in_the_scope_is_put_back() -> None:
    seen: list[Any] = []

    async def inner(scope: Any, _receive: Any, send: Any) -> None:
        seen.append(scope["session"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    class Outside:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            theirs = scope["session"] = {"theirs": 1}
            await SessionMiddleware(inner, session=shop_sessions())(scope, receive, send)
            assert scope["session"] is theirs
            assert "greenroom.visits" not in scope

    async def story(client: httpx.AsyncClient) -> None:
        assert (await client.get("/")).status_code == 200

    told(Outside(), story)
    assert dict(seen[0]) == {}


def test_dependencies_below_a_mount_are_of_one_session() -> None:
    """Not the data of the session below under the user of the one above."""
    sessions = shop_sessions()
    below = FastAPI()
    below.add_middleware(CookieSessions, secret_key=SECRET, session_cookie="admin")

    @below.get("/mixed")
    def mixed(request: Request, session: SessionDep, user_id: UserIdDep) -> Any:
        request.session["admin"] = 1
        return [user_id, dict(session)]

    app = FastAPI()
    app.add_middleware(GREENROOM, session=sessions)
    app.mount("/below", below)

    @app.get("/login")
    def login(session: SessionDep) -> None:
        session.greenroom.login("alice", SHOP)

    async def story(client: httpx.AsyncClient) -> None:
        await client.get("/login")
        for _ in range(2):
            assert await json(client, "/below/mixed") == ["alice", SHOP]

    told(app, story)


def test_outer_sessions_are_reached_below_a_mount_by_their_name() -> None:
    outer, inner = shop_sessions(), admin_sessions()

    async def both(request: Request) -> Response:
        outer.of(request)["outer"] = inner.of(request)["inner"] = 1
        assert request.session is inner.of(request)
        return JSONResponse([outer.of(request), inner.of(request)])

    below = Starlette(routes=[Route("/both", both)], middleware=[Middleware(GREENROOM, session=inner)])

    async def story(client: httpx.AsyncClient) -> None:
        assert await json(client, "/admin/both") == [{"outer": 1}, {"inner": 1}]
        assert len(client.cookies) == 2
        assert await json(client, "/show") == {"outer": 1}

    told(starlette_shop(outer, below), story)


def test_a_session_given_twice_hides_none_that_stands_between() -> None:
    shop, admin = shop_sessions(), admin_sessions()

    async def both(request: Request) -> Response:
        assert request.session is shop.of(request)
        shop.of(request)["cart"] = admin.of(request)["token"] = 1
        return JSONResponse([shop.of(request), admin.of(request)])

    app: Any = Starlette(routes=[Route("/both", both), *ROUTES])
    for each in (shop, admin, shop):
        app = SessionMiddleware(app, session=each)

    async def story(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            assert await json(client, "/both") == [{"cart": 1}, {"token": 1}]
        assert len(client.cookies) == 2
        assert await json(client, "/show") == {"cart": 1}

    told(app, story)


# --- Litestar, which replaces what stands there ----------------------------------------------------------


def test_litestars_clear_and_set_is_another_session() -> None:
    sessions = shop_sessions()

    @litestar.get("/login")
    async def login(request: litestar.Request[Any, Any, Any]) -> None:
        sessions.login(request, "alice", SHOP)

    @litestar.get("/bye")
    async def bye(request: litestar.Request[Any, Any, Any]) -> None:
        request.clear_session()
        request.set_session({"flash": "bye"})

    @litestar.get("/show")
    async def show(request: litestar.Request[Any, Any, Any]) -> list[Any]:
        return [sessions.of(request).greenroom.user_id, dict(request.session)]

    app = litestar.Litestar([login, bye, show], plugins=[SessionPlugin(sessions)])

    async def story(client: httpx.AsyncClient) -> None:
        await client.get("/login")
        before = client.cookies[sessions.cookie.name]
        assert await json(client, "/show") == ["alice", SHOP]
        await client.get("/bye")
        assert client.cookies[sessions.cookie.name] != before
        assert await json(client, "/show") == [None, {"flash": "bye"}]
        client.cookies.clear()
        client.cookies.set(sessions.cookie.name, before, domain="app.test")
        assert await json(client, "/show") == [None, {}]

    told(app, story)
