"""Moving house: old cookies that name no session, and old sessions that cannot be moved."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from greenroom import UnavailableError, UsageError
from greenroom.integrations.moving import OldSession, StarletteCookies
from greenroom.testing import Library
from tests.store.web.moving_stage import (
    DAY,
    OLD_COOKIE,
    OLD_DATA,
    Moving,
    Readable,
    moved_to,
    names,
    old_app,
    user_of,
    visitor_of,
)
from tests.store.web.web_handlers import HANDLERS
from tests.store.web.web_stage import Stage, browser, tell


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
