"""`skip=` means paths as the app sees them: behind a proxy, under a server's root path, in a mount."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from time import monotonic, sleep
from typing import Any, ClassVar

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from litestar import Controller, Litestar, WebSocket, get, websocket
from litestar.testing import TestClient as LitestarClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from greenroom import MemoryStore
from greenroom.integrations.litestar import SessionPlugin
from greenroom.web import Session, SessionMiddleware
from greenroom.web.skipping import path_within, skipping

SECRET = "a secret for tests only, long enough"


def new_session() -> Session:
    return Session(secret=SECRET, store=MemoryStore(), dev=True)


async def has_session(request: Request) -> JSONResponse:
    return JSONResponse("session" in request.scope)


def starlette_app(*, mounted: bool = False) -> Any:
    app = Starlette(routes=[Route("/health", has_session), Route("/page", has_session)])
    app.add_middleware(SessionMiddleware, session=new_session(), skip=["/health"])
    return Starlette(routes=[Mount("/shop", Mount("/old", app))]) if mounted else app


def fastapi_app(**options: Any) -> Any:
    app = FastAPI(**options)
    app.add_middleware(SessionMiddleware, session=new_session(), skip=["/health"])
    app.add_api_route("/health", has_session)
    app.add_api_route("/page", has_session)
    return app


CASES = {
    "alone": (starlette_app(), "", ""),
    "behind a root path": (starlette_app(), "/api", "/api"),
    "behind a proxy that cuts the root path off": (starlette_app(), "/api", ""),
    "in a mount": (starlette_app(mounted=True), "", "/shop/old"),
    "in a mount behind a root path": (starlette_app(mounted=True), "/api", "/api/shop/old"),
    "FastAPI that was told of its root path": (fastapi_app(root_path="/api"), "", "/api"),
    "FastAPI behind a proxy that cuts it off": (fastapi_app(root_path="/api"), "", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_a_path_is_skipped_wherever_the_app_stands(case: str) -> None:
    app, root_path, before = CASES[case]
    client = TestClient(app, root_path=root_path)
    assert client.get(f"{before}/health").json() is False
    assert client.get(f"{before}/page").json() is True


@contextmanager
def uvicorn_serving(app: Any, root_path: str) -> Iterator[str]:
    """Serve the app by a real uvicorn in a thread; yield its address."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, root_path=root_path, log_level="error", lifespan="off")
    )
    thread = Thread(target=server.run)
    thread.start()
    try:
        deadline = monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert monotonic() < deadline
            sleep(0.01)
        (listening,) = server.servers[0].sockets
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.mark.system
@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize("mounted", [False, True])
def test_behind_a_real_uvicorn(root_path: str, *, mounted: bool) -> None:
    """As `uvicorn --root-path /api` behind a proxy that cuts /api off: uvicorn puts it before the path."""
    before = "/shop/old" if mounted else ""
    with uvicorn_serving(starlette_app(mounted=mounted), root_path) as address:
        assert httpx.get(f"{address}{before}/health").json() is False
        assert httpx.get(f"{address}{before}/page").json() is True


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_in_litestar(root_path: str) -> None:
    @get(["/health", "/page"], sync_to_thread=False)
    def show(scope: Any) -> bool:
        return "greenroom.visits" in scope

    app = Litestar([show], plugins=[SessionPlugin(new_session(), skip=["/health"], dependency=None)])
    with LitestarClient(app, root_path=root_path) as client:
        assert client.get(f"{root_path}/health").json() is False
        assert client.get(f"{root_path}/page").json() is True


def test_litestars_handlers_opt_out_as_with_its_own_middleware() -> None:
    @get("/health", skip_session=True, sync_to_thread=False)
    def health(scope: Any) -> bool:
        return "greenroom.visits" in scope

    @get("/page", skip_session=False, sync_to_thread=False)
    def page(scope: Any) -> bool:
        return "greenroom.visits" in scope

    @websocket("/socket", skip_session=True)
    async def socket(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_json("greenroom.visits" in socket.scope)
        await socket.close()

    class Static(Controller):
        path = "/static"
        opt: ClassVar[dict[str, Any]] = {"skip_session": True}

        @get("/file", sync_to_thread=False)
        def file(self, scope: Any) -> bool:
            return "greenroom.visits" in scope

    handlers = [health, page, socket, Static]
    for options, skipped in (
        ({}, True),
        ({"exclude_opt_key": None}, False),
        ({"exclude_opt_key": "no"}, False),
    ):
        plugin = SessionPlugin(new_session(), dependency=None, **options)
        with LitestarClient(Litestar(handlers, plugins=[plugin])) as client:
            assert client.get("/page").json() is True
            for path in ("/health", "/static/file"):
                assert client.get(path).json() is not skipped
            with client.websocket_connect("/socket") as connected:
                assert connected.receive_json() is not skipped
            assert client.get("/nowhere").status_code == 404


@pytest.mark.parametrize(
    ("path", "root_path", "within"),
    [
        ("/a", "", "/a"),
        ("/api/a", "/api", "/a"),
        ("/api", "/api", "/"),
        ("/api/", "/api", "/"),
        ("/apis/a", "/api", "/apis/a"),
        ("/a", "/api", "/a"),
        ("/api/a", "/api/", "/a"),
        ("/a", "/", "/a"),
    ],
)
def test_the_path_within(path: str, root_path: str, within: str) -> None:
    assert path_within({"path": path, "root_path": root_path}) == within


def test_all_below_a_path_and_nothing_beside_it() -> None:
    skips = skipping(iter(["/static/", "/health"]))
    for path, skipped in {
        "/static": True,
        "/static/a/b": True,
        "/statics": False,
        "/health": True,
        "/": False,
    }.items():
        assert skips({"path": path}) is skipped, path
    assert skipping(["/"])({"path": "/"}) is True
    assert skipping(["/"])({"path": "/a"}) is False, "all paths are below it, so it means itself"
