"""Requests of one browser at once, in scripted order: no change of either is lost."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from greenroom import MemoryStore
from greenroom.testing import Gate, Library, ManualClock
from greenroom.web import Session, Visit
from tests.store.web.race_stage import Race, in_loop
from tests.store.web.web_stage import SECRET, browser, session_of, tell, together, twin


def test_changes_of_two_requests_at_once_both_stay(library: Library) -> None:
    async def story(race: Race) -> None:
        response, visitor = await race.run("nested", "nested", start="read")
        # Both began without a session: each has its own. From here on they share one.
        assert "set-cookie" in response.headers
        race.gate = Gate()
        await visitor.get("/fast?then=nested")
        slow_tab = twin(race.app, visitor)

        async def faster() -> None:
            await race.gate.reached()
            await race.stage.store.inner.patch(
                race.stage.session_id(visitor) or "", set={("cart", "other"): 1}, unset=[("cart", "fast")]
            )
            race.gate.open()

        await together(library, lambda: slow_tab.get("/slow?then=nested"), faster)
        assert (await visitor.get("/fast")).json()["data"] == {"cart": {"other": 1, "slow": 1}}

    in_loop(library, story)


@pytest.mark.parametrize("slow", ["nested", "nested login"])
def test_a_list_in_the_way_of_a_change_gives_way_to_it(library: Library, slow: str) -> None:
    """Both gave one key a value, of different kinds: the later one stands, whole."""

    async def story(race: Race) -> None:
        response, visitor = await race.run(slow, "list")
        assert response.status_code == 200
        visitor.cookies.update(response.cookies)
        data = (await visitor.get("/fast")).json()["data"]
        assert data["cart"] == {"fast": 1, "slow": 1}

    in_loop(library, story)


def test_reload_shows_what_others_did(library: Library) -> None:
    async def story(race: Race) -> None:
        async def reloading(request: Request) -> Response:
            session = session_of(request)
            await race.gate.pass_through()
            await session.greenroom.reload()
            return JSONResponse(
                {"data": session, "lost": session.greenroom.lost, "user": session.greenroom.user_id}
            )

        app = race.stage.app(reloading)
        visitor = browser(race.app)
        await visitor.get("/fast?then=login&user=alice")

        for then, expected in (
            ("nested", {"data": {"by": "fast", "cart": {"fast": 1}}, "lost": False, "user": "alice"}),
            ("logout", {"data": {}, "lost": True, "user": None}),
        ):
            race.gate = Gate()
            tab = twin(app, visitor)

            async def faster(then: str = then) -> None:
                await race.gate.reached()
                await visitor.get(f"/fast?then={then}")
                race.gate.open()

            response, _ = await together(library, lambda tab=tab: tab.get("/reloading"), faster)
            assert response.json() == expected
            assert "set-cookie" not in response.headers

    in_loop(library, story)


def test_two_tasks_of_one_request_save_one_after_the_other(library: Library) -> None:
    async def story(race: Race) -> None:
        async def both(request: Request) -> Response:
            session = session_of(request)
            session["x"] = 1
            await together(library, session.greenroom.save, session.greenroom.save)
            return PlainTextResponse("ok")

        async with browser(race.stage.app(both)) as visitor:
            await visitor.get("/both")
        assert race.stage.store.calls == {"create": 1}

    in_loop(library, story)


def test_what_is_written_while_a_session_is_emptied_stays(library: Library) -> None:
    """Why a session that was emptied key by key does not end: it need not be empty any more."""

    async def story(race: Race) -> None:
        _, visitor = await race.run("empty", "other")
        assert await race.stage.data(visitor) == {"other": 1}

    in_loop(library, story)


async def memory_with(data: dict[str, Any]) -> tuple[Session, ManualClock, Callable[[], Awaitable[Visit]]]:
    """Return sessions in a store that never waits, its clock, and what makes requests of one browser."""
    clock = ManualClock()
    sessions = Session(secret=SECRET, store=MemoryStore(clock=clock), clock=clock)
    first = sessions.visit(())
    first.session.update(data)
    await first.save()
    (header,) = first.set_cookies()

    async def request() -> Visit:
        visit = sessions.visit([header.partition(";")[0]])
        await visit.load()
        return visit

    return sessions, clock, request


@pytest.mark.parametrize("before", ["a save", "an extension"])
def test_a_later_save_keeps_what_others_wrote_before_the_first(library: Library, before: str) -> None:
    """In a store that takes the whole session where nobody has changed it."""

    async def story() -> None:
        sessions, clock, request = await memory_with({"since": 1})
        slow = await request()
        assert slow.session.get("cart") is None
        fast = await request()
        fast.session["cart"] = {"mug": 1}
        await fast.save()
        if before == "a save":
            slow.session["theme"] = "dark"
            await slow.save()
        else:
            clock.advance(400)
            await slow.keep_alive()
            assert sessions.statistics().extensions == 1
        for number in (1, 2):
            slow.session["seen"] = number
            await slow.save()
        found = dict((await request()).session)
        found.pop("theme", None)
        assert found == {"since": 1, "cart": {"mug": 1}, "seen": 2}

    tell(library, story)
