"""Requests of one browser at once, in scripted order: no change is lost, no login or logout is undone."""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from greenroom import MemoryStore, SessionData
from greenroom.ids import new_session_id
from greenroom.testing import Gate, Library, ManualClock
from greenroom.web import Session, Visit
from greenroom.web.writes import LISTED_MAX
from tests.store.web.web_stage import SECRET, Stage, browser, session_of, tell, together, twin


def nest_and_log_in(session: Any) -> None:
    session.setdefault("cart", {})["slow"] = 1
    session.greenroom.login("alice")


def act_fast(session: Any, request: Request) -> None:
    match request.query_params.get("then"):
        case "nested":
            session.setdefault("cart", {})["fast"] = 1
        case "other":
            session["other"] = 1
        case "list":
            session["cart"] = ["fast"]
        case "login":
            session.greenroom.login(request.query_params["user"], {"by": "fast"})
        case "regenerate":
            session.greenroom.regenerate()
        case "logout":
            session.greenroom.logout()
        case "everywhere":
            session.greenroom.logout_everywhere()


class Race:
    """A slow request, held inside its handler after its session was loaded, and faster ones beside it."""

    def __init__(self, library: Library, **options: Any) -> None:
        self.library = library
        self.stage = Stage(**options)
        self.gate = Gate()
        race = self

        async def slow(request: Request) -> Response:
            session = session_of(request)
            await race.gate.pass_through()
            match request.query_params.get("then"):
                case "set":
                    session["slow"] = {"key": 1}
                case "nested":
                    session.setdefault("cart", {})["slow"] = 1
                case "login":
                    session.greenroom.login(request.query_params["user"], {"by": "slow"})
                case "nested login":
                    nest_and_log_in(session)
                case "logout":
                    session.greenroom.logout()
                case "regenerate":
                    session.greenroom.regenerate()
                case "others out":
                    session.greenroom.logout_everywhere(keep_current=True)
                case "empty":
                    for key in list(session):
                        del session[key]
                case "save":
                    session["slow"] = 1
                    return JSONResponse(
                        {"saved": await session.greenroom.save(), "lost": session.greenroom.lost}
                    )
            return PlainTextResponse("slow")

        async def fast(request: Request) -> Response:
            session = session_of(request)
            act_fast(session, request)
            return JSONResponse({"user": session.greenroom.user_id, "data": session})

        self.app = self.stage.app(slow, fast)

    async def run(self, slow: str, fast: str, *, start: str = "nested") -> tuple[httpx.Response, Any]:
        """Begin a session, start the slow request, finish the fast one, let the slow one end.

        Returns the slow response and the browser (with the cookie of the fast one, not the slow one).
        """
        visitor = browser(self.app)
        await visitor.get(f"/fast?then={start}")
        slow_tab = twin(self.app, visitor)

        async def faster() -> None:
            await self.gate.reached()
            await visitor.get(f"/fast?then={fast}")
            self.stage.clock.advance(1)
            self.gate.open()

        response, _ = await together(self.library, lambda: slow_tab.get(f"/slow?then={slow}"), faster)
        return response, visitor

    def tell(self, story: Callable[[], Awaitable[Any]]) -> None:
        tell(self.library, story)


def in_loop(library: Library, story: Callable[[Race], Awaitable[None]], **options: Any) -> None:
    async def told() -> None:
        await story(Race(library, **options))

    tell(library, told)


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


