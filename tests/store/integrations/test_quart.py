"""Quart and quart-trio over the session interface, by itself and with the middleware, in real requests."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from quart import Quart, abort, redirect, session, websocket
from quart.testing import QuartClient
from quart_trio import QuartTrio

from greenroom import MemoryStore, StoreFullError
from greenroom.integrations.quart import GreenroomSessions
from greenroom.testing import FaultyStore, available_libraries
from greenroom.web import Session, SessionOverError


def app_of(library: str, sessions: Session, *, middleware: bool) -> Quart:
    app = Quart(__name__) if library == "asyncio" else QuartTrio(__name__)
    interface = GreenroomSessions(sessions)
    if middleware:
        interface.init_app(app)
    else:
        app.session_interface = interface
    add_pages(app)
    add_life(app)
    add_sockets(app)
    return app


def add_pages(app: Quart) -> None:
    @app.get("/")
    async def home() -> str:
        return "welcome"

    @app.get("/cart")
    async def cart() -> dict[str, Any]:
        return dict(session)

    @app.post("/cart/<sku>")
    async def add(sku: str) -> dict[str, int]:
        cart = session.setdefault("cart", {})
        cart[sku] = cart.get(sku, 0) + 1
        return cart


def add_life(app: Quart) -> None:
    @app.post("/login/<user>")
    async def login(user: str) -> Any:
        session.greenroom.login(user, keep=True)
        return redirect("/account")

    @app.get("/account")
    async def account() -> Any:
        if session.greenroom.user_id is None:
            abort(401)
        return {"user": session.greenroom.user_id, "devices": len(await session.greenroom.devices())}

    @app.post("/logout")
    async def logout() -> str:
        session.greenroom.logout()
        return "bye"

    @app.post("/clear")
    async def clear() -> str:
        session.clear()
        return "cleared"

    @app.post("/fails")
    async def fails() -> str:
        session["half"] = "done"
        raise RuntimeError("in the middle")

    @app.get("/attributes")
    async def attributes() -> dict[str, bool]:
        return {"new": session.new, "permanent": session.permanent, "modified": session.greenroom.modified}

    @app.post("/permanent")
    async def permanent() -> str:
        session.permanent = True
        return "for ever"


def add_sockets(app: Quart) -> None:
    @app.websocket("/socket")
    async def socket() -> None:
        await websocket.accept()
        session["seen"] = await websocket.receive()
        await websocket.send("noted")

    @app.websocket("/saves")
    async def saves() -> None:
        await websocket.accept()
        session["seen"] = await websocket.receive()
        await session.greenroom.save()
        await websocket.send("saved")


class Browser:
    """Quart's test client with an https base."""

    def __init__(self, app: Quart) -> None:
        self.client: QuartClient = app.test_client()

    async def get(self, path: str) -> Any:
        return await self.client.get(path, scheme="https")

    async def post(self, path: str) -> Any:
        return await self.client.post(path, scheme="https")

    async def json(self, path: str) -> Any:
        return await (await self.get(path)).get_json()

    def socket(self, path: str) -> Any:
        return self.client.websocket(path, scheme="wss")

    @property
    def cookie(self) -> str | None:
        return next((each.value for each in self.client.cookie_jar or ()), None)


Scenario = Callable[["Stage"], Awaitable[None]]


class Stage:
    """An app, its sessions and a way to run a scenario, in one of four combinations."""

    def __init__(self, library: str, *, middleware: bool) -> None:
        self.library, self.middleware = library, middleware
        self.store = FaultyStore(MemoryStore())
        self.options: dict[str, Any] = {}

    def run(self, scenario: Scenario) -> None:
        async def main() -> None:
            self.sessions = Session(
                secret="a secret for tests only, long enough", store=self.store, **self.options
            )
            self.app = app_of(self.library, self.sessions, middleware=self.middleware)
            self.browser = Browser(self.app)
            await scenario(self)

        if self.library == "trio":
            import trio

            trio.run(main)
        else:
            asyncio.run(main())


@pytest.fixture(params=available_libraries())
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["interface", "middleware"])
def stage(request: pytest.FixtureRequest, library: str) -> Stage:
    return Stage(library, middleware=request.param == "middleware")


def test_a_look_around_costs_nothing(stage: Stage) -> None:
    async def scenario(s: Stage) -> None:
        response = await s.browser.get("/")
        assert "set-cookie" not in response.headers
        assert "vary" not in response.headers
        assert not s.store.calls

    stage.run(scenario)


