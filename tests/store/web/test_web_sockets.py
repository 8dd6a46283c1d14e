"""Sessions of WebSockets: a cookie with accept, saved at accept and at the close."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from greenroom import UsageError
from greenroom.testing import Library
from greenroom.web import SessionMiddleware
from tests.store.web.web_stage import Socket, Stage, begin, tell


def sockets(stage: Stage, handler: Callable[[WebSocket], Any]) -> Starlette:
    app = Starlette(routes=[WebSocketRoute("/socket", handler)])
    app.add_middleware(SessionMiddleware, session=stage.sessions)
    return app


def serve(library: Library, stage: Stage, handler: Callable[[WebSocket], Any], socket: Socket) -> None:
    app = sockets(stage, handler)

    async def story() -> None:
        await app(socket.scope, socket.receive, socket.send)

    tell(library, story)


def begun(library: Library, stage: Stage) -> tuple[str, str]:
    """Begin a session; return its id and its Cookie header."""
    result: tuple[str, str] = tell(library, lambda: begin(stage))
    return result


def held(library: Library, stage: Stage, session_id: str) -> dict[Any, Any] | None:
    async def story() -> dict[Any, Any] | None:
        record = await stage.store.inner.get(session_id)
        return None if record is None else record.data

    result: dict[Any, Any] | None = tell(library, story)
    return result


def test_session_begun_before_accept_gets_its_cookie_there(library: Library) -> None:
    async def handler(websocket: WebSocket) -> None:
        websocket.session["n"] = 1
        await websocket.accept()
        websocket.session["n"] = 2
        await websocket.close()

    stage, socket = Stage(), Socket()
    serve(library, stage, handler, socket)
    cookie = socket.header(b"set-cookie")
    assert cookie is not None
    assert socket.header(b"vary") == b"Cookie"
    signed = cookie.partition(b";")[0].removeprefix(b"__Host-session=")
    session_id = stage.sessions.signer.verify(signed)
    assert session_id is not None
    assert held(library, stage, session_id) == {"n": 2}


@pytest.mark.parametrize("catches", [True, False])
def test_what_a_socket_changed_is_saved_when_it_closes(library: Library, *, catches: bool) -> None:
    """Also if the handler lets its framework's WebSocketDisconnect through, as short handlers do."""

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        if catches:
            async for _ in websocket.iter_text():
                websocket.session["n"] += 1
        else:
            while True:
                await websocket.receive_text()
                websocket.session["n"] += 1

    stage, session_id, cookie = Stage(), "", ""
    session_id, cookie = begun(library, stage)
    socket = Socket("a", "b", "c", cookie=cookie)
    if catches:
        serve(library, stage, handler, socket)
    else:
        with pytest.raises(Exception, match="1000") as caught:
            serve(library, stage, handler, socket)
        assert type(caught.value).__name__ == "WebSocketDisconnect"
    assert held(library, stage, session_id) == {"n": 3}
    assert stage.store.calls["patch"] == 1


def test_a_socket_that_fails_saves_nothing(library: Library) -> None:
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.session["n"] = 99
        raise RuntimeError("the handler failed")

    stage = Stage()
    session_id, cookie = begun(library, stage)
    with pytest.raises(RuntimeError):
        serve(library, stage, handler, Socket(cookie=cookie))
    assert held(library, stage, session_id) == {"n": 0}


def test_a_socket_may_save_while_it_runs(library: Library) -> None:
    seen: list[Any] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.session["n"] = 1
        await websocket.session.greenroom.save()  # type: ignore[attr-defined]  # Starlette calls it a dict
        seen.append(held_now())
        raise RuntimeError("too late to harm")

    stage = Stage()
    session_id, cookie = begun(library, stage)

    def held_now() -> int:
        return stage.count("patches")

    with pytest.raises(RuntimeError):
        serve(library, stage, handler, Socket(cookie=cookie))
    assert seen == [1]
    assert held(library, stage, session_id) == {"n": 1}


def test_no_session_begins_after_accept(library: Library) -> None:
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.session["n"] = 1

    stage, socket = Stage(), Socket()
    with pytest.raises(UsageError, match=r"before accept\(\)"):
        serve(library, stage, handler, socket)
    assert not stage.store.calls


def test_no_session_begins_with_a_refusal(library: Library) -> None:
    async def handler(websocket: WebSocket) -> None:
        websocket.session["n"] = 1
        await websocket.close()

    stage = Stage()
    with pytest.raises(UsageError, match="the response has started"):
        serve(library, stage, handler, Socket())
    assert not stage.store.calls


def test_logout_over_a_socket_ends_the_session(library: Library) -> None:
    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.session.greenroom.logout()  # type: ignore[attr-defined]  # as above
        await websocket.close()

    stage = Stage()
    session_id, cookie = begun(library, stage)
    serve(library, stage, handler, Socket(cookie=cookie))
    assert held(library, stage, session_id) is None


def test_starlettes_test_client_speaks_to_it(library: Library) -> None:
    async def handler(websocket: WebSocket) -> None:
        websocket.session["n"] = websocket.session.get("n", 0) + 1
        await websocket.accept()
        await websocket.send_json(websocket.session)
        await websocket.close()

    app = sockets(Stage(), handler)
    client = TestClient(app, base_url="https://testserver", backend=library.name)  # type: ignore[arg-type]
    with client.websocket_connect("/socket") as websocket:
        assert websocket.receive_json() == {"n": 1}
