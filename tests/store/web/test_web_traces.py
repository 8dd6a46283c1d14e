"""A lost login can be found: sessions are logged by handle, a refused cookie by its reason."""

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from greenroom import MemoryStore, new_session_id
from greenroom.ids import handle_of, locate
from greenroom.testing import library_named
from greenroom.web import Session
from greenroom.web.cookies import cookie_values
from tests.store.web.web_stage import SECRET, Stage, browser, session_of

HANDLE = re.compile(r"[A-Za-z0-9_-]{46}")


async def login(request: Request) -> PlainTextResponse:
    session_of(request).greenroom.login("alice@shop.example", {"secret": "s3cret"})
    return PlainTextResponse("ok")


async def add(request: Request) -> PlainTextResponse:
    session_of(request)["n"] = session_of(request).get("n", 0) + 1
    return PlainTextResponse("ok")


async def logout(request: Request) -> PlainTextResponse:
    session_of(request).greenroom.logout()
    return PlainTextResponse("ok")


async def everywhere(request: Request) -> PlainTextResponse:
    session_of(request).greenroom.logout_everywhere()
    return PlainTextResponse("ok")


def handle(session_id: str | None) -> str:
    assert session_id is not None
    return handle_of(*locate(session_id))


def traced(story: Callable[[], Awaitable[Any]], caplog: pytest.LogCaptureFixture) -> list[str]:
    """Run the story and return the lines of the web part's log."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "greenroom.web"):
        library_named("asyncio").run(story, 30)
    return [record.getMessage() for record in caplog.records if record.name == "greenroom.web"]


def test_the_life_of_a_session_by_its_handle(caplog: pytest.LogCaptureFixture) -> None:
    handles = []
    ids = []

    async def story() -> None:
        stage = Stage()
        app = stage.app(add, login, logout)
        async with browser(app) as visitor:
            for page in ("add", "login", "add"):
                await visitor.get(f"/{page}")
                ids.append(stage.session_id(visitor))
            handles.extend(map(handle, ids))
            cookie = visitor.cookies.get(stage.sessions.cookie.name)
            await visitor.get("/logout")
            visitor.cookies.set(stage.sessions.cookie.name, cookie)
            await visitor.get("/add")

    lines = traced(story, caplog)
    first, second, third = handles
    assert second == third != first
    assert lines[0] == f"session {first}: created"
    assert lines[1] == f"session {first}: has a new id now, and is {second}"
    assert lines[2] == f"session {second}: ended"
    assert lines[3].startswith(f"session {second}: unknown")
    assert lines[4].endswith(": created")
    shown = " ".join(lines)
    assert not any(session_id in shown for session_id in ids if session_id)
    for hidden in ("alice", "s3cret", SECRET):
        assert hidden not in shown


def test_a_log_out_everywhere_and_an_expiry(caplog: pytest.LogCaptureFixture) -> None:
    ids = []

    async def story() -> None:
        stage = Stage()
        app = stage.app(add, login, everywhere)
        async with browser(app) as phone, browser(app) as laptop:
            for visitor in (phone, laptop):
                await visitor.get("/login")
                ids.append(stage.session_id(visitor))
            await phone.get("/everywhere")
            await laptop.get("/add")
            ids.append(stage.session_id(laptop))
            stage.clock.advance(1801)
            await laptop.get("/add")

    lines = traced(story, caplog)
    phone, laptop, later = map(handle, ids)
    assert f"session {phone}: ends all sessions of its user" in lines
    assert any(line.startswith(f"session {laptop}: unknown") for line in lines)
    assert any(line.startswith(f"session {later}: unknown") for line in lines)


def test_another_device_that_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    ids = []

    async def end(request: Request) -> PlainTextResponse:
        await session_of(request).greenroom.end_device(handle(ids[0]))
        return PlainTextResponse("ok")

    async def story() -> None:
        stage = Stage()
        app = stage.app(login, end)
        async with browser(app) as phone, browser(app) as laptop:
            for visitor in (phone, laptop):
                await visitor.get("/login")
                ids.append(stage.session_id(visitor))
            assert (await laptop.get("/end")).is_success

    lines = traced(story, caplog)
    assert f"session {handle(ids[0])}: ended from another device" in lines


def test_a_change_that_came_too_late(caplog: pytest.LogCaptureFixture) -> None:
    ids = []

    async def story() -> None:
        stage = Stage()

        async def late(request: Request) -> PlainTextResponse:
            session_of(request)["late"] = 1
            await stage.store.inner.delete(ids[0])
            return PlainTextResponse("ok")

        async with browser(stage.app(add, late)) as visitor:
            await visitor.get("/add")
            ids.append(stage.session_id(visitor))
            await visitor.get("/late")

    lines = traced(story, caplog)
    assert f"session {handle(ids[0])}: a change was dropped" in lines


def test_nothing_is_logged_by_handle_unless_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with browser(Stage().app(add, login, logout)) as visitor:
            for page in ("add", "login", "logout"):
                await visitor.get(f"/{page}")

    with caplog.at_level(logging.INFO, "greenroom.web"):
        library_named("asyncio").run(story, 30)
    assert not [record for record in caplog.records if HANDLE.search(record.getMessage())]


# --- refused cookies -------------------------------------------------------------------------------------


def refused(sessions: Session, cookie: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings over a cookie that is sent twice."""
    caplog.clear()
    for _ in range(2):
        sessions.visit([f"{sessions.cookie.name}={cookie}"])
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_two_workers_without_a_common_secret_say_so(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    one, other = (Session(dev=True, store=store) for _ in range(2))
    session_id = new_session_id()
    with caplog.at_level(logging.DEBUG, "greenroom.web"):
        (line,) = refused(other, one.signer.sign(session_id), caplog)
    for said in ("another process", "before its last start", "dev=True", "secret="):
        assert said in line
    by_handle = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert (
        by_handle
        == [f"session {handle(session_id)}: refused, because no secret of this process signed it"] * 2
    )
    assert other.statistics().refused_cookies == 2
    assert not refused(one, one.signer.sign(session_id), caplog)


@pytest.mark.parametrize(
    ("cookie", "reason"),
    [
        ("", "empty"),
        ("eyJjYXJ0IjogMX0=", "other software"),
        ("eyJjYXJ0IjogMX0=.aSxyzw.U2lnbmF0dXJlIG9mIFN0YXJsZXR0ZQ", "Starlette's own"),
        ("x" * 500, "other software"),
        ("gr-" + "x" * 500 + ".sig", "other software"),
        (
            Session(secret="another secret of enough bytes, surely", store=MemoryStore()).signer.sign(
                new_session_id()
            ),
            "secret",
        ),
        ("\u00e9.\u00e9", "other software"),
        ("a.b.c.d", "other software"),
        (".", "other software"),
    ],
)
def test_a_refused_cookie_is_logged_once_with_its_reason(
    cookie: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = Session(secret=SECRET, store=MemoryStore())
    with caplog.at_level(logging.DEBUG, "greenroom.web"):
        (line,) = refused(sessions, cookie, caplog)
    assert reason in line
    assert sessions.cookie.name in line
    assert len(cookie) < 4 or cookie not in caplog.text
    # Another reason is another line, the same one is not.
    assert len(refused(sessions, "another form" if "software" not in line else "", caplog)) == 1
    assert not refused(sessions, cookie, caplog)


def test_another_cookie_name_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    """The name is part of what is signed, so that one app's cookie is none of another's."""
    shop, admin = (
        Session(secret=SECRET, store=MemoryStore(), cookie_name=name) for name in ("shop", "admin")
    )
    (line,) = refused(admin, shop.signer.sign(new_session_id()), caplog)
    assert "cookie_name" in line


def test_empty_values_are_found() -> None:
    assert cookie_values([b"session="], "session") == [b""]
