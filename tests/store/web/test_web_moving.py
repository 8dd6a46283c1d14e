"""Moving house: a visitor with only a cookie of Starlette's own sessions keeps data and login."""

import logging
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from greenroom import BaseSessionStore, ClusterStore, UsageError
from greenroom.fields import datetime_of, micros_of
from greenroom.integrations.moving import OldSession, StarletteCookies
from greenroom.testing import Library
from greenroom.web import Session, SessionMiddleware
from tests.store.client.fake_cluster import FakeCluster
from tests.store.web.moving_stage import (
    DAY,
    OLD_COOKIE,
    OLD_DATA,
    OLD_SECRET,
    Moving,
    Readable,
    moved_to,
    names,
    old_app,
    user_of,
    visitor_of,
)
from tests.store.web.test_web_failures import FiveMethodStore
from tests.store.web.web_handlers import HANDLERS
from tests.store.web.web_stage import SECRET, Socket, Stage, browser, tell, together


def test_a_visitor_keeps_data_and_login(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            answer = await visitor.get("/show")
            assert answer.json() == OLD_DATA
            assert answer.headers["vary"] == "Cookie"
            assert names(visitor) == [stage.sessions.cookie.name]
            assert (await visitor.get("/who")).json() == "alice"
            assert stage.count("moved") == stage.count("loads") == 1
            assert stage.count("unknown_ids") == stage.count("refused_cookies") == 0
            (device,) = await stage.store.inner.list_by_user("alice")
            assert device.label.startswith("python-httpx")

    tell(library, story)


@pytest.mark.parametrize("old_name", ["session", "__Host-session", "shop"])
def test_the_old_cookie_goes_whatever_its_name(library: Library, old_name: str) -> None:
    async def story() -> None:
        stage = Moving(moves_from=StarletteCookies(OLD_SECRET, old_name, user=user_of))
        app = stage.app(*HANDLERS)
        before = await visitor_of(old_app(session_cookie=old_name))
        async with moved_to(app, before) as visitor:
            assert (await visitor.get("/who")).json() == "alice"
            assert names(visitor) == ["__Host-session"]
            assert (await visitor.get("/who")).json() == "alice"

    tell(library, story)


def test_two_first_visits_at_once_move_one_session_and_lose_nothing(library: Library) -> None:
    async def set_one(request: Request) -> Response:
        request.session["basket"] = {**request.session.get("basket", {}), request.query_params["sku"]: 1}
        return JSONResponse({})

    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS, set_one)
        before = await visitor_of(old_app())
        late, early = moved_to(app, before), moved_to(app, before)
        gate = stage.store.hold("create")

        async def overtakes() -> None:
            await gate.reached()  # by now the other has read the old session
            await early.get("/set_one?sku=pan")
            gate.open()

        await together(library, lambda: late.get("/set_one?sku=mug"), overtakes)
        assert stage.session_id(late) == stage.session_id(early)
        assert await stage.data(late) == {**OLD_DATA, "basket": {"mug": 1, "pan": 1}}
        assert len(await stage.store.inner.list_by_user("alice")) == 1
        assert stage.count("moved") == 1

    tell(library, story)


@pytest.mark.parametrize("operation", ["get", "create"])
@pytest.mark.parametrize("applied", [False, True])
def test_a_store_that_fails_leaves_the_old_session(library: Library, operation: str, applied: bool) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            stage.store.fail(operation, applied=applied)
            answer = await visitor.get("/who")
            assert answer.status_code == 503
            assert "set-cookie" not in answer.headers
            assert names(visitor) == ["session"]
            stage.store.heal()
            assert (await visitor.get("/who")).json() == "alice"
            assert names(visitor) == ["__Host-session"]

    tell(library, story)


