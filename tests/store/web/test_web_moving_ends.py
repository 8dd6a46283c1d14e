"""Moving house: what a logout, a login or a failure ends of an old session, and what it leaves."""

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from greenroom import UnavailableError, UsageError
from greenroom.testing import Library
from tests.store.web.moving_stage import OLD_DATA, Moving, moved_to, names, old_app, visitor_of
from tests.store.web.web_handlers import HANDLERS
from tests.store.web.web_stage import Stage, browser, session_of, tell, together


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
        session_of(request).greenroom.login("bob", keep=True)
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