@pytest.mark.parametrize("slow", ["set", "nested", "regenerate", "save"])
@pytest.mark.parametrize("fast", ["logout", "everywhere"])
def test_a_slow_request_does_not_undo_a_logout(
    library: Library, slow: str, fast: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(race: Race) -> None:
        response, visitor = await race.run(slow, fast, start="login&user=alice")
        assert response.status_code == 200
        assert "set-cookie" not in response.headers
        assert not visitor.cookies
        assert race.stage.count("dropped") == 1
        assert race.stage.count("creates") == 1
        assert repr(race.stage.store.inner) == "<MemoryStore with 0 sessions>"
        if slow == "save":
            assert response.json() == {"saved": False, "lost": True}

    with caplog.at_level(logging.WARNING, "greenroom.web"):
        in_loop(library, story)
    assert "a change to a session was dropped" in caplog.text
    assert "gr-" not in caplog.text


def test_a_slow_logout_ends_the_session_that_has_a_new_id_meanwhile(library: Library) -> None:
    """Else the browser stayed logged in, where the answer with the new cookie came last."""

    async def story(race: Race) -> None:
        other_device = browser(race.app)
        await other_device.get("/fast?then=login&user=alice")
        race.stage.clock.advance(1)
        response, visitor = await race.run("logout", "regenerate", start="login&user=alice")
        assert response.status_code == 200
        assert (await visitor.get("/fast")).json() == {"user": None, "data": {}}
        assert (await other_device.get("/fast")).json()["user"] == "alice"

    in_loop(library, story)


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_a_slow_logout_of_an_anonymous_session_does_not_undo_a_login(library: Library, user: str) -> None:
    async def story(race: Race) -> None:
        _, visitor = await race.run("logout", f"login&user={user}")
        assert (await visitor.get("/fast")).json()["user"] == user

    in_loop(library, story)


@pytest.mark.parametrize("slow", ["set", "nested", "regenerate", "save"])
def test_a_slow_request_does_not_undo_a_login(library: Library, slow: str) -> None:
    async def story(race: Race) -> None:
        response, visitor = await race.run(slow, "login&user=alice")
        assert response.status_code == 200
        assert "set-cookie" not in response.headers
        assert race.stage.count("dropped") == 1
        assert (await visitor.get("/fast")).json() == {
            "user": "alice",
            "data": {"cart": {"fast": 1}, "by": "fast"},
        }

    in_loop(library, story)


def test_a_slow_read_sends_no_cookie_after_a_login(library: Library) -> None:
    """Not even when it would extend the session."""

    async def story(race: Race) -> None:
        response, visitor = await race.run("read", "login&user=alice")
        assert "set-cookie" not in response.headers
        assert race.stage.count("dropped") == 1, "the extension came too late"
        assert (await visitor.get("/fast")).json()["user"] == "alice"

    # The slow request ends a second after it has loaded the session: more than a sixth of this.
    in_loop(library, story, idle_seconds=5)


def test_a_slow_logout_of_an_old_id_leaves_the_new_session_alone(library: Library) -> None:
    async def story(race: Race) -> None:
        response, visitor = await race.run("logout", "login&user=alice")
        assert "Max-Age=0" in response.headers["set-cookie"], "its own handler logged out"
        assert (await visitor.get("/fast")).json()["user"] == "alice"

    in_loop(library, story)


def test_two_logins_at_once_both_hold(library: Library) -> None:
    async def story(race: Race) -> None:
        response, visitor = await race.run("login&user=alice", "login&user=alice")
        assert (await visitor.get("/fast")).json()["user"] == "alice"
        other = browser(race.app)
        other.cookies.extract_cookies(response)
        assert (await other.get("/fast")).json() == {
            "user": "alice",
            "data": {"cart": {"fast": 1}, "by": "slow"},
        }, "a form that was sent twice costs no cart"

    in_loop(library, story)


@pytest.mark.parametrize("fast", ["login&user=carol", "logout", "regenerate"])
def test_a_login_takes_nothing_along_from_a_session_that_others_ended(library: Library, fast: str) -> None:
    async def story(race: Race) -> None:
        response, _ = await race.run("login&user=alice", fast)
        other = browser(race.app)
        other.cookies.extract_cookies(response)
        assert (await other.get("/fast")).json() == {"user": "alice", "data": {"by": "slow"}}

    in_loop(library, story)


@pytest.mark.parametrize("absolute_seconds", [None, 43_200])
def test_a_login_sent_twice_keeps_what_its_user_had(library: Library, absolute_seconds: float | None) -> None:
    async def story(race: Race) -> None:
        visitor = browser(race.app)
        for page in ("login&user=alice", "nested", "other"):
            await visitor.get(f"/fast?then={page}")
        race.stage.clock.advance(5)
        slow_tab = twin(race.app, visitor)

        async def faster() -> None:
            await race.gate.reached()
            await visitor.get("/fast?then=login&user=alice")
            race.gate.open()

        await together(library, lambda: slow_tab.get("/slow?then=login&user=alice"), faster)
        found = (await slow_tab.get("/fast")).json()
        assert (found["user"], found["data"]) == ("alice", {"cart": {"fast": 1}, "other": 1, "by": "slow"})

    in_loop(library, story, absolute_seconds=absolute_seconds)


def test_what_a_login_is_given_is_stored_whatever_was_there_before(library: Library) -> None:
    async def story() -> None:
        stage = Stage()

        async def prepare(request: Request) -> Response:
            request.session.update(role="admin", theme="dark")
            return PlainTextResponse("prepared")

        async def login(request: Request) -> Response:
            session = session_of(request)
            await stage.store.inner.delete(stage.session_id(visitor) or "")  # another tab has logged out
            session.greenroom.login("alice", {"role": "admin"})
            return PlainTextResponse("welcome")

        async with browser(stage.app(prepare, login)) as visitor:
            await visitor.get("/prepare")
            await visitor.get("/login")
            assert await stage.data(visitor) == {"role": "admin"}

    tell(library, story)


@pytest.mark.parametrize("way", ["logout", "others out"])
def test_a_session_that_gets_new_ids_while_others_end_it_is_found(library: Library, way: str) -> None:
    """A thief may ask for one again and again."""

    async def story(race: Race) -> None:
        thief = browser(race.app)
        await thief.get("/fast?then=login&user=alice")
        race.stage.clock.advance(1)
        held: list[Gate] = []

        async def renewing() -> None:
            await held[0].reached()
            await (thief if way == "others out" else owner).get("/fast?then=regenerate")
            held[0].open()

        owner = browser(race.app)
        await owner.get("/fast?then=login&user=alice")
        slow_tab = twin(race.app, owner)

        async def faster() -> None:
            await race.gate.reached()
            await owner.get("/fast?then=regenerate")
            held.append(race.stage.store.hold("delete_by_handle"))
            race.gate.open()
            await renewing()

        await together(library, lambda: slow_tab.get(f"/slow?then={way}"), faster)
        spared, ended = (owner, thief) if way == "others out" else (thief, owner)
        assert (await spared.get("/fast")).json()["user"] == "alice"
        assert (await ended.get("/fast")).json()["user"] is None

    in_loop(library, story)


def test_a_logout_of_others_spares_the_session_among_very_many(library: Library) -> None:
    """The user has more sessions than one list shows."""

    async def story(race: Race) -> None:
        for number in range(LISTED_MAX + 100):
            await race.stage.store.inner.create(
                SessionData(
                    session_id=new_session_id(),
                    user_id="alice",
                    created=race.stage.clock() + timedelta(seconds=number % 7 - 3.5),
                    expires=race.stage.clock() + timedelta(days=1),
                )
            )
        _, visitor = await race.run("others out", "regenerate", start="login&user=alice")
        assert len(await race.stage.store.list_by_user("alice")) == 1
        assert (await visitor.get("/fast")).json()["user"] == "alice"

    in_loop(library, story)


def test_a_login_after_a_faster_logout_begins_afresh(library: Library) -> None:
    async def story(race: Race) -> None:
        response, _ = await race.run("login&user=bob", "logout", start="login&user=alice")
        other = browser(race.app)
        other.cookies.extract_cookies(response)
        assert (await other.get("/fast")).json() == {"user": "bob", "data": {"by": "slow"}}
        assert race.stage.count("creates") == 2

    in_loop(library, story)


@pytest.mark.parametrize("meanwhile", ["nested", "regenerate", "logout"])
@pytest.mark.parametrize("absolute_seconds", [None, 43_200])
def test_nothing_that_the_former_user_writes_meanwhile_goes_to_the_next(
    library: Library, meanwhile: str, absolute_seconds: float | None
) -> None:
    async def story(race: Race) -> None:
        visitor = browser(race.app)
        await visitor.get("/fast?then=login&user=alice")
        former, slow_tab = twin(race.app, visitor), twin(race.app, visitor)

        async def faster() -> None:
            await race.gate.reached()
            await former.get(f"/fast?then={meanwhile}")
            race.gate.open()

        await together(library, lambda: slow_tab.get("/slow?then=login&user=bob"), faster)
        found = (await slow_tab.get("/fast")).json()
        assert (found["user"], found["data"]) == ("bob", {"by": "slow"})
        for each in (visitor, former):
            assert (await each.get("/fast")).json() == {"user": None, "data": {}}
        assert await race.stage.store.list_by_user("alice") == []

    in_loop(library, story, absolute_seconds=absolute_seconds)


@pytest.mark.parametrize("operation", ["patch", "delete", "create"])
@pytest.mark.parametrize("applied", [False, True])
def test_a_change_of_user_that_fails_mixes_nobodys_data(
    library: Library, operation: str, *, applied: bool
) -> None:
    async def story(race: Race) -> None:
        visitor = browser(race.app)
        await visitor.get("/fast?then=login&user=alice")
        await visitor.get("/fast?then=nested")
        race.stage.store.fail(operation, times=1, applied=applied)
        race.gate.open()
        assert (await visitor.get("/slow?then=login&user=bob")).status_code == 503
        found = (await visitor.get("/fast")).json()
        assert found["user"] in (None, "alice")
        assert found["data"] == ({"by": "fast", "cart": {"fast": 1}} if found["user"] else {})
        await visitor.get("/slow?then=login&user=bob")
        assert (await visitor.get("/fast")).json() == {"user": "bob", "data": {"by": "slow"}}

    in_loop(library, story)


def test_a_logout_of_all_others_spares_a_session_with_a_new_id(library: Library) -> None:
    """The current session got its new id while the logout was under way."""

    async def story(race: Race) -> None:
        phone = browser(race.app)
        await phone.get("/fast?then=login&user=alice")
        race.stage.clock.advance(1)
        _, visitor = await race.run("others out", "regenerate", start="login&user=alice")
        assert (await visitor.get("/fast")).json()["user"] == "alice"
        assert (await phone.get("/fast")).json()["user"] is None

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
