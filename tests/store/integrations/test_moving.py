"""On the day of the switch, from the sessions of every library to an app on Greenroom in every framework."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from aiohttp_session import SimpleCookieStorage
from freezegun import freeze_time
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from greenroom import MemoryStore, UsageError
from greenroom.integrations.moving import AiohttpStorage, OtherStore
from greenroom.testing import FaultyStore
from greenroom.web import Session, SessionMiddleware
from tests.store.integrations.old_sites import OLD_SITES, Old, cookies_of, quart_cookies, starlette_cookies
from tests.store.integrations.sites import SITES, Site, fastapi_site, served

ALICE_DATA = {"user_id": "alice", "theme": "dark"}
ALICE = ["alice", ALICE_DATA]
NOBODY = [None, {}]
SECONDS = 30.0
SECRET = "a secret for tests only, long enough"


def carry(cookies: dict[str, str], visitor: httpx.AsyncClient) -> None:
    """Put the cookies of one browser into another, as the old app set them."""
    for name, value in cookies.items():
        visitor.cookies.set(name, value, domain=visitor.base_url.host, path="/")


@pytest.mark.parametrize("cookie_name", ["session", "greenroom"])
@pytest.mark.parametrize("site", SITES.values(), ids=list(SITES))
@pytest.mark.parametrize("old_site", OLD_SITES.values(), ids=list(OLD_SITES))
def test_a_visitor_keeps_login_and_data_and_logs_out_of_both(
    old_site: Callable[[], Old], site: Callable[[Session], Site], cookie_name: str
) -> None:
    async def story() -> None:
        store = MemoryStore()
        async with old_site() as (old_app, reader):
            sessions = Session(
                secret="a secret for tests only, long enough",
                store=store,
                dev=True,
                cookie_name=cookie_name,
                moves_from=reader,
            )
            cookies = await cookies_of(old_app, "alice")
            async with site(sessions) as visitor:
                assert (await visitor.get("/who")).json() == NOBODY
                carry(cookies, visitor)
                assert (await visitor.get("/who")).json() == ALICE
                assert list(visitor.cookies) == [cookie_name]
                assert visitor.cookies[cookie_name] != cookies.get(cookie_name)
                assert (await visitor.get("/who")).json() == ALICE
                assert len(await store.list_by_user("alice")) == 1
                assert sessions.statistics().moved == 1
                await visitor.get("/logout")
                assert not visitor.cookies
                assert (await visitor.get("/who")).json() == NOBODY
                carry(cookies, visitor)
                assert (await visitor.get("/who")).json() == NOBODY
                for key in reader.keys(lambda name: [cookies.get(name, "").encode()]):
                    # What is in a cookie cannot be deleted; that it ended is remembered.
                    assert "cookies" in old_site.__name__ or await reader.read(key) is None

    asyncio.run(asyncio.wait_for(story(), SECONDS))


@pytest.mark.parametrize("old_site", [starlette_cookies, quart_cookies])
def test_a_cookie_of_a_host_whose_clock_is_ahead_moves(old_site: Callable[[], Old]) -> None:
    """The old library refuses it: of two hosts that signed it, the slower takes it for expired."""

    async def story() -> None:
        async with old_site() as (old_app, reader):
            sessions = Session(secret=SECRET, store=MemoryStore(), dev=True, moves_from=reader)
            with freeze_time(datetime.now(UTC) + timedelta(hours=1), real_asyncio=True):
                cookies = await cookies_of(old_app, "alice")
            async with starlette_site(sessions) as visitor:
                carry(cookies, visitor)
                assert (await visitor.get("/who")).json() == ALICE
                assert sessions.statistics().moved == 1

    asyncio.run(asyncio.wait_for(story(), SECONDS))


@pytest.mark.parametrize("old_site", OLD_SITES.values(), ids=list(OLD_SITES))
def test_two_first_visits_at_once_move_one_session(old_site: Callable[[], Old]) -> None:
    async def story() -> None:
        store = FaultyStore(MemoryStore())
        async with old_site() as (old_app, reader):
            sessions = Session(
                secret="a secret for tests only, long enough", store=store, dev=True, moves_from=reader
            )
            cookies = await cookies_of(old_app, "alice")
            async with starlette_site(sessions) as late, starlette_site(sessions) as early:
                carry(cookies, late)
                carry(cookies, early)
                gate = store.hold("create")
                slow = asyncio.create_task(late.get("/set/mug"))
                await gate.reached()
                await early.get("/set/pan")
                gate.open()
                await slow
                for visitor in (late, early):
                    assert (await visitor.get("/who")).json() == ["alice", {**ALICE_DATA, "mug": 1, "pan": 1}]
                assert len(await store.inner.list_by_user("alice")) == sessions.statistics().moved == 1

    asyncio.run(asyncio.wait_for(story(), SECONDS))


@pytest.mark.parametrize("old_site", OLD_SITES.values(), ids=list(OLD_SITES))
def test_a_store_that_fails_leaves_the_old_session_where_it_is(old_site: Callable[[], Old]) -> None:
    async def story() -> None:
        store = FaultyStore(MemoryStore())
        async with old_site() as (old_app, reader):
            sessions = Session(
                secret="a secret for tests only, long enough", store=store, dev=True, moves_from=reader
            )
            cookies = await cookies_of(old_app, "alice")
            async with starlette_site(sessions) as visitor:
                carry(cookies, visitor)
                store.fail("create")
                assert (await visitor.get("/who")).status_code == 503
                assert dict(visitor.cookies) == cookies
                (key,) = reader.keys(lambda name: [cookies[name].encode()] if name in cookies else [])
                assert await reader.read(key) is not None
                store.heal()
                assert (await visitor.get("/who")).json() == ALICE

    asyncio.run(asyncio.wait_for(story(), SECONDS))


def test_a_store_that_is_left_is_asked_no_more_once_a_session_has_moved() -> None:
    async def story() -> None:
        old_store, store = FaultyStore(MemoryStore()), FaultyStore(MemoryStore())
        before = Session(secret="a secret for tests only, long enough", store=old_store, dev=True)
        sessions = Session(
            secret="a secret for tests only, long enough",
            store=store,
            dev=True,
            moves_from=OtherStore(old_store),
        )
        async with fastapi_site(before) as visitor:
            await visitor.get("/login/alice")
            cookies = dict(visitor.cookies)
        async with fastapi_site(sessions) as visitor:
            carry(cookies, visitor)
            assert (await visitor.get("/who")).json() == ["alice", {}]
            assert await old_store.inner.list_by_user("alice") == []
            old_store.calls.clear()
            store.calls.clear()
            assert (await visitor.get("/who")).json() == ["alice", {}]
            assert not old_store.calls
            assert store.calls == {"get": 1}
            await visitor.get("/logout")
            carry(cookies, visitor)
            assert (await visitor.get("/who")).json() == NOBODY

    asyncio.run(asyncio.wait_for(story(), SECONDS))


@pytest.mark.parametrize("site", [each for each in SITES if each != "aiohttp"])
def test_a_cookie_under_another_name_is_accepted_once(site: str) -> None:
    """On the day that the prefix __Host- comes: no session is lost, and a logout ends both cookies."""

    async def story() -> None:
        store = MemoryStore()
        before = Session(secret=SECRET, store=store, host_prefix=False)
        sessions = Session(secret=SECRET, store=store, moves_from=OtherStore(before))
        async with SITES[site](before) as browser:
            await browser.get("/fill")
            await browser.get("/keep/alice")
            (old,) = browser.cookies.items()
        async with SITES[site](sessions) as browser:
            response = await browser.get("/who", headers={"cookie": "=".join(old)})
            assert response.json() == ["alice", {"cart": {"mug": 1}}]
            given, removed = sorted(response.headers.get_list("set-cookie"))
            assert given.startswith("__Host-session=gr-")
            assert removed.startswith("session=; Max-Age=0")
            assert (await browser.get("/who")).json() == ["alice", {"cart": {"mug": 1}}]
            browser.cookies.clear()
            again = await browser.get("/who", headers={"cookie": "=".join(old)})
            assert len(await store.list_by_user("alice")) == 1
            await browser.get("/logout")
            browser.cookies.clear()
            assert again.json() == ["alice", {"cart": {"mug": 1}}], "as if the response had been lost"
            gone = await browser.get("/who", headers={"cookie": "=".join(old)})
            assert gone.json() == [None, {}], "after a logout"

    asyncio.run(story())


def starlette_site(sessions: Session) -> Site:
    async def who(request: Request) -> JSONResponse:
        session: Any = request.session
        return JSONResponse([session.greenroom.user_id, session])

    async def set_one(request: Request) -> JSONResponse:
        request.session[request.path_params["key"]] = 1
        return JSONResponse({})

    app = Starlette(routes=[Route("/who", who), Route("/set/{key}", set_one)])
    app.add_middleware(SessionMiddleware, session=sessions)
    return served(app)


@pytest.mark.parametrize("old_site", OLD_SITES.values(), ids=list(OLD_SITES))
def test_once_it_has_moved_a_page_costs_one_read_also_under_the_old_name(old_site: Callable[[], Old]) -> None:
    async def story() -> None:
        store = FaultyStore(MemoryStore())
        async with old_site() as (old_app, reader):
            sessions = Session(
                secret="a secret for tests only, long enough",
                store=store,
                dev=True,
                cookie_name=reader.cookie.name,
                moves_from=reader,
            )
            cookies = await cookies_of(old_app, "alice")
            async with starlette_site(sessions) as visitor:
                carry(cookies, visitor)
                await visitor.get("/who")
                store.calls.clear()
                assert (await visitor.get("/who")).json() == ALICE
                assert store.calls == {"get": 1}
                assert sessions.statistics().refused_cookies == 0

    asyncio.run(asyncio.wait_for(story(), SECONDS))


def test_sessions_that_anybody_can_write_are_not_moved() -> None:
    with pytest.raises(UsageError, match="does not sign its cookies"):
        AiohttpStorage(SimpleCookieStorage())
