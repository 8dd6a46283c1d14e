"""To be remembered: a login with an idle time and a cookie of its own, and a new absolute lifetime."""

import logging
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.testclient import TestClient

from greenroom import (
    BaseSessionStore,
    ClusterStore,
    MemoryStore,
    SessionData,
    StoreFullError,
    UnavailableError,
    UsageError,
)
from greenroom.ids import handle_of, locate, new_session_id
from greenroom.testing import FaultyStore, Library, login_as
from greenroom.web import Session, Visit
from greenroom.web.lifetimes import Terms
from tests.store.client.fake_cluster import FakeCluster
from tests.store.poison import NEWER, poison
from tests.store.web.web_handlers import plain
from tests.store.web.web_stage import SECRET, Stage, browser, session_of, tell, together, twin

DAY = 86_400
MONTH = 30 * DAY
BROWSERS_MOST = 400 * DAY


async def show(request: Request) -> Response:
    control = session_of(request).greenroom
    expires = control.expires
    return JSONResponse(
        {"user": control.user_id, "data": request.session, "repr": repr(request.session)}
        | ({"expires": expires.isoformat()} if expires else {})
    )


async def login(request: Request) -> Response:
    options: dict[str, Any] = {}
    if "remember" in request.query_params:
        options = {"idle_seconds": MONTH, "persistent": True}
    if "short" in request.query_params:
        options = {"idle_seconds": 60, "persistent": False}
    session_of(request).greenroom.login("alice", **options)
    return PlainTextResponse("welcome")


async def regenerate(request: Request) -> Response:
    session_of(request).greenroom.regenerate()
    return PlainTextResponse("ok")


async def put(request: Request) -> Response:
    request.session.update(request.query_params)
    return PlainTextResponse("ok")


async def logout(request: Request) -> Response:
    session_of(request).greenroom.logout()
    return PlainTextResponse("bye")


async def devices(request: Request) -> Response:
    listed = await session_of(request).greenroom.devices()
    return JSONResponse([[repr(each), each.label] for each in listed])


HANDLERS = (show, login, regenerate, put, logout, devices)


class Five(BaseSessionStore):
    """A store of somebody's own, with the five methods alone."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner

    async def create(self, session: SessionData) -> int:
        return await self.inner.create(session)

    async def get(self, session_id: str) -> SessionData | None:
        return await self.inner.get(session_id)

    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        return await self.inner.update(session_id, session, version=version)

    async def delete(self, session_id: str) -> None:
        await self.inner.delete(session_id)

    async def clean(self) -> int:
        return await self.inner.clean()


def stage_of(kind: str, **options: Any) -> Stage:
    """Return a stage, over a store of one's own if that is asked for."""
    stage = Stage(**options)
    if kind == "five":
        stage.store = FaultyStore(Five(MemoryStore(clock=stage.clock)))
        stage.sessions = Session(**{"secret": SECRET, "store": stage.store, "clock": stage.clock} | options)
    return stage


STORES = pytest.mark.parametrize("kind", ["memory", "five"])


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


# --- absolute lifetimes ----------------------------------------------------------------------------------


ABSOLUTE = {"idle_seconds": 1000, "absolute_seconds": 1000}


@STORES
def test_an_absolute_lifetime_begins_anew_at_the_login(library: Library, kind: str) -> None:
    async def story() -> None:
        stage = stage_of(kind, **ABSOLUTE)
        app = stage.app(*HANDLERS)
        async with browser(app) as visitor:
            await visitor.get("/put?cart=mug")
            async with twin(app, visitor) as planted:
                stage.clock.advance(900)
                await visitor.get("/login")
                assert (await planted.get("/show")).json()["data"] == {}, "the old id is dead"
            stage.clock.advance(999)
            found = (await visitor.get("/show")).json()
            assert (found["user"], found["data"]) == ("alice", {"cart": "mug"})
            stage.clock.advance(1)
            assert (await visitor.get("/show")).json()["user"] is None

    tell(library, story)


@STORES
def test_a_new_id_without_a_login_has_the_time_that_was_left(library: Library, kind: str) -> None:
    async def story() -> None:
        stage = stage_of(kind, **ABSOLUTE)
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            stage.clock.advance(900)
            await visitor.get("/regenerate")
            stage.clock.advance(99)
            assert (await visitor.get("/show")).json()["user"] == "alice"
            stage.clock.advance(1)
            assert (await visitor.get("/show")).json()["user"] is None

    tell(library, story)


