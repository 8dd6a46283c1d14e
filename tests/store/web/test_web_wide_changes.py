"""Requests that change more paths than one patch takes: as atomic, and as careful with what others change."""

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from greenroom.testing import Gate, Library
from greenroom.web import RequestSession
from greenroom.web.difference import apply, difference
from greenroom.wire import PATHS_MAX
from tests.store.web.web_stage import Stage, browser, session_of, tell, twin

MANY = {f"key-{number}": number for number in range(2 * PATHS_MAX)}


async def begin(request: Request) -> Response:
    session_of(request).update({"cart": {"mug": 1}, "gone": True, "theme": "light"})
    return PlainTextResponse("begun")


@pytest.mark.parametrize("action", ["save", "login", "modify"])
def test_changes_of_many_keys_merge_with_those_of_others(library: Library, action: str) -> None:
    async def story() -> None:
        stage = Stage()

        async def wide(request: Request) -> Response:
            session = session_of(request)
            # Somebody else is faster.
            await stage.store.inner.patch(
                stage.session_id(visitor) or "", set={("cart", "rug"): 1, "theme": "dark"}
            )
            if action == "modify":
                assert await session.greenroom.modify(change)
            else:
                change(session)
                if action == "login":
                    session.greenroom.login("alice", keep=True)
            return PlainTextResponse("done")

        def change(data: dict[Any, Any]) -> None:
            data.update(MANY)
            data.pop("gone", None)
            data.setdefault("cart", {})["pan"] = 1

        async with browser(stage.app(begin, wide)) as visitor:
            await visitor.get("/begin")
            assert (await visitor.get("/wide")).status_code == 200
            cart = {"mug": 1, "rug": 1, "pan": 1}
            assert await stage.data(visitor) == {**MANY, "cart": cart, "theme": "dark"}
            devices = await stage.store.inner.list_by_user("alice")
            assert len(devices) == (action == "login")

    tell(library, story)


@pytest.mark.parametrize("user", [None, "alice"])
@pytest.mark.parametrize("failing", ["get", "create", "rotate"])
def test_many_changes_of_a_login_that_fails_are_not_under_the_old_id(
    library: Library, user: str | None, failing: str
) -> None:
    """Somebody may have planted it, and would read what the login brings."""

    async def story() -> None:
        stage = Stage()

        async def login(request: Request) -> Response:
            session = session_of(request)
            session.greenroom.login("alice", keep=True)
            if "wide" in request.query_params:
                session.update(MANY)
                stage.store.fail(failing, times=1)
            return PlainTextResponse("welcome")

        async with browser(stage.app(begin, login)) as visitor:
            await visitor.get("/begin")
            if user is not None:
                await visitor.get("/login")
            before = await stage.data(visitor)
            assert (await visitor.get("/login?wide=1")).status_code == 503
            assert before is not None
            assert await stage.data(visitor) == before

    tell(library, story)


@pytest.mark.parametrize("ending", ["logout", "everywhere"])
def test_a_logout_reaches_a_session_between_the_steps_of_many_changes(library: Library, ending: str) -> None:
    async def story() -> None:
        stage = Stage()

        async def login(request: Request) -> Response:
            session_of(request).greenroom.login("alice", keep=True)
            return PlainTextResponse("welcome")

        async def wide(request: Request) -> Response:
            session = session_of(request)
            session.update(MANY)
            session.greenroom.regenerate()
            return PlainTextResponse("done")

        async def logout(request: Request) -> Response:
            session = session_of(request)
            await session.greenroom.load()
            gate = stage.store.hold("update")
            await library.gather(lambda: visitor.get("/wide"), lambda: leave(session, gate))
            return PlainTextResponse("bye")

        async def leave(session: RequestSession, gate: Gate) -> None:
            await gate.reached()  # the old id is dead, and what follows has no user yet
            if ending == "logout":
                session.greenroom.logout()
            else:
                session.greenroom.logout_everywhere()
            await session.greenroom.save()
            gate.open()

        app = stage.app(begin, login, wide, logout)
        async with browser(app) as visitor:
            await visitor.get("/begin")
            await visitor.get("/login")
            async with twin(app, visitor) as tab:
                await tab.get("/logout")
            assert await stage.store.inner.list_by_user("alice") == []
            assert not await stage.data(visitor)
            assert stage.count("dropped") == 1

    tell(library, story)


def test_modify_begins_anew_where_another_changed_one_of_its_values(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        calls = 0

        async def count(request: Request) -> Response:
            def change(data: dict[Any, Any]) -> None:
                nonlocal calls
                calls += 1
                data.update({key: data.get(key, 0) + 1 for key in MANY})

            session = session_of(request)
            await session.greenroom.load()
            await stage.store.inner.patch(stage.session_id(visitor) or "", set={"key-7": 10})
            assert await session.greenroom.modify(change)
            return PlainTextResponse("counted")

        async with browser(stage.app(begin, count)) as visitor:
            await visitor.get("/begin")
            await visitor.get("/count")
            data = await stage.data(visitor)
            assert data is not None
            assert (data["key-7"], data["key-8"]) == (11, 1)
            assert calls == 2

    tell(library, story)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"a": {"b": {"c": 1}}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}, "d": {}}),
        ({"a": {"b": 1}}, {"a": [1]}),
        ({"a": [1]}, {"a": {"b": 1}}),
        ({"a": 1, "b": {"c": {}}}, {}),
    ],
)
def test_applied_changes_lead_from_the_old_to_the_new(old: dict[Any, Any], new: dict[Any, Any]) -> None:
    changes = difference(old, new)
    apply(changes, old)
    assert old == new


def test_applied_changes_go_over_lists_and_merge_dicts() -> None:
    data: dict[Any, Any] = {"a": [1], "b": {"mine": 1}}
    apply(difference({"a": {"x": 0}}, {"a": {"x": 1}, "b": {"yours": 2}}), data)
    assert data == {"a": {"x": 1}, "b": {"mine": 1, "yours": 2}}
