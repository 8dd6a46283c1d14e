"""A stored session that cannot be read is no session: never an error page, and its user can go on."""

import logging
from typing import Any, Self

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from greenroom import BaseSessionStore, MemoryStore, RemoteProtocolError, SessionData, UnreadableSessionError
from greenroom.testing import Library, ManualClock
from greenroom.web import Session, SessionMiddleware
from greenroom.web.notices import NOTICE_SECONDS
from tests.store.poison import NEWER, POISONS, holds, poison
from tests.store.web.web_stage import SECRET, Socket, Stage, browser, session_of, tell

YEAR_9999_US = 253_402_300_799_999_999


async def who(request: Request) -> Response:
    session = session_of(request)
    return JSONResponse([session.greenroom.user_id, dict(session)])


async def add(request: Request) -> Response:
    session_of(request)["n"] = 1
    return PlainTextResponse("added")


async def login(request: Request) -> Response:
    session_of(request).greenroom.login("alice", {"fresh": True})
    return PlainTextResponse("welcome")


async def logout(request: Request) -> Response:
    session_of(request).greenroom.logout()
    return PlainTextResponse("bye")


async def everywhere(request: Request) -> Response:
    session_of(request).greenroom.logout_everywhere()
    return PlainTextResponse("bye")


async def static(request: Request) -> Response:
    return PlainTextResponse("for all", headers={"cache-control": "public, max-age=60"})


HANDLERS = (who, add, login, logout, everywhere, static)


class Poisoned:
    """A browser whose session is stored and cannot be read."""

    def __init__(self, data: bytes, *, expires_us: int | None = YEAR_9999_US, **options: Any) -> None:
        self.stage = Stage(**options)
        self.browser = browser(self.stage.app(*HANDLERS))
        self._data, self._expires_us = data, expires_us
        self.old_id = ""

    async def __aenter__(self) -> Self:
        await self.browser.get("/login")
        self.old_id = self.stage.session_id(self.browser) or ""
        poison(self.memory, self.old_id, self._data, expires_us=self._expires_us)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.browser.aclose()

    @property
    def memory(self) -> MemoryStore:
        inner = self.stage.store.inner
        assert isinstance(inner, MemoryStore)
        return inner

    @property
    def is_stored(self) -> bool:
        return holds(self.memory, self.old_id)


@pytest.mark.parametrize("data", [*POISONS.values(), NEWER], ids=[*POISONS, "newer, till 9999"])
def test_the_request_goes_on_anonymously_and_the_cookie_is_cleared(library: Library, data: bytes) -> None:
    async def story() -> None:
        async with Poisoned(data) as user:
            response = await user.browser.get("/who")
            assert (response.status_code, response.json()) == (200, [None, {}])
            assert "Max-Age=0" in response.headers["set-cookie"]
            assert not user.browser.cookies
            assert user.stage.count("unreadable") == 1
            assert user.stage.count("failed") == 0
            assert "set-cookie" not in (await user.browser.get("/who")).headers

    tell(library, story)


@pytest.mark.parametrize("data", [*POISONS.values(), NEWER], ids=[*POISONS, "newer, till 9999"])
@pytest.mark.parametrize("path", ["/logout", "/everywhere"])
def test_logout_deletes_it(library: Library, data: bytes, path: str) -> None:
    async def story() -> None:
        async with Poisoned(data) as user:
            response = await user.browser.get(path)
            assert response.status_code == 200
            assert not user.browser.cookies
            assert not user.is_stored

    tell(library, story)


@pytest.mark.parametrize("path", ["/login", "/add"])
def test_a_new_session_gets_a_new_id_and_the_old_one_is_dead(library: Library, path: str) -> None:
    async def story() -> None:
        async with Poisoned(POISONS["no dict"]) as user:
            assert (await user.browser.get(path)).status_code == 200
            assert user.stage.session_id(user.browser) not in (None, user.old_id)
            assert not user.is_stored
            expected = ["alice", {"fresh": True}] if path == "/login" else [None, {"n": 1}]
            assert (await user.browser.get("/who")).json() == expected

    tell(library, story)


def test_a_store_that_does_not_delete_it_keeps_the_browser_as_it_is(library: Library) -> None:
    async def story() -> None:
        async with Poisoned(POISONS["no dict"]) as user:
            user.stage.store.fail("delete", times=1)
            assert (await user.browser.get("/login")).status_code == 503
            assert user.stage.session_id(user.browser) == user.old_id
            assert (await user.browser.get("/login")).status_code == 200

    tell(library, story)


def test_a_cache_keeps_the_end_of_a_cookie_apart(library: Library) -> None:
    """A public page that does not look at the session must not end the sessions of all who get it."""

    async def story() -> None:
        async with Poisoned(POISONS["no dict"]) as user:
            response = await user.browser.get("/static")
            assert "Max-Age=0" in response.headers["set-cookie"]
            assert response.headers["vary"] == "Cookie"
            assert "vary" not in (await user.browser.get("/static")).headers

    tell(library, story)


def test_a_websocket_clears_it_when_it_is_accepted(library: Library) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert dict(scope["session"]) == {}
        await send({"type": "websocket.close"})

    async def story() -> None:
        async with Poisoned(POISONS["key None"]) as user:
            name = user.stage.sessions.cookie.name
            socket = Socket(cookie=f"{name}={user.browser.cookies[name]}")
            await SessionMiddleware(app, session=user.stage.sessions)(
                socket.scope, socket.receive, socket.send
            )
            assert b"Max-Age=0" in (socket.header(b"set-cookie") or b"")

    tell(library, story)


