"""How the middleware fits into apps: options, plain values, other middleware, test clients."""

import json
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from greenroom import MemoryStore, UnavailableError, UsageError
from greenroom.testing import Library
from greenroom.web import RequestSession, Session, SessionMiddleware, SessionNotLoadedError
from tests.store.web.web_handlers import HANDLERS, add, plain, show, who
from tests.store.web.web_stage import SECRET, FollowingMiddleware, Stage, browser, session_of, tell


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
        await session.greenroom.load()
        await session.greenroom.load()
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
                with pytest.raises(SessionNotLoadedError, match=r"await session.greenroom.load\(\)"):
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
    with pytest.raises(UsageError, match="either session= or session_cookie"):
        SessionMiddleware(plain, session=sessions, session_cookie="other")
    for options, message in (
        ({"secret_key": SECRET, "max_ages": 5}, "SessionMiddleware has no option max_ages; did you mean"),
        ({"sessions": 1}, r"no option sessions; did you mean session\?"),
        ({"secret": SECRET, "skipp": []}, r"no option skipp; did you mean skip\?"),
    ):
        with pytest.raises(UsageError, match=message):
            SessionMiddleware(plain, **options)
    for options, message in (
        ({"secret_key": SECRET}, r"Session has no option secret_key; did you mean secret\?"),
        ({"max_age": 5}, "did you mean idle_seconds"),
        ({"stores": "memory://"}, r"did you mean store\?"),
        ({"quux": 1}, "Session has no option quux$"),
        ({"retry_after_seconds": 1}, "no option retry_after_seconds any longer: .* Retry-After"),
        ({"extension_threshold_seconds": 1}, "any longer: .* absolute_seconds"),
    ):
        with pytest.raises(UsageError, match=message):
            Session(**options)
    with pytest.raises(UsageError, match="by name"):
        Session(SECRET)  # type: ignore[misc]  what is not to be done


@pytest.mark.parametrize("wrong", ["sess", "", Session, MemoryStore()])
def test_what_is_no_session_is_refused_when_the_app_is_built(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"session is .* Session\(secret=\.\.\., store=\.\.\.\)") as caught:
        SessionMiddleware(plain, session=wrong)
    kind = "the class Session" if wrong is Session else f"a {type(wrong).__name__}"
    assert f"not {kind}" in str(caught.value)


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
        async with browser(stage.app(by_config, end, who, kind=FollowingMiddleware)) as visitor:
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