def test_a_note_that_fails_leaves_the_old_session(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            gate = stage.store.hold("create")

            async def fails_second() -> None:
                await gate.reached()
                gate.open()
                second = stage.store.hold("create")
                await second.reached()
                stage.store.fail("create")
                second.open()

            answer, _ = await together(library, lambda: visitor.get("/who"), fails_second)
            assert answer.status_code == 503
            assert names(visitor) == ["session"]
            stage.store.heal()
            assert (await visitor.get("/who")).json() == "alice"

    tell(library, story)


def test_without_the_store_the_app_goes_on_for_reads_and_nothing_is_lost(library: Library) -> None:
    async def story() -> None:
        stage = Moving(on_unavailable="anonymous")
        app = stage.app(*HANDLERS)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            stage.store.fail("get")
            assert (await visitor.get("/who")).json() is None
            assert names(visitor) == ["session"]
            stage.store.heal()
            assert (await visitor.get("/who")).json() == "alice"

    tell(library, story)


def test_a_handler_that_fails_leaves_the_old_session(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            with pytest.raises(RuntimeError, match="the handler failed"):
                await visitor.get("/fail")
            assert names(visitor) == ["session"]
            assert (await visitor.get("/show")).json() == OLD_DATA
            assert (await visitor.get("/who")).json() == "alice"
            assert len(await stage.store.inner.list_by_user("alice")) == 1

    tell(library, story)


def test_a_response_that_was_lost_loses_no_login(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        before = await visitor_of(old_app())
        async with moved_to(app, before) as never_arrives:
            await never_arrives.get("/add")
        async with moved_to(app, before) as visitor:
            await visitor.get("/add")
            assert (await visitor.get("/show")).json()["cart"] == {"items": ["mug", "mug"]}
            assert stage.count("moved") == 1
            assert len(await stage.store.inner.list_by_user("alice")) == 1

    tell(library, story)


def test_lifetimes_count_from_when_the_old_session_began(library: Library) -> None:
    async def story() -> None:
        reader = Readable(None, user=user_of)
        stage = Stage(moves_from=reader, absolute_seconds=DAY, idle_seconds=DAY / 2)
        async with browser(stage.app(*HANDLERS)) as visitor:
            hour_ago = datetime_of(micros_of(stage.clock(), "now") - 3_600_000_000 * 25)
            reader.old = OldSession(data={"user_id": "alice"}, created=hour_ago)
            assert (await visitor.get("/who", headers=OLD_COOKIE)).json() is None
            created = datetime_of(micros_of(stage.clock(), "now") - 3_600_000_000 * 20)
            reader.old = OldSession(data={"user_id": "alice"}, created=created)
            assert (await visitor.get("/who", headers=OLD_COOKIE)).json() == "alice"
            (device,) = await stage.store.inner.list_by_user("alice")
            assert device.created == created
            stage.clock.advance(4.1 * 3600)
            assert (await visitor.get("/who")).json() is None

    tell(library, story)


def test_a_socket_moves_the_session_before_it_is_accepted(library: Library) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "headers": [], "text": scope["session"]["user_id"]})
        await receive()

    async def story() -> None:
        stage = Moving()
        before = await visitor_of(old_app())
        socket = Socket(cookie=f"session={before.cookies['session']}")
        await SessionMiddleware(app, session=stage.sessions)(socket.scope, socket.receive, socket.send)
        cookies = [value for name, value in socket.sent[0]["headers"] if name == b"set-cookie"]
        assert socket.sent[0]["text"] == "alice"
        assert [each.partition(b"=")[0] for each in cookies] == [b"__Host-session", b"session"]

    tell(library, story)


def test_a_socket_whose_server_drops_the_cookie_ends_no_old_session(library: Library) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["session"]["seen"] = True
        await send({"type": "websocket.accept"})
        await receive()

    async def story() -> None:
        reader = Readable(OldSession(data=dict(OLD_DATA)), user=user_of)
        stage = Stage(moves_from=reader)
        socket = Socket(cookie=OLD_COOKIE["cookie"])
        socket.scope["asgi"] = {"version": "3.0", "spec_version": "2.0"}
        await SessionMiddleware(app, session=stage.sessions)(socket.scope, socket.receive, socket.send)
        assert not reader.ended
        async with browser(stage.app(*HANDLERS)) as visitor:
            assert (await visitor.get("/show", headers=OLD_COOKIE)).json() == {**OLD_DATA, "seen": True}
            assert reader.ended == ["of-old"]
            assert stage.count("moved") == 1

    tell(library, story)


def test_one_that_is_loaded_too_late_for_a_cookie_is_found_again(library: Library) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        session = scope["session"]
        await session.greenroom.load()
        session["seen"] = True
        await receive()

    async def story() -> None:
        stage = Moving()
        before = await visitor_of(old_app())
        socket = Socket(cookie=f"session={before.cookies['session']}")
        middleware = SessionMiddleware(app, session=stage.sessions, autoload=False)
        await middleware(socket.scope, socket.receive, socket.send)
        assert "headers" not in socket.sent[0] or not socket.sent[0]["headers"]
        async with moved_to(stage.app(*HANDLERS), before) as visitor:
            assert (await visitor.get("/show")).json() == {**OLD_DATA, "seen": True}
            assert stage.count("moved") == 1

    tell(library, story)


def test_a_page_that_does_not_look_moves_nothing_without_autoload(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS, autoload=False)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            await visitor.get("/plain")
            assert not stage.store.calls
            assert names(visitor) == ["session"]

    tell(library, story)


def test_a_visitor_without_old_cookies_costs_nothing(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/show")
            assert not stage.store.calls
            await visitor.get("/add")
            stage.store.calls.clear()
            await visitor.get("/show")
            assert stage.store.calls == {"get": 1}

    tell(library, story)


def test_nothing_shown_holds_an_old_session() -> None:
    reader = StarletteCookies(OLD_SECRET)
    shown = repr(reader) + repr(OldSession(data={"token": "hidden"}, user_id="alice"))
    assert shown == "<StarletteCookies 'session'><OldSession>"
    for wrong in ({"moves_from": "starlette"}, {"moves_from": StarletteCookies}):
        with pytest.raises(UsageError, match="moves_from is the reader"):
            Stage(**wrong)


def test_no_log_line_holds_what_opens_a_session(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    secrets: list[str | None] = []

    async def story() -> None:
        stage = Moving()
        before = await visitor_of(old_app())
        async with moved_to(stage.app(*HANDLERS), before) as visitor:
            await visitor.get("/who")
            secrets.extend([stage.session_id(visitor), before.cookies["session"]])
            await visitor.get("/logout")

    with caplog.at_level(logging.DEBUG, "greenroom"):
        tell(library, story)
    logged = "\n".join(each.getMessage() for each in caplog.records if each.name.startswith("greenroom"))
    assert "moved here from the old sessions" in logged
    for secret in (*secrets, "alice", "dark"):
        assert secret
        assert secret not in logged


async def moves_and_logs_out(library: Library, store: BaseSessionStore) -> None:
    """Two first visits at once to an app over this store, with a change each, and then a logout."""

    async def set_one(request: Request) -> Response:
        request.session[request.query_params["sku"]] = 1
        return JSONResponse({})

    routes = [Route(f"/{each.__name__}", each) for each in (*HANDLERS, set_one)]
    app = Starlette(routes=routes)
    reader = StarletteCookies(OLD_SECRET, user=user_of)
    sessions = Session(secret=SECRET, store=store, moves_from=reader)
    app.add_middleware(SessionMiddleware, session=sessions)
    before = await visitor_of(old_app())
    async with moved_to(app, before) as one, moved_to(app, before) as two:
        await together(library, lambda: one.get("/set_one?sku=mug"), lambda: two.get("/set_one?sku=pan"))
        assert one.cookies["__Host-session"] == two.cookies["__Host-session"]
        assert (await one.get("/show")).json() == {**OLD_DATA, "mug": 1, "pan": 1}
        assert (await one.get("/who")).json() == "alice"
        assert sessions.statistics().moved == 1
        await one.get("/logout")
        assert (await two.get("/who")).json() is None
    async with moved_to(app, before) as thief:
        assert (await thief.get("/show")).json() == {}


def test_sessions_move_to_a_cluster(library: Library) -> None:
    async def story(address: str) -> None:
        async with ClusterStore(address) as store:
            await moves_and_logs_out(library, store)

    with FakeCluster(actors=2, shards=16) as cluster:
        tell(library, lambda: story(cluster.address))


def test_sessions_move_to_a_store_of_five_methods(library: Library) -> None:
    tell(library, lambda: moves_and_logs_out(library, FiveMethodStore()))
