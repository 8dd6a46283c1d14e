"""Litestar: sessions by the plugin, and its stores over ours, in real requests."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar, Request, WebSocket, get, post, websocket
from litestar.exceptions import NotAuthorizedException
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.stores.base import Store
from litestar.stores.file import FileStore
from litestar.stores.memory import MemoryStore as LitestarsMemoryStore
from litestar.testing import AsyncTestClient, TestClient
from msgspec import structs

from greenroom import BaseSessionStore, MemoryStore, UnsupportedError, UsageError
from greenroom.integrations.litestar import GreenroomStore, SessionDep, SessionPlugin
from greenroom.testing import FaultyStore, ManualClock, login_as
from greenroom.web import Session
from tests.store.poison import NEWER, POISONS

SECRET = "a secret for tests only, long enough"
DAY = 86_400


def sessions_over(store: BaseSessionStore, **options: Any) -> Session:
    return Session(secret=SECRET, store=store, **options)


@get("/")
async def home() -> str:
    return "welcome"


@post("/cart/{sku:str}")
async def add(sku: FromPath[str], session: SessionDep) -> dict[str, int]:
    cart: dict[str, int] = session.setdefault("cart", {})
    cart[sku] = cart.get(sku, 0) + 1
    return cart


@post("/plain/{sku:str}")
async def add_plainly(sku: FromPath[str], session: dict[str, Any]) -> None:
    """Litestar copies a dependency of this type in C, past the methods of the session."""
    session["cart"][sku] = 1


@get("/cart")
async def cart(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return dict(request.session)


@post("/login/{user:str}", status_code=303)
async def login(user: FromPath[str], session: SessionDep) -> Redirect:
    session.greenroom.login(user)
    return Redirect("/account", status_code=303)


@get("/account")
async def account(session: SessionDep) -> dict[str, Any]:
    if session.greenroom.user_id is None:
        raise NotAuthorizedException
    return {"user": session.greenroom.user_id, "devices": len(await session.greenroom.devices())}


@post("/replace")
async def replace(request: Request[Any, Any, Any]) -> None:
    request.set_session({"theme": "dark"})


@post("/clear")
async def clear(request: Request[Any, Any, Any]) -> None:
    request.clear_session()


@post("/fails")
async def fails(session: SessionDep) -> None:
    session["half"] = "done"
    raise RuntimeError("in the middle")


@post("/refuses")
async def refuses(session: SessionDep) -> None:
    session["tries"] = session.get("tries", 0) + 1
    raise NotAuthorizedException


@websocket("/socket")
async def socket(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    socket.session["seen"] = await socket.receive_text()
    await socket.close()


def app_over(sessions: Session) -> Litestar:
    handlers = [home, add, add_plainly, cart, login, account, replace, clear, fails, refuses, socket]
    return Litestar(handlers, plugins=[SessionPlugin(sessions)])


@pytest.fixture
def sessions() -> Session:
    return sessions_over(MemoryStore())


@pytest.fixture
def client(sessions: Session) -> Any:
    with TestClient(app_over(sessions), base_url="https://testserver.local") as client:
        yield client


def test_a_look_around_costs_nothing(client: TestClient[Litestar], sessions: Session) -> None:
    response = client.get("/")
    assert "set-cookie" not in response.headers
    assert "vary" not in response.headers
    assert sessions.statistics().creates == 0


def test_nested_changes_count(client: TestClient[Litestar]) -> None:
    client.post("/cart/mug")
    assert client.post("/cart/mug").json() == {"mug": 2}
    assert client.get("/cart").json() == {"cart": {"mug": 2}}
    client.post("/plain/pan")
    assert client.get("/cart").json() == {"cart": {"mug": 2, "pan": 1}}


def test_a_login_gets_a_new_id_and_its_redirect_reads_it(client: TestClient[Litestar]) -> None:
    client.post("/cart/mug")
    planted = client.cookies["__Host-session"]
    assert client.post("/login/alice").json() == {"user": "alice", "devices": 1}
    assert client.cookies["__Host-session"] != planted
    client.cookies.clear()
    client.cookies.set("__Host-session", planted)
    assert client.get("/account").status_code == 401


def test_what_set_session_puts_there_replaces_all(client: TestClient[Litestar]) -> None:
    client.post("/cart/mug")
    client.post("/replace")
    assert client.get("/cart").json() == {"theme": "dark"}


def test_clear_session_deletes(client: TestClient[Litestar], sessions: Session) -> None:
    client.post("/cart/mug")
    response = client.post("/clear")
    assert "Max-Age=0" in response.headers["set-cookie"]
    assert sessions.statistics().deletes == 1


def test_a_handler_that_fails_has_done_nothing(sessions: Session) -> None:
    with TestClient(
        app_over(sessions), base_url="https://testserver.local", raise_server_exceptions=False
    ) as client:
        client.post("/cart/mug")
        assert client.post("/fails").status_code == 500
        assert client.get("/cart").json() == {"cart": {"mug": 1}}
        assert client.post("/refuses").status_code == 401
        assert client.get("/cart").json() == {"cart": {"mug": 1}, "tries": 1}


def test_a_websocket_shares_the_session(client: TestClient[Litestar]) -> None:
    client.post("/cart/mug")
    with client.websocket_connect("wss://testserver.local/socket") as socket:
        socket.send_text("sea")
    assert client.get("/cart").json() == {"cart": {"mug": 1}, "seen": "sea"}


def test_a_store_that_is_away_is_a_503() -> None:
    store = FaultyStore(MemoryStore())
    with TestClient(app_over(sessions_over(store)), base_url="https://testserver.local") as client:
        client.post("/cart/mug")
        store.fail("*")
        response = client.get("/cart")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")


def test_login_as_works_here_too(client: TestClient[Litestar], sessions: Session) -> None:
    login_as(client, "alice", session=sessions, cart={"mug": 3})
    assert client.get("/account").json()["user"] == "alice"


def test_concurrent_requests_all_count() -> None:
    async def main() -> None:
        async with AsyncTestClient(
            app_over(sessions_over(MemoryStore())), base_url="https://testserver.local"
        ) as client:
            await client.post("/cart/mug")
            await asyncio.gather(*(client.post(f"/cart/sku-{n}") for n in range(20)))
            assert len((await client.get("/cart")).json()["cart"]) == 21

    asyncio.run(main())


# --- the store -------------------------------------------------------------------------------------------


class Clocked:
    """A Litestar store over a MemoryStore, both following one clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.memory = MemoryStore(clock=self.clock)
        self.store = GreenroomStore(self.memory, namespace="cache", clock=self.clock)


