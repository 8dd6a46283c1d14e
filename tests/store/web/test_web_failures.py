"""When the store fails: 503 and nothing half-done, or on without a session; the truth in every case."""

from typing import Any

import pytest
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from greenroom import (
    BaseSessionStore,
    MemoryStore,
    OutcomeUnknownError,
    RemoteProtocolError,
    SessionData,
    StoreFullError,
    UnavailableError,
    UnsupportedError,
)
from greenroom.testing import Library
from greenroom.web import Session, SessionMiddleware
from greenroom.web.middleware import REFUSAL_TEXT
from tests.store.web.web_stage import SECRET, FollowingMiddleware, Socket, Stage, browser, session_of, tell

FAILURES = [
    UnavailableError("no primary in time"),
    OutcomeUnknownError("sent and not answered", harmless_to_repeat=True),
    RemoteProtocolError("not ours"),
]


async def show(request: Request) -> Response:
    return JSONResponse(request.session)


async def add(request: Request) -> Response:
    request.session["n"] = request.session.get("n", 0) + 1
    return PlainTextResponse("added", background=BackgroundTask(request.session.update, background=True))


async def login(request: Request) -> Response:
    session_of(request).greenroom.login("alice", keep=True)
    return PlainTextResponse("welcome")


async def logout(request: Request) -> Response:
    session_of(request).greenroom.logout()
    return PlainTextResponse("bye")


async def everywhere(request: Request) -> Response:
    session_of(request).greenroom.logout_everywhere(keep_current=bool(request.query_params.get("keep")))
    return PlainTextResponse("bye")


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_failed_load_is_503_and_the_app_is_not_called(library: Library, error: Exception) -> None:
    called: list[str] = []

    async def note(request: Request) -> Response:
        called.append(request.url.path)
        return PlainTextResponse("ok")

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(add, note)) as visitor:
            await visitor.get("/add")
            stage.store.fail("get", error)
            response = await visitor.get("/note")
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
            assert "set-cookie" not in response.headers
            assert not called
            stage.store.heal()
            assert (await visitor.get("/note")).status_code == 200
            assert stage.count("failed") == 1

    tell(library, story)


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("error", [*FAILURES, StoreFullError("full")], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("path", "operation"),
    [("/add", "patch"), ("/login", "rotate"), ("/logout", "delete"), ("/everywhere", "delete_by_user")],
)
def test_failed_save_turns_the_response_into_503(
    library: Library, path: str, operation: str, error: Exception, *, applied: bool
) -> None:
    async def story() -> None:
        stage = Stage()
        app = stage.app(add, login, logout, everywhere)
        async with browser(app) as visitor:
            await visitor.get("/add")
            if operation == "delete_by_user":
                await visitor.get("/login")
            stage.store.calls.clear()
            stage.store.fail(operation, error, applied=applied)
            response = await visitor.get(path)
            assert (response.status_code, response.headers["retry-after"]) == (
                503,
                "60" if isinstance(error, StoreFullError) else "1",
            )
            assert "set-cookie" not in response.headers
            assert response.text == REFUSAL_TEXT
            assert stage.store.calls[operation] == 1, "not tried again at the end of the call"

    tell(library, story)


@pytest.mark.parametrize("way", ["save", "modify"])
@pytest.mark.parametrize("kind", [SessionMiddleware, FollowingMiddleware])
def test_a_login_that_was_saved_before_the_failure_reaches_the_browser(
    library: Library, way: str, kind: Any
) -> None:
    async def login_and_fail(request: Request) -> Response:
        control = session_of(request).greenroom
        control.login("alice", keep=True)
        if way == "save":
            await control.save()
        stage.store.fail("patch", times=1)
        if way == "modify":
            await control.modify(lambda data: data.update(n=2))
        request.session["n"] = 2
        return PlainTextResponse("welcome")

    async def who(request: Request) -> Response:
        return JSONResponse([session_of(request).greenroom.user_id, request.session])

    stage = Stage()

    async def story() -> None:
        async with browser(stage.app(add, login_and_fail, who, kind=kind)) as visitor:
            await visitor.get("/add")
            response = await visitor.get("/login_and_fail")
            assert (response.status_code, response.headers["vary"]) == (503, "Cookie")
            assert (await visitor.get("/who")).json() == ["alice", {"n": 1, "background": True}]

    tell(library, story)


def test_failed_create_is_503_without_a_cookie(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(add)) as visitor:
            stage.store.fail("create", times=1)
            response = await visitor.get("/add")
            assert response.status_code == 503
            assert not visitor.cookies
            assert (await visitor.get("/add")).status_code == 200

    tell(library, story)


def test_failed_save_in_the_background_is_raised_to_the_server(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(add)) as visitor:
            await visitor.get("/add")
            stage.store.fail("patch")
            stage.store.heal()
            gate = stage.store.hold("patch")
            gate.open()
            stage.store.fail("patch", times=1)
            assert (await visitor.get("/add")).status_code == 503

        async def late(request: Request) -> Response:
            def break_it() -> None:
                request.session["late"] = 1
                stage.store.fail("patch")

            return PlainTextResponse("ok", background=BackgroundTask(break_it))

        stage = Stage()
        async with browser(stage.app(add, late)) as visitor:
            await visitor.get("/add")
            with pytest.raises(UnavailableError):
                await visitor.get("/late")
            assert stage.count("failed") == 1

    tell(library, story)


