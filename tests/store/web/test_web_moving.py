"""Moving house: who has only a cookie of Starlette's own sessions keeps data and login after the switch."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware as StarlettesMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from greenroom import BaseSessionStore, ClusterStore, UnavailableError, UsageError
from greenroom.fields import datetime_of, micros_of, utc_now
from greenroom.integrations.moving import OldSession, OldSessions, StarletteCookies
from greenroom.testing import Library
from greenroom.web import Session, SessionMiddleware
from tests.store.client.fake_cluster import FakeCluster
from tests.store.web.test_web_failures import FiveMethodStore
from tests.store.web.web_handlers import HANDLERS
from tests.store.web.web_stage import SECRET, Socket, Stage, browser, session_of, tell, together, twin

OLD_SECRET = "the secret of the old middleware"
OLD_DATA = {"user_id": "alice", "theme": "dark"}
DAY = 86_400


async def remember(request: Request) -> Response:
    """Set keys of the session, as the query says."""
    request.session.update(request.query_params)
    return JSONResponse({})


def old_app(**options: Any) -> Starlette:
    """Return the app as it was before the switch, on Starlette's own middleware."""
    app = Starlette(routes=[Route("/remember", remember)])
    app.add_middleware(StarlettesMiddleware, secret_key=OLD_SECRET, https_only=True, **options)
    return app


async def visitor_of(app: Any, query: str = "user_id=alice&theme=dark") -> httpx.AsyncClient:
    """Return a browser that has been to the old app."""
    visitor = browser(app)
    await visitor.get(f"/remember?{query}")
    assert len(visitor.cookies) == 1
    return visitor


def moved_to(app: Any, visitor: httpx.AsyncClient) -> httpx.AsyncClient:
    """Return the same browser on the day of the switch."""
    return twin(app, visitor)


def user_of(data: dict[Any, Any]) -> Any:
    return data.get("user_id")


class Moving(Stage):
    """Sessions that move from Starlette's cookies; the clock stands at the real present, as theirs does."""

    def __init__(self, **options: Any) -> None:
        reader = StarletteCookies(OLD_SECRET, user=user_of)
        super().__init__(**{"moves_from": reader, **options})
        self.clock.advance(utc_now().timestamp() - self.clock().timestamp())


def names(visitor: httpx.AsyncClient) -> list[str]:
    return sorted(visitor.cookies)


def test_a_visitor_keeps_data_and_login(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            answer = await visitor.get("/show")
            assert answer.json() == OLD_DATA
            assert answer.headers["vary"] == "Cookie"
            assert names(visitor) == [stage.sessions.cookie.name]
            assert (await visitor.get("/who")).json() == "alice"
            assert stage.count("moved") == stage.count("loads") == 1
            assert stage.count("unknown_ids") == stage.count("refused_cookies") == 0
            (device,) = await stage.store.inner.list_by_user("alice")
            assert device.label.startswith("python-httpx")

    tell(library, story)


@pytest.mark.parametrize("old_name", ["session", "__Host-session", "shop"])
def test_the_old_cookie_goes_whatever_its_name(library: Library, old_name: str) -> None:
    async def story() -> None:
        stage = Moving(moves_from=StarletteCookies(OLD_SECRET, old_name, user=user_of))
        app = stage.app(*HANDLERS)
        before = await visitor_of(old_app(session_cookie=old_name))
        async with moved_to(app, before) as visitor:
            assert (await visitor.get("/who")).json() == "alice"
            assert names(visitor) == ["__Host-session"]
            assert (await visitor.get("/who")).json() == "alice"

    tell(library, story)


def test_two_first_visits_at_once_move_one_session_and_lose_nothing(library: Library) -> None:
    async def set_one(request: Request) -> Response:
        request.session["basket"] = {**request.session.get("basket", {}), request.query_params["sku"]: 1}
        return JSONResponse({})

    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS, set_one)
        before = await visitor_of(old_app())
        late, early = moved_to(app, before), moved_to(app, before)
        gate = stage.store.hold("create")

        async def overtakes() -> None:
            await gate.reached()  # by now the other has read the old session
            await early.get("/set_one?sku=pan")
            gate.open()

        await together(library, lambda: late.get("/set_one?sku=mug"), overtakes)
        assert stage.session_id(late) == stage.session_id(early)
        assert await stage.data(late) == {**OLD_DATA, "basket": {"mug": 1, "pan": 1}}
        assert len(await stage.store.inner.list_by_user("alice")) == 1
        assert stage.count("moved") == 1

    tell(library, story)


