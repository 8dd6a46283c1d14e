"""A WebSocket is closed when its session ends, and handlers can wait for that."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect

from greenroom import Ended, UnavailableError, UnsupportedError, UsageError
from greenroom.background import new_event
from greenroom.testing import Library
from greenroom.web import SessionMiddleware
from tests.store.test_contract_memory import FiveMethodStore
from tests.store.web.web_stage import Socket, Stage, begin, tell, together

CODE = 4401


class OpenSocket(Socket):
    """The client's side of a WebSocket that stays open until one side closes it, as real servers have it."""

    def __init__(self, cookie: str) -> None:
        super().__init__(cookie=cookie)
        self.accepted, self.told, self.closed = new_event(), new_event(), new_event()
        self._begun = False
        self.fault: Exception | None = None
        self.late: list[str] = []
        """What the client says that has not seen the close."""

    async def receive(self) -> dict[str, Any]:
        if not self._begun:
            self._begun = True
            return {"type": "websocket.connect"}
        await self.closed.wait()
        if self.late:
            return {"type": "websocket.receive", "text": self.late.pop(0)}
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(self, message: dict[str, Any]) -> None:
        assert not self.closed.is_set(), "servers refuse what comes after the close"
        self.sent.append(message)
        if message["type"] == "websocket.accept":
            self.accepted.set()
        if message["type"] == "websocket.send":
            self.told.set()
        if message["type"] == "websocket.close":
            self.closed.set()
            if self.fault is not None:
                raise self.fault

    @property
    def closes(self) -> list[int]:
        """The codes with which it was closed."""
        return [message["code"] for message in self.sent if message["type"] == "websocket.close"]


def play(
    library: Library,
    stage: Stage,
    handler: Callable[[WebSocket], Awaitable[None]],
    act: Callable[[OpenSocket, str], Awaitable[None]],
    *,
    autoload: bool = True,
) -> OpenSocket:
    """Serve a WebSocket of a session, and act once it is accepted; return the client's side."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await handler(WebSocket(scope, receive, send))

    async def story() -> OpenSocket:
        session_id, cookie = await begin(stage)
        socket = OpenSocket(cookie)
        middleware = SessionMiddleware(app, session=stage.sessions, autoload=autoload)

        async def acting() -> None:
            await socket.accepted.wait()
            await act(socket, session_id)

        await together(library, lambda: middleware(socket.scope, socket.receive, socket.send), acting)
        return socket

    result: OpenSocket = tell(library, story)
    return result


async def nothing(_: OpenSocket, _session_id: str) -> None:
    """Leave it to the handler."""


async def log_out(stage: Stage, session_id: str) -> None:
    """End a session as a request to another worker does."""
    await stage.store.delete(session_id)


async def echo(websocket: WebSocket) -> None:
    """Answer until the client leaves; the framework's exception goes through, as in short handlers."""
    await websocket.accept()
    while True:
        await websocket.send_text(await websocket.receive_text())


def test_a_socket_is_closed_when_its_session_ends(library: Library) -> None:
    stage = Stage()
    codes: list[int] = []

    async def handler(websocket: WebSocket) -> None:
        try:
            await echo(websocket)
        except WebSocketDisconnect as error:
            codes.append(error.code)
            raise

    socket = play(library, stage, handler, lambda _, session_id: log_out(stage, session_id))
    assert socket.closes == [CODE]
    assert socket.sent[-1]["reason"] == "the session has ended"
    assert codes == [CODE], "the handler is told why"
    assert stage.count("sockets_closed") == 1
    assert stage.count("failed") == 0


def test_what_a_client_says_after_the_end_reaches_no_handler(library: Library) -> None:
    """It may say it before it has read the close, or never read that."""
    stage = Stage()
    heard: list[str] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            heard.append(await websocket.receive_text())

    async def say(socket: OpenSocket, session_id: str) -> None:
        socket.late = ["pay", "pay again"]
        await log_out(stage, session_id)

    assert play(library, stage, handler, say).closes == [CODE]
    assert heard == []


def test_the_code_is_a_choice_of_the_app(library: Library) -> None:
    stage = Stage(end_code=3000)
    socket = play(library, stage, echo, lambda _, session_id: log_out(stage, session_id))
    assert socket.closes == [3000]


def test_a_handler_that_only_sends_is_cut_off(library: Library) -> None:
    stage = Stage()
    sent: list[int] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text("tick")
            sent.append(1)
            await library.sleep(0.001)

    socket = play(library, stage, handler, lambda _, session_id: log_out(stage, session_id))
    assert socket.closes == [CODE]
    assert sent


