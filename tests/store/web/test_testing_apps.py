"""`login_as` and `FaultyStore`, as tests of apps use them."""

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from greenroom import MemoryStore, OutcomeUnknownError, SessionData, UnavailableError, UsageError
from greenroom.fields import utc_now
from greenroom.testing import FaultyStore, Library, ManualClock, StoreContract, login_as
from greenroom.web import SessionMiddleware
from tests.store.web.web_stage import SECRET, Stage, browser, session_of, tell


async def who(request: Request) -> Response:
    return JSONResponse([session_of(request).greenroom.user_id, request.session])


async def login(request: Request) -> Response:
    session_of(request).greenroom.login("bob")
    return PlainTextResponse("welcome")


async def logout(request: Request) -> Response:
    session_of(request).greenroom.logout()
    return PlainTextResponse("bye")


@pytest.mark.parametrize(
    "url",
    [
        *("https://testserver", "http://testserver", "https://shop.example", "https://Shop.Example"),
        *("https://[::1]:8443", "https://[2001:db8::1]", "https://[fe80::1]/", "http://[::1]"),
        *("http://127.0.0.1:8000", "https://10.0.0.1", "http://localhost:8000", "https://bücher.example:444"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"path": "/"}, {"host_prefix": False}])
def test_a_test_client_is_logged_in(url: str, options: dict[str, Any]) -> None:
    stage = Stage(secure=url.startswith("https"), **options)
    client = TestClient(stage.app(who, login, logout), base_url=url)
    handle = login_as(client, "alice", cart={"mug": 2})
    assert len(handle) == 46
    assert client.get("/who").json() == ["alice", {"cart": {"mug": 2}}]
    client.get("/login")
    assert client.get("/who").json() == ["bob", {}]
    login_as(client, "carol")
    assert client.get("/who").json() == ["carol", {}]
    client.get("/logout")
    assert client.get("/who").json() == [None, {}]
    assert not client.cookies


@pytest.mark.parametrize("url", ["https://shop.example", "https://www.shop.example"])
@pytest.mark.parametrize("domain", ["shop.example", ".shop.example", "Shop.example"])
def test_a_cookie_of_a_domain_is_sent_to_its_hosts(url: str, domain: str) -> None:
    stage = Stage(domain=domain)
    client = TestClient(stage.app(who, login, logout), base_url=url)
    login_as(client, "alice")
    assert client.get("/who").json() == ["alice", {}]
    client.get("/login")
    assert client.get("/who").json() == ["bob", {}]
    assert len(list(client.cookies.jar)) == 1, "the app's cookie took the place of ours"


def test_a_domain_that_does_not_hold_the_host_is_told() -> None:
    client = TestClient(Stage(domain="shop.example").app(who), base_url="https://testserver")
    with pytest.raises(UsageError, match="base_url"):
        login_as(client, "alice")


def test_an_async_client_awaits_it(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(who)) as client:
            await login_as(client, "alice", n=1)
            assert (await client.get("/who")).json() == ["alice", {"n": 1}]

    tell(library, story)


def test_the_session_is_found_behind_other_middleware() -> None:
    """It is found too if the middleware built it from keywords."""

    async def dispatch(request: Request, call_next: object) -> Response:
        response: Response = await call_next(request)  # type: ignore[operator]
        return response

    app = Starlette(routes=[Route("/who", who)])
    app.add_middleware(SessionMiddleware, secret_key=SECRET, store=MemoryStore())
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    client = TestClient(app, base_url="https://testserver")
    login_as(client, "alice")
    assert client.get("/who").json() == ["alice", {}]


def test_a_session_may_be_handed_over_and_is_asked_for_where_none_is_found() -> None:
    stage = Stage()
    inner = stage.app(who)

    async def hidden(scope: object, receive: object, send: object) -> None:
        await inner(scope, receive, send)  # type: ignore[arg-type]

    client = TestClient(hidden, base_url="https://testserver")
    with pytest.raises(UsageError, match="session=sessions"):
        login_as(client, "alice")
    login_as(client, "alice", session=stage.sessions)
    assert client.get("/who").json() == ["alice", {}]


def test_login_as_tells_what_went_wrong() -> None:
    stage = Stage()
    stage.store.fail("create", UnavailableError("cut off"))
    client = TestClient(stage.app(who), base_url="https://testserver")
    with pytest.raises(UnavailableError, match="cut off"):
        login_as(client, "alice")
    assert isinstance(client, httpx.Client) or not client.cookies


class TestFaultyStoreIsAStore(StoreContract):
    """With no faults it keeps the contract of its inner store."""

    def make_store(self) -> FaultyStore:
        self.clock = ManualClock()
        return FaultyStore(MemoryStore(clock=self.clock))


def test_faults_come_as_told(library: Library) -> None:
    async def story() -> None:
        store = FaultyStore()
        session = SessionData(session_id="an-id", expires=utc_now().replace(year=9000))
        store.fail("create", times=2)
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await store.create(session)
        await store.create(session)
        store.fail("patch", OutcomeUnknownError("?", harmless_to_repeat=True), applied=True)
        with pytest.raises(OutcomeUnknownError):
            await store.patch("an-id", set={"n": 1})
        store.heal()
        found = await store.get("an-id")
        assert found is not None
        assert found.data == {"n": 1}
        store.fail("*")
        with pytest.raises(UnavailableError):
            await store.get("an-id")
        assert store.calls == {"create": 3, "patch": 1, "get": 2}
        assert store.writes == 4
        with pytest.raises(UsageError, match="no operation of a store"):
            store.fail("destroy")
        with pytest.raises(UsageError, match="no operation of a store"):
            store.hold("destroy")

    tell(library, story)