def test_nested_changes_count_and_reading_writes_nothing(stage: Stage) -> None:
    async def scenario(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        await s.browser.post("/cart/mug")
        response = await s.browser.get("/cart")
        assert await response.get_json() == {"cart": {"mug": 2}}
        assert response.headers["vary"] == "Cookie"
        assert s.store.writes == 2

    stage.run(scenario)


def test_a_login_gets_a_new_id_and_its_redirect_reads_it(stage: Stage) -> None:
    async def scenario(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        planted = s.browser.cookie
        assert (await s.browser.post("/login/alice")).status_code == 302
        assert s.browser.cookie != planted
        assert await s.browser.json("/account") == {"user": "alice", "devices": 1}
        assert await s.browser.json("/cart") == {"cart": {"mug": 1}}
        other = Browser(s.app)
        other.client.set_cookie("localhost", "__Host-session", planted or "", secure=True)
        assert (await other.get("/account")).status_code == 401

    stage.run(scenario)


@pytest.mark.parametrize("way", ["/logout", "/clear"])
def test_a_logout_deletes_and_clears_the_cookie(stage: Stage, way: str) -> None:
    async def scenario(s: Stage) -> None:
        await s.browser.post("/login/alice")
        assert "Max-Age=0" in (await s.browser.post(way)).headers["set-cookie"]
        assert s.store.calls["delete"] == 1
        assert (await s.browser.get("/account")).status_code == 401

    stage.run(scenario)


def test_a_handler_that_fails_has_done_nothing(stage: Stage) -> None:
    async def scenario(s: Stage) -> None:
        s.app.config["PROPAGATE_EXCEPTIONS"] = False
        await s.browser.post("/cart/mug")
        assert (await s.browser.post("/fails")).status_code == 500
        assert await s.browser.json("/cart") == {"cart": {"mug": 1}}

    stage.run(scenario)


@pytest.mark.parametrize("operation", ["get", "patch"])
def test_a_store_that_is_away_is_a_503(stage: Stage, operation: str) -> None:
    async def scenario(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        s.store.fail(operation)
        response = await s.browser.post("/cart/mug")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert "set-cookie" not in response.headers
        s.store.heal()
        assert await s.browser.json("/cart") == {"cart": {"mug": 1}}

    stage.run(scenario)


def test_a_login_that_was_saved_before_the_failure_reaches_the_browser(stage: Stage) -> None:
    async def scenario(s: Stage) -> None:
        @s.app.get("/halfway")
        async def halfway() -> str:
            session.greenroom.login("alice", keep=["cart"])
            await session.greenroom.save()
            s.store.fail("patch", times=1)
            session["half"] = "done"
            return "welcome"

        await s.browser.post("/cart/mug")
        response = await s.browser.get("/halfway")
        assert (response.status_code, response.headers["vary"]) == (503, "Cookie")
        assert await s.browser.json("/account") == {"user": "alice", "devices": 1}
        assert await s.browser.json("/cart") == {"cart": {"mug": 1}}

    stage.run(scenario)


def test_a_store_that_is_full_says_to_come_back_later(stage: Stage) -> None:
    async def scenario(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        s.store.fail("patch", StoreFullError("full"))
        response = await s.browser.post("/cart/mug")
        assert (response.status_code, response.headers["retry-after"]) == (503, "60")

    stage.run(scenario)


def test_reads_go_on_anonymously_where_that_is_wanted(stage: Stage) -> None:
    stage.options = {"on_unavailable": "anonymous"}

    async def scenario(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        s.store.fail("get")
        response = await s.browser.get("/cart")
        assert (response.status_code, await response.get_json()) == (200, {})
        assert "set-cookie" not in response.headers

    stage.run(scenario)


@pytest.mark.parametrize("path", ["/socket", "/saves"])
def test_a_websocket_changes_the_session(stage: Stage, path: str) -> None:
    async def scenario(s: Stage) -> None:
        await s.browser.post("/cart/mug")
        async with s.browser.socket(path) as socket:
            await socket.send("sea")
            assert await socket.receive() in {"noted", "saved"}
            if path == "/saves":
                assert await s.browser.json("/cart") == {"cart": {"mug": 1}, "seen": "sea"}
        assert await s.browser.json("/cart") == {"cart": {"mug": 1}, "seen": "sea"}

    stage.run(scenario)


def test_a_session_that_could_not_send_its_cookie_is_never_made(stage: Stage) -> None:
    async def scenario(s: Stage) -> None:
        # Quart's versions differ in what their client tells of a handler that failed.
        with suppress(Exception):
            async with s.browser.socket("/socket") as socket:
                await socket.send("sea")
        assert s.store.calls["create"] == 0

    stage.run(scenario)


def test_a_slow_request_undoes_no_logout(stage: Stage) -> None:
    async def scenario(s: Stage) -> None:
        await s.browser.post("/login/alice")
        late = Browser(s.app)
        late.client.set_cookie("localhost", "__Host-session", s.browser.cookie or "", secure=True)
        gate = s.store.hold("patch")
        if s.library == "trio":
            import trio

            async with trio.open_nursery() as nursery:
                nursery.start_soon(late.post, "/cart/mug")
                await gate.reached()
                await s.browser.post("/logout")
                gate.open()
        else:
            task = asyncio.create_task(late.post("/cart/mug"))
            await gate.reached()
            await s.browser.post("/logout")
            gate.open()
            assert "set-cookie" not in (await task).headers
        assert s.sessions.statistics().dropped >= 1
        assert (await late.get("/account")).status_code == 401

    stage.run(scenario)


def test_attributes_that_quart_expects(stage: Stage) -> None:
    async def scenario(s: Stage) -> None:
        s.app.config["PROPAGATE_EXCEPTIONS"] = False
        assert await s.browser.json("/attributes") == {"new": True, "permanent": False, "modified": False}
        await s.browser.post("/cart/mug")
        assert await s.browser.json("/attributes") == {"new": False, "permanent": False, "modified": False}
        assert (await s.browser.post("/permanent")).status_code == 500

    stage.run(scenario)


def test_a_streamed_body_changes_the_session_too_late() -> None:
    """With the session interface alone, that raises an error."""
    app, kept = Quart(__name__), []
    app.session_interface = GreenroomSessions(Session(dev=True))

    @app.get("/stream")
    async def stream() -> Any:
        current: Any = session
        held = current._get_current_object()
        held["n"] = 1

        async def body() -> Any:
            try:
                held["n"] = 2
            except SessionOverError as error:
                kept.append(error)
            yield b"x"

        return body()

    async def story() -> None:
        client = app.test_client()
        await (await client.get("/stream")).get_data()

    asyncio.run(story())
    assert len(kept) == 1
