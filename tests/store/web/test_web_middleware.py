"""What a request reads, writes and sends, in a Starlette app, under asyncio and trio."""

import json
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from greenroom import MemoryStore, UnavailableError, UsageError
from greenroom.testing.libraries import Library
from greenroom.web import RequestSession, Session, SessionMiddleware, SessionNotLoadedError
from tests.store.web.web_stage import SECRET, Stage, browser, session_of, tell


async def plain(_request: Request) -> Response:
    return PlainTextResponse("no session here")


async def show(request: Request) -> Response:
    return JSONResponse(request.session)


async def who(request: Request) -> Response:
    return JSONResponse(session_of(request).user_id)


async def add(request: Request) -> Response:
    """Change a list inside a dict: nothing that a dict of its own could notice."""
    request.session.setdefault("cart", {}).setdefault("items", []).append("mug")
    return RedirectResponse("/show", 303)


async def login(request: Request) -> Response:
    session_of(request).login(request.query_params.get("user", "alice"), {"since": "now"})
    return RedirectResponse("/who", 303)


async def logout(request: Request) -> Response:
    session_of(request).logout()
    return PlainTextResponse("bye")


async def regenerate(request: Request) -> Response:
    session_of(request).regenerate()
    return PlainTextResponse("new")


async def fail(request: Request) -> Response:
    request.session["half"] = "done"
    session_of(request).login("mallory")
    raise RuntimeError("the handler failed")


HANDLERS = (plain, show, who, add, login, logout, regenerate, fail)