def test_a_login_without_absolute_lifetime_is_still_one_write(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/put?a=1")
            stage.clock.advance(9)
            stage.store.calls.clear()
            await visitor.get("/login?remember=1")
            assert stage.store.calls == {"get": 1, "rotate": 1}

    tell(library, story)


def test_a_change_of_another_request_is_kept_by_such_a_login(library: Library) -> None:
    """The change arrives after the login has read the session, and before it writes."""

    async def story() -> None:
        stage = Stage(**ABSOLUTE)
        app = stage.app(*HANDLERS)
        async with browser(app) as visitor, browser(app) as tab, browser(app) as phone:
            await visitor.get("/put?cart=mug")
            for cookie in visitor.cookies.jar:
                tab.cookies.jar.set_cookie(cookie)
            stage.clock.advance(5)
            await phone.get("/login")
            first, second = stage.store.hold("rotate"), stage.store.hold("update")

            async def beside() -> None:
                await first.reached()
                await tab.get("/put?theme=dark")
                first.open()
                await second.reached()
                assert (await tab.get("/show")).json()["data"] == {}, "the old id is dead by now"
                second.open()

            await together(library, lambda: visitor.get("/login"), beside)
            found = (await visitor.get("/show")).json()
            assert (found["user"], found["data"]) == ("alice", {"cart": "mug", "theme": "dark"})
            assert len((await phone.get("/devices")).json()) == 2
            assert stage.count("failed") == 0

    tell(library, story)


@pytest.mark.parametrize("error", [StoreFullError, UnavailableError])
@pytest.mark.parametrize("failing", ["create", "rotate"])
def test_a_login_that_is_refused_leaves_the_session_as_it_was(
    library: Library, failing: str, error: type[Exception]
) -> None:
    async def story() -> None:
        stage = Stage(**ABSOLUTE)
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/put?cart=mug")
            stage.clock.advance(5)
            stage.store.fail(failing, error("the test wants it"), times=1)
            assert (await visitor.get("/login")).status_code == 503
            found = (await visitor.get("/show")).json()
            assert (found["user"], found["data"]) == (None, {"cart": "mug"})
            await visitor.get("/login")
            found = (await visitor.get("/show")).json()
            assert (found["user"], found["data"]) == ("alice", {"cart": "mug"})

    tell(library, story)


def test_nobody_is_logged_in_where_the_third_write_fails(library: Library) -> None:
    async def story() -> None:
        stage = Stage(**ABSOLUTE)
        async with browser(stage.app(*HANDLERS)) as visitor, browser(stage.app(*HANDLERS)) as phone:
            await phone.get("/login")
            await visitor.get("/put?cart=mug")
            stage.clock.advance(5)
            stage.store.fail("update", times=1)
            assert (await visitor.get("/login")).status_code == 503
            assert (await visitor.get("/show")).json()["data"] == {}
            stage.clock.advance(60)
            await stage.store.inner.clean()
            assert "with 1 sessions" in repr(stage.store.inner), "what was held has ended"
            assert len((await phone.get("/devices")).json()) == 1
            await visitor.get("/login")
            assert (await visitor.get("/show")).json()["user"] == "alice"

    tell(library, story)


def test_what_is_held_ends_by_itself_where_it_cannot_be_deleted(library: Library) -> None:
    async def story() -> None:
        stage = Stage(**ABSOLUTE)
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/put?cart=mug")
            stage.clock.advance(5)
            stage.store.fail("patch")
            assert (await visitor.get("/login")).status_code == 200
            stage.store.heal()
            assert "with 2 sessions" in repr(stage.store.inner)
            assert len((await visitor.get("/devices")).json()) == 1
            stage.clock.advance(60)
            await stage.store.inner.clean()
            assert "with 1 sessions" in repr(stage.store.inner)
            assert (await visitor.get("/show")).json()["data"] == {"cart": "mug"}

    tell(library, story)


def test_a_slow_logout_ends_the_session_that_a_second_login_made_anew(library: Library) -> None:
    """It goes by user and moment of creation, which stay."""

    async def story() -> None:
        stage = Stage(**ABSOLUTE)
        app = stage.app(*HANDLERS)
        async with browser(app) as visitor, browser(app) as tab:
            await visitor.get("/login")
            for cookie in visitor.cookies.jar:
                tab.cookies.jar.set_cookie(cookie)
            stage.clock.advance(5)
            gate = stage.store.hold("patch")

            async def beside() -> None:
                await gate.reached()
                await visitor.get("/login")
                gate.open()

            await together(library, lambda: tab.get("/logout"), beside)
            assert (await visitor.get("/show")).json()["user"] is None

    tell(library, story)


def test_on_a_cluster(library: Library) -> None:
    async def story(cluster: FakeCluster) -> None:
        store = ClusterStore(cluster.address)
        stage = Stage()
        stage.sessions = Session(secret=SECRET, store=store, idle_seconds=1000, absolute_seconds=2 * MONTH)
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/put?cart=mug")
            before = await store.get(stage.session_id(visitor) or "")
            await visitor.get("/login?remember=1")
            after = await store.get(stage.session_id(visitor) or "")
            assert before is not None
            assert after is not None
            assert before.absolute_expires is not None
            assert after.absolute_expires is not None
            assert after.absolute_expires > before.absolute_expires
            assert after.expires - before.expires > timedelta(seconds=MONTH - 1000)
            assert (after.created, after.data) == (before.created, {"cart": "mug"})
            assert await store.get(before.session_id) is None
            assert len((await visitor.get("/devices")).json()) == 1
            header = (await visitor.get("/regenerate")).headers["set-cookie"]
            assert f"; Max-Age={2 * MONTH};" in header
            rotated = await store.get(stage.session_id(visitor) or "")
            assert rotated is not None
            assert rotated.absolute_expires == after.absolute_expires
            assert rotated.expires >= after.expires
        await store.aclose()

    with FakeCluster(actors=2, shards=16) as cluster:
        tell(library, lambda: story(cluster))