@pytest.mark.parametrize("operation", ["get", "create"])
@pytest.mark.parametrize("applied", [False, True])
def test_a_store_that_fails_leaves_the_old_session(library: Library, operation: str, applied: bool) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            stage.store.fail(operation, applied=applied)
            answer = await visitor.get("/who")
            assert answer.status_code == 503
            assert "set-cookie" not in answer.headers
            assert names(visitor) == ["session"]
            stage.store.heal()
            assert (await visitor.get("/who")).json() == "alice"
            assert names(visitor) == ["__Host-session"]

    tell(library, story)


def test_a_note_that_fails_leaves_the_old_session(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            gate = stage.store.hold("create")

            async def fails_second() -> None:
                await gate.reached()
                gate.open()
                second = stage.store.hold("create")
                await second.reached()
                stage.store.fail("create")
                second.open()

            answer, _ = await together(library, lambda: visitor.get("/who"), fails_second)
            assert answer.status_code == 503
            assert names(visitor) == ["session"]
            stage.store.heal()
            assert (await visitor.get("/who")).json() == "alice"

    tell(library, story)


def test_without_the_store_the_app_goes_on_for_reads_and_nothing_is_lost(library: Library) -> None:
    async def story() -> None:
        stage = Moving(on_unavailable="anonymous")
        app = stage.app(*HANDLERS)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            stage.store.fail("get")
            assert (await visitor.get("/who")).json() is None
            assert names(visitor) == ["session"]
            stage.store.heal()
            assert (await visitor.get("/who")).json() == "alice"

    tell(library, story)


def test_a_handler_that_fails_leaves_the_old_session(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            with pytest.raises(RuntimeError, match="the handler failed"):
                await visitor.get("/fail")
            assert names(visitor) == ["session"]
            assert (await visitor.get("/show")).json() == OLD_DATA
            assert (await visitor.get("/who")).json() == "alice"
            assert len(await stage.store.inner.list_by_user("alice")) == 1

    tell(library, story)


def test_a_response_that_was_lost_loses_no_login(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        before = await visitor_of(old_app())
        async with moved_to(app, before) as never_arrives:
            await never_arrives.get("/add")
        async with moved_to(app, before) as visitor:
            await visitor.get("/add")
            assert (await visitor.get("/show")).json()["cart"] == {"items": ["mug", "mug"]}
            assert stage.count("moved") == 1
            assert len(await stage.store.inner.list_by_user("alice")) == 1

    tell(library, story)


# --- what ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [False, True])
def test_a_logout_ends_both_also_for_a_copy_of_the_old_cookie(library: Library, at_once: bool) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        before = await visitor_of(old_app())
        async with moved_to(app, before) as visitor, moved_to(app, before) as thief:
            if not at_once:
                assert (await visitor.get("/who")).json() == "alice"
            await visitor.get("/logout")
            assert names(visitor) == []
            assert (await visitor.get("/who")).json() is None
            assert (await thief.get("/who")).json() is None
            assert (await thief.get("/show")).json() == {}
            assert await stage.store.inner.list_by_user("alice") == []

    tell(library, story)


def test_a_logout_is_not_undone_by_a_slower_first_visit(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        before = await visitor_of(old_app())
        late, early = moved_to(app, before), moved_to(app, before)
        gate = stage.store.hold("create")

        async def logs_out() -> None:
            await gate.reached()
            await early.get("/logout")
            gate.open()

        answer, _ = await together(library, lambda: late.get("/who"), logs_out)
        assert answer.json() is None
        assert await stage.store.inner.list_by_user("alice") == []

    tell(library, story)


@pytest.mark.parametrize("way", ["read", "save", "refused"])
def test_a_login_is_not_undone_by_the_response_of_a_slower_first_visit(library: Library, way: str) -> None:
    async def slow(request: Request) -> Response:
        if way != "read":
            await session_of(request).greenroom.save()
        await visitor.get("/login")
        if way == "refused":
            raise UnavailableError("away")
        return JSONResponse(request.session)

    stage = Moving()
    app = stage.app(*HANDLERS, slow)
    visitor = browser(app)

    async def story() -> None:
        before = await visitor_of(old_app(), "theme=dark")
        late = moved_to(app, before)
        for cookie in before.cookies.jar:
            visitor.cookies.jar.set_cookie(cookie)
        answer = await late.get("/slow")
        assert answer.status_code == (503 if way == "refused" else 200)
        assert "set-cookie" not in answer.headers
        assert (await visitor.get("/who")).json() == "alice"

    tell(library, story)


def test_a_first_visit_whose_end_fails_leaves_the_old_cookie(library: Library) -> None:
    async def halfway(request: Request) -> Response:
        request.session["half"] = "done"
        await session_of(request).greenroom.save()
        stage.store.fail("get", times=1)
        return JSONResponse({})

    async def refused(request: Request) -> Response:
        await session_of(request).greenroom.save()
        raise UnavailableError("away")

    stage = Moving()

    async def story() -> None:
        app = stage.app(*HANDLERS, halfway, refused)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            assert (await visitor.get("/refused")).status_code == 503
            assert names(visitor) == ["session"]
            assert (await visitor.get("/halfway")).status_code == 200
            assert names(visitor) == ["session"]
            assert (await visitor.get("/show")).json() == {**OLD_DATA, "half": "done"}
            assert names(visitor) == ["__Host-session"]

    tell(library, story)


def test_a_logout_that_fails_leaves_both(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            stage.store.fail("patch")
            assert (await visitor.get("/logout")).status_code == 503
            assert (await visitor.get("/who")).json() == "alice"
            stage.store.heal()
            await visitor.get("/logout")
            assert (await visitor.get("/who")).json() is None

    tell(library, story)


def test_a_login_takes_the_old_session_along_and_ends_it(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        before = await visitor_of(old_app(), "theme=dark")
        async with moved_to(app, before) as visitor, moved_to(app, before) as other:
            await visitor.get("/login")
            assert (await visitor.get("/show")).json() == {"theme": "dark", "since": "now"}
            assert names(visitor) == ["__Host-session"]
            assert (await other.get("/show")).json() == {}

    tell(library, story)


def test_log_out_everywhere_ends_what_was_not_moved(library: Library) -> None:
    async def everywhere(request: Request) -> Response:
        session_of(request).greenroom.logout_everywhere(keep_current=True)
        return JSONResponse({})

    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS, everywhere)
        phone, laptop = await visitor_of(old_app()), await visitor_of(old_app(), "user_id=alice&theme=light")
        bob = await visitor_of(old_app(), "user_id=bob")
        async with moved_to(app, phone) as one, moved_to(app, laptop) as two, moved_to(app, bob) as three:
            await one.get("/everywhere")
            await one.get("/everywhere")
            assert (await two.get("/who")).json() is None
            assert (await one.get("/who")).json() == "alice"
            assert (await three.get("/who")).json() == "bob"

    tell(library, story)


def test_old_sessions_of_a_user_can_be_ended_outside_of_requests(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        before = await visitor_of(old_app())
        with pytest.raises(UsageError, match="user"):
            await stage.sessions.end_old_sessions("")
        await stage.sessions.end_old_sessions("alice")
        async with moved_to(app, before) as visitor:
            assert (await visitor.get("/who")).json() is None
            await visitor.get("/login")
            assert (await visitor.get("/who")).json() == "alice"
        await Stage().sessions.end_old_sessions("alice")

    tell(library, story)


def test_log_out_everywhere_and_a_first_visit_at_once_leave_nothing(library: Library) -> None:
    async def everywhere(request: Request) -> Response:
        session_of(request).greenroom.logout_everywhere()
        return JSONResponse({})

    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS, everywhere)
        phone, laptop = await visitor_of(old_app()), await visitor_of(old_app(), "user_id=alice&theme=light")
        async with moved_to(app, phone) as one, moved_to(app, laptop) as two:
            await one.get("/who")
            gate = stage.store.hold("create")

            async def overtakes() -> None:
                await gate.reached()
                await one.get("/everywhere")
                gate.open()

            answer, _ = await together(library, lambda: two.get("/who"), overtakes)
            assert answer.json() is None
            assert await stage.store.inner.list_by_user("alice") == []

    tell(library, story)


def test_an_old_cookie_beside_a_session_is_ended(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        before = await visitor_of(old_app())
        async with browser(app) as visitor, moved_to(app, before) as other:
            await visitor.get("/login?user=bob")
            for cookie in before.cookies.jar:
                visitor.cookies.jar.set_cookie(cookie)
            assert (await visitor.get("/who")).json() == "bob"
            assert names(visitor) == ["__Host-session"]
            assert (await other.get("/show")).json() == {}

    tell(library, story)


@pytest.mark.parametrize(("ours", "user"), [("add", "alice"), ("login?user=bob", "bob")])
def test_an_old_login_goes_before_an_anonymous_session(library: Library, ours: str, user: str) -> None:
    """As of a visitor who logs in at a server that has not been updated yet."""

    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        async with browser(app) as visitor:
            await visitor.get(f"/{ours}")
            before = await visitor_of(old_app())
            for cookie in before.cookies.jar:
                visitor.cookies.jar.set_cookie(cookie)
            for _ in range(2):
                assert (await visitor.get("/who")).json() == user
                assert names(visitor) == [stage.sessions.cookie.name]

    tell(library, story)


def test_an_old_anonymous_session_is_not_moved_beside_one_of_ours(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        async with browser(app) as visitor:
            await visitor.get("/add")
            before = await visitor_of(old_app(), "theme=dark")
            for cookie in before.cookies.jar:
                visitor.cookies.jar.set_cookie(cookie)
            assert (await visitor.get("/show")).json() == {"cart": {"items": ["mug"]}}
            assert stage.count("moved") == 0
            assert names(visitor) == [stage.sessions.cookie.name]

    tell(library, story)


@pytest.mark.parametrize("operation", ["get", "create"])
def test_a_login_that_is_stored_does_not_fail_over_an_old_cookie_beside_it(
    library: Library, operation: str
) -> None:
    async def login_and_fail(request: Request) -> Response:
        session_of(request).greenroom.login("bob")
        stage.store.fail(operation, times=1)
        return JSONResponse({})

    stage = Moving()

    async def story() -> None:
        app = stage.app(*HANDLERS, login_and_fail)
        before = await visitor_of(old_app(), "theme=dark")
        async with browser(app) as visitor, moved_to(app, before) as other:
            await visitor.get("/login?user=bob" if operation == "get" else "/add")
            for cookie in before.cookies.jar:
                visitor.cookies.jar.set_cookie(cookie)
            assert (await visitor.get("/login_and_fail")).status_code == 200
            assert stage.count("failed") == 1
            assert names(visitor) == ["__Host-session", "session"]
            assert (await visitor.get("/who")).json() == "bob"
            assert names(visitor) == ["__Host-session"]
            assert (await other.get("/who")).json() is None

    tell(library, story)


# --- what is no session ----------------------------------------------------------------------------------


def test_a_forged_cookie_is_no_session_and_is_told_once(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        stage = Moving(moves_from=StarletteCookies("another secret", user=user_of))
        app = stage.app(*HANDLERS)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            for _ in range(2):
                assert (await visitor.get("/who")).json() is None
            assert names(visitor) == ["session"]
            assert not stage.store.calls

    with caplog.at_level(logging.DEBUG, "greenroom.web"):
        tell(library, story)
    assert caplog.text.count("has another secret than that had") == 1


@pytest.mark.parametrize("same_name", [True, False])
def test_another_old_secret_is_told_with_the_option(
    library: Library, caplog: pytest.LogCaptureFixture, *, same_name: bool
) -> None:
    """Also for work on localhost, where both cookies have one name."""

    async def story() -> None:
        stage = Moving(moves_from=StarletteCookies("another secret than before"), dev=same_name)
        async with moved_to(stage.app(*HANDLERS), await visitor_of(old_app())) as visitor:
            await visitor.get("/who")
            assert "moves_from= " in caplog.text
            assert "has another secret" in caplog.text

    tell(library, story)


@pytest.mark.parametrize("days", [13.9, 14.1])
def test_an_expired_cookie_is_no_session(library: Library, days: float) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            stage.clock.advance(days * DAY)
            alive = days < 14
            assert (await visitor.get("/who")).json() == ("alice" if alive else None)
            assert names(visitor) == (["__Host-session"] if alive else ["session"])

    tell(library, story)


def test_sessions_of_two_users_are_nobodys(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS)
        one, two = await visitor_of(old_app()), await visitor_of(old_app(), "user_id=mallory")
        both = "; ".join(f"session={each.cookies['session']}" for each in (one, two))
        async with browser(app) as visitor:
            assert (await visitor.get("/who", headers={"cookie": both})).json() is None
            assert stage.count("contested") == 1
            assert stage.count("moved") == 0

    tell(library, story)


class Readable(OldSessions):
    """One session in the memory of the test."""

    def __init__(self, old: OldSession | Exception | None, **options: Any) -> None:
        super().__init__(**options)
        self.old = old
        self.ended: list[str] = []

    def key_of(self, value: bytes) -> str | None:
        return value.decode()

    async def read(self, key: str) -> OldSession | None:
        if isinstance(self.old, Exception):
            raise self.old
        return self.old

    async def end(self, key: str) -> None:
        self.ended.append(key)


OLD_COOKIE = {"cookie": "session=of-old"}


@pytest.mark.parametrize(
    "data",
    [{"user_id": "alice", "x": object()}, {"user_id": "a" * 300}, {"user_id": "alice", "x": "x" * 2_000_000}],
)
def test_what_cannot_be_stored_is_no_session_and_breaks_no_page(
    library: Library, data: dict[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        reader = Readable(OldSession(data=data), user=user_of)
        stage = Stage(moves_from=reader)
        async with browser(stage.app(*HANDLERS)) as visitor:
            assert (await visitor.get("/who", headers=OLD_COOKIE)).json() is None
            assert not reader.ended
            await visitor.get("/login", headers=OLD_COOKIE)
            assert reader.ended == ["of-old"]

    tell(library, story)
    assert "too large or holds what no session" in caplog.text


@pytest.mark.parametrize("field", ["created", "expires", "absolute_expires"])
def test_a_reader_whose_moments_have_no_time_zone_breaks_no_page(
    library: Library, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        moment: Any = {field: datetime(2400, 1, 1)}  # noqa: DTZ001  what the test is about
        reader = Readable(OldSession(data=dict(OLD_DATA), **moment), user=user_of)
        stage = Stage(moves_from=reader)
        async with browser(stage.app(*HANDLERS)) as visitor:
            for _ in range(2):
                assert (await visitor.get("/who", headers=OLD_COOKIE)).json() is None
            assert not reader.ended

    tell(library, story)
    assert caplog.text.count("a moment without a time zone") == 1


def test_an_old_store_that_fails_is_a_503_and_changes_nothing(library: Library) -> None:
    async def story() -> None:
        reader = Readable(ConnectionError("6379"), user=user_of)
        stage = Stage(moves_from=reader)
        async with browser(stage.app(*HANDLERS)) as visitor:
            assert (await visitor.get("/who", headers=OLD_COOKIE)).status_code == 503
            assert (await visitor.get("/who")).status_code == 200
            reader.old = OldSession(data={"user_id": 7}, created=stage.clock())
            assert (await visitor.get("/who", headers=OLD_COOKIE)).json() == "7"
            assert reader.ended == ["of-old"]

    tell(library, story)


def test_an_old_store_that_does_not_end_a_session_is_logged(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(Readable):
        async def end(self, key: str) -> None:
            raise ConnectionError("6379")

    async def story() -> None:
        stage = Stage(moves_from=Stuck(OldSession(data={"user_id": "alice"}), user=user_of))
        async with browser(stage.app(*HANDLERS)) as visitor:
            assert (await visitor.get("/who", headers=OLD_COOKIE)).json() == "alice"
            await visitor.get("/logout", headers=OLD_COOKIE)
            assert (await visitor.get("/who", headers=OLD_COOKIE)).json() is None

    tell(library, story)
    assert "ending an old session failed: ConnectionError" in caplog.text
    assert "of-old" not in caplog.text


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (lambda data: data["user_id"], "raised KeyError"),
        (lambda data: 1.5, "returned a float"),
        (lambda data: True, "returned a bool"),
    ],
)
def test_a_user_function_that_makes_no_sense_is_said(
    library: Library, user: Callable[[Any], Any], message: str
) -> None:
    async def story() -> None:
        stage = Stage(moves_from=Readable(OldSession(data={"theme": "dark"}), user=user))
        async with browser(stage.app(*HANDLERS)) as visitor:
            with pytest.raises(UsageError, match=message):
                await visitor.get("/who", headers=OLD_COOKIE)

    tell(library, story)


@pytest.mark.parametrize("page", ["show", "logout", "login"])
@pytest.mark.parametrize("begins", [False, True])
def test_cookies_that_somebody_made_up_leave_nothing(library: Library, page: str, *, begins: bool) -> None:
    async def story() -> None:
        reader = Readable(None)
        stage = Stage(moves_from=reader)
        made_up = "; ".join(f"session=made-up-{number}" for number in range(8))
        async with browser(stage.app(*HANDLERS)) as visitor:
            if begins:
                await visitor.get("/add")
            mine = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
            stage.store.calls.clear()
            await visitor.get(f"/{page}", headers={"cookie": f"{made_up}; {mine}"})
            assert stage.store.calls.get("create", 0) == (page == "login" and not begins)
            assert not reader.ended

    tell(library, story)


@pytest.mark.parametrize("page", ["show", "logout"])
def test_without_the_old_store_only_a_logout_ends_the_old_session(library: Library, page: str) -> None:
    """A page leaves it as it is."""

    async def story() -> None:
        reader = Readable(UnavailableError("away"), user=user_of)
        stage = Stage(moves_from=reader)
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/add")
            mine = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
            beside = {"cookie": f"{OLD_COOKIE['cookie']}; {mine}"}
            assert (await visitor.get(f"/{page}", headers=beside)).status_code == 200
            reader.old = OldSession(data=dict(OLD_DATA))
            alone = await visitor.get("/who", headers=OLD_COOKIE)
            assert alone.json() == ("alice" if page == "show" else None)

    tell(library, story)


# --- how long it lives, and where ------------------------------------------------------------------------


def test_lifetimes_count_from_when_the_old_session_began(library: Library) -> None:
    async def story() -> None:
        reader = Readable(None, user=user_of)
        stage = Stage(moves_from=reader, absolute_seconds=DAY, idle_seconds=DAY / 2)
        async with browser(stage.app(*HANDLERS)) as visitor:
            hour_ago = datetime_of(micros_of(stage.clock(), "now") - 3_600_000_000 * 25)
            reader.old = OldSession(data={"user_id": "alice"}, created=hour_ago)
            assert (await visitor.get("/who", headers=OLD_COOKIE)).json() is None
            created = datetime_of(micros_of(stage.clock(), "now") - 3_600_000_000 * 20)
            reader.old = OldSession(data={"user_id": "alice"}, created=created)
            assert (await visitor.get("/who", headers=OLD_COOKIE)).json() == "alice"
            (device,) = await stage.store.inner.list_by_user("alice")
            assert device.created == created
            stage.clock.advance(4.1 * 3600)
            assert (await visitor.get("/who")).json() is None

    tell(library, story)


def test_a_socket_moves_the_session_before_it_is_accepted(library: Library) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "headers": [], "text": scope["session"]["user_id"]})
        await receive()

    async def story() -> None:
        stage = Moving()
        before = await visitor_of(old_app())
        socket = Socket(cookie=f"session={before.cookies['session']}")
        await SessionMiddleware(app, session=stage.sessions)(socket.scope, socket.receive, socket.send)
        cookies = [value for name, value in socket.sent[0]["headers"] if name == b"set-cookie"]
        assert socket.sent[0]["text"] == "alice"
        assert [each.partition(b"=")[0] for each in cookies] == [b"__Host-session", b"session"]

    tell(library, story)


def test_a_socket_whose_server_drops_the_cookie_ends_no_old_session(library: Library) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["session"]["seen"] = True
        await send({"type": "websocket.accept"})
        await receive()

    async def story() -> None:
        reader = Readable(OldSession(data=dict(OLD_DATA)), user=user_of)
        stage = Stage(moves_from=reader)
        socket = Socket(cookie=OLD_COOKIE["cookie"])
        socket.scope["asgi"] = {"version": "3.0", "spec_version": "2.0"}
        await SessionMiddleware(app, session=stage.sessions)(socket.scope, socket.receive, socket.send)
        assert not reader.ended
        async with browser(stage.app(*HANDLERS)) as visitor:
            assert (await visitor.get("/show", headers=OLD_COOKIE)).json() == {**OLD_DATA, "seen": True}
            assert reader.ended == ["of-old"]
            assert stage.count("moved") == 1

    tell(library, story)


def test_one_that_is_loaded_too_late_for_a_cookie_is_found_again(library: Library) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        session = scope["session"]
        await session.greenroom.load()
        session["seen"] = True
        await receive()

    async def story() -> None:
        stage = Moving()
        before = await visitor_of(old_app())
        socket = Socket(cookie=f"session={before.cookies['session']}")
        middleware = SessionMiddleware(app, session=stage.sessions, autoload=False)
        await middleware(socket.scope, socket.receive, socket.send)
        assert "headers" not in socket.sent[0] or not socket.sent[0]["headers"]
        async with moved_to(stage.app(*HANDLERS), before) as visitor:
            assert (await visitor.get("/show")).json() == {**OLD_DATA, "seen": True}
            assert stage.count("moved") == 1

    tell(library, story)


def test_a_page_that_does_not_look_moves_nothing_without_autoload(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        app = stage.app(*HANDLERS, autoload=False)
        async with moved_to(app, await visitor_of(old_app())) as visitor:
            await visitor.get("/plain")
            assert not stage.store.calls
            assert names(visitor) == ["session"]

    tell(library, story)


def test_a_visitor_without_old_cookies_costs_nothing(library: Library) -> None:
    async def story() -> None:
        stage = Moving()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/show")
            assert not stage.store.calls
            await visitor.get("/add")
            stage.store.calls.clear()
            await visitor.get("/show")
            assert stage.store.calls == {"get": 1}

    tell(library, story)


def test_nothing_shown_holds_an_old_session() -> None:
    reader = StarletteCookies(OLD_SECRET)
    shown = repr(reader) + repr(OldSession(data={"token": "hidden"}, user_id="alice"))
    assert shown == "<StarletteCookies 'session'><OldSession>"
    for wrong in ({"moves_from": "starlette"}, {"moves_from": StarletteCookies}):
        with pytest.raises(UsageError, match="moves_from is the reader"):
            Stage(**wrong)


def test_no_log_line_holds_what_opens_a_session(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    secrets: list[str | None] = []

    async def story() -> None:
        stage = Moving()
        before = await visitor_of(old_app())
        async with moved_to(stage.app(*HANDLERS), before) as visitor:
            await visitor.get("/who")
            secrets.extend([stage.session_id(visitor), before.cookies["session"]])
            await visitor.get("/logout")

    with caplog.at_level(logging.DEBUG, "greenroom"):
        tell(library, story)
    logged = "\n".join(each.getMessage() for each in caplog.records if each.name.startswith("greenroom"))
    assert "moved here from the old sessions" in logged
    for secret in (*secrets, "alice", "dark"):
        assert secret
        assert secret not in logged


# --- other stores ----------------------------------------------------------------------------------------


async def moves_and_logs_out(library: Library, store: BaseSessionStore) -> None:
    """Two first visits at once to an app over this store, with a change each, and then a logout."""

    async def set_one(request: Request) -> Response:
        request.session[request.query_params["sku"]] = 1
        return JSONResponse({})

    routes = [Route(f"/{each.__name__}", each) for each in (*HANDLERS, set_one)]
    app = Starlette(routes=routes)
    reader = StarletteCookies(OLD_SECRET, user=user_of)
    sessions = Session(secret=SECRET, store=store, moves_from=reader)
    app.add_middleware(SessionMiddleware, session=sessions)
    before = await visitor_of(old_app())
    async with moved_to(app, before) as one, moved_to(app, before) as two:
        await together(library, lambda: one.get("/set_one?sku=mug"), lambda: two.get("/set_one?sku=pan"))
        assert one.cookies["__Host-session"] == two.cookies["__Host-session"]
        assert (await one.get("/show")).json() == {**OLD_DATA, "mug": 1, "pan": 1}
        assert (await one.get("/who")).json() == "alice"
        assert sessions.statistics().moved == 1
        await one.get("/logout")
        assert (await two.get("/who")).json() is None
    async with moved_to(app, before) as thief:
        assert (await thief.get("/show")).json() == {}


def test_sessions_move_to_a_cluster(library: Library) -> None:
    async def story(address: str) -> None:
        async with ClusterStore(address) as store:
            await moves_and_logs_out(library, store)

    with FakeCluster(actors=2, shards=16) as cluster:
        tell(library, lambda: story(cluster.address))


def test_sessions_move_to_a_store_of_five_methods(library: Library) -> None:
    tell(library, lambda: moves_and_logs_out(library, FiveMethodStore()))
