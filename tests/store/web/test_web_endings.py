"""How a handler ends, how long a connection keeps its session, and what comes too late."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.websockets import WebSocket, WebSocketDisconnect

from greenroom import UnavailableError, UsageError
from greenroom.testing import Library
from greenroom.web import SessionMiddleware, SessionOverError
from greenroom.web.accepting import drops_headers_of_accept
from greenroom.web.departures import is_departure
from tests.store.web.test_web_sockets import begun, held, serve
from tests.store.web.web_stage import Socket, Stage, browser, tell

MINUTE = 60.0


class ServerError(OSError):
    """As uvicorn and gunicorn raise one of their own."""


class Leaving(Socket):
    """A client that leaves after so many messages: its server raises from then on."""

    def __init__(self, messages: int, error: Exception, cookie: str = "") -> None:
        super().__init__(cookie=cookie)
        self._messages = messages
        self._error = error

    async def send(self, message: dict[str, Any]) -> None:
        if len(self.sent) > self._messages:
            raise self._error
        await super().send(message)


# --- what is a departure ---------------------------------------------------------------------------------


def caused(error: BaseException, by: BaseException) -> BaseException:
    error.__cause__ = by
    return error


def in_context(error: BaseException, of: BaseException) -> BaseException:
    error.__context__ = of
    return error


SENDING = ServerError("the client left")


@pytest.mark.parametrize(
    ("error", "departed"),
    [
        (SENDING, True),
        (ServerError("another"), False),
        (OSError("a file of the app"), False),
        (WebSocketDisconnect(1006), True),
        (caused(RuntimeError("the framework's"), SENDING), True),
        (caused(RuntimeError("the framework's"), WebSocketDisconnect(1000)), True),
        (in_context(RuntimeError("a mistake in the clean-up"), WebSocketDisconnect(1000)), False),
        (BaseExceptionGroup("tasks", [SENDING, WebSocketDisconnect(1000)]), True),
        (BaseExceptionGroup("tasks", [SENDING, RuntimeError("a mistake")]), False),
        (KeyError("a mistake"), False),
    ],
)
def test_only_what_the_client_did_is_a_departure(error: BaseException, *, departed: bool) -> None:
    assert is_departure(error, SENDING) is departed


def test_a_socket_that_only_sends_is_saved_when_its_server_raises(library: Library) -> None:
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            websocket.session["n"] += 1
            await websocket.send_text("tick")

    stage = Stage()
    session_id, cookie = begun(library, stage)
    with pytest.raises(WebSocketDisconnect):
        serve(library, stage, handler, Leaving(3, ServerError(), cookie))
    assert held(library, stage, session_id) == {"n": 4}


def test_a_failure_of_the_handler_itself_is_none_of_the_client(library: Library) -> None:
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.session["n"] = 99
        raise OSError("the app's own disk is full")

    stage = Stage()
    session_id, cookie = begun(library, stage)
    with pytest.raises(OSError, match="own disk"):
        serve(library, stage, handler, Socket(cookie=cookie))
    assert held(library, stage, session_id) == {"n": 0}


def test_a_stream_is_saved_with_its_last_chunk(library: Library) -> None:
    """The app's call may end only with the connection, which serves further requests meanwhile."""
    stage = Stage()
    seen: list[Any] = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        session["n"] = 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        session["n"] = 2
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        found = await stage.store.inner.get(session.greenroom._visit.stored.session_id)
        seen.append(found.data)

    async def story() -> None:
        async with browser(SessionMiddleware(stream, session=stage.sessions)) as client:
            await client.get("/")

    tell(library, story)
    assert seen == [{"n": 2}]


# --- a connection in use ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sends", [False, True])
def test_a_socket_in_use_keeps_its_session_alive(library: Library, *, sends: bool) -> None:
    """A message every five minutes, for two hours, with sessions that end after half an hour."""
    stage = Stage(idle_seconds=30 * MINUTE)

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        for _ in range(24):
            stage.clock.advance(5 * MINUTE)
            websocket.session["n"] += 1
            await (websocket.send_text("tick") if sends else websocket.receive_text())

    session_id, cookie = begun(library, stage)
    serve(library, stage, handler, Socket(*("word",) * 24, cookie=cookie))
    assert held(library, stage, session_id) == {"n": 24}
    assert 4 <= stage.count("extensions") <= 12


def test_a_stream_in_use_keeps_its_session_alive(library: Library) -> None:
    stage = Stage(idle_seconds=30 * MINUTE)

    async def stream(request: Request) -> Response:
        session = request.session
        session["n"] = 0

        async def events() -> Any:
            for _ in range(24):
                stage.clock.advance(5 * MINUTE)
                session["n"] += 1
                yield b"tick"

        return StreamingResponse(events())

    async def story() -> Any:
        async with browser(stage.app(stream)) as client:
            await client.get("/stream")
            return await stage.data(client)

    assert tell(library, story) == {"n": 24}


def test_a_socket_that_is_not_used_does_not(library: Library) -> None:
    stage = Stage(idle_seconds=30 * MINUTE)

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        stage.clock.advance(31 * MINUTE)
        websocket.session["n"] += 1
        await websocket.receive_text()

    session_id, cookie = begun(library, stage)
    serve(library, stage, handler, Socket("word", cookie=cookie))
    assert held(library, stage, session_id) is None
    assert stage.count("dropped") == 1


def test_the_absolute_end_holds_for_sockets_too(library: Library) -> None:
    stage = Stage(idle_seconds=30 * MINUTE, absolute_seconds=60 * MINUTE)

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        for _ in range(24):
            stage.clock.advance(5 * MINUTE)
            await websocket.receive_text()

    session_id, cookie = begun(library, stage)
    serve(library, stage, handler, Socket(*("word",) * 24, cookie=cookie))
    assert held(library, stage, session_id) is None