def test_anonymous_visits_and_reads_write_nothing_and_set_no_cookie(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            for path in ("/plain", "/show", "/who"):
                response = await visitor.get(path)
                assert response.status_code == 200
                assert "set-cookie" not in response.headers
        assert not stage.store.calls

    tell(library, story)


def test_session_begins_with_the_first_thing_kept_and_a_redirect_reads_it(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            response = await visitor.get("/add")
            cookie = response.headers["set-cookie"]
            assert cookie.startswith("session=gr-")
            assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
            assert (await visitor.get("/show")).json() == {"cart": {"items": ["mug"]}}
            second = await visitor.get("/add", follow_redirects=True)
            assert second.json() == {"cart": {"items": ["mug", "mug"]}}
            assert "set-cookie" not in second.history[0].headers, "a known id is never sent again"
        assert stage.store.calls == {"create": 1, "get": 3, "patch": 1}

    tell(library, story)


def test_a_hundred_reads_write_nothing(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/add")
            writes = stage.store.writes
            for _ in range(50):
                await visitor.get("/show")
                await visitor.get("/plain")
        assert stage.store.writes == writes

    tell(library, story)


def test_vary_only_if_the_handler_looked(library: Library) -> None:
    async def varied(request: Request) -> Response:
        request.session.get("x")
        return PlainTextResponse("x", headers={"vary": "Accept"})

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS, varied)) as visitor:
            await visitor.get("/add")
            assert "vary" not in (await visitor.get("/plain")).headers
            assert (await visitor.get("/show")).headers["vary"] == "Cookie"
            assert (await visitor.get("/varied")).headers["vary"] == "Accept, Cookie"

    tell(library, story)


def test_login_is_one_rotate_with_user_and_data(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/add")
            before = stage.session_id(visitor)
            stage.store.calls.clear()
            response = await visitor.get("/login")
            assert "set-cookie" in response.headers
            assert stage.store.calls == {"get": 1, "rotate": 1}
            after = stage.session_id(visitor)
            assert before is not None
            assert after is not None
            assert after != before
            assert after[:8] == before[:8], "the new id keeps the place in the cluster"
            assert await stage.store.inner.get(before) is None
            assert (await visitor.get("/who")).json() == "alice"
            assert await stage.data(visitor) == {"cart": {"items": ["mug"]}, "since": "now"}

    tell(library, story)


def test_login_without_a_session_creates_one(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            assert stage.store.calls == {"create": 1}
            assert (await visitor.get("/who")).json() == "alice"

    tell(library, story)


def test_login_of_another_user_inherits_nothing(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            await visitor.get("/add")
            await visitor.get("/login?user=bob")
            assert (await visitor.get("/who")).json() == "bob"
            assert await stage.data(visitor) == {"since": "now"}

    tell(library, story)


def test_logout_deletes_and_clears_the_cookie(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            session_id = stage.session_id(visitor)
            assert session_id is not None
            response = await visitor.get("/logout")
            assert "Max-Age=0" in response.headers["set-cookie"]
            assert not visitor.cookies
            assert await stage.store.inner.get(session_id) is None
            assert (await visitor.get("/who")).json() is None
            assert "set-cookie" not in (await visitor.get("/logout")).headers, "there was nothing to end"

    tell(library, story)


@pytest.mark.parametrize("path", ["/logout", "/everywhere", "/bye"])
@pytest.mark.parametrize("second_user", ["alice", "bob", None])
def test_logout_ends_every_session_that_the_browser_sent(
    library: Library, path: str, second_user: str | None
) -> None:
    """Cookies of several paths or domains come at once; none of them may leave the browser logged in."""

    async def everywhere(request: Request) -> Response:
        session_of(request).logout_everywhere()
        return PlainTextResponse("bye")

    async def bye(request: Request) -> Response:
        session_of(request).logout()
        session_of(request).login("carol")
        return PlainTextResponse("welcome")

    async def story() -> None:
        stage = Stage()
        app = stage.app(*HANDLERS, everywhere, bye)
        name = stage.sessions.cookie.name
        async with browser(app) as first, browser(app) as second, browser(app) as tossed:
            await first.get("/login")
            await second.get("/add" if second_user is None else f"/login?user={second_user}")
            both = "; ".join(f"{name}={each.cookies[name]}" for each in (first, second))
            assert (await tossed.get("/who", headers={"cookie": both})).json() == "alice"
            tossed.cookies.clear()
            assert (await tossed.get(path, headers={"cookie": both})).status_code == 200
            assert await stage.data(first) is None
            assert await stage.data(second) is None
            tossed.cookies.clear()
            assert (await tossed.get("/who", headers={"cookie": both})).json() is None

    tell(library, story)


def test_logout_with_one_cookie_deletes_once(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            await visitor.get("/logout")
            assert stage.store.calls["delete"] == 1

    tell(library, story)


def test_session_begun_after_logout_in_the_same_request_is_another(library: Library) -> None:
    async def bye(request: Request) -> Response:
        session_of(request).logout()
        request.session["flash"] = "you are logged out"
        return PlainTextResponse("bye")

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS, bye)) as visitor:
            await visitor.get("/login")
            before = stage.session_id(visitor)
            await visitor.get("/bye")
            assert before is not None
            assert await stage.store.inner.get(before) is None
            assert stage.session_id(visitor) not in {None, before}
            assert await stage.data(visitor) == {"flash": "you are logged out"}
            assert (await visitor.get("/who")).json() is None

    tell(library, story)


def test_regenerate_keeps_all_but_the_id(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            before = stage.session_id(visitor)
            await visitor.get("/regenerate")
            assert stage.session_id(visitor) not in {None, before}
            assert (await visitor.get("/who")).json() == "alice"
            assert "set-cookie" not in (await visitor.get("/plain")).headers

    tell(library, story)


def test_a_handler_that_raises_has_saved_nothing(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS), raise_app_exceptions=False) as visitor:
            response = await visitor.get("/fail")
            assert response.status_code == 500
            assert "set-cookie" not in response.headers
            assert not stage.store.calls
            await visitor.get("/add")
            writes = stage.store.writes
            await visitor.get("/fail")
            assert stage.store.writes == writes
            assert (await visitor.get("/show")).json() == {"cart": {"items": ["mug"]}}

    tell(library, story)


def test_a_failing_handler_saves_nothing_where_its_framework_answers_first(library: Library) -> None:
    """Around a whole app, the middleware sees the framework's 500 before the exception."""

    async def kept(request: Request) -> Response:
        request.session["kept"] = 1
        await session_of(request).save()
        request.session["half"] = "done"
        raise RuntimeError("the handler failed")

    async def story() -> None:
        stage = Stage()
        routes = [Route(f"/{each.__name__}", each) for each in (fail, kept, show)]
        app = SessionMiddleware(Starlette(routes=routes), session=stage.sessions)
        async with browser(app, raise_app_exceptions=False) as visitor:
            response = await visitor.get("/fail")
            assert response.status_code == 500
            assert "set-cookie" not in response.headers
            assert not stage.store.calls
            assert (await visitor.get("/kept")).status_code == 500
            assert (await visitor.get("/show")).json() == {"kept": 1}

    tell(library, story)


def test_discard_is_for_handlers_of_exceptions(library: Library) -> None:
    async def refused(request: Request) -> Response:
        request.session["half"] = "done"
        session_of(request).discard()
        raise HTTPException(409)

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(refused)) as visitor:
            assert (await visitor.get("/refused")).status_code == 409
        assert not stage.store.calls

    tell(library, story)


def test_background_tasks_are_saved(library: Library) -> None:
    async def later(request: Request) -> Response:
        request.session["now"] = 1
        return PlainTextResponse("ok", background=BackgroundTask(request.session.update, later=2))

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(later, show)) as visitor:
            await visitor.get("/later")
            assert (await visitor.get("/show")).json() == {"now": 1, "later": 2}
        assert stage.store.calls["patch"] == 1

    tell(library, story)


def test_creating_a_session_after_the_response_started_is_the_callers_mistake(library: Library) -> None:
    async def late(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(request.session.update, late=1))

    async def later_login(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(session_of(request).login, "alice"))

    async def replaced(request: Request) -> Response:
        def replace() -> None:
            request.scope["session"] = {"late": 1}

        return PlainTextResponse("ok", background=BackgroundTask(replace))

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(late, later_login, replaced)) as visitor:
            for path in ("/late", "/later_login", "/replaced"):
                with pytest.raises(UsageError, match="the response has started"):
                    await visitor.get(path)
        assert not stage.store.calls

    tell(library, story)


def test_streaming_may_change_a_session_that_exists(library: Library) -> None:
    async def stream(request: Request) -> Response:
        async def parts() -> Any:
            for count in range(3):
                request.session["sent"] = count + 1
                yield b"x"

        return StreamingResponse(parts())

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(stream, add, show)) as visitor:
            await visitor.get("/add")
            assert (await visitor.get("/stream")).text == "xxx"
            assert (await visitor.get("/show")).json()["sent"] == 3

    tell(library, story)


