"""aiohttp-session over GreenroomStorage, in real requests to a real server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import aiohttp_session
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp_session import get_session, new_session

from greenroom import MemoryStore, StoreFullError
from greenroom.integrations.aiohttp import GreenroomStorage
from greenroom.testing import FaultyStore
from greenroom.web import Session, SessionOverError

STORE = web.AppKey("store", FaultyStore)
SENT = web.AppKey("sent", asyncio.Event)
TASKS = web.AppKey("tasks", list[asyncio.Task[None]])


async def home(request: web.Request) -> web.Response:
    return web.Response(text="welcome")


async def cart(request: web.Request) -> web.Response:
    return web.json_response(dict(await get_session(request)))


async def add(request: web.Request) -> web.Response:
    session = await get_session(request)
    cart = session.setdefault("cart", {})
    sku = request.match_info["sku"]
    cart[sku] = cart.get(sku, 0) + 1
    return web.json_response(cart)


async def login(request: web.Request) -> web.Response:
    session: Any = await get_session(request)
    session.greenroom.login(request.match_info["user"], keep=True)
    raise web.HTTPSeeOther("/account")


async def account(request: web.Request) -> web.Response:
    session: Any = await get_session(request)
    if session.greenroom.user_id is None:
        raise web.HTTPUnauthorized
    devices = await session.greenroom.devices()
    return web.json_response({"user": session.greenroom.user_id, "devices": len(devices)})


async def logout(request: web.Request) -> web.Response:
    (await get_session(request)).invalidate()
    return web.Response(text="bye")


async def fresh(request: web.Request) -> web.Response:
    """Log in the way aiohttp-session's manual has it."""
    session = await new_session(request)
    session["user_id"] = request.match_info["user"]
    return web.Response()


async def enter(request: web.Request) -> web.Response:
    (await get_session(request))["user_id"] = request.match_info["user"]
    return web.Response()


async def afresh(request: web.Request) -> web.Response:
    """Log in with what the session held before, copied by hand."""
    before = dict(await get_session(request))
    session = await new_session(request)
    session.update(before, user_id=request.match_info["user"])
    return web.Response()


async def leave(request: web.Request) -> web.Response:
    session = await get_session(request)
    del session["user_id"]
    return web.Response()


async def fails(request: web.Request) -> web.Response:
    (await get_session(request))["half"] = "done"
    if "politely" in request.query:
        raise web.HTTPBadGateway
    raise RuntimeError("in the middle")


async def halfway(request: web.Request) -> web.Response:
    session: Any = await get_session(request)
    session.greenroom.login("alice", keep=True)
    await session.greenroom.save()
    request.app[STORE].fail("patch", times=1)
    session["half"] = "done"
    return web.Response()


async def later(request: web.Request) -> web.Response:
    session = await get_session(request)

    async def change() -> None:
        await request.app[SENT].wait()
        session["later"] = 1

    request.app[TASKS].append(asyncio.create_task(change()))
    return web.Response()


