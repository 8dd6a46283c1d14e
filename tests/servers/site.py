"""The apps that `tests/servers` has each server run: the same pages in Starlette, Quart and Litestar.

The first part of the path names the framework. What is stored is asked at `/held` with the same cookie; that
page goes past the session's middleware, so that nothing is extended or saved by it.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any

import trio
from anyio import sleep
from litestar import Litestar, Request, WebSocket, get, websocket
from litestar.background_tasks import BackgroundTask as LitestarTask
from litestar.exceptions import HTTPException as LitestarError
from litestar.response import Response as LitestarResponse
from litestar.response import Stream
from quart import Quart, abort
from quart import session as quart_session
from quart import websocket as quart_websocket
from quart_trio import QuartTrio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket as StarletteSocket

from greenroom import store_from_url
from greenroom.integrations.litestar import SessionPlugin
from greenroom.integrations.quart import GreenroomSessions
from greenroom.web import Session, SessionMiddleware
from tests.servers.running import SECRET

CHUNK = b"x" * 1024
PAUSE_SECONDS = 0.02
CHUNKS_MAX = 100

STORE = store_from_url(os.environ.get("GREENROOM_TEST_STORE", "memory://"))
sessions = Session(store=STORE, secret=SECRET, dev=True)
LIBRARY = os.environ.get("GREENROOM_TEST_LIBRARY", "asyncio")
tasks: set[asyncio.Task[None]] = set()
dropped: list[str] = []
"""What was raised in tasks that outlived their requests."""


async def held(request: StarletteRequest) -> Response:
    """What the store holds for the browser's cookie."""
    found = SimpleCookie(request.headers.get("cookie", ""))
    signed = found[sessions.cookie.name].value.encode() if sessions.cookie.name in found else b""
    session_id = sessions.signer.verify(signed) if signed else None
    stored = None if session_id is None else await sessions.store.get(session_id)
    if stored is None:
        return JSONResponse(None)
    return JSONResponse({**stored.data, "user": stored.user_id, "expires": stored.expires.timestamp()})


async def seen(request: StarletteRequest) -> Response:
    """What tasks that outlived their requests were told."""
    return JSONResponse(dropped)


async def chunks(session: Any) -> AsyncIterator[bytes]:
    """A long answer that counts what it has sent in the session."""
    for number in range(CHUNKS_MAX):
        session["sent"] = number
        yield CHUNK
        await sleep(PAUSE_SECONDS)


async def short(session: Any) -> AsyncIterator[bytes]:
    """A short answer, which goes on changing the session while it is sent."""
    session["sent"] = 0
    yield CHUNK
    await sleep(PAUSE_SECONDS)
    session["sent"] = 1
    yield CHUNK


async def later(session: Any) -> None:
    """A task that outlives its request and changes the session then."""
    await sleep(0.2)
    try:
        session["late"] = True
    except Exception as error:  # noqa: BLE001  it is what the test asks for
        dropped.append(type(error).__name__)
    else:
        dropped.append("")


def detach(session: Any) -> None:
    """Start a task that outlives the request."""
    if LIBRARY == "trio":
        trio.lowlevel.spawn_system_task(later, session)
    else:
        task = asyncio.create_task(later(session))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


# --- Starlette -------------------------------------------------------------------------------------------


async def starlette_page(request: StarletteRequest) -> Response:
    session: Any = request.session
    match request.path_params["page"]:
        case "login":
            session.greenroom.login("alice")
        case "logout":
            session.greenroom.logout()
        case "return":
            session["n"] = 1
        case "fails":
            session["n"] = 1
            raise RuntimeError("the handler failed")
        case "refuses":
            session["n"] = 1
            raise HTTPException(403)
        case "background":

            async def work() -> None:
                session["n"] = 1

            return Response("ok", background=BackgroundTask(work))
        case "stream":
            return StreamingResponse(short(session))
        case "endless":
            return StreamingResponse(chunks(session))
        case "detaches":
            detach(session)
    return Response("ok")


