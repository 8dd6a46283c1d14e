"""A save that has begun ends, whoever is cancelled; a handler that was cut off has saved nothing."""

import asyncio
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from greenroom.testing import Gate, Library, available_libraries, library_named
from greenroom.web import SessionMiddleware
from greenroom.web.shielding import only_cancelled, shielded
from tests.store.web.web_stage import Socket, Stage, browser, cancelled_at, session_of, tell, twin


async def login(request: Request) -> Response:
    session_of(request).greenroom.login("alice")
    return PlainTextResponse("welcome")


async def change(request: Request) -> Response:
    request.session["n"] = 1
    return PlainTextResponse("changed")


@pytest.mark.parametrize(("path", "operation"), [("/change", "patch"), ("/login", "rotate")])
def test_a_save_that_has_begun_survives_cancellation(library: Library, path: str, operation: str) -> None:
    async def story() -> None:
        stage = Stage()
        visitor = browser(stage.app(login, change))
        await visitor.get("/login")
        gate = stage.store.hold(operation)
        cancelled = await cancelled_at(library, lambda: visitor.get(path), gate)
        assert cancelled or library.name == "trio", "trio cancels at the next checkpoint, if one comes"
        assert stage.count("patches") + stage.count("rotations") == 1

    tell(library, story)


def test_a_handler_cancelled_before_it_answered_has_saved_nothing(library: Library) -> None:
    async def story() -> None:
        stage, gate = Stage(), Gate()

        async def waiting(request: Request) -> Response:
            request.session["half"] = "done"
            await gate.pass_through()
            return PlainTextResponse("done")

        visitor = browser(stage.app(login, waiting))
        await visitor.get("/login")
        writes = stage.store.writes
        assert await cancelled_at(library, lambda: visitor.get("/waiting"), gate)
        assert stage.store.writes == writes

    tell(library, story)


def test_what_a_socket_changed_is_saved_when_it_is_cut_off(library: Library) -> None:
    async def story() -> None:
        stage, gate = Stage(), Gate()

        async def app(scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            scope["session"]["n"] = 1
            await gate.pass_through()

        visitor = browser(stage.app(login))
        await visitor.get("/login")
        socket = Socket(cookie=f"__Host-session={visitor.cookies['__Host-session']}")
        middleware = SessionMiddleware(app, session=stage.sessions)

        async def serve() -> None:
            await middleware(socket.scope, socket.receive, socket.send)

        assert await cancelled_at(library, serve, gate)
        assert await stage.data(visitor) == {"n": 1}

    tell(library, story)


@pytest.mark.parametrize("backend", available_libraries())
def test_scopes_that_cancel_again_and_again_do_not_tear_a_save(backend: str) -> None:
    """anyio cancels a task at each of its awaits under asyncio: Starlette's own machinery does so."""

    async def story() -> None:
        stage = Stage()
        app = stage.app(login, change)
        visitor = browser(app)
        await visitor.get("/login")
        gate = stage.store.hold("patch")
        tab = twin(app, visitor)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(tab.get, "/change")
                with anyio.CancelScope(shield=True):
                    await gate.reached()
                    scope.cancel()
                    for _ in range(5):
                        await anyio.lowlevel.checkpoint()
                    assert stage.count("patches") == 0
                    gate.open()
        assert scope.cancelled_caught or backend == "trio", (
            "trio cancels at the next checkpoint, if one comes"
        )
        assert await stage.data(visitor) == {"n": 1}

    tell(library_named(backend), story)


def test_a_failure_behind_a_cancellation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        gate = Gate()

        async def work() -> None:
            await gate.pass_through()
            raise ValueError("not shown: it may hold a value")

        assert await cancelled_at(library_named("asyncio"), lambda: shielded(work), gate)

    tell(library_named("asyncio"), story)
    assert "saving a session failed while its request was cancelled: ValueError" in caplog.text
    assert "not shown" not in caplog.text


def test_only_cancelled() -> None:
    cancelled = asyncio.CancelledError()
    assert only_cancelled(cancelled)
    assert only_cancelled(BaseExceptionGroup("", [cancelled, BaseExceptionGroup("", [cancelled])]))
    assert not only_cancelled(BaseExceptionGroup("", [cancelled, ValueError()]))
    assert not only_cancelled(ValueError())
    assert not only_cancelled(KeyboardInterrupt())
