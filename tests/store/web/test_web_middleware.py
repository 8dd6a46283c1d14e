"""What a request reads, writes and sends, in a Starlette app, under asyncio and trio."""

from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from greenroom import UsageError
from greenroom.testing import Library
from greenroom.web import SessionMiddleware
from tests.store.web.web_handlers import HANDLERS, add, fail, show
from tests.store.web.web_stage import FollowingMiddleware, Stage, browser, session_of, tell


def test_anonymous_visits_and_reads_write_nothing_and_set_no_cookie(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            for path in ("/plain", "/show", "/who"):
                response = await visitor.get(path)
                assert response.status_code == 200
                assert "set-cookie" not in response.headers
        assert not stage.store.calls

    tell(library, story)


def test_session_begins_with_the_first_thing_kept_and_a_redirect_reads_it(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            response = await visitor.get("/add")
            cookie = response.headers["set-cookie"]
            assert cookie.startswith("__Host-session=gr-")
            assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
            assert (await visitor.get("/show")).json() == {"cart": {"items": ["mug"]}}
            second = await visitor.get("/add", follow_redirects=True)
            assert second.json() == {"cart": {"items": ["mug", "mug"]}}
            assert "set-cookie" not in second.history[0].headers, "a known id is never sent again"
        assert stage.store.calls == {"create": 1, "get": 3, "patch": 1}

    tell(library, story)


def test_a_hundred_reads_write_nothing(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/add")
            writes = stage.store.writes
            for _ in range(50):
                await visitor.get("/show")
                await visitor.get("/plain")
        assert stage.store.writes == writes

    tell(library, story)


def test_vary_only_if_the_handler_looked(library: Library) -> None:
    async def varied(request: Request) -> Response:
        request.session.get("x")
        return PlainTextResponse("x", headers={"vary": "Accept"})

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS, varied)) as visitor:
            await visitor.get("/add")
            assert "vary" not in (await visitor.get("/plain")).headers
            assert (await visitor.get("/show")).headers["vary"] == "Cookie"
            assert (await visitor.get("/varied")).headers["vary"] == "Accept, Cookie"

    tell(library, story)


def test_login_is_one_rotate_with_user_and_data(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/add")
            before = stage.session_id(visitor)
            stage.store.calls.clear()
            response = await visitor.get("/login")
            assert "set-cookie" in response.headers
            assert stage.store.calls == {"get": 1, "rotate": 1}
            after = stage.session_id(visitor)
            assert before is not None
            assert after is not None
            assert after != before
            assert after[:8] == before[:8], "the new id keeps the place in the cluster"
            assert await stage.store.inner.get(before) is None
            assert (await visitor.get("/who")).json() == "alice"
            assert await stage.data(visitor) == {"cart": {"items": ["mug"]}, "since": "now"}

    tell(library, story)


def test_login_without_a_session_creates_one(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            assert stage.store.calls == {"create": 1}
            assert (await visitor.get("/who")).json() == "alice"

    tell(library, story)


def test_login_of_another_user_inherits_nothing(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            await visitor.get("/add")
            await visitor.get("/login?user=bob")
            assert (await visitor.get("/who")).json() == "bob"
            assert await stage.data(visitor) == {"since": "now"}

    tell(library, story)


def test_logout_deletes_and_clears_the_cookie(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            session_id = stage.session_id(visitor)
            assert session_id is not None
            response = await visitor.get("/logout")
            assert "Max-Age=0" in response.headers["set-cookie"]
            assert not visitor.cookies
            assert await stage.store.inner.get(session_id) is None
            assert (await visitor.get("/who")).json() is None
            assert "set-cookie" not in (await visitor.get("/logout")).headers, "there was nothing to end"

    tell(library, story)


@pytest.mark.parametrize("path", ["/logout", "/everywhere", "/bye"])
@pytest.mark.parametrize("second_user", ["alice", "bob", None])
def test_logout_ends_every_session_that_the_browser_sent(
    library: Library, path: str, second_user: str | None
) -> None:
    """Cookies of several paths or domains come at once; none of them may leave the browser logged in."""

    async def everywhere(request: Request) -> Response:
        session_of(request).greenroom.logout_everywhere()
        return PlainTextResponse("bye")

    async def bye(request: Request) -> Response:
        session_of(request).greenroom.logout()
        session_of(request).greenroom.login("carol")
        return PlainTextResponse("welcome")

    async def story() -> None:
        stage = Stage()
        app = stage.app(*HANDLERS, everywhere, bye)
        name = stage.sessions.cookie.name
        async with browser(app) as first, browser(app) as second, browser(app) as tossed:
            await first.get("/login")
            await second.get("/add" if second_user is None else f"/login?user={second_user}")
            both = "; ".join(f"{name}={each.cookies[name]}" for each in (first, second))
            if second_user != "bob":  # whose request it would be cannot be told: see test_web_tossing
                assert (await tossed.get("/who", headers={"cookie": both})).json() == "alice"
            tossed.cookies.clear()
            assert (await tossed.get(path, headers={"cookie": both})).status_code == 200
            assert await stage.data(first) is None
            assert await stage.data(second) is None
            tossed.cookies.clear()
            assert (await tossed.get("/who", headers={"cookie": both})).json() is None

    tell(library, story)


def test_logout_with_one_cookie_deletes_once(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            await visitor.get("/logout")
            assert stage.store.calls["delete"] == 1

    tell(library, story)


def test_session_begun_after_logout_in_the_same_request_is_another(library: Library) -> None:
    async def bye(request: Request) -> Response:
        session_of(request).greenroom.logout()
        request.session["flash"] = "you are logged out"
        return PlainTextResponse("bye")

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS, bye)) as visitor:
            await visitor.get("/login")
            before = stage.session_id(visitor)
            await visitor.get("/bye")
            assert before is not None
            assert await stage.store.inner.get(before) is None
            assert stage.session_id(visitor) not in {None, before}
            assert await stage.data(visitor) == {"flash": "you are logged out"}
            assert (await visitor.get("/who")).json() is None

    tell(library, story)


def test_regenerate_keeps_all_but_the_id(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            before = stage.session_id(visitor)
            await visitor.get("/regenerate")
            assert stage.session_id(visitor) not in {None, before}
            assert (await visitor.get("/who")).json() == "alice"
            assert "set-cookie" not in (await visitor.get("/plain")).headers

    tell(library, story)


def test_a_handler_that_raises_has_saved_nothing(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS), raise_app_exceptions=False) as visitor:
            response = await visitor.get("/fail")
            assert response.status_code == 500
            assert "set-cookie" not in response.headers
            assert not stage.store.calls
            await visitor.get("/add")
            writes = stage.store.writes
            await visitor.get("/fail")
            assert stage.store.writes == writes
            assert (await visitor.get("/show")).json() == {"cart": {"items": ["mug"]}}

    tell(library, story)


def test_a_failing_handler_saves_nothing_where_its_framework_answers_first(library: Library) -> None:
    """Around a whole app, the middleware sees the framework's 500 before the exception."""

    async def kept(request: Request) -> Response:
        request.session["kept"] = 1
        await session_of(request).greenroom.save()
        request.session["half"] = "done"
        raise RuntimeError("the handler failed")

    async def story() -> None:
        stage = Stage()
        routes = [Route(f"/{each.__name__}", each) for each in (fail, kept, show)]
        app = SessionMiddleware(Starlette(routes=routes), session=stage.sessions)
        async with browser(app, raise_app_exceptions=False) as visitor:
            response = await visitor.get("/fail")
            assert response.status_code == 500
            assert "set-cookie" not in response.headers
            assert not stage.store.calls
            assert (await visitor.get("/kept")).status_code == 500
            assert (await visitor.get("/show")).json() == {"kept": 1}

    tell(library, story)


def test_discard_is_for_handlers_of_exceptions(library: Library) -> None:
    async def refused(request: Request) -> Response:
        request.session["half"] = "done"
        session_of(request).greenroom.discard()
        raise HTTPException(409)

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(refused)) as visitor:
            assert (await visitor.get("/refused")).status_code == 409
        assert not stage.store.calls

    tell(library, story)


def test_background_tasks_are_saved(library: Library) -> None:
    async def later(request: Request) -> Response:
        request.session["now"] = 1
        return PlainTextResponse("ok", background=BackgroundTask(request.session.update, later=2))

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(later, show)) as visitor:
            await visitor.get("/later")
            assert (await visitor.get("/show")).json() == {"now": 1, "later": 2}
        assert stage.store.calls["patch"] == 1

    tell(library, story)


def test_creating_a_session_after_the_response_started_is_a_usage_error(library: Library) -> None:
    async def late(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(request.session.update, late=1))

    async def later_login(request: Request) -> Response:
        return PlainTextResponse(
            "ok", background=BackgroundTask(session_of(request).greenroom.login, "alice")
        )

    async def replaced(request: Request) -> Response:
        def replace() -> None:
            request.scope["session"] = {"late": 1}

        return PlainTextResponse("ok", background=BackgroundTask(replace))

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(late, later_login, replaced, kind=FollowingMiddleware)) as visitor:
            for path in ("/late", "/later_login", "/replaced"):
                with pytest.raises(UsageError, match="the response has started"):
                    await visitor.get(path)
        assert not stage.store.calls

    tell(library, story)


def test_streaming_may_change_a_session_that_exists(library: Library) -> None:
    async def stream(request: Request) -> Response:
        async def parts() -> Any:
            for count in range(3):
                request.session["sent"] = count + 1
                yield b"x"

        return StreamingResponse(parts())

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(stream, add, show)) as visitor:
            await visitor.get("/add")
            assert (await visitor.get("/stream")).text == "xxx"
            assert (await visitor.get("/show")).json()["sent"] == 3

    tell(library, story)


