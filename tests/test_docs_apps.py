"""The pages on web apps tell the truth: their code runs, and data merges as the table says."""

import asyncio
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import httpx
import pytest

from greenroom import MemoryStore, SessionData, new_session_id
from greenroom.fields import utc_now
from greenroom.web import Session
from tests.test_docs import BLOCKS, DOCUMENTED_URL, Block, marked, module_of

PAGES = {
    *("fastapi", "litestar", "quart", "aiohttp", "starsessions"),
    *("merging", "migrate", "test-an-app", "observe"),
}
WHOLE = [block for block in BLOCKS if block.language == "python" and block.page.stem in PAGES]
Change = Callable[[Any], object]


def test_every_page_has_code() -> None:
    assert {block.page.stem for block in WHOLE} == PAGES


@pytest.mark.parametrize("block", WHOLE, ids=str)
def test_code_of_a_page_runs(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_SECRET", "a secret for tests only, long enough")
    exec(compile(block.code, str(block), "exec"), {"__name__": "__main__"})


def test_tutorial_from_memory_to_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENROOM_URL", "memory://")
    app = module_of("minutes")["app"]

    async def main() -> None:
        def browser(agent: str) -> httpx.AsyncClient:
            return httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url="http://localhost:8000",
                headers={"user-agent": agent},
            )

        async with browser("curl") as jar, browser("my phone") as other:
            await jar.post("/cart/mug")
            await jar.post("/login/alice")
            assert (await jar.get("/account")).json() == {
                "user": "alice",
                "cart": {"mug": 1},
                "devices": ["curl"],
            }
            await other.post("/login/alice")
            assert set((await jar.get("/account")).json()["devices"]) == {"curl", "my phone"}
            await jar.post("/logout-elsewhere")
            assert (await other.get("/account")).json() == {"detail": "Not logged in"}
            assert (await jar.get("/account")).status_code == 200

    asyncio.run(main())


def test_first_app_of_the_readme() -> None:
    (block,) = marked("web")
    code = block.code.replace(DOCUMENTED_URL, "memory://")
    assert code != block.code
    namespace: dict[str, Any] = {"__name__": "shop"}
    exec(compile(code, str(block), "exec"), namespace)

    async def main() -> None:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(namespace["app"]), base_url="http://localhost:8000"
        ) as jar:
            assert (await jar.post("/cart/mug")).json() == {"mug": 1}
            first = jar.cookies["session"]
            await jar.post("/login/alice")
            assert jar.cookies["session"] != first
            assert (await jar.post("/cart/mug")).json() == {"mug": 2}

    asyncio.run(main())


# --- what merges -----------------------------------------------------------------------------------------


def both(before: dict[str, Any], first: Change, second: Change) -> Any:
    """Return what is stored after two requests that were loaded together and saved one after the other."""

    async def main() -> Any:
        store = MemoryStore()
        sessions = Session(secret="a secret for tests only, long enough", store=store)
        record = SessionData(
            session_id=new_session_id(),
            expires=utc_now().replace(year=utc_now().year + 1),
            data=deepcopy(before),
        )
        await store.create(record)
        cookie = sessions.cookie.name + "=" + sessions.signer.sign(record.session_id)
        visits = [sessions.visit([cookie]) for _ in range(2)]
        for visit in visits:
            await visit.load()
        for visit, change in zip(visits, (first, second), strict=True):
            change(visit.session)
            await visit.save()
        found = await store.get(record.session_id)
        return None if found is None else found.data

    return asyncio.run(main())


def item(path: str, value: Any) -> Change:
    def change(session: Any) -> None:
        *above, last = path.split(".")
        for key in above:
            session = session[key]
        session[last] = value

    return change


def change_visits(session: Any) -> None:
    session["visits"] += 1


@pytest.mark.parametrize(
    ("before", "first", "second", "after"),
    [
        ({}, item("theme", "dark"), item("language", "de"), {"theme": "dark", "language": "de"}),
        ({"cart": {}}, item("cart.mug", 1), item("cart.pan", 1), {"cart": {"mug": 1, "pan": 1}}),
        ({}, item("cart", {"mug": 1}), item("cart", {"pan": 1}), {"cart": {"mug": 1, "pan": 1}}),
        (
            {"cart": {"mug": 1}},
            lambda session: session["cart"].pop("mug"),
            item("cart.pan", 1),
            {"cart": {"pan": 1}},
        ),
        ({"cart": {}}, item("cart.mug", 2), item("cart.mug", 5), {"cart": {"mug": 5}}),
        (
            {"list": []},
            lambda session: session["list"].append("x"),
            lambda session: session["list"].append("y"),
            {"list": ["y"]},
        ),
        ({"visits": 1}, change_visits, change_visits, {"visits": 2}),
        ({"cart": {"pan": 1}}, item("cart.mug", 1), item("cart", {}), {"cart": {"mug": 1}}),
        ({"theme": "light"}, lambda session: session.greenroom.logout(), item("theme", "dark"), None),
        ({"theme": "light"}, item("theme", "dark"), lambda session: session.greenroom.logout(), None),
    ],
)
def test_what_merges(before: dict[str, Any], first: Change, second: Change, after: Any) -> None:
    assert both(before, first, second) == after