async def serve_socket(socket: Any, what: str) -> None:
    """Do what the path says on a WebSocket of Starlette or Litestar, whose methods are named alike."""
    session: Any = socket.session
    if what == "login":
        session.greenroom.login("bob")
    if what == "regenerate":
        session.greenroom.regenerate()
    if what == "begins":
        session["n"] = 1
    await socket.accept()
    match what:
        case "echo":
            while True:
                session["got"] = await socket.receive_text()
                await socket.send_text("ok")
        case "saves":
            while True:
                session["kept"] = await socket.receive_text()
                await session.greenroom.save()
                await socket.send_text("ok")
        case "sends":
            for number in range(CHUNKS_MAX):
                session["sent"] = number
                await socket.send_bytes(CHUNK)
                await sleep(PAUSE_SECONDS)
        case "closes":
            session["n"] = 1
            await socket.close()
        case "returns":
            session["n"] = 1
        case "fails":
            session["n"] = 1
            raise RuntimeError("the handler failed")


async def starlette_socket(socket: StarletteSocket) -> None:
    await serve_socket(socket, socket.path_params["what"])


starlette = Starlette(
    routes=[
        Route("/{page}", starlette_page, methods=["GET", "POST"]),
        WebSocketRoute("/socket/{what}", starlette_socket),
    ]
)
starlette.add_middleware(SessionMiddleware, session=sessions)  # type: ignore[arg-type]  # its protocol is narrower


# --- Quart -----------------------------------------------------------------------------------------------

quart = QuartTrio("site") if LIBRARY == "trio" else Quart("site")
GreenroomSessions(sessions).init_app(quart)


@quart.route("/quart/<page>", methods=["GET", "POST"])
async def quart_page(page: str) -> Any:
    session: Any = quart_session
    match page:
        case "login":
            session.greenroom.login("alice")
        case "logout":
            session.greenroom.logout()
        case "return":
            session["n"] = 1
        case "fails":
            session["n"] = 1
            raise RuntimeError("the handler failed")
        case "refuses":
            session["n"] = 1
            abort(403)
        case "stream":
            return short(session._get_current_object())
        case "endless":
            return chunks(session._get_current_object())
        case "detaches":
            detach(session._get_current_object())
    return "ok"


@quart.websocket("/quart/socket/<what>")
async def quart_socket(what: str) -> None:
    session: Any = quart_session
    if what == "login":
        session.greenroom.login("bob")
    if what == "regenerate":
        session.greenroom.regenerate()
    if what == "begins":
        session["n"] = 1
    await quart_websocket.accept()
    match what:
        case "echo":
            while True:
                session["got"] = await quart_websocket.receive()
                await quart_websocket.send("ok")
        case "sends":
            for number in range(CHUNKS_MAX):
                session["sent"] = number
                await quart_websocket.send(CHUNK)
                await sleep(PAUSE_SECONDS)
        case "closes":
            session["n"] = 1
            await quart_websocket.close(1000)
        case "returns":
            session["n"] = 1
        case "fails":
            session["n"] = 1
            raise RuntimeError("the handler failed")


# --- Litestar --------------------------------------------------------------------------------------------


@get("/{page:str}")
async def litestar_page(request: Request[Any, Any, Any], page: str) -> Any:
    session: Any = request.session
    match page:
        case "login":
            session.greenroom.login("alice")
        case "logout":
            session.greenroom.logout()
        case "return":
            session["n"] = 1
        case "fails":
            session["n"] = 1
            raise RuntimeError("the handler failed")
        case "refuses":
            session["n"] = 1
            raise LitestarError(status_code=403)
        case "background":

            async def work() -> None:
                session["n"] = 1

            return LitestarResponse("ok", background=LitestarTask(work))
        case "stream":
            return Stream(short(session))
        case "endless":
            return Stream(chunks(session))
        case "detaches":
            detach(session)
    return LitestarResponse("ok")


@websocket("/socket/{what:str}")
async def litestar_socket(socket: WebSocket[Any, Any, Any], what: str) -> None:
    await serve_socket(socket, what)


litestar = Litestar([litestar_page, litestar_socket], plugins=[SessionPlugin(sessions)], openapi_config=None)

inspection = Starlette(routes=[Route("/held", held), Route("/seen", seen)])
mounts = Starlette(
    routes=[Mount("/starlette", starlette), Mount("/litestar", litestar), Mount("/", inspection)]
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serve one connection, by the framework that its path names."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"].startswith("/quart/"):
        await quart(scope, receive, send)
    else:
        await mounts(scope, receive, send)
