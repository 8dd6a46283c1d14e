"""A request that only reads takes its session from where it is at hand, without a coroutine of the store."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
from httpx import AsyncClient
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from greenroom import MemoryStore, SessionData
from greenroom.sessions import StoredSession
from greenroom.testing import Library, ManualClock
from greenroom.web import Session, SessionMiddleware
from tests.store.poison import POISONS, poison
from tests.store.web.web_stage import SECRET, Stage, browser, session_of, tell


async def login(request: Request) -> Response:
    session_of(request).greenroom.login("alice", {"cart": {"mug": 1}, "price": "1"})
    return PlainTextResponse("welcome")


async def who(request: Request) -> Response:
    session = session_of(request)
    return JSONResponse([session.greenroom.user_id, session["cart"]])


async def add(request: Request) -> Response:
    session_of(request)["cart"]["pen"] = 2
    return PlainTextResponse("added")


async def weigh(request: Request) -> Response:
    session = session_of(request)
    session["price"] = Decimal(session["price"])
    return PlainTextResponse("weighed")


HANDLERS = (login, who, add, weigh)


class Asked(MemoryStore):
    """Counts how often it was asked by coroutines, and keeps what is at hand."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def get_stored(self, session_id: str) -> StoredSession | None:
        self.asked += 1
        return await super().get_stored(session_id)

    def at_hand(self, session_id: str) -> StoredSession | None:
        return MemoryStore.at_hand(self, session_id)


class Own(MemoryStore):
    """Overrides what reads sessions, and knows nothing of `at_hand`."""

    async def get(self, session_id: str) -> SessionData | None:
        found = await super().get(session_id)
        if found is not None:
            found.data["cart"] = {"own": 1}
        return found


class Elsewhere(MemoryStore):
    """Has nothing at hand, and counts how often it was asked for that."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def at_hand(self, _session_id: str) -> StoredSession | None:
        self.looks += 1
        return None


Story = Callable[[Stage, AsyncClient], Awaitable[None]]


def tell_of_alice(library: Library, store: MemoryStore, story: Story, *handlers: Any, **options: Any) -> None:
    """Tell a story that begins with a login, of a site whose sessions are in this store."""

    async def whole() -> None:
        stage = Stage()
        stage.sessions = Session(secret=SECRET, store=store, **options)
        async with browser(stage.app(*HANDLERS, *handlers)) as client:
            await client.post("/login")
            await story(stage, client)

    tell(library, whole)


def test_a_page_that_reads_asks_a_store_at_hand_by_no_coroutine(library: Library) -> None:
    store = Asked()

    async def story(stage: Stage, client: AsyncClient) -> None:
        assert (await client.get("/who")).json() == ["alice", {"mug": 1}]
        assert store.asked == 0
        assert stage.sessions.statistics().loads == 1
        assert stage.sessions.statistics().patches == 0

    tell_of_alice(library, store, story)


def test_a_page_looks_for_what_is_at_hand_once(library: Library) -> None:
    store = Elsewhere()

    async def story(_stage: Stage, client: AsyncClient) -> None:
        assert (await client.get("/who")).json() == ["alice", {"mug": 1}]
        assert store.looks == 1

    tell_of_alice(library, store, story)


def test_a_change_within_a_value_at_hand_is_stored(library: Library) -> None:
    async def story(_stage: Stage, client: AsyncClient) -> None:
        await client.post("/add")
        assert (await client.get("/who")).json() == ["alice", {"mug": 1, "pen": 2}]

    tell_of_alice(library, MemoryStore(), story)


def test_a_value_of_another_type_is_stored_though_its_bytes_are_equal(library: Library) -> None:
    store = MemoryStore()

    async def story(stage: Stage, client: AsyncClient) -> None:
        await client.post("/weigh")
        session_id = stage.session_id(client)
        assert session_id is not None
        found = await store.get(session_id)
        assert found is not None
        assert found.data["price"] == Decimal(1)
        assert type(found.data["price"]) is Decimal

    tell_of_alice(library, store, story)


def test_a_store_that_overrides_reading_is_asked(library: Library) -> None:
    async def story(_stage: Stage, client: AsyncClient) -> None:
        assert (await client.get("/who")).json() == ["alice", {"own": 1}]

    tell_of_alice(library, Own(), story)


def test_what_has_ended_is_not_at_hand(library: Library) -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)

    async def story(stage: Stage, client: AsyncClient) -> None:
        session_id = stage.session_id(client)
        assert session_id is not None
        assert store.at_hand(session_id) is not None
        clock.advance(61)
        assert store.at_hand(session_id) is None
        assert store.at_hand("no session's id") is None

    tell_of_alice(library, store, story, clock=clock, idle_seconds=60)


@pytest.mark.parametrize("data", POISONS.values(), ids=POISONS)
def test_what_cannot_be_read_counts_as_none_once(library: Library, data: bytes) -> None:
    store = MemoryStore()

    async def anyone(request: Request) -> Response:
        return JSONResponse(session_of(request).greenroom.user_id)

    async def story(stage: Stage, client: AsyncClient) -> None:
        session_id = stage.session_id(client)
        assert session_id is not None
        poison(store, session_id, data)
        assert (await client.get("/anyone")).json() is None
        assert stage.sessions.statistics().unreadable == 1

    tell_of_alice(library, store, story, anyone)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        ([(b"accept", b"*/*")], None),
        ([(b"accept", b"*/*"), (b"cookie", b"COOKIE")], "alice"),
        ([(b"cookie", b"theme=dark"), (b"cookie", b"COOKIE")], "alice"),
        (((b"cookie", b"COOKIE"),), "alice"),
        ([[b"cookie", b"COOKIE"]], "alice"),
    ],
)
def test_the_cookie_is_found_however_a_server_passes_headers(
    library: Library, headers: Any, found: str | None
) -> None:
    sessions = Session(secret=SECRET, store=MemoryStore())
    seen: list[str | None] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        seen.append(scope["session"].greenroom.user_id)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def story() -> None:
        visit = sessions.visit([])
        visit.session.greenroom.login("alice")  # type: ignore[attr-defined]  # it is a RequestSession
        await visit.save()
        (cookie,) = visit.set_cookies()
        own = cookie.partition(";")[0].encode()
        pairs = [
            type(pair)(value.replace(b"COOKIE", own) for value in pair) if headers else pair
            for pair in headers
        ]

        async def send(_message: Any) -> None:
            pass

        scope = {"type": "http", "scheme": "https", "headers": type(headers)(pairs)}
        await SessionMiddleware(app, session=sessions)(scope, None, send)  # type: ignore[arg-type]  # unused

    tell(library, story)
    assert seen == [found]