def own(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines that greenroom has logged."""
    return [each.getMessage() for each in caplog.records if each.name.startswith("greenroom")]


def test_one_line_a_minute_without_id_or_data(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with Poisoned(b"\x81\xc4\x06secret\xa6secret") as user:
            cookie = {
                "cookie": f"{user.stage.sessions.cookie.name}={next(iter(user.browser.cookies.values()))}"
            }
            with caplog.at_level(logging.DEBUG, "greenroom"):
                for _ in range(5):
                    await user.browser.get("/who", headers=cookie)
                [line] = own(caplog)
                user.stage.clock.advance(NOTICE_SECONDS)
                await user.browser.get("/who", headers=cookie)
            assert "cannot be read" in line
            assert own(caplog)[1].endswith("(4 more since the last such line)")
            assert user.stage.count("unreadable") == 6
            for text in ("secret", user.old_id, "alice"):
                assert not any(text in each for each in own(caplog))

    tell(library, story)


def test_nonsense_from_the_cluster_is_still_a_store_that_is_away(library: Library) -> None:
    async def story() -> None:
        async with Poisoned(POISONS["no dict"]) as user:
            user.stage.store.fail("get", RemoteProtocolError("not ours"), times=1)
            response = await user.browser.get("/who")
            assert response.status_code == 503
            assert "set-cookie" not in response.headers
            assert user.stage.count("unreadable") == 0

    tell(library, story)


# --- stored by a later version, in the middle of a rolling upgrade ---------------------------------------


def test_what_a_later_version_stored_is_neither_cleared_nor_overwritten(library: Library) -> None:
    async def story() -> None:
        async with Poisoned(NEWER, expires_us=None) as user:
            response = await user.browser.get("/who")
            assert (response.status_code, response.json()) == (200, [None, {}])
            assert "set-cookie" not in response.headers
            response = await user.browser.get("/add")
            assert (response.status_code, "set-cookie" in response.headers) == (503, False)
            assert user.is_stored
            assert user.stage.session_id(user.browser) == user.old_id

    tell(library, story)


@pytest.mark.parametrize("path", ["/login", "/logout", "/everywhere"])
def test_a_login_or_logout_ends_it_all_the_same(library: Library, path: str) -> None:
    async def story() -> None:
        async with Poisoned(NEWER, expires_us=None) as user:
            assert (await user.browser.get(path)).status_code == 200
            assert not user.is_stored
            assert user.stage.session_id(user.browser) != user.old_id
            assert (await user.browser.get("/add")).status_code == 200

    tell(library, story)


# --- in the middle of a request --------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["save", "login", "logout", "reload", "modify"])
def test_poisoned_while_the_request_runs(library: Library, action: str) -> None:
    async def story() -> None:
        stage = Stage()
        memory = stage.store.inner
        assert isinstance(memory, MemoryStore)

        async def handler(request: Request) -> Response:
            session = session_of(request)
            poison(memory, stage.session_id(visitor) or "", NEWER)
            if action == "save":
                session["more"] = 1
            elif action == "login":
                session.greenroom.login("bob")
            elif action == "logout":
                session.greenroom.logout()
            elif action == "reload":
                await session.greenroom.reload()
                assert dict(session) == {}
                assert session.greenroom.lost
            else:
                assert not await session.greenroom.modify(lambda data: data.update(more=1))
            return PlainTextResponse("ok")

        async with browser(stage.app(*HANDLERS, handler)) as visitor:
            await visitor.get("/login")
            assert (await visitor.get("/handler")).status_code == 200
            expected = ["bob", {}] if action == "login" else [None, {}]
            assert (await visitor.get("/who")).json() == expected

    tell(library, story)


# --- stores of one's own ---------------------------------------------------------------------------------


class Odd(BaseSessionStore):
    """Returns what no facade would have stored, or raises as `decode_data` does."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    async def get(self, session_id: str) -> SessionData | None:
        if "error" in self._fields:
            raise self._fields["error"]
        now = ManualClock()()
        return SessionData(**{"session_id": session_id, "expires": now, "created": now, **self._fields})

    async def create(self, session: SessionData) -> int:
        return 1

    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        return 1

    async def delete(self, session_id: str) -> None:
        return

    async def clean(self) -> int:
        return 0


@pytest.mark.parametrize(
    "fields",
    [
        {"data": {None: 1}},
        {"data": {"key": object()}},
        {"data": [1]},
        {"data": None},
        {"user_id": ""},
        {"user_id": "u" * 257},
        {"user_id": 7},
        {"label": "l" * 257},
        {"error": UnreadableSessionError("stored session data is not a dict")},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_no_session_can_hold_is_no_session(library: Library, fields: dict[str, Any]) -> None:
    async def story() -> None:
        sessions = Session(secret=SECRET, store=Odd(**fields), clock=ManualClock())
        visit = sessions.visit([f"{sessions.cookie.name}={sessions.signer.sign('s' * 32)}"])
        await visit.load()
        assert (visit.user_id, dict(visit.session)) == (None, {})
        assert ["Max-Age=0" in each for each in visit.set_cookies()] == [True]
        assert sessions.statistics().unreadable == 1

    tell(library, story)