def test_a_store_that_is_away_ends_no_socket(library: Library) -> None:
    """It is not asked again at each message either."""
    stage = Stage(idle_seconds=30 * MINUTE)

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        stage.clock.advance(28 * MINUTE)
        stage.store.fail("patch", UnavailableError("away"), times=100)
        for _ in range(100):
            await websocket.receive_text()
        stage.store.heal()
        stage.clock.advance(1.5 * MINUTE)
        await websocket.receive_text()
        stage.clock.advance(20 * MINUTE)

    session_id, cookie = begun(library, stage)
    serve(library, stage, handler, Socket(*("word",) * 101, cookie=cookie))
    assert held(library, stage, session_id) == {"n": 0}
    assert stage.store.calls["patch"] <= 3


# --- too late --------------------------------------------------------------------------------------------


async def _awaited(result: Any) -> None:
    if hasattr(result, "__await__"):
        await result


LATE: list[Callable[[Any], Any]] = [
    lambda session: session.update(n=1),
    lambda session: session.pop("n"),
    lambda session: session.clear(),
    lambda session: session.greenroom.login("bob"),
    lambda session: session.greenroom.logout(),
    lambda session: session.greenroom.logout_everywhere(),
    lambda session: session.greenroom.regenerate(),
    lambda session: session.greenroom.put({"n": 1}),
    lambda session: session.greenroom.save(),
    lambda session: session.greenroom.modify(lambda data: data.update(n=1)),
]


@pytest.mark.parametrize("late", LATE)
def test_whoever_changes_a_session_after_its_request_is_told(
    library: Library, late: Callable[[Any], Any]
) -> None:
    stage, kept = Stage(), []

    async def page(request: Request) -> Response:
        request.session["n"] = 0
        kept.append(request.session)
        return Response("ok")

    async def story() -> Any:
        async with browser(stage.app(page)) as client:
            await client.get("/page")
            with pytest.raises(SessionOverError, match="has ended"):
                await _awaited(late(kept[0]))
            assert kept[0]["n"] == 0, "it may still be read"
            return await stage.data(client)

    assert tell(library, story) == {"n": 0}


def test_a_page_about_a_failure_may_change_what_is_void_anyway(library: Library) -> None:
    stage = Stage()

    async def page(request: Request) -> Response:
        raise RuntimeError("the handler failed")

    async def failed(request: Request, error: Exception) -> Response:
        request.session["flash"] = "sorry"
        return Response("sorry", 500)

    app = Starlette(routes=[Route("/page", page)], exception_handlers={Exception: failed, 500: failed})
    app.add_middleware(SessionMiddleware, session=stage.sessions)

    async def story() -> Any:
        async with browser(app, raise_app_exceptions=False) as client:
            answer = await client.get("/page")
            assert (answer.status_code, answer.text) == (500, "sorry")
            assert not client.cookies

    tell(library, story)


def test_an_answer_below_500_that_a_handler_raised_ends_the_request_too(library: Library) -> None:
    stage, kept = Stage(), []

    async def page(request: Request) -> Response:
        request.session["n"] = 1
        kept.append(request.session)
        raise HTTPException(403)

    async def story() -> None:
        async with browser(stage.app(page)) as client:
            assert (await client.get("/page")).status_code == 403
            assert await stage.data(client) == {"n": 1}
            with pytest.raises(SessionOverError):
                kept[0]["n"] = 2

    tell(library, story)


# --- servers that drop the headers of an acceptance ------------------------------------------------------

DAPHNE = {"asgi": {"version": "3.0"}}
GRANIAN = {
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "extensions": {"http.response.pathsend": {}, "websocket.http.response": {}},
}
UVICORN = {
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "extensions": {"websocket.http.response": {}},
}


@pytest.mark.parametrize(
    ("scope", "drops"),
    [(DAPHNE, True), (GRANIAN, True), (UVICORN, False), ({}, False), ({"asgi": {}}, False)],
)
def test_servers_that_drop_them_are_known_by_their_scopes(scope: dict[str, Any], *, drops: bool) -> None:
    assert drops_headers_of_accept({"type": "websocket", **scope}) is drops
    assert not drops_headers_of_accept({"type": "http", **scope})


@pytest.mark.parametrize("server", [DAPHNE, GRANIAN])
@pytest.mark.parametrize(
    "change",
    [
        lambda session: session.greenroom.login("bob"),
        lambda session: session.greenroom.regenerate(),
        lambda session: (session.clear(), session.update(n=1)),
    ],
)
def test_what_needs_a_cookie_is_refused_there(
    library: Library, server: dict[str, Any], change: Callable[[Any], Any]
) -> None:
    async def handler(websocket: WebSocket) -> None:
        change(websocket.session)
        await websocket.accept()

    stage = Stage()
    session_id, cookie = begun(library, stage)
    socket = Socket(cookie=cookie)
    socket.scope.update(server)
    with pytest.raises(UsageError, match="granian, daphne"):
        serve(library, stage, handler, socket)
    assert held(library, stage, session_id) == {"n": 0}


def test_what_needs_none_is_not(library: Library) -> None:
    async def handler(websocket: WebSocket) -> None:
        websocket.session["n"] = 1
        await websocket.accept()
        websocket.session["n"] = 2

    stage = Stage()
    session_id, cookie = begun(library, stage)
    socket = Socket(cookie=cookie)
    socket.scope.update(GRANIAN)
    serve(library, stage, handler, socket)
    assert held(library, stage, session_id) == {"n": 2}
