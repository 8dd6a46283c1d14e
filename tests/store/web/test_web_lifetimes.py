"""How long a session lives, what extends it, and the lists of devices."""

from datetime import UTC, datetime, timedelta

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from greenroom.testing import Library
from tests.store.web.web_stage import Stage, browser, session_of, tell

START = datetime(2030, 1, 1, tzinfo=UTC)


async def show(request: Request) -> Response:
    return JSONResponse({"user": session_of(request).greenroom.user_id, "data": request.session})


async def untouched(_request: Request) -> Response:
    return PlainTextResponse("no look at the session")


async def login(request: Request) -> Response:
    session_of(request).greenroom.login(request.query_params.get("user", "alice"))
    return PlainTextResponse("welcome")


async def devices(request: Request) -> Response:
    session = session_of(request)
    listed = await session.greenroom.devices()
    return JSONResponse(
        [[each.handle, each.label, each.handle == session.greenroom.handle] for each in listed]
    )


async def end(request: Request) -> Response:
    ended = await session_of(request).greenroom.end_device(request.query_params["handle"])
    return JSONResponse(ended)


async def everywhere(request: Request) -> Response:
    session = session_of(request)
    session.greenroom.logout_everywhere(keep_current="keep" in request.query_params)
    if "regenerate" in request.query_params:
        session.greenroom.regenerate()
    return PlainTextResponse("bye")


HANDLERS = (show, untouched, login, devices, end, everywhere)