def test_save_and_reload_in_between(library: Library) -> None:
    async def between(request: Request) -> Response:
        session = session_of(request)
        session["kept"] = 1
        assert session.modified
        assert await session.save()
        assert not session.modified
        session["dropped"] = 2
        await session.reload()
        assert session == {"kept": 1}
        return PlainTextResponse("ok")

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(between)) as visitor:
            response = await visitor.get("/between")
            assert "set-cookie" in response.headers
            assert stage.store.calls == {"create": 1, "get": 1}

    tell(library, story)


def test_what_stands_in_the_scope_is_what_counts(library: Library) -> None:
    """Frameworks put a plain dict there, or a Struct, or None, or a mark for empty."""

    class Basket(msgspec.Struct):
        items: list[str]

    class Empty:
        pass

    async def put(request: Request) -> Response:
        values: dict[str, Any] = {
            "dict": {"a": 1},
            "struct": Basket(["mug"]),
            "none": None,
            "empty": Empty,
            "number": 5,
        }
        request.scope["session"] = values[request.query_params["what"]]
        return PlainTextResponse("ok")

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(put, show)) as visitor:
            assert "set-cookie" in (await visitor.get("/put?what=dict")).headers
            assert (await visitor.get("/show")).json() == {"a": 1}
            await visitor.get("/put?what=struct")
            assert (await visitor.get("/show")).json() == {"items": ["mug"]}
            with pytest.raises(UsageError, match="a int stands where the session was"):
                await visitor.get("/put?what=number")
            for gone in ("none", "empty"):
                await visitor.get("/put?what=dict")
                response = await visitor.get(f"/put?what={gone}")
                assert "Max-Age=0" in response.headers["set-cookie"]
                assert (await visitor.get("/show")).json() == {}
                assert "set-cookie" not in (await visitor.get(f"/put?what={gone}")).headers

    tell(library, story)


def test_clear_ends_the_session_and_emptying_it_does_not(library: Library) -> None:
    async def clear(request: Request) -> Response:
        request.session.clear()
        return PlainTextResponse("ok")

    async def empty(request: Request) -> Response:
        for key in list(request.session):
            del request.session[key]
        return PlainTextResponse("ok")

    async def refill(request: Request) -> Response:
        request.session.clear()
        request.session["fresh"] = 1
        return PlainTextResponse("ok")

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS, clear, empty, refill)) as visitor:
            await visitor.get("/clear")
            assert not stage.store.calls
            await visitor.get("/login")
            await visitor.get("/empty")
            assert (await visitor.get("/who")).json() == "alice"
            await visitor.get("/refill")
            assert (await visitor.get("/show")).json() == {"fresh": 1}
            assert (await visitor.get("/who")).json() == "alice"
            assert "Max-Age=0" in (await visitor.get("/clear")).headers["set-cookie"]
            assert (await visitor.get("/who")).json() is None

    tell(library, story)


