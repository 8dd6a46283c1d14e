"""What stands beside sessions in an app: CORS, a database's session of the same name, a page with scripts."""

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from greenroom import MemoryStore
from greenroom.integrations.fastapi import SessionDep
from greenroom.testing import FaultyStore
from greenroom.web import Session, SessionMiddleware
from tests.store.integrations.sites import served
from tests.test_docs import BLOCKS

ORIGIN = "https://www.shop.example"


def block_of(page: str, word: str) -> dict[str, Any]:
    """Run the code block of a page that holds this word; return what it defines."""
    (block,) = [each for each in BLOCKS if each.page.stem == page and word in each.code]
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(block.code, str(block), "exec"), names)
    return names


def shop(*, cors_in_front: bool) -> tuple[FastAPI, FaultyStore]:
    store = FaultyStore(MemoryStore())
    app = FastAPI()

    @app.post("/cart/{sku}")
    async def add(sku: str, session: SessionDep) -> None:
        session.setdefault("cart", {})[sku] = 1

    cors = {"allow_origins": [ORIGIN], "allow_credentials": True, "allow_methods": ["*"]}
    if not cors_in_front:
        app.add_middleware(CORSMiddleware, **cors)
    app.add_middleware(
        SessionMiddleware, session=Session(secret="a secret for tests only, long enough", store=store)
    )
    if cors_in_front:
        app.add_middleware(CORSMiddleware, **cors)
    return app, store


def test_with_cors_in_front_a_script_sees_the_503() -> None:
    async def story(*, cors_in_front: bool) -> tuple[httpx.Response, httpx.Response]:
        app, store = shop(cors_in_front=cors_in_front)
        async with served(app) as visitor:
            visitor.headers["origin"] = ORIGIN
            answer = await visitor.post("/cart/mug")
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert {each.strip() for each in answer.headers["vary"].split(",")} == {"Cookie", "Origin"}
            asked = await visitor.options("/cart/mug", headers={"access-control-request-method": "POST"})
            assert asked.headers["access-control-allow-credentials"] == "true"
            assert "set-cookie" not in asked.headers
            store.fail("get")
            return answer, await visitor.post("/cart/pan")

    _, refused = asyncio.run(story(cors_in_front=True))
    assert refused.status_code == 503
    assert refused.headers["access-control-allow-origin"] == ORIGIN
    _, hidden = asyncio.run(story(cors_in_front=False))
    assert hidden.status_code == 503
    assert "access-control-allow-origin" not in hidden.headers


def test_the_page_puts_cors_in_front() -> None:
    async def story() -> None:
        app = block_of("fastapi", "CORSMiddleware")["app"]
        assert [each.cls for each in app.user_middleware] == [CORSMiddleware, SessionMiddleware]
        async with served(app) as visitor:
            answer = await visitor.get("/", headers={"origin": ORIGIN})
            assert answer.headers["access-control-allow-origin"] == ORIGIN

    asyncio.run(story())


def test_the_sessions_of_a_database_and_of_a_visitor_stand_in_one_endpoint() -> None:
    async def story() -> None:
        app = block_of("fastapi", "sqlmodel")["app"]
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://app.test"
        ) as visitor:
            assert (await visitor.get("/greeting")).json() == "STRANGER"
            assert list(visitor.cookies) == ["session"]
            assert [each["name"] for each in app.openapi()["paths"]["/greeting"]["get"]["parameters"]] == [
                "__Host-session"
            ]

    asyncio.run(story())


def test_two_first_visits_at_once_are_two_sessions() -> None:
    """Unless a page came before and began the session."""

    async def story(*, page_first: bool) -> set[str]:
        app, store = shop(cors_in_front=True)
        app.get("/")(block_of("merging", "shop.js")["page"])
        async with served(app) as browser, served(app) as tab:
            if page_first:
                await browser.get("/")
                tab.cookies.update(browser.cookies)
            gate = store.hold("patch" if page_first else "create")
            slow = asyncio.create_task(browser.post("/cart/mug"))
            await gate.reached()
            await tab.post("/cart/pan")
            gate.open()
            await slow
            sessions = Session(secret="a secret for tests only, long enough", store=store)
            signed = browser.cookies[sessions.cookie.name].encode()
            session_id = sessions.signer.verify(signed)
            assert session_id is not None
            record = await store.inner.get(session_id)
            assert record is not None
            return set(record.data["cart"])

    assert asyncio.run(story(page_first=False)) == {"mug"}
    assert asyncio.run(story(page_first=True)) == {"mug", "pan"}
