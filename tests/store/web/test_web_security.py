"""Points of OWASP's session management that no other story of the middleware shows: see docs/security.md."""

import hashlib
import hmac
import logging
from datetime import timedelta
from typing import Any

import itsdangerous
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from greenroom import UnavailableError, new_session_id
from greenroom.testing import Library
from greenroom.web import CookieSigner, cookies
from tests.store.web.web_stage import SECRET, Stage, browser, session_of, tell

BROWSERS_KEEP_BYTES = 4096
DEVICES_MAX = 2


async def show(request: Request) -> Response:
    session = session_of(request)
    return JSONResponse({"user": session.greenroom.user_id, "data": session})


async def login(request: Request) -> Response:
    session_of(request).greenroom.login("alice")
    return PlainTextResponse("welcome")


async def keep(request: Request) -> Response:
    session_of(request)["kept"] = "x" * 100_000
    return PlainTextResponse("kept")


async def login_of_few(request: Request) -> Response:
    """Let a user have a few devices only: whoever logs in ends the oldest."""
    session = session_of(request)
    session.greenroom.login("alice")
    await session.greenroom.save()
    devices = sorted(await session.greenroom.devices(), key=lambda device: device.created, reverse=True)
    for device in devices[DEVICES_MAX:]:
        await session.greenroom.end_device(device.handle)
    return PlainTextResponse("welcome")


HANDLERS = (show, login, keep, login_of_few)


def test_an_id_counts_in_the_cookie_alone(library: Library) -> None:
    """Not in the address, not in a form, not in another header: links and logs give nobody's session away."""

    async def story() -> None:
        stage = Stage()
        app = stage.app(*HANDLERS)
        async with browser(app) as owner, browser(app) as other:
            await owner.get("/login")
            name = stage.sessions.cookie.name
            signed = owner.cookies[name]
            for answer in (
                await other.get("/show", params={name: signed, "session_id": signed}),
                await other.get(f"/show;{name}={signed}", follow_redirects=True),
                await other.post("/show", data={name: signed}),
                await other.get("/show", headers={"authorization": f"Bearer {signed}", f"x-{name}": signed}),
            ):
                assert "alice" not in answer.text
                assert "set-cookie" not in answer.headers

    tell(library, story)


