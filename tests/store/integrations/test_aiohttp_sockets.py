"""aiohttp's WebSockets, which end with the session that opened them."""

import asyncio
from typing import Any

import aiohttp
import aiohttp_session
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp_session import get_session

from greenroom.integrations import aiohttp as integration
from greenroom.integrations.aiohttp import GreenroomStorage
from greenroom.web import Session


def socket_app(sessions: Session, prepared: Any = None) -> web.Application:
    """An app with a login, a logout and a WebSocket, whose `prepared` is awaited as a response is."""
    app = web.Application()
    storage = GreenroomStorage(sessions)
    aiohttp_session.setup(app, storage)
    storage.close_sockets(app)
    if prepared is not None:
        app.on_response_prepare.append(prepared)

    async def begin(request: web.Request) -> web.Response:
        session: Any = await get_session(request)
        session.greenroom.login("alice")
        return web.Response()

    async def end(request: web.Request) -> web.Response:
        session: Any = await get_session(request)
        session.greenroom.logout()
        return web.Response()

    async def echo(request: web.Request) -> web.WebSocketResponse:
        opened = web.WebSocketResponse()
        await opened.prepare(request)
        async for message in opened:
            await opened.send_str(message.data)
        return opened

    app.router.add_get("/login", begin)
    app.router.add_get("/logout", end)
    app.router.add_get("/echo", echo)
    return app


@pytest.mark.parametrize("on_end", ["close", "event"])
def test_a_socket_is_closed_when_its_session_ends(on_end: Any) -> None:
    async def story() -> None:
        sessions = Session(secret="a secret for tests only, long enough", dev=True, on_end=on_end)
        async with TestClient(TestServer(socket_app(sessions))) as client:
            await client.get("/login")
            opened = await client.ws_connect("/echo")
            await opened.send_str("one")
            assert (await opened.receive_str()) == "one"
            await client.get("/logout")
            if on_end == "event":
                await opened.send_str("two")
                assert (await opened.receive_str()) == "two"
                await opened.close()
            else:
                message = await opened.receive(timeout=5)
                assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4401)
            assert sessions.statistics().sockets_closed == (on_end == "close")

    asyncio.run(story())


def test_a_socket_that_takes_long_to_open_is_closed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session ends while the app still prepares it, and it is tried again for as long as that lasts."""

    async def story() -> None:
        sessions = Session(secret="a secret for tests only, long enough", dev=True)
        waits, goes_on, tries = asyncio.Event(), asyncio.Event(), 0

        async def prepared(_request: web.Request, response: web.StreamResponse) -> None:
            if isinstance(response, web.WebSocketResponse):
                waits.set()
                await goes_on.wait()

        async def pause(_seconds: float) -> None:
            nonlocal tries
            tries += 1
            if tries == 1000:
                goes_on.set()
            await asyncio.sleep(0)

        monkeypatch.setattr(integration, "pause", pause)
        async with TestClient(TestServer(socket_app(sessions, prepared))) as client:
            await client.get("/login")
            opening = asyncio.ensure_future(client.ws_connect("/echo"))
            await waits.wait()
            await client.get("/logout")
            message = await (await asyncio.wait_for(opening, 10)).receive(timeout=5)
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4401)

    asyncio.run(story())


def test_who_reads_nothing_is_not_heard_after_the_session() -> None:
    """It cannot be told that it is over; what it says then is nobody's."""

    async def story() -> None:
        sessions = Session(secret="a secret for tests only, long enough", dev=True)
        app = socket_app(sessions)
        opened, over = asyncio.Event(), asyncio.Event()
        heard: list[Any] = []

        async def flood(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            sending = asyncio.ensure_future(send_forever(socket))
            heard.extend([message.data async for message in socket])
            over.set()
            sending.cancel()
            return socket

        async def send_forever(socket: web.WebSocketResponse) -> None:
            while True:
                sent = asyncio.ensure_future(socket.send_bytes(bytes(1 << 16)))
                if not (await asyncio.wait([sent], timeout=0.2))[0]:
                    opened.set()  # nothing more fits into what lies between
                await sent

        app.router.add_get("/flood", flood)
        async with TestClient(TestServer(app)) as client:
            await client.get("/login")
            socket = await client.ws_connect("/flood", max_msg_size=0)
            assert socket._conn is not None
            assert socket._conn.transport is not None
            socket._conn.transport.pause_reading()
            await asyncio.wait_for(opened.wait(), 30)
            await client.get("/logout")
            await socket.send_str("pay")
            await asyncio.wait_for(over.wait(), 10)
            assert heard == []

    asyncio.run(story())


def test_a_socket_without_a_session_stays_open() -> None:
    async def story() -> None:
        sessions = Session(secret="a secret for tests only, long enough", dev=True)
        async with TestClient(TestServer(socket_app(sessions))) as client:
            opened = await client.ws_connect("/echo")
            await opened.send_str("one")
            assert (await opened.receive_str()) == "one"
            await opened.close()

    asyncio.run(story())
