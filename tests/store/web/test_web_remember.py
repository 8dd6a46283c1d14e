"""To be remembered: a login with an idle time and a cookie of its own."""

import logging
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from greenroom import (
    MemoryStore,
    UsageError,
)
from greenroom.ids import handle_of, locate, new_session_id
from greenroom.integrations.moving import OtherStore
from greenroom.testing import Library, login_as
from greenroom.web import Session, Visit
from greenroom.web.lifetimes import Terms
from tests.store.poison import NEWER, poison
from tests.store.web.remember_stage import (
    DAY,
    HANDLERS,
    MONTH,
    STORES,
    stage_of,
)
from tests.store.web.web_handlers import plain
from tests.store.web.web_stage import SECRET, Stage, browser, tell

BROWSERS_MOST = 400 * DAY


@STORES
def test_a_remembered_session_outlives_others(library: Library, kind: str) -> None:
    async def story() -> None:
        stage = stage_of(kind)
        app = stage.app(*HANDLERS)
        async with browser(app) as remembered, browser(app) as usual:
            await remembered.get("/put?cart=mug")
            header = (await remembered.get("/login?remember=1")).headers["set-cookie"]
            assert f"; Max-Age={BROWSERS_MOST};" in header
            assert "Max-Age" not in (await usual.get("/login")).headers["set-cookie"]
            stage.clock.advance(1801)
            assert (await usual.get("/show")).json()["user"] is None
            stage.clock.advance(MONTH - 1802)
            found = (await remembered.get("/show")).json()
            assert (found["user"], found["data"]) == ("alice", {"cart": "mug"})
            stage.clock.advance(MONTH - 1)
            assert (await remembered.get("/show")).json()["user"] == "alice", "extended by its own idle time"
            stage.clock.advance(MONTH)
            assert (await remembered.get("/show")).json()["user"] is None

    tell(library, story)