def test_skipped_paths_have_no_session(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        app = stage.app(*HANDLERS, skip=["/plain", "/who/"])
        async with browser(app) as visitor:
            await visitor.get("/add")
            stage.store.calls.clear()
            await visitor.get("/plain")
            assert not stage.store.calls
            with pytest.raises(AssertionError):
                await visitor.get("/who")
        by_rule = browser(stage.app(plain, skip=lambda scope: scope["path"] == "/plain"))
        await by_rule.get("/plain")
        assert not stage.store.calls

    tell(library, story)
    for wrong in ("/plain", ["plain"]):
        with pytest.raises(UsageError, match="skip"):
            SessionMiddleware(plain, session=Stage().sessions, skip=wrong)


def test_without_autoload_nothing_is_read_until_asked_for(library: Library) -> None:
    async def loaded(request: Request) -> Response:
        session = session_of(request)
        await session.load()
        await session.load()
        session["n"] = session.get("n", 0) + 1
        return JSONResponse(session)

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS, loaded, autoload=False)) as visitor:
            assert (await visitor.get("/loaded")).json() == {"n": 1}
            assert (await visitor.get("/loaded")).json() == {"n": 2}
            assert stage.store.calls == {"create": 1, "get": 1, "patch": 1}
            await visitor.get("/plain")
            assert stage.store.calls["get"] == 1
            for path in ("/show", "/who", "/add", "/login", "/logout"):
                with pytest.raises(SessionNotLoadedError, match=r"await session.load\(\)"):
                    await visitor.get(path)

    tell(library, story)


def test_plain_values_serve_everyone(library: Library) -> None:
    async def inspect(request: Request) -> Response:
        session = request.session
        assert isinstance(session, dict)
        assert type(session["cart"]) is dict
        assert json.loads(json.dumps(session)) == session
        assert msgspec.json.decode(msgspec.json.encode(session)) == session
        assert {**session} == session == dict(session) == session.copy() == session | {}
        assert type(session.copy()) is dict
        assert sorted(session) == ["cart", "n"]
        assert list(reversed(session)) == list(session)[::-1]
        assert "cart" in session
        assert session.pop("absent", None) is None
        assert session.pop("n") == 1
        session |= {"m": 2}
        assert session.popitem() == ("m", 2)
        assert [*session.keys()], [*session.values()] == (["cart"], [{"a": 1}])
        with pytest.raises(KeyError):
            session.pop("absent")
        return PlainTextResponse("ok")

    async def fill(request: Request) -> Response:
        request.session.update(cart={"a": 1}, n=1)
        return PlainTextResponse("ok")

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(fill, inspect, show)) as visitor:
            await visitor.get("/fill")
            await visitor.get("/inspect")
            assert (await visitor.get("/show")).json() == {"cart": {"a": 1}}

    tell(library, story)


def test_what_cannot_be_stored_is_named_and_saves_nothing(library: Library) -> None:
    async def odd(request: Request) -> Response:
        request.session["deep"] = {"one": object()}
        return PlainTextResponse("ok")

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(odd)) as visitor:
            with pytest.raises(UsageError, match=r"data\['deep'\]\['one'\] cannot be stored: a object"):
                await visitor.get("/odd")
        assert not stage.store.calls

    tell(library, story)


def test_starlettes_keywords_are_taken() -> None:
    """Migrating is one import: every keyword of Starlette's middleware means what it meant."""
    middleware = SessionMiddleware(
        plain,
        secret_key=SECRET,
        session_cookie="shop",
        max_age=3600,
        path="/shop",
        same_site="strict",
        https_only=True,
        domain="shop.example",
        store=MemoryStore(),
    )
    sessions = middleware.session
    assert sessions.idle_seconds == 3600
    header = sessions.cookie.header("x")
    assert header == (
        f"shop=x; Max-Age={400 * 86400}; Path=/shop; Domain=shop.example; HttpOnly; SameSite=Strict; Secure"
    )
    plain_http = SessionMiddleware(plain, SECRET, max_age=None, https_only=False, store=MemoryStore())
    assert plain_http.session.cookie.header("x") == "session=x; Path=/; HttpOnly; SameSite=Lax"
    with pytest.raises(UsageError, match="either session= or cookie_name"):
        SessionMiddleware(plain, session=sessions, session_cookie="other")
    with pytest.raises(TypeError, match="max_ages"):
        SessionMiddleware(plain, secret_key=SECRET, max_ages=5)


