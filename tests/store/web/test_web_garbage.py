"""A request leaves nothing to the collector of cycles, which would stop the process while it looks."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from greenroom.testing import Library
from greenroom.web import RequestSession, SessionMiddleware
from tests.store.web.garbage import only_by_hand
from tests.store.web.web_stage import FollowingMiddleware, Socket, Stage, begin, browser, session_of, tell

REQUESTS = 5


async def login(request: Request) -> Response:
    session_of(request).greenroom.login("alice", {"cart": {"mug": 1}})
    return PlainTextResponse("welcome")


async def look(request: Request) -> Response:
    return PlainTextResponse(str(session_of(request)["cart"]))


async def add(request: Request) -> Response:
    cart = session_of(request)["cart"]
    cart["mug"] += 1
    return PlainTextResponse("added")


async def ignore(_request: Request) -> Response:
    return PlainTextResponse("nothing")


async def logout(request: Request) -> Response:
    session_of(request).greenroom.logout()
    return PlainTextResponse("bye")


HANDLERS = (login, look, add, ignore, logout)


@pytest.mark.parametrize("kind", [None, FollowingMiddleware])
@pytest.mark.parametrize("pages", [("look",), ("add",), ("ignore",), ("login",), ("logout", "login")])
def test_a_request_leaves_no_cycle(library: Library, kind: Any, pages: tuple[str, ...]) -> None:
    stage = Stage()
    app = stage.app(*HANDLERS) if kind is None else stage.app(*HANDLERS, kind=kind)

    async def story() -> list[object]:
        async with browser(app) as client:
            await client.post("/login")
            await client.get("/add")
            with only_by_hand() as found:
                for _ in range(REQUESTS):
                    for page in pages:
                        assert (await client.get(f"/{page}")).status_code == 200
                return found()

    assert not tell(library, story)


def test_a_websocket_leaves_no_cycle(library: Library) -> None:
    stage = Stage()

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(str(session_of(websocket)) + text)

    app = SessionMiddleware(WebSocketRoute("/socket", echo), session=stage.sessions)

    async def story() -> list[object]:
        _, cookie = await begin(stage)
        with only_by_hand() as found:
            for _ in range(REQUESTS):
                socket = Socket("hello", cookie=cookie)
                await app(socket.scope, socket.receive, socket.send)
                assert len(socket.sent) == 2
            return found()

    assert not tell(library, story)


def kept_of_a_page(library: Library, attribute: Callable[[RequestSession], Any]) -> Any:
    """Return what the handler of a page that is over has kept of its session."""
    kept: list[Any] = []

    async def keep(request: Request) -> Response:
        session = session_of(request)
        session["cart"]["mug"] = 7
        kept.append(attribute(session))
        return PlainTextResponse("kept")

    app = Stage().app(*HANDLERS, keep)

    async def story() -> None:
        async with browser(app) as client:
            await client.post("/login")
            await client.get("/keep")

    tell(library, story)
    gc.collect()
    (found,) = kept
    return found


def test_what_is_kept_beyond_its_request_reads_as_before(library: Library) -> None:
    session = kept_of_a_page(library, lambda session: session)
    assert session["cart"] == {"mug": 7}
    assert session.copy() == {"cart": {"mug": 7}}
    assert session.greenroom.user_id == "alice"
    assert not session.greenroom.modified


def test_a_control_that_is_kept_without_its_session_reads_what_was_saved(library: Library) -> None:
    control = kept_of_a_page(library, lambda session: session.greenroom)
    assert control.as_type(dict) == {"cart": {"mug": 7}}
    assert control.user_id == "alice"
    assert not control.modified


def test_a_visit_that_lets_its_session_go_twice_has_let_it_go() -> None:
    visit = Stage().sessions.visit(())
    session = visit.session
    visit.let_go()
    visit.let_go()
    assert visit.session is session
    del session
    gc.collect()
    assert visit.session == {}