def test_save_and_reload_in_between(library: Library) -> None:
    async def between(request: Request) -> Response:
        session = session_of(request)
        session["kept"] = 1
        assert session.greenroom.modified
        assert await session.greenroom.save()
        assert not session.greenroom.modified
        session["dropped"] = 2
        await session.greenroom.reload()
        assert session == {"kept": 1}
        return PlainTextResponse("ok")

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(between)) as visitor:
            response = await visitor.get("/between")
            assert "set-cookie" in response.headers
            assert stage.store.calls == {"create": 1, "get": 1}

    tell(library, story)


def test_what_stands_in_the_scope_is_what_counts(library: Library) -> None:
    """For a framework that is followed: Litestar puts a dict there, a Struct, None, or a mark."""

    class Basket(msgspec.Struct):
        items: list[str]

    class Empty:
        pass

    async def put(request: Request) -> Response:
        values: dict[str, Any] = {
            "dict": {"a": 1},
            "struct": Basket(["mug"]),
            "none": None,
            "empty": Empty,
            "number": 5,
        }
        request.scope["session"] = values[request.query_params["what"]]
        return PlainTextResponse("ok")

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(put, show, kind=FollowingMiddleware)) as visitor:
            assert "set-cookie" in (await visitor.get("/put?what=dict")).headers
            assert (await visitor.get("/show")).json() == {"a": 1}
            await visitor.get("/put?what=struct")
            assert (await visitor.get("/show")).json() == {"items": ["mug"]}
            with pytest.raises(UsageError, match="int stands where session data is expected"):
                await visitor.get("/put?what=number")
            for gone in ("none", "empty"):
                await visitor.get("/put?what=dict")
                response = await visitor.get(f"/put?what={gone}")
                assert "Max-Age=0" in response.headers["set-cookie"]
                assert (await visitor.get("/show")).json() == {}
                assert "set-cookie" not in (await visitor.get(f"/put?what={gone}")).headers

    tell(library, story)


def test_clear_ends_the_session_and_emptying_it_does_not(library: Library) -> None:
    async def clear(request: Request) -> Response:
        request.session.clear()
        return PlainTextResponse("ok")

    async def empty(request: Request) -> Response:
        for key in list(request.session):
            del request.session[key]
        return PlainTextResponse("ok")

    async def refill(request: Request) -> Response:
        request.session.clear()
        request.session["fresh"] = 1
        return PlainTextResponse("ok")

    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS, clear, empty, refill)) as visitor:
            await visitor.get("/clear")
            assert not stage.store.calls
            await visitor.get("/login")
            await visitor.get("/empty")
            assert (await visitor.get("/who")).json() == "alice"
            before = stage.session_id(visitor)
            await visitor.get("/refill")
            assert stage.session_id(visitor) not in {None, before}
            assert await stage.store.inner.get(before or "") is None
            assert (await visitor.get("/show")).json() == {"fresh": 1}
            assert (await visitor.get("/who")).json() is None
            await visitor.get("/login")
            assert "Max-Age=0" in (await visitor.get("/clear")).headers["set-cookie"]
            assert (await visitor.get("/who")).json() is None

    tell(library, story)
