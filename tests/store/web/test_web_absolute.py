"""An absolute lifetime begins anew with a login, and a login that fails leaves all as it was."""

from datetime import timedelta

import pytest

from greenroom import (
    ClusterStore,
    StoreFullError,
    UnavailableError,
)
from greenroom.testing import Library
from greenroom.web import Session
from tests.store.client.fake_cluster import FakeCluster
from tests.store.web.remember_stage import HANDLERS, MONTH, STORES, stage_of
from tests.store.web.web_stage import SECRET, Stage, browser, tell, together, twin

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