async def attributes(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.json_response([session.new, session.identity is None, session.max_age, repr(session)])


async def max_age(request: web.Request) -> web.Response:
    (await get_session(request)).max_age = 5
    return web.Response()


async def socket(request: web.Request) -> web.StreamResponse:
    session: Any = await get_session(request)
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        session["seen"] = message.data
        await session.greenroom.save()
        await socket.send_str("saved")
    return socket


ROUTES = [
    web.get("/", home),
    web.get("/cart", cart),
    web.post("/cart/{sku}", add),
    web.post("/login/{user}", login),
    web.get("/account", account),
    web.post("/logout", logout),
    web.post("/fresh/{user}", fresh),
    web.post("/leave", leave),
    web.post("/enter/{user}", enter),
    web.post("/afresh/{user}", afresh),
    web.post("/fails", fails),
    web.post("/halfway", halfway),
    web.post("/later", later),
    web.get("/attributes", attributes),
    web.post("/max-age", max_age),
    web.get("/socket", socket),
]


class Stage:
    """A server with a store that can fail, and browsers."""

    def __init__(self, server: TestServer, sessions: Session, store: FaultyStore) -> None:
        self.server, self.sessions, self.store = server, sessions, store
        self.browser = TestClient(server)

    async def json(self, path: str) -> Any:
        return await (await self.browser.get(path)).json()

    @property
    def cookie(self) -> str | None:
        return next((each.value for each in self.browser.session.cookie_jar), None)

    def with_cookie(self, cookie: str | None) -> TestClient[Any, Any]:
        return TestClient(self.server, cookies={"session": cookie or ""})


def on_stage(
    test: Callable[[Stage], Awaitable[None]],
    *,
    user_key: str | None = None,
    keep: Any = False,
    **options: Any,
) -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        sessions = Session(secret="a secret for tests only, long enough", store=store, dev=True, **options)
        app = web.Application()
        aiohttp_session.setup(app, GreenroomStorage(sessions, user_key=user_key, keep=keep))
        app[STORE], app[SENT], app[TASKS] = store, asyncio.Event(), []
        app.add_routes(ROUTES)
        async with TestServer(app) as server:
            stage = Stage(server, sessions, store)
            async with stage.browser:
                await test(stage)

    asyncio.run(main())


def test_a_look_around_costs_nothing() -> None:
    async def test(s: Stage) -> None:
        response = await s.browser.get("/")
        assert "Set-Cookie" not in response.headers
        assert "Vary" not in response.headers
        assert not s.store.calls

    on_stage(test)


def test_nested_changes_count_and_reading_writes_nothing() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        await s.browser.post("/cart/mug")
        response = await s.browser.get("/cart")
        assert await response.json() == {"cart": {"mug": 2}}
        assert response.headers["Vary"] == "Cookie"
        assert s.store.writes == 2

    on_stage(test)


def test_concurrent_requests_all_count() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        await asyncio.gather(*(s.browser.post(f"/cart/sku-{n}") for n in range(20)))
        assert len((await s.json("/cart"))["cart"]) == 21

    on_stage(test)


def test_a_login_gets_a_new_id_and_its_redirect_reads_it() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        planted = s.cookie
        response = await s.browser.post("/login/alice")
        assert await response.json() == {"user": "alice", "devices": 1}
        assert s.cookie != planted
        async with s.with_cookie(planted) as other:
            assert (await other.get("/account")).status == 401

    on_stage(test)


def test_invalidate_deletes() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/login/alice")
        assert "Max-Age=0" in (await s.browser.post("/logout")).headers["Set-Cookie"]
        assert s.store.calls["delete"] == 1
        assert (await s.browser.get("/account")).status == 401

    on_stage(test)


def test_a_new_session_takes_the_place_of_the_old_one() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        planted = s.cookie
        await s.browser.post("/fresh/alice")
        assert s.cookie != planted
        assert await s.json("/cart") == {"user_id": "alice"}
        async with s.with_cookie(planted) as other:
            assert await (await other.get("/cart")).json() == {}

    on_stage(test)


def test_the_key_of_the_user_makes_logins_and_logouts() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/fresh/alice")
        first = s.cookie
        assert await s.json("/account") == {"user": "alice", "devices": 1}
        await s.browser.post("/fresh/bob")
        assert await s.json("/account") == {"user": "bob", "devices": 1}
        assert await s.store.inner.list_by_user("alice") == []
        second = s.cookie
        await s.browser.post("/cart/mug")
        assert s.cookie == second != first
        await s.browser.post("/leave")
        assert s.cookie != second
        assert (await s.browser.get("/account")).status == 401
        assert await s.json("/cart") == {"cart": {"mug": 1}}

    on_stage(test, user_key="user_id")


@pytest.mark.parametrize(("keep", "survives"), [(False, {}), (("cart",), {"cart": {"mug": 1}})])
def test_a_login_by_the_key_keeps_what_it_names(keep: Any, survives: Any) -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        planted = s.cookie
        await s.browser.post("/enter/alice")
        assert s.cookie != planted
        assert await s.json("/account") == {"user": "alice", "devices": 1}
        assert await s.json("/cart") == {"user_id": "alice", **survives}
        await s.browser.post("/enter/bob")
        assert await s.json("/cart") == {"user_id": "bob"}

    on_stage(test, user_key="user_id", keep=keep)


def test_what_a_new_session_is_given_stays_whatever_was_there_before() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        await s.browser.post("/afresh/alice")
        assert await s.json("/cart") == {"user_id": "alice", "cart": {"mug": 1}}

    on_stage(test, user_key="user_id")


def test_a_slow_logout_by_the_key_ends_a_session_with_another_id() -> None:
    """The session got its new id meanwhile."""

    async def test(s: Stage) -> None:
        await s.browser.post("/fresh/alice")
        session_id = s.sessions.signer.verify((s.cookie or "").encode()) or ""
        gate = s.store.hold("patch")

        async def faster() -> None:
            await gate.reached()
            await s.store.inner.rotate(session_id)
            gate.open()

        response, _ = await asyncio.gather(s.browser.post("/leave"), faster())
        assert response.status == 200
        assert await s.store.inner.list_by_user("alice") == []

    on_stage(test, user_key="user_id")


def test_a_login_by_other_means_survives_the_key_of_the_user() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/login/alice")
        await s.browser.post("/cart/mug")
        assert (await s.json("/account"))["user"] == "alice"

    on_stage(test, user_key="user_id")


def test_a_handler_that_fails_has_done_nothing() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        assert (await s.browser.post("/fails")).status == 500
        assert (await s.browser.post("/fails?politely=1")).status == 502
        assert await s.json("/cart") == {"cart": {"mug": 1}}

    on_stage(test)


@pytest.mark.parametrize("operation", ["get", "patch"])
def test_a_store_that_is_away_is_a_503(operation: str) -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        s.store.fail(operation)
        response = await s.browser.post("/cart/mug")
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        assert "Set-Cookie" not in response.headers
        s.store.heal()
        assert await s.json("/cart") == {"cart": {"mug": 1}}

    on_stage(test)


def test_a_login_that_was_saved_before_the_failure_reaches_the_browser() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        response = await s.browser.post("/halfway")
        assert (response.status, response.headers["Vary"]) == (503, "Cookie")
        assert await s.json("/account") == {"user": "alice", "devices": 1}
        assert await s.json("/cart") == {"cart": {"mug": 1}}

    on_stage(test)


def test_a_store_that_is_full_says_to_come_back_later() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        s.store.fail("patch", StoreFullError("full"))
        response = await s.browser.post("/cart/mug")
        assert (response.status, response.headers["Retry-After"]) == (503, "60")

    on_stage(test)


def test_reads_go_on_anonymously_where_that_is_wanted() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        s.store.fail("get")
        assert await s.json("/cart") == {}

    on_stage(test, on_unavailable="anonymous")


def test_a_change_after_the_response_is_an_error() -> None:
    """It is not silently dropped."""

    async def test(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        assert (await s.browser.post("/later")).status == 200
        app = s.server.app
        app[SENT].set()
        (task,) = app[TASKS]
        with pytest.raises(SessionOverError):
            await task
        assert await s.json("/cart") == {"cart": {"mug": 1}}

    on_stage(test)


def test_an_app_and_one_below_may_both_have_the_middleware() -> None:
    async def main() -> None:
        storage = GreenroomStorage(Session(secret="a secret for tests only, long enough", dev=True))
        app, below = web.Application(), web.Application()
        for each in (app, below):
            aiohttp_session.setup(each, storage)
        below.add_routes([web.post("/cart/{sku}", add), web.get("/cart", cart)])
        app.add_subapp("/below", below)
        async with TestServer(app) as server, TestClient(server) as visitor:
            assert (await visitor.post("/below/cart/mug")).status == 200
            assert await (await visitor.get("/below/cart")).json() == {"cart": {"mug": 1}}

    asyncio.run(main())


def test_a_websocket_saves_when_it_says_so() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        async with s.browser.ws_connect("/socket") as socket:
            await socket.send_str("sea")
            assert await socket.receive_str() == "saved"
        assert await s.json("/cart") == {"cart": {"mug": 1}, "seen": "sea"}

    on_stage(test)


def test_a_session_that_could_not_send_its_cookie_is_never_made() -> None:
    async def test(s: Stage) -> None:
        async with s.browser.ws_connect("/socket") as socket:
            await socket.send_str("sea")
            assert (await socket.receive()).type is not aiohttp.WSMsgType.TEXT
        assert s.store.calls["create"] == 0

    on_stage(test)


def test_a_slow_request_undoes_no_logout() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/login/alice")
        async with s.with_cookie(s.cookie) as late:
            gate = s.store.hold("patch")
            slow = asyncio.create_task(late.post("/cart/mug"))
            await gate.reached()
            await s.browser.post("/logout")
            gate.open()
            assert "Set-Cookie" not in (await slow).headers
            assert (await late.get("/account")).status == 401

    on_stage(test)


def test_what_aiohttp_session_shows_of_a_session() -> None:
    async def test(s: Stage) -> None:
        new, unnamed, age, shown = await s.json("/attributes")
        assert (new, unnamed, age) == (True, True, None)
        await s.browser.post("/cart/mug")
        new, unnamed, age, shown = await s.json("/attributes")
        assert (new, unnamed, age) == (False, False, None)
        assert "mug" not in shown
        assert (await s.browser.post("/max-age")).status == 500

    on_stage(test)


def test_a_made_up_cookie_is_nobody() -> None:
    async def test(s: Stage) -> None:
        async with s.with_cookie("gr-0000-" + "A" * 32) as stranger:
            assert await (await stranger.get("/cart")).json() == {}
        assert not s.store.calls

    on_stage(test)