def test_a_failed_save_of_background_work_itself_is_counted_too(library: Library) -> None:
    async def late(request: Request) -> Response:
        async def save() -> None:
            request.session["late"] = 1
            stage.store.fail("patch", times=1)
            await session_of(request).greenroom.save()

        return PlainTextResponse("ok", background=BackgroundTask(save))

    stage = Stage()

    async def story() -> None:
        async with browser(stage.app(add, late)) as visitor:
            await visitor.get("/add")
            with pytest.raises(UnavailableError):
                await visitor.get("/late")
            assert stage.count("failed") == 1

    tell(library, story)


def test_failed_extension_harms_nobody(library: Library) -> None:
    async def story() -> None:
        stage = Stage(idle_seconds=100)
        async with browser(stage.app(add, show)) as visitor:
            await visitor.get("/add")
            stage.clock.advance(60)
            stage.store.fail("patch")
            assert (await visitor.get("/show")).status_code == 200
            assert stage.count("failed") == 1
            stage.store.heal()
            await visitor.get("/show")
            assert stage.count("extensions") == 1

    tell(library, story)


def test_anonymous_policy_reads_on_and_refuses_writes(library: Library) -> None:
    async def caught(request: Request) -> Response:
        session = session_of(request)
        assert session == {}
        assert session.greenroom.user_id is None
        refused = 0
        for write in (
            lambda: session.update(x=1),
            lambda: session.setdefault("x", 1),
            lambda: session.greenroom.login("alice"),
            session.greenroom.logout,
            session.greenroom.regenerate,
            session.greenroom.logout_everywhere,
        ):
            with pytest.raises(UnavailableError, match="cannot be written"):
                write()
            refused += 1
        return JSONResponse(refused)

    async def replace(request: Request) -> Response:
        request.scope["session"] = {"x": 1}
        return PlainTextResponse("ok")

    async def story() -> None:
        stage = Stage(on_unavailable="anonymous")
        async with browser(stage.app(add, show, login, caught, replace, kind=FollowingMiddleware)) as visitor:
            await visitor.get("/login")
            stage.store.calls.clear()
            stage.store.fail("*")
            response = await visitor.get("/show")
            assert (response.status_code, response.json()) == (200, {})
            assert (await visitor.get("/caught")).json() == 6
            for path in ("/add", "/login", "/replace"):
                response = await visitor.get(path)
                assert response.status_code == 503
                assert "set-cookie" not in response.headers
            assert stage.store.writes == 0
            stage.store.heal()
            assert (await visitor.get("/add")).status_code == 200

    tell(library, story)


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
def test_websockets_are_refused_when_the_session_cannot_be_loaded(
    library: Library, extensions: dict[str, Any]
) -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise AssertionError("the app was called")

    async def story() -> None:
        stage = Stage()
        stage.store.fail("get")
        middleware = SessionMiddleware(app, session=stage.sessions)
        signed = stage.sessions.signer.sign("gr-0000-unknown")
        socket = Socket(cookie=f"__Host-session={signed}", extensions=extensions)
        await middleware(socket.scope, socket.receive, socket.send)
        if extensions:
            assert [each["type"] for each in socket.sent] == [
                "websocket.http.response.start",
                "websocket.http.response.body",
            ]
            assert socket.sent[0]["status"] == 503
            assert socket.header(b"retry-after") == b"1"
        else:
            assert socket.sent == [{"type": "websocket.close", "code": 1013}]

    tell(library, story)


def test_websocket_whose_session_cannot_be_saved_is_not_accepted(library: Library) -> None:
    received: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append((await receive())["type"])
        scope["session"]["n"] = 1
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        received.append((await receive())["type"])

    async def story() -> None:
        stage = Stage()
        stage.store.fail("create")
        socket = Socket("text")
        await SessionMiddleware(app, session=stage.sessions)(socket.scope, socket.receive, socket.send)
        assert socket.sent == [{"type": "websocket.close", "code": 1013}]
        assert received == ["websocket.connect", "websocket.disconnect"]

    tell(library, story)


class FiveMethodStore(BaseSessionStore):
    """The least that a custom store writes."""

    def __init__(self) -> None:
        self._inner = MemoryStore()

    async def create(self, session: SessionData) -> int:
        return await self._inner.create(session)

    async def get(self, session_id: str) -> SessionData | None:
        return await self._inner.get(session_id)

    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        return await self._inner.update(session_id, session, version=version)

    async def delete(self, session_id: str) -> None:
        await self._inner.delete(session_id)

    async def clean(self) -> int:
        return await self._inner.clean()


def test_a_store_of_five_methods_serves_all_but_what_it_cannot(library: Library) -> None:
    async def story() -> None:
        from starlette.applications import Starlette
        from starlette.routing import Route

        sessions = Session(secret=SECRET, store=FiveMethodStore())
        routes = [Route(f"/{each.__name__}", each) for each in (add, show, login, logout, everywhere)]
        app = Starlette(routes=routes)
        app.add_middleware(SessionMiddleware, session=sessions)
        async with browser(app) as visitor:
            await visitor.get("/add")
            before = visitor.cookies[sessions.cookie.name]
            await visitor.get("/login")
            assert visitor.cookies[sessions.cookie.name] != before
            assert (await visitor.get("/show")).json() == {"n": 1, "background": True}
            old = sessions.signer.verify(before.encode())
            assert old is not None
            assert await sessions.store.get(old) is None
            with pytest.raises(UnsupportedError, match="log out everywhere"):
                await visitor.get("/everywhere")
            await visitor.get("/logout")
            assert (await visitor.get("/show")).json() == {}

    tell(library, story)