def test_every_login_has_a_new_id_and_ends_the_one_before(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        app = stage.app(*HANDLERS)
        async with browser(app) as owner, browser(app) as thief:
            name = stage.sessions.cookie.name
            former = set()
            for _ in range(3):
                await owner.get("/login")
                signed = owner.cookies[name]
                assert signed not in former
                for old in former:
                    answer = await thief.get("/show", headers={"cookie": f"{name}={old}"})
                    assert answer.json()["user"] is None
                former.add(signed)
            assert (await owner.get("/show")).json()["user"] == "alice"
            assert len(await stage.store.list_by_user("alice")) == 1

    tell(library, story)


def test_all_sessions_of_a_user_can_be_ended_from_outside_of_any_request(library: Library) -> None:
    """As an administrator does, when an account is disabled."""

    async def story() -> None:
        stage = Stage()
        app = stage.app(*HANDLERS)
        async with browser(app) as phone, browser(app) as laptop:
            for device in (phone, laptop):
                await device.get("/login")
            assert await stage.sessions.store.delete_by_user("alice") == 2
            for device in (phone, laptop):
                assert (await device.get("/show")).json()["user"] is None

    tell(library, story)


def test_an_app_can_allow_a_user_a_few_devices_only(library: Library) -> None:
    async def story() -> None:
        stage = Stage()
        app = stage.app(*HANDLERS)
        async with browser(app) as first, browser(app) as second, browser(app) as third:
            for device in (first, second, third):
                await device.get("/login_of_few")
                stage.clock.advance(1)
            seen = [(await device.get("/show")).json()["user"] for device in (first, second, third)]
            assert seen == [None, "alice", "alice"]

    tell(library, story)


def test_the_cookie_holds_the_id_alone_and_fits_whatever_the_session_holds(library: Library) -> None:
    async def story() -> None:
        stage = Stage(host_prefix=True, path="/", persistent=True)
        async with browser(stage.app(*HANDLERS)) as owner:
            answer = await owner.get("/keep")
            header = answer.headers["set-cookie"]
            assert len(header) < BROWSERS_KEEP_BYTES // 16
            assert "kept" not in header
            assert stage.session_id(owner) is not None
            data = await stage.data(owner)
            assert data is not None
            assert len(data["kept"]) == 100_000

    tell(library, story)


def test_time_is_kept_by_the_server_whatever_the_browser_still_sends(library: Library) -> None:
    async def story() -> None:
        stage = Stage(idle_seconds=600, absolute_seconds=3600, persistent=True)
        app = stage.app(*HANDLERS)
        async with browser(app) as owner:
            await owner.get("/login")
            header = {"cookie": f"{stage.sessions.cookie.name}={owner.cookies[stage.sessions.cookie.name]}"}
            for _ in range(7):
                stage.clock.advance(500)
                assert (await owner.get("/show", headers=header)).json()["user"] == "alice"
            stage.clock.advance(101)
            assert (await owner.get("/show", headers=header)).json()["user"] is None
            await owner.get("/login")
            stage.clock.advance(601)
            assert (await owner.get("/show")).json()["user"] is None

    tell(library, story)


def test_no_log_line_holds_an_id(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    """Also not of what goes wrong: a dropped change, a store that is away, a cookie that nobody signed."""

    async def late(request: Request) -> Response:
        session = session_of(request)
        await stage.store.inner.delete(stage.session_id(owner) or "")
        session["n"] = 1
        return PlainTextResponse("late")

    async def story() -> None:
        app = stage.app(*HANDLERS, late)
        ids = []
        for path, failing in (("/late", ""), ("/keep", "patch"), ("/show", "get"), ("/login", "rotate")):
            await owner_of(app).get("/login")
            session_id = stage.session_id(owner)
            assert session_id is not None
            ids.append(session_id)
            if failing:
                stage.store.fail(failing, UnavailableError("no primary in time"))
            answer = await owner.get(path)
            assert answer.status_code == (503 if failing else 200)
            ids += [each for each in (stage.session_id(owner),) if each]
            stage.store.heal()
            owner.cookies.clear()
        await owner.get("/show", headers={"cookie": f"{stage.sessions.cookie.name}={ids[0]}.x"})
        assert caplog.records
        for session_id in ids:
            # The point that routes it is no secret; what follows is.
            assert session_id.rpartition("gr-")[2][5:] not in caplog.text

    def owner_of(app: Any) -> Any:
        nonlocal owner
        owner = browser(app)
        return owner

    owner: Any = None
    stage = Stage()
    with caplog.at_level(logging.DEBUG):
        tell(library, story)


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bool] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(hmac, name)

        @staticmethod
        def compare_digest(first: Any, second: Any) -> bool:
            compared.append(hmac.compare_digest(first, second))
            return compared[-1]

    monkeypatch.setattr(cookies, "hmac", Watched())
    signer = CookieSigner([SECRET, "the one before, long enough too"], "session")
    session_id = new_session_id()
    signed = signer.sign(session_id)
    assert signer.verify(signed.encode()) == session_id
    assert compared == [True], "the newest secret is tried first"
    compared.clear()
    forged = ("A" if signed[-10] != "A" else "B").join((signed[:-10], signed[-9:]))
    assert signer.verify(forged.encode()) is None
    assert compared == [False, False], "once with each secret, and nothing else decides"


def test_signatures_are_those_of_itsdangerous() -> None:
    secrets = [SECRET, "the one before, long enough too"]
    session_id = new_session_id()
    for count, secret in enumerate(secrets):
        theirs = itsdangerous.Signer(
            secret, salt="greenroom.web.session", key_derivation="hmac", digest_method=hashlib.sha256
        )
        signed = CookieSigner(secrets[count:], "session").sign(session_id)
        assert theirs.unsign(signed).decode() == session_id
        assert CookieSigner(secrets, "session").verify(theirs.sign(session_id)) == session_id
        for forged in (
            theirs.sign(session_id)[:-1],
            theirs.sign(session_id) + b"=",
            theirs.sign("\u00e9")[1:],
        ):
            assert CookieSigner(secrets, "session").verify(forged) is None


def test_what_ends_a_session_survives_nothing_of_it(library: Library) -> None:
    """Logged out on one device, the same cookie is worth nothing anywhere, whenever it is sent again."""

    async def logout(request: Request) -> Response:
        session_of(request).greenroom.logout()
        return PlainTextResponse("bye")

    async def story() -> None:
        stage = Stage()
        app = stage.app(*HANDLERS, logout)
        async with browser(app) as owner, browser(app) as thief:
            await owner.get("/login")
            header = {"cookie": f"{stage.sessions.cookie.name}={owner.cookies[stage.sessions.cookie.name]}"}
            await owner.get("/logout")
            for seconds in (0, 1, timedelta(days=30).total_seconds()):
                stage.clock.advance(seconds)
                assert (await thief.get("/show", headers=header)).json() == {"user": None, "data": {}}
                await thief.get("/keep", headers=header)
                thief.cookies.clear()
                assert (await thief.get("/show", headers=header)).json() == {"user": None, "data": {}}

    tell(library, story)