@pytest.mark.parametrize("is_accepted_first", [True, False])
def test_a_session_that_the_handler_loads_itself_is_watched(
    library: Library, *, is_accepted_first: bool
) -> None:
    stage = Stage()

    async def handler(websocket: WebSocket) -> None:
        if is_accepted_first:
            await websocket.accept()
        await websocket.session.greenroom.load()
        if not is_accepted_first:
            await websocket.accept()
        await websocket.send_text("loaded")
        await websocket.receive_text()

    async def act(socket: OpenSocket, session_id: str) -> None:
        await socket.told.wait()
        await log_out(stage, session_id)

    socket = play(library, stage, handler, act, autoload=False)
    assert socket.closes == [CODE]


def test_a_handler_that_closes_itself_is_no_failure(library: Library) -> None:
    stage = Stage()

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
        await websocket.close(1000)  # as frameworks do in a finally

    socket = play(library, stage, handler, lambda _, session_id: log_out(stage, session_id))
    assert socket.closes == [CODE], "once"


def test_a_socket_that_is_gone_by_then_is_no_failure(library: Library) -> None:
    stage = Stage()

    async def act(socket: OpenSocket, session_id: str) -> None:
        socket.fault = RuntimeError("the connection is closed")
        await log_out(stage, session_id)

    assert play(library, stage, echo, act).closes == [CODE]


@pytest.mark.parametrize("end", ["everywhere", "rotation", "device"])
def test_whatever_ends_the_session_closes_the_socket(library: Library, end: str) -> None:
    stage = Stage()

    async def act(_: OpenSocket, session_id: str) -> None:
        if end == "everywhere":
            await stage.store.delete_by_user("alice")
        elif end == "rotation":
            await stage.store.rotate(session_id)
        else:
            [listed] = await stage.store.list_by_user("alice")
            await stage.store.delete_by_handle("alice", listed.handle)

    assert play(library, stage, echo, act).closes == [CODE]


def test_an_expired_session_closes_the_socket(library: Library) -> None:
    stage = Stage(idle_seconds=60)

    async def act(_: OpenSocket, _session_id: str) -> None:
        stage.clock.advance(61)

    assert play(library, stage, echo, act).closes == [CODE]


def test_an_app_may_leave_the_end_to_its_handlers(library: Library) -> None:
    stage = Stage(on_end="event")
    reasons: list[str] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        ended = await websocket.session.greenroom.ended()
        reasons.append(ended.reason)
        await websocket.send_text("goodbye")
        await websocket.close(1000)

    socket = play(library, stage, handler, lambda _, session_id: log_out(stage, session_id))
    assert reasons == ["logout"]
    assert socket.closes == [1000]
    assert stage.count("sockets_closed") == 0


def test_a_logout_in_the_socket_itself_closes_it(library: Library) -> None:
    stage = Stage()

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.session.greenroom.logout()
        await websocket.session.greenroom.save()
        await websocket.receive_text()

    assert play(library, stage, handler, nothing).closes == [CODE]


def test_sockets_that_have_closed_are_watched_no_longer(library: Library) -> None:
    stage = Stage()

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(1000)

    async def act(socket: OpenSocket, session_id: str) -> None:
        await socket.closed.wait()
        await library.sleep(0)
        await log_out(stage, session_id)
        await library.sleep(0.01)

    assert play(library, stage, handler, act).closes == [1000]
    assert stage.count("sockets_closed") == 0


def test_too_many_watches_leave_a_socket_open(library: Library) -> None:
    """The app is told; closing sockets of users who have done nothing would be worse."""
    stage = Stage()

    def refuse(_session_id: str, _tell: Callable[[Ended], None]) -> Any:
        raise UnavailableError("too many sessions are watched")

    stage.store.watch = refuse  # type: ignore[method-assign,assignment]  # for this test

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(1000)

    assert play(library, stage, handler, nothing).closes == [1000]
    assert stage.count("failed") == 1


def test_waiting_for_the_end_needs_a_session(library: Library) -> None:
    stage = Stage()

    async def story() -> None:
        visit = stage.sessions.visit(())
        with pytest.raises(UsageError, match="stored"):
            await visit.session.greenroom.ended()

    tell(library, story)


def test_a_store_that_tells_of_no_endings_says_so(library: Library) -> None:
    """Its sockets are served as ever."""
    stage = Stage()
    stage.sessions.store = FiveMethodStore(stage.clock)

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(UnsupportedError, match="endings"):
            await websocket.session.greenroom.ended()
        await websocket.close(1000)

    assert play(library, stage, handler, nothing).closes == [1000]


@pytest.mark.parametrize("options", [{"on_end": "ask"}, {"end_code": 1000}, {"end_code": 5000}])
def test_options_of_the_end_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Stage(**options)