def test_each_process_extends_by_the_terms_of_the_login(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        other = Session(secret=SECRET, store=stage.store, clock=stage.clock)
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login?remember=1")
            stage.sessions = other
            async with browser(stage.app(*HANDLERS)) as elsewhere:
                elsewhere.cookies = visitor.cookies
                stage.store.calls.clear()
                stage.clock.advance(5 * DAY - 1)
                await elsewhere.get("/show")
                assert stage.store.calls == {"get": 1}, "five sixths are left"
                stage.clock.advance(2)
                expires = (await elsewhere.get("/put?a=1"), await elsewhere.get("/show"))[1].json()["expires"]
                assert expires == (stage.clock() + timedelta(seconds=MONTH)).isoformat()
                assert stage.store.calls == {"get": 3, "patch": 1}, "the change carries the new end"

    tell(library, story)


@STORES
def test_terms_survive_a_new_id_and_end_with_the_next_login(library: Library, kind: str) -> None:
    async def story() -> None:
        stage = stage_of(kind)
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login?remember=1")
            stage.clock.advance(DAY)
            header = (await visitor.get("/regenerate")).headers["set-cookie"]
            assert f"; Max-Age={BROWSERS_MOST};" in header
            stage.clock.advance(MONTH - 1)
            assert (await visitor.get("/show")).json()["user"] == "alice"
            assert "Max-Age" not in (await visitor.get("/login")).headers["set-cookie"]
            stage.clock.advance(1800)
            assert (await visitor.get("/show")).json()["user"] is None

    tell(library, story)


def test_nor_do_they_outlive_a_logout(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login?remember=1")
            await visitor.get("/logout")
            assert "Max-Age" not in (await visitor.get("/put?a=1")).headers["set-cookie"]
            stage.clock.advance(1800)
            assert (await visitor.get("/show")).json()["data"] == {}

    tell(library, story)


def test_a_login_may_ask_for_less(library: Library) -> None:
    async def story() -> None:
        stage = Stage(persistent=True)
        async with browser(stage.app(*HANDLERS)) as visitor:
            assert "Max-Age" not in (await visitor.get("/login?short=1")).headers["set-cookie"]
            stage.clock.advance(59)
            assert (await visitor.get("/show")).json()["user"] == "alice"
            stage.clock.advance(60)
            assert (await visitor.get("/show")).json()["user"] is None

    tell(library, story)


def test_terms_show_nowhere_and_nobody_forges_them(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        app = stage.app(*HANDLERS)
        async with browser(app) as visitor, browser(app) as short, browser(app) as forger:
            await visitor.get("/login?remember=1")
            found = (await visitor.get("/show")).json()
            assert (found["data"], found["repr"]) == ({}, "<RequestSession stored>")
            assert await stage.data(visitor) == {}
            listed = (await visitor.get("/devices")).json()
            assert not any(str(MONTH) in text for each in listed for text in each)
            await short.get("/login?short=1")
            name = stage.sessions.cookie.name
            signed = short.cookies.get(name) or ""
            session_id, idle, _persistent, signature = signed.split(".")
            assert idle == f"i{60 * 10**6}"
            for forged in (
                f"{session_id}.i{MONTH * 10**6}.p1.{signature}",
                f"{session_id}.{signature}",
                f"{session_id}.{idle}.p1.{signature}",
            ):
                response = await forger.get("/show", headers={"cookie": f"{name}={forged}"})
                assert response.json()["user"] is None
            assert stage.count("refused_cookies") == 3

    tell(library, story)


def test_a_later_versions_session_stays_as_long_as_its_login_asked(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        memory = stage.store.inner
        assert isinstance(memory, MemoryStore)
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login?remember=1")
            poison(memory, stage.session_id(visitor) or "", NEWER)
            assert "set-cookie" not in (await visitor.get("/show")).headers
            assert visitor.cookies, "half an hour is not the measure of this session"

    tell(library, story)


async def loaded(stage: Stage, visitor: httpx.AsyncClient) -> Visit:
    """Return another request of this browser."""
    name = stage.sessions.cookie.name
    visit = stage.sessions.visit([f"{name}={visitor.cookies.get(name)}"])
    await visit.load()
    return visit


@pytest.mark.parametrize("use", ["read", "keep_alive", "modify"])
def test_every_use_extends_by_the_terms(library: Library, use: str) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login?remember=1")
            for days, extended in ((5 - 1e-5, False), (2e-5, True)):
                stage.clock.advance(days * DAY)
                visit = await loaded(stage, visitor)
                assert visit.stored is not None
                before = visit.stored.expires
                if use == "read":
                    visit.session.get("theme")
                    await visit.save()
                elif use == "keep_alive":
                    await visit.keep_alive()
                else:
                    await visit.session.greenroom.modify(lambda data: data.update(n=data.get("n", 0) + 1))
                after = stage.clock() + timedelta(seconds=MONTH) if extended else before
                assert visit.stored.expires == after

    tell(library, story)


def test_a_page_that_does_not_look_at_the_session_extends_it_by_the_terms(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS, plain)) as visitor:
            await visitor.get("/login?remember=1")
            stage.store.calls.clear()
            stage.clock.advance(5 * DAY - 1)
            await visitor.get("/plain")
            assert stage.store.calls == {"get": 1}, "five sixths are left"
            for _ in range(3):
                stage.clock.advance(20 * DAY)
                await visitor.get("/plain")
            assert (await visitor.get("/show")).json()["user"] == "alice"

    tell(library, story)


def test_a_modification_that_takes_long_carries_the_end_with_it(library: Library) -> None:
    async def story() -> None:
        stage = Stage()

        def change(data: dict[Any, Any]) -> None:
            stage.clock.advance(6 * DAY)
            data["n"] = 1

        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login?remember=1")
            visit = await loaded(stage, visitor)
            assert await visit.session.greenroom.modify(change)
            assert visit.stored is not None
            assert visit.stored.expires == stage.clock() + timedelta(seconds=MONTH)

    tell(library, story)


def test_what_ended_is_no_longer_persistent(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login?remember=1")
            visit = await loaded(stage, visitor)
            assert visit.is_persistent
            visit.logout()
            await visit.save()
            assert not visit.is_persistent

    tell(library, story)


def test_a_remembered_cookie_of_another_secret_is_told_by_its_handle(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = (Session(secret=f"{SECRET} {each}", store=MemoryStore()) for each in "ab")
    session_id = new_session_id()
    signed = one.signer.sign(session_id, Terms(MONTH * 10**6, persistent=True))
    with caplog.at_level(logging.DEBUG, "greenroom.web"):
        other.visit([f"{other.cookie.name}={signed}"])
    assert handle_of(*locate(session_id)) in caplog.text
    assert session_id not in caplog.text


def refused(**options: Any) -> str:
    sessions = Session(secret=SECRET, store=MemoryStore(), absolute_seconds=DAY)
    with pytest.raises(UsageError) as caught:
        sessions.visit(()).session.greenroom.login("alice", **options)
    return str(caught.value)


def test_options_that_make_no_sense_are_refused_by_name() -> None:
    for idle_seconds in ("60", 0, -1, float("inf"), True, timedelta(days=1)):
        assert refused(idle_seconds=idle_seconds).startswith("idle_seconds is ")
    for persistent in ("false", 1, "on"):
        assert refused(persistent=persistent).startswith("persistent is ")
    assert "within absolute_seconds" in refused(idle_seconds=DAY + 1)
    sessions = Session(secret=SECRET, store=MemoryStore(), absolute_seconds=DAY)
    sessions.visit(()).session.greenroom.login("alice", idle_seconds=DAY)


def test_the_helper_of_tests_takes_them_too() -> None:
    stage = Stage()
    client = TestClient(stage.app(*HANDLERS), base_url="https://testserver")
    login_as(client, "alice", idle_seconds=MONTH, persistent=True, cart=1)
    stage.clock.advance(MONTH - 1)
    assert client.get("/show").json()["data"] == {"cart": 1}


@pytest.mark.parametrize("other_store", [False, True])
def test_a_session_that_moves_keeps_the_terms_of_its_login(library: Library, *, other_store: bool) -> None:
    """Under another name of the cookie, and with the same name in another store."""

    async def story() -> None:
        before = stage_of("memory", host_prefix=other_store)
        stage = stage_of("memory")
        store = stage.store if other_store else before.store
        old = before.store if other_store else before.sessions
        stage.clock = before.clock
        stage.sessions = Session(
            secret=SECRET, store=store, clock=before.clock, moves_from=OtherStore(old, lifetime_seconds=MONTH)
        )
        async with browser(before.app(*HANDLERS)) as visitor:
            await visitor.get("/login?remember=1")
            cookies = dict(visitor.cookies)
        async with browser(stage.app(*HANDLERS)) as visitor:
            header = "; ".join(f"{name}={value}" for name, value in cookies.items())
            stage.clock.advance(DAY)
            first = await visitor.get("/show", headers={"cookie": header})
            given = next(each for each in first.headers.get_list("set-cookie") if "=gr-" in each)
            assert "; Max-Age=" in given
            for _ in range(3):
                stage.clock.advance(MONTH - 1)
                assert (await visitor.get("/show")).json()["user"] == "alice"
            assert stage.count("moved") == 1

    tell(library, story)