def on_store(test: Callable[[Clocked], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(Clocked())

    asyncio.run(main())


def test_it_is_a_store() -> None:
    assert isinstance(GreenroomStore("memory://"), Store)
    assert "cache" in repr(GreenroomStore("memory://", namespace="cache"))


@pytest.mark.parametrize("key", ["!", "", "a/b:c d", "ключ", "k" * 5000, "\udc80"])
def test_any_string_is_a_key(key: str) -> None:
    async def run(c: Clocked) -> None:
        await c.store.set(key, b"\x00\xff")
        assert await c.store.get(key) == b"\x00\xff"
        assert await c.store.exists(key)
        await c.store.delete(key)
        await c.store.delete(key)
        assert await c.store.get(key) is None
        assert not await c.store.exists(key)

    on_store(run)


def test_text_comes_back_as_bytes_and_the_last_set_wins() -> None:
    async def run(c: Clocked) -> None:
        await c.store.set("k", "grüße", 10)
        await c.store.set("k", "später")
        assert await c.store.get("k") == "später".encode()
        assert await c.store.expires_in("k") == -1
        await c.store.set("k", b"")
        assert await c.store.get("k") == b""

    on_store(run)


def test_lifetimes() -> None:
    async def run(c: Clocked) -> None:
        await c.store.set("int", b"1", expires_in=14 * DAY)
        await c.store.set("delta", b"1", expires_in=timedelta(days=1, milliseconds=500))
        await c.store.set("ever", b"1")
        assert await c.store.expires_in("int") == 14 * DAY
        assert await c.store.expires_in("delta") == DAY
        assert await c.store.expires_in("ever") == -1
        assert await c.store.expires_in("absent") is None
        c.clock.advance(2 * DAY)
        assert await c.store.get("delta") is None
        assert not await c.store.exists("delta")
        c.clock.advance(5000 * DAY)
        assert await c.store.get("int") is None
        assert await c.store.get("ever") == b"1"
        await c.store.set("gone", b"1", expires_in=-1)
        assert await c.store.get("gone") is None
        await c.store.delete_expired()

    on_store(run)


def test_expires_in_is_told_as_litestars_own_stores_do(tmp_path: Path) -> None:
    async def run(c: Clocked) -> None:
        for store in (c.store, LitestarsMemoryStore(), FileStore(tmp_path, create_directories=True)):
            await store.set("ever", b"1")
            await store.set("zero", b"1", expires_in=0)
            await store.set("ends", b"1", expires_in=100)
            found = [await store.expires_in(key) for key in ("ever", "zero", "ends", "absent")]
            assert found in ([-1, -1, 100, None], [-1, -1, 99, None]), store

    on_store(run)


@pytest.mark.parametrize("wrong", ["60", True, b"1", [], float("nan"), float("inf"), 1e12, timedelta.max])
def test_what_is_no_lifetime_is_refused(wrong: Any) -> None:
    async def run(c: Clocked) -> None:
        with pytest.raises(UsageError, match="a lifetime is"):
            await c.store.set("k", b"1", expires_in=wrong)
        assert not await c.store.exists("k")
        with pytest.raises(UsageError, match="a lifetime is"):
            await c.store.get("k", renew_for=wrong)

    on_store(run)


def test_renewal() -> None:
    async def run(c: Clocked) -> None:
        await c.store.set("k", b"1", expires_in=100)
        await c.store.set("ever", b"1")
        c.clock.advance(90)
        assert await c.store.get("k", renew_for=100) == b"1"
        assert await c.store.get("ever", renew_for=timedelta(seconds=1)) == b"1"
        c.clock.advance(90)
        assert await c.store.get("k", renew_for=timedelta(seconds=20)) == b"1"
        assert await c.store.expires_in("k") == 20
        assert await c.store.get("ever") == b"1"
        c.clock.advance(21)
        assert await c.store.get("k", renew_for=100) is None

    on_store(run)


def test_a_renewal_never_undoes_a_deletion_or_a_replacement() -> None:
    async def run(c: Clocked) -> None:
        await c.store.set("k", b"old", expires_in=100)
        await asyncio.gather(
            *(c.store.get("k", renew_for=100) for _ in range(20)),
            c.store.set("k", b"new"),
            c.store.delete("k"),
        )
        assert await c.store.get("k") in {None, b"new"}

    on_store(run)


def test_delete_all_keeps_to_its_namespace() -> None:
    async def run(c: Clocked) -> None:
        other = GreenroomStore(c.memory, namespace="other")
        await other.set("k", b"1")
        for n in range(50):
            await c.store.set(f"k{n}", b"1")
        await c.store.delete_all()
        assert not any([await c.store.exists(f"k{n}") for n in range(50)])
        assert await other.get("k") == b"1"

    on_store(run)


def test_sets_at_once_leave_one_of_them() -> None:
    async def run(c: Clocked) -> None:
        await asyncio.gather(*(c.store.set("k", f"{n}") for n in range(20)))
        assert int(await c.store.get("k") or b"-1") in range(20)

    on_store(run)


def test_mistakes_are_told() -> None:
    class Plain(MemoryStore):
        features = frozenset({"patch", "modify"})

    async def run(c: Clocked) -> None:
        with pytest.raises(UsageError):
            await c.store.set("k", 1)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            await c.store.get(1)  # type: ignore[arg-type]
        with pytest.raises(UnsupportedError):
            await GreenroomStore(Plain()).delete_all()

    on_store(run)


def test_litestars_own_sessions_and_response_cache_run_on_it() -> None:
    calls = []

    @get("/slow", cache=60)
    async def slow() -> int:
        calls.append(1)
        return len(calls)

    @get("/visits")
    async def visits(request: Request[Any, Any, Any]) -> int:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return int(request.session["visits"])

    memory = MemoryStore()
    app = Litestar(
        [slow, visits],
        middleware=[ServerSideSessionConfig(max_age=14 * DAY, renew_on_access=True).middleware],
        stores={
            "sessions": GreenroomStore(memory, namespace="sessions"),
            "response_cache": GreenroomStore("memory://", namespace="cache"),
        },
    )
    with TestClient(app, base_url="https://testserver.local") as client:
        assert [client.get("/visits").json() for _ in range(3)] == [1, 2, 3]
        assert [client.get("/slow").json() for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("data", [*POISONS.values(), NEWER], ids=[*POISONS, "newer"])
def test_a_value_that_cannot_be_read_is_none_and_can_be_replaced(data: bytes) -> None:
    async def scenario() -> None:
        memory = MemoryStore()
        store = GreenroomStore(memory)
        await store.set("key", b"first", expires_in=60)
        sessions = memory._table.sessions
        [digest] = sessions
        sessions[digest] = structs.replace(sessions[digest], data=data)
        assert await store.get("key") is None
        assert await store.get("key", renew_for=60) is None
        assert not await store.exists("key")
        assert await store.expires_in("key") is None
        await store.set("key", b"second", expires_in=60)
        assert await store.get("key") == b"second"

    asyncio.run(scenario())


def test_a_value_of_another_kind_is_none() -> None:
    async def scenario() -> None:
        memory = MemoryStore()
        store = GreenroomStore(memory)
        await store.set("key", b"first")
        sessions = memory._table.sessions
        [digest] = sessions
        sessions[digest] = structs.replace(sessions[digest], data=b"\x81\xa5value\x01")
        assert await store.get("key") is None
        assert not await store.exists("key")

    asyncio.run(scenario())