def test_a_session_ends_half_an_hour_after_its_last_use(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            for _ in range(10):
                stage.clock.advance(1499)
                assert (await visitor.get("/show")).json()["user"] == "alice"
            stage.clock.advance(1800)
            response = await visitor.get("/show")
            assert response.json()["user"] is None
            assert "set-cookie" not in response.headers, "nobody logged out here"

    tell(library, story)


def test_extension_is_the_only_write_of_a_read_and_only_past_the_threshold(library: Library) -> None:
    async def story() -> None:
        stage = Stage(idle_seconds=120)
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            for path in ("/show", "/untouched"):
                stage.store.calls.clear()
                stage.clock.advance(20)
                await visitor.get(path)
                assert stage.store.calls == {"get": 1}, "five sixths are left"
                stage.clock.advance(1)
                response = await visitor.get(path)
                assert stage.store.calls == {"get": 2, "patch": 1}
                assert "set-cookie" not in response.headers
                await visitor.get(path)
                assert stage.store.calls == {"get": 3, "patch": 1}
            assert stage.count("extensions") == 2

    tell(library, story)


def test_a_change_carries_the_extension_with_it(library: Library) -> None:
    async def change(request: Request) -> Response:
        request.session["n"] = request.session.get("n", 0) + 1
        return JSONResponse(
            session_of(request).greenroom.expires and session_of(request).greenroom.expires.isoformat()
        )

    async def story() -> None:
        stage = Stage(idle_seconds=100)
        async with browser(stage.app(change)) as visitor:
            await visitor.get("/change")
            stage.clock.advance(50)
            await visitor.get("/change")
            stage.clock.advance(10)
            until = (await visitor.get("/change")).json()
            assert until == (START + timedelta(seconds=150)).isoformat()
            assert stage.count("extensions") == 0
            assert stage.store.calls == {"create": 1, "get": 2, "patch": 2}

    tell(library, story)


def test_absolute_lifetime_ends_whatever_the_use(library: Library) -> None:
    async def story() -> None:
        stage = Stage(idle_seconds=100, absolute_seconds=250)
        async with browser(stage.app(*HANDLERS)) as visitor:
            await visitor.get("/login")
            for _ in range(4):
                stage.clock.advance(60)
                assert (await visitor.get("/show")).json()["user"] == "alice"
            writes = stage.store.writes
            stage.clock.advance(5)
            await visitor.get("/show")
            assert stage.store.writes == writes, "there is no more time to get"
            stage.clock.advance(5)
            assert (await visitor.get("/show")).json()["user"] is None

    tell(library, story)


def test_persistent_cookies_outlive_the_browser(library: Library) -> None:
    async def story() -> None:
        for options, age in (({}, 400 * 86400), ({"absolute_seconds": 3600}, 3600)):
            stage = Stage(persistent=True, **options)
            async with browser(stage.app(*HANDLERS)) as visitor:
                response = await visitor.get("/login")
                assert f"; Max-Age={age};" in response.headers["set-cookie"]

    tell(library, story)


def test_devices_are_listed_and_ended(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        app = stage.app(*HANDLERS)
        async with browser(app) as phone, browser(app) as laptop, browser(app) as stranger:
            await stranger.get("/login?user=mallory")
            await phone.get("/login", headers={"user-agent": "Phone"})
            stage.clock.advance(1)
            await laptop.get("/login", headers={"user-agent": "Laptop " + "x" * 300})
            listed = (await phone.get("/devices")).json()
            assert [(label[:6], own) for _, label, own in listed] == [("Laptop", False), ("Phone", True)]
            assert not (await stranger.get("/end", params={"handle": listed[0][0]})).json()
            assert (await laptop.get("/show")).json()["user"] == "alice", "not the stranger's to end"
            await laptop.get("/login", headers={"user-agent": "Laptop"})
            assert not (await phone.get("/end", params={"handle": listed[0][0]})).json(), "a handle of before"
            assert (await laptop.get("/show")).json()["user"] == "alice"
            listed = (await phone.get("/devices")).json()
            assert (await phone.get("/end", params={"handle": listed[0][0]})).json()
            assert (await laptop.get("/show")).json()["user"] is None
            response = await phone.get("/end", params={"handle": listed[1][0]})
            assert "Max-Age=0" in response.headers["set-cookie"]
            assert (await phone.get("/devices")).json() == []

    tell(library, story)


@pytest.mark.parametrize("query", ["keep=1", "keep=1&regenerate=1", ""])
def test_logout_everywhere(library: Library, query: str) -> None:
    async def story() -> None:
        stage = Stage()
        app = stage.app(*HANDLERS)
        async with browser(app) as phone, browser(app) as laptop, browser(app) as other:
            await phone.get("/login")
            await laptop.get("/login")
            await other.get("/login?user=bob")
            await phone.get(f"/everywhere?{query}")
            assert (await laptop.get("/show")).json()["user"] is None
            assert (await other.get("/show")).json()["user"] == "bob"
            assert (await phone.get("/show")).json()["user"] == ("alice" if query else None)

    tell(library, story)


def test_login_that_ends_all_other_sessions(library: Library) -> None:
    async def sole(request: Request) -> Response:
        session = session_of(request)
        session.greenroom.login("alice")
        session.greenroom.logout_everywhere(keep_current=True)
        return PlainTextResponse("welcome")

    async def story() -> None:
        stage = Stage()
        app = stage.app(*HANDLERS, sole)
        async with browser(app) as phone, browser(app) as laptop:
            await phone.get("/login")
            await laptop.get("/sole")
            assert (await phone.get("/show")).json()["user"] is None
            assert (await laptop.get("/show")).json()["user"] == "alice"

    tell(library, story)


def test_hooks_turn_users_into_ids_and_back(library: Library) -> None:
    class User:
        def __init__(self, number: int) -> None:
            self.number = number

    async def load_user(user_id: str) -> User | None:
        return None if user_id == "13" else User(int(user_id))

    async def enter(request: Request) -> Response:
        session_of(request).greenroom.login(User(int(request.query_params["number"])))
        return PlainTextResponse("ok")

    async def number(request: Request) -> Response:
        user = await session_of(request).greenroom.user()
        return JSONResponse(None if user is None else user.number)

    async def story() -> None:
        stage = Stage(serialize_user=lambda user: str(user.number), deserialize_user=load_user)
        async with browser(stage.app(enter, number, show)) as visitor:
            assert (await visitor.get("/number")).json() is None
            await visitor.get("/enter?number=7")
            assert (await visitor.get("/number")).json() == 7
            assert (await visitor.get("/show")).json()["user"] == "7"
            await visitor.get("/enter?number=13")
            assert (await visitor.get("/number")).json() is None, "the user is gone, the session is not"

    tell(library, story)
