"""Requests of one browser at once, in scripted order: no login or logout is undone."""

import logging
from datetime import timedelta

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from greenroom import SessionData
from greenroom.ids import new_session_id
from greenroom.testing import Gate, Library
from greenroom.web.writes import LISTED_MAX
from tests.store.web.race_stage import Race, in_loop
from tests.store.web.web_stage import Stage, browser, session_of, tell, together, twin


@pytest.mark.parametrize("slow", ["set", "nested", "regenerate", "save"])
@pytest.mark.parametrize("fast", ["logout", "everywhere"])
def test_a_slow_request_does_not_undo_a_logout(
    library: Library, slow: str, fast: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(race: Race) -> None:
        response, visitor = await race.run(slow, fast, start="login&user=alice")
        assert response.status_code == 200
        assert "set-cookie" not in response.headers
        assert not visitor.cookies
        assert race.stage.count("dropped") == 1
        assert race.stage.count("creates") == 1
        assert repr(race.stage.store.inner) == "<MemoryStore with 0 sessions>"
        if slow == "save":
            assert response.json() == {"saved": False, "lost": True}

    with caplog.at_level(logging.WARNING, "greenroom.web"):
        in_loop(library, story)
    assert "a change to a session was dropped" in caplog.text
    assert "gr-" not in caplog.text


def test_a_slow_logout_ends_the_session_that_has_a_new_id_meanwhile(library: Library) -> None:
    """Else the browser stayed logged in, where the answer with the new cookie came last."""

    async def story(race: Race) -> None:
        other_device = browser(race.app)
        await other_device.get("/fast?then=login&user=alice")
        race.stage.clock.advance(1)
        response, visitor = await race.run("logout", "regenerate", start="login&user=alice")
        assert response.status_code == 200
        assert (await visitor.get("/fast")).json() == {"user": None, "data": {}}
        assert (await other_device.get("/fast")).json()["user"] == "alice"

    in_loop(library, story)


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_a_slow_logout_of_an_anonymous_session_does_not_undo_a_login(library: Library, user: str) -> None:
    async def story(race: Race) -> None:
        _, visitor = await race.run("logout", f"login&user={user}")
        assert (await visitor.get("/fast")).json()["user"] == user

    in_loop(library, story)


@pytest.mark.parametrize("slow", ["set", "nested", "regenerate", "save"])
def test_a_slow_request_does_not_undo_a_login(library: Library, slow: str) -> None:
    async def story(race: Race) -> None:
        response, visitor = await race.run(slow, "login&user=alice")
        assert response.status_code == 200
        assert "set-cookie" not in response.headers
        assert race.stage.count("dropped") == 1
        assert (await visitor.get("/fast")).json() == {
            "user": "alice",
            "data": {"cart": {"fast": 1}, "by": "fast"},
        }

    in_loop(library, story)


def test_a_slow_read_sends_no_cookie_after_a_login(library: Library) -> None:
    """Not even when it would extend the session."""

    async def story(race: Race) -> None:
        response, visitor = await race.run("read", "login&user=alice")
        assert "set-cookie" not in response.headers
        assert race.stage.count("dropped") == 1, "the extension came too late"
        assert (await visitor.get("/fast")).json()["user"] == "alice"

    # The slow request ends a second after it has loaded the session: more than a sixth of this.
    in_loop(library, story, idle_seconds=5)


def test_a_slow_logout_of_an_old_id_leaves_the_new_session_alone(library: Library) -> None:
    async def story(race: Race) -> None:
        response, visitor = await race.run("logout", "login&user=alice")
        assert "Max-Age=0" in response.headers["set-cookie"], "its own handler logged out"
        assert (await visitor.get("/fast")).json()["user"] == "alice"

    in_loop(library, story)


def test_two_logins_at_once_both_hold(library: Library) -> None:
    async def story(race: Race) -> None:
        response, visitor = await race.run("login&user=alice", "login&user=alice")
        assert (await visitor.get("/fast")).json()["user"] == "alice"
        other = browser(race.app)
        other.cookies.extract_cookies(response)
        assert (await other.get("/fast")).json() == {
            "user": "alice",
            "data": {"cart": {"fast": 1}, "by": "slow"},
        }, "a form that was sent twice costs no cart"

    in_loop(library, story)


@pytest.mark.parametrize("fast", ["login&user=carol", "logout", "regenerate"])
def test_a_login_takes_nothing_along_from_a_session_that_others_ended(library: Library, fast: str) -> None:
    async def story(race: Race) -> None:
        response, _ = await race.run("login&user=alice", fast)
        other = browser(race.app)
        other.cookies.extract_cookies(response)
        assert (await other.get("/fast")).json() == {"user": "alice", "data": {"by": "slow"}}

    in_loop(library, story)


@pytest.mark.parametrize("absolute_seconds", [None, 43_200])
def test_a_login_sent_twice_keeps_what_its_user_had(library: Library, absolute_seconds: float | None) -> None:
    async def story(race: Race) -> None:
        visitor = browser(race.app)
        for page in ("login&user=alice", "nested", "other"):
            await visitor.get(f"/fast?then={page}")
        race.stage.clock.advance(5)
        slow_tab = twin(race.app, visitor)

        async def faster() -> None:
            await race.gate.reached()
            await visitor.get("/fast?then=login&user=alice")
            race.gate.open()

        await together(library, lambda: slow_tab.get("/slow?then=login&user=alice"), faster)
        found = (await slow_tab.get("/fast")).json()
        assert (found["user"], found["data"]) == ("alice", {"cart": {"fast": 1}, "other": 1, "by": "slow"})

    in_loop(library, story, absolute_seconds=absolute_seconds)


def test_what_a_login_is_given_is_stored_whatever_was_there_before(library: Library) -> None:
    async def story() -> None:
        stage = Stage()

        async def prepare(request: Request) -> Response:
            request.session.update(role="admin", theme="dark")
            return PlainTextResponse("prepared")

        async def login(request: Request) -> Response:
            session = session_of(request)
            await stage.store.inner.delete(stage.session_id(visitor) or "")  # another tab has logged out
            session.greenroom.login("alice", {"role": "admin"})
            return PlainTextResponse("welcome")

        async with browser(stage.app(prepare, login)) as visitor:
            await visitor.get("/prepare")
            await visitor.get("/login")
            assert await stage.data(visitor) == {"role": "admin"}

    tell(library, story)


@pytest.mark.parametrize("way", ["logout", "others out"])
def test_a_session_that_gets_new_ids_while_others_end_it_is_found(library: Library, way: str) -> None:
    """A thief may ask for one again and again."""

    async def story(race: Race) -> None:
        thief = browser(race.app)
        await thief.get("/fast?then=login&user=alice")
        race.stage.clock.advance(1)
        held: list[Gate] = []

        async def renewing() -> None:
            await held[0].reached()
            await (thief if way == "others out" else owner).get("/fast?then=regenerate")
            held[0].open()

        owner = browser(race.app)
        await owner.get("/fast?then=login&user=alice")
        slow_tab = twin(race.app, owner)

        async def faster() -> None:
            await race.gate.reached()
            await owner.get("/fast?then=regenerate")
            held.append(race.stage.store.hold("delete_by_handle"))
            race.gate.open()
            await renewing()

        await together(library, lambda: slow_tab.get(f"/slow?then={way}"), faster)
        spared, ended = (owner, thief) if way == "others out" else (thief, owner)
        assert (await spared.get("/fast")).json()["user"] == "alice"
        assert (await ended.get("/fast")).json()["user"] is None

    in_loop(library, story)


def test_a_logout_of_others_spares_the_session_among_very_many(library: Library) -> None:
    """The user has more sessions than one list shows."""

    async def story(race: Race) -> None:
        for number in range(LISTED_MAX + 100):
            await race.stage.store.inner.create(
                SessionData(
                    session_id=new_session_id(),
                    user_id="alice",
                    created=race.stage.clock() + timedelta(seconds=number % 7 - 3.5),
                    expires=race.stage.clock() + timedelta(days=1),
                )
            )
        _, visitor = await race.run("others out", "regenerate", start="login&user=alice")
        assert len(await race.stage.store.list_by_user("alice")) == 1
        assert (await visitor.get("/fast")).json()["user"] == "alice"

    in_loop(library, story)


def test_a_login_after_a_faster_logout_begins_afresh(library: Library) -> None:
    async def story(race: Race) -> None:
        response, _ = await race.run("login&user=bob", "logout", start="login&user=alice")
        other = browser(race.app)
        other.cookies.extract_cookies(response)
        assert (await other.get("/fast")).json() == {"user": "bob", "data": {"by": "slow"}}
        assert race.stage.count("creates") == 2

    in_loop(library, story)


@pytest.mark.parametrize("meanwhile", ["nested", "regenerate", "logout"])
@pytest.mark.parametrize("absolute_seconds", [None, 43_200])
def test_nothing_that_the_former_user_writes_meanwhile_goes_to_the_next(
    library: Library, meanwhile: str, absolute_seconds: float | None
) -> None:
    async def story(race: Race) -> None:
        visitor = browser(race.app)
        await visitor.get("/fast?then=login&user=alice")
        former, slow_tab = twin(race.app, visitor), twin(race.app, visitor)

        async def faster() -> None:
            await race.gate.reached()
            await former.get(f"/fast?then={meanwhile}")
            race.gate.open()

        await together(library, lambda: slow_tab.get("/slow?then=login&user=bob"), faster)
        found = (await slow_tab.get("/fast")).json()
        assert (found["user"], found["data"]) == ("bob", {"by": "slow"})
        for each in (visitor, former):
            assert (await each.get("/fast")).json() == {"user": None, "data": {}}
        assert await race.stage.store.list_by_user("alice") == []

    in_loop(library, story, absolute_seconds=absolute_seconds)


@pytest.mark.parametrize("operation", ["patch", "delete", "create"])
@pytest.mark.parametrize("applied", [False, True])
def test_a_change_of_user_that_fails_mixes_nobodys_data(
    library: Library, operation: str, *, applied: bool
) -> None:
    async def story(race: Race) -> None:
        visitor = browser(race.app)
        await visitor.get("/fast?then=login&user=alice")
        await visitor.get("/fast?then=nested")
        race.stage.store.fail(operation, times=1, applied=applied)
        race.gate.open()
        assert (await visitor.get("/slow?then=login&user=bob")).status_code == 503
        found = (await visitor.get("/fast")).json()
        assert found["user"] in (None, "alice")
        assert found["data"] == ({"by": "fast", "cart": {"fast": 1}} if found["user"] else {})
        await visitor.get("/slow?then=login&user=bob")
        assert (await visitor.get("/fast")).json() == {"user": "bob", "data": {"by": "slow"}}

    in_loop(library, story)


def test_a_logout_of_all_others_spares_a_session_with_a_new_id(library: Library) -> None:
    """The current session got its new id while the logout was under way."""

    async def story(race: Race) -> None:
        phone = browser(race.app)
        await phone.get("/fast?then=login&user=alice")
        race.stage.clock.advance(1)
        _, visitor = await race.run("others out", "regenerate", start="login&user=alice")
        assert (await visitor.get("/fast")).json()["user"] == "alice"
        assert (await phone.get("/fast")).json()["user"] is None

    in_loop(library, story)