def test_an_app_written_for_starlettes_middleware_runs(library: Library) -> None:
    async def story() -> None:
        app = Starlette(routes=[Route("/add", add), Route("/show", show)])
        app.add_middleware(SessionMiddleware, secret_key=SECRET, max_age=600, store=MemoryStore())
        async with browser(app) as visitor:
            response = await visitor.get("/add", follow_redirects=True)
            assert response.json() == {"cart": {"items": ["mug"]}}

    tell(library, story)


def test_the_test_client_without_with_opens_a_loop_for_every_request(library: Library) -> None:
    app = Stage().app(*HANDLERS)
    client = TestClient(app, base_url="https://testserver", backend=library.name)  # type: ignore[arg-type]
    assert client.get("/add").json() == {"cart": {"items": ["mug"]}}
    assert client.get("/login").json() == "alice"
    assert client.get("/show").json() == {"cart": {"items": ["mug"]}, "since": "now"}
    client.get("/logout")
    assert client.get("/show").json() == {}


def test_mounted_apps_and_base_http_middleware_see_the_same_session(library: Library) -> None:
    async def story() -> None:
        async def mark(request: Request, call_next: Any) -> Response:
            request.session["marked"] = True
            response: Response = await call_next(request)
            return response

        stage = Stage()
        inner = Starlette(routes=[Route("/show", show)])
        inner.add_middleware(BaseHTTPMiddleware, dispatch=mark)
        app = Starlette(routes=[Mount("/inner", inner)])
        app.add_middleware(SessionMiddleware, session=stage.sessions)
        async with browser(app) as visitor:
            assert (await visitor.get("/inner/show")).json() == {"marked": True}
            assert await stage.data(visitor) == {"marked": True}

    tell(library, story)


def test_lifespan_closes_a_store_that_came_from_a_url(library: Library) -> None:
    sessions = Session(secret=SECRET, store="memory://")
    sent: list[str] = []
    closed: list[bool] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            await send({"type": (await receive())["type"] + ".complete"})

    async def story() -> None:
        async def aclose() -> None:
            closed.append(True)

        sessions.store.aclose = aclose  # type: ignore[method-assign]
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(f"{message['type']} {len(closed)}")

        await SessionMiddleware(app, session=sessions)({"type": "lifespan"}, receive, send)

    tell(library, story)
    assert sent == ["lifespan.startup.complete 0", "lifespan.shutdown.complete 1"]


def test_session_of_a_connection(library: Library) -> None:
    """`Session` offers its life cycle by request too, also where something else stands in the scope."""

    async def by_config(request: Request) -> Response:
        request.scope["session"] = {"put": "by a framework"}
        stage.sessions.login(request, "alice", {"more": 1})
        assert isinstance(request.scope["session"], RequestSession)
        return JSONResponse(stage.sessions.of(request.scope))

    async def end(request: Request) -> Response:
        stage.sessions.regenerate(request)
        stage.sessions.logout(request)
        return PlainTextResponse("ok")

    stage = Stage()

    async def story() -> None:
        async with browser(stage.app(by_config, end, who)) as visitor:
            assert (await visitor.get("/by_config")).json() == {"put": "by a framework", "more": 1}
            assert (await visitor.get("/who")).json() == "alice"
            await visitor.get("/end")
            assert (await visitor.get("/who")).json() is None

    tell(library, story)
    with pytest.raises(UsageError, match="SessionMiddleware does not run here"):
        stage.sessions.of({"type": "http"})


def test_an_app_that_reaches_an_unavailable_store_itself_answers_503(library: Library) -> None:
    async def broken(_request: Request) -> Response:
        raise UnavailableError("no primary in time")

    async def story() -> None:
        async with browser(Stage().app(broken)) as visitor:
            response = await visitor.get("/broken")
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")

    tell(library, story)
