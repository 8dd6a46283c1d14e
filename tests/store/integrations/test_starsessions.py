"""starsessions' own middleware over our store, in real requests."""

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starsessions import (
    SessionAutoloadMiddleware,
    SessionMiddleware,
    get_session_metadata,
    regenerate_session_id,
)

from greenroom import MemoryStore, UnavailableError, UsageError
from greenroom.ids import handle_of, locate
from greenroom.integrations.sealing import Seal
from greenroom.integrations.starsessions import GreenroomStore
from greenroom.testing import FaultyStore, ManualClock
from greenroom.web.traces import UNKNOWN
from greenroom.wire import PATHS_MAX
from tests.store.poison import NEWER, POISONS, holds, poison

DAY = 86_400


async def home(request: Request) -> JSONResponse:
    return JSONResponse(dict(request.session))


async def put(request: Request) -> JSONResponse:
    """Set paths of the session, as the query says: a.b=value."""
    for path, value in request.query_params.items():
        *above, last = path.split(".")
        target = request.session
        for key in above:
            target = target.setdefault(key, {})
        target[last] = value
    return JSONResponse(dict(request.session))


async def regenerate(request: Request) -> JSONResponse:
    regenerate_session_id(request)
    return JSONResponse({})


async def login(request: Request) -> JSONResponse:
    request.session["user_id"] = request.path_params["user"]
    return JSONResponse({})


async def logout(request: Request) -> JSONResponse:
    request.session.clear()
    return JSONResponse({})


async def leave(request: Request) -> JSONResponse:
    request.session.pop("user_id")
    return JSONResponse({})


async def metadata(request: Request) -> JSONResponse:
    found = get_session_metadata(request)
    return JSONResponse({key: found[key] for key in ("created", "lifetime")})


class Stage:
    """An app on starsessions with a store below that can fail, and browsers."""

    def __init__(self, **options: Any) -> None:
        user_key, keep = options.pop("user_key", None), options.pop("keep", False)
        self.clock = ManualClock()
        self.memory = MemoryStore(clock=self.clock)
        self.below = FaultyStore(self.memory)
        self.store = GreenroomStore(self.below, user_key=user_key, keep=keep, clock=self.clock)
        self.app = Starlette(
            routes=[
                Route("/", home),
                Route("/put", put, methods=["POST"]),
                Route("/regenerate", regenerate, methods=["POST"]),
                Route("/login/{user}", login, methods=["POST"]),
                Route("/logout", logout, methods=["POST"]),
                Route("/leave", leave, methods=["POST"]),
                Route("/metadata", metadata),
            ]
        )
        self.app.add_middleware(SessionAutoloadMiddleware)
        self.app.add_middleware(SessionMiddleware, store=self.store, **options)
        self.browser = self.new_browser()

    def new_browser(self, cookie: str | None = None) -> httpx.AsyncClient:
        browser = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="https://shop.example")
        if cookie is not None:
            browser.cookies.set("session", cookie, domain="shop.example", path="/")
        return browser

    @property
    def cookie(self) -> str:
        return self.browser.cookies["session"]

    async def data(self, browser: httpx.AsyncClient | None = None) -> Any:
        found = (await (browser or self.browser).get("/")).json()
        found.pop("__metadata__", None)
        return found


def on_stage(test: Callable[[Stage], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        await test(Stage(**{"lifetime": 14 * DAY, "rolling": True, **options}))

    asyncio.run(main())


def test_reading_writes_nothing() -> None:
    async def test(s: Stage) -> None:
        await s.browser.get("/")
        assert not s.below.calls
        await s.browser.post("/put?theme=dark")
        for _ in range(5):
            assert await s.data() == {"theme": "dark"}
        assert s.below.writes == 1

    on_stage(test)


def test_the_stored_data_is_the_apps_alone() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/put?cart.mug=1")
        await s.browser.post("/put?cart.rug=1")
        record = await s.memory.get(s.cookie)
        assert record is not None
        assert record.data == {"cart": {"mug": "1", "rug": "1"}}

    on_stage(test)


def test_requests_at_once_all_count() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/put?cart.mug=1")
        gates = [s.below.hold("patch") for _ in range(2)]
        slow = [asyncio.create_task(s.browser.post(f"/put?cart.{sku}=1")) for sku in ("pan", "rug")]
        for gate in gates:
            await gate.reached()
            gate.open()
        await asyncio.gather(*slow)
        assert await s.data() == {"cart": {"mug": "1", "pan": "1", "rug": "1"}}

    on_stage(test)


def test_an_id_that_a_client_made_up_is_not_adopted() -> None:
    async def test(s: Stage) -> None:
        for invented in ("planted", "x" * 300, "é"):
            browser = s.new_browser()
            cookie = {"cookie": b"session=" + invented.encode()}
            response = await browser.post("/put?theme=dark", headers=cookie)
            assert response.cookies["session"] not in {invented, ""}
            assert (await browser.get("/", headers=cookie)).json() == {}

    on_stage(test)


def test_regenerate_kills_the_old_id() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/put?theme=dark")
        planted = s.cookie
        await s.browser.post("/regenerate")
        assert s.cookie != planted
        assert await s.data() == {"theme": "dark"}
        assert await s.data(s.new_browser(planted)) == {}
        assert s.below.calls["rotate"] == 1

    on_stage(test)


def test_the_key_of_the_user_makes_logins_and_logouts() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/put?cart.mug=1")
        planted = s.cookie
        await s.browser.post("/login/alice")
        assert s.cookie != planted
        assert len(await s.memory.list_by_user("alice")) == 1
        assert await s.data(s.new_browser(planted)) == {}
        assert await s.data() == {"cart": {"mug": "1"}, "user_id": "alice"}
        inside = s.cookie
        await s.browser.post("/leave")
        assert s.cookie != inside
        assert await s.memory.list_by_user("alice") == []
        assert await s.data() == {"cart": {"mug": "1"}}
        await s.browser.post("/login/alice")
        await s.memory.delete_by_user("alice")
        assert await s.data() == {}

    on_stage(test, user_key="user_id", keep=("cart",))


@pytest.mark.parametrize(
    ("keep", "survives"),
    [(False, {}), (("cart",), {"cart": {"mug": "1"}}), (True, {"a": "1", "cart": {"mug": "1"}})],
)
def test_a_login_keeps_of_an_anonymous_session_what_it_names(keep: Any, survives: Any) -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/put?cart.mug=1&a=1")
        planted = s.cookie
        gate = s.below.hold("rotate")

        async def meanwhile() -> None:
            await gate.reached()
            await s.memory.patch(planted, set={("evil",): 1, ("cart", "rug"): "1"})
            gate.open()

        await asyncio.gather(s.browser.post("/login/alice"), meanwhile())
        if keep:
            survives["cart"]["rug"] = "1"
        evil = {"evil": 1} if keep is True else {}
        assert await s.data() == {"user_id": "alice", **survives, **evil}

    on_stage(test, user_key="user_id", keep=keep)


def test_data_that_named_its_user_all_along_stays() -> None:
    """As an app that gives the store its `user_key` later has it."""

    async def test(s: Stage) -> None:
        await s.browser.post("/put?cart.mug=1&user_id=alice")
        await s.memory.patch(s.cookie, user_id=None)
        await s.browser.post("/put?a=1")
        assert await s.data() == {"cart": {"mug": "1"}, "user_id": "alice", "a": "1"}
        assert len(await s.memory.list_by_user("alice")) == 1

    on_stage(test, user_key="user_id")


def test_a_first_write_may_be_a_login() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/login/alice")
        assert len(await s.memory.list_by_user("alice")) == 1

    on_stage(test, user_key="user_id")


def test_clearing_deletes() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/put?theme=dark")
        old = s.cookie
        await s.browser.post("/logout")
        assert await s.memory.get(old) is None

    on_stage(test)


@pytest.mark.parametrize("faster", ["/logout", "/regenerate", "/login/alice"])
def test_a_slow_request_undoes_nothing(faster: str) -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/put?theme=dark")
        old = s.cookie
        late = s.new_browser(old)
        gate = s.below.hold("patch")
        slow = asyncio.create_task(late.post("/put?theme=light"))
        await gate.reached()
        await s.browser.post(faster)
        gate.open()
        assert (await slow).status_code == 200
        assert await s.data(s.new_browser(old)) == {}
        assert (await s.data()).get("theme") == (None if faster == "/logout" else "dark")

    on_stage(test, user_key="user_id", keep=["theme"])


def test_a_rolling_session_lives_on_while_it_is_used() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/put?theme=dark")
        for _ in range(10):
            s.clock.advance(3 * DAY)
            assert await s.data() == {"theme": "dark"}
        assert s.below.calls["patch"] == 10
        s.clock.advance(15 * DAY)
        assert await s.data() == {}

    on_stage(test)


def test_a_browser_session_lives_on_too() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/put?theme=dark")
        for _ in range(10):
            s.clock.advance(DAY / 2)
            assert await s.data() == {"theme": "dark"}
        s.clock.advance(2 * DAY)
        assert await s.data() == {}

    on_stage(test, lifetime=0, rolling=False)


def test_metadata_are_those_of_the_record() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/put?theme=dark")
        record = await s.memory.get(s.cookie)
        assert record is not None
        found = (await s.browser.get("/metadata")).json()
        assert found == {"created": record.created.timestamp(), "lifetime": 14 * DAY}

    on_stage(test)


def test_a_session_whose_time_has_passed_is_removed() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/put?theme=dark")
        data = await s.store.read(session_id=s.cookie, lifetime=60)
        assert await s.store.write(session_id=s.cookie, data=data, lifetime=60, ttl=-5) == s.cookie
        assert await s.memory.get(s.cookie) is None

    on_stage(test)


def test_the_contract_by_keywords() -> None:
    async def main() -> None:
        store = GreenroomStore("memory://")
        assert await store.read(session_id="absent", lifetime=60) == b""
        session_id = await store.write(session_id="absent", data=b'{"a": 1}', lifetime=60, ttl=60)
        assert json.loads(await store.read(session_id=session_id, lifetime=60))["a"] == 1
        await store.remove(session_id=session_id)
        await store.remove(session_id=session_id)
        await store.remove(session_id="")
        assert await store.read(session_id=session_id, lifetime=60) == b""
        with pytest.raises(UsageError, match="same serializer"):
            await store.write(session_id="absent", data=b"\x80", lifetime=60, ttl=60)
        await store.aclose()

    asyncio.run(main())


def test_nothing_shows_an_id() -> None:
    assert "gr-" not in repr(GreenroomStore("memory://"))


def test_the_life_of_a_session_by_its_handle(caplog: pytest.LogCaptureFixture) -> None:
    ids = []

    async def test(s: Stage) -> None:
        await s.browser.post("/put?a=1")
        ids.append(s.cookie)
        await s.browser.post("/regenerate")
        ids.append(s.cookie)
        await s.browser.post("/logout")
        assert await s.data(s.new_browser(ids[1])) == {}

    with caplog.at_level(logging.DEBUG, "greenroom.integrations.starsessions"):
        on_stage(test)
    lines = [
        record.getMessage()
        for record in caplog.records
        if record.name == "greenroom.integrations.starsessions"
    ]
    first, second = (handle_of(*locate(each)) for each in ids)
    assert lines[:4] == [
        f"session {first}: created",
        f"session {first}: has a new id now, and is {second}",
        f"session {second}: ended",
        f"session {second}: {UNKNOWN}",
    ]
    assert not any(each in " ".join(lines) for each in ids)


async def shown(request: Request) -> JSONResponse:
    """As debugging pages do."""
    return JSONResponse(get_session_metadata(request))


@pytest.mark.parametrize("newer", [False, True])
def test_metadata_that_an_app_shows_tell_neither_id_nor_data(*, newer: bool) -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/put?card=hidden-number")
        session_id = s.cookie
        if newer:
            poison(s.memory, session_id, NEWER)
        s.app.router.routes.append(Route("/shown", shown))
        (text,) = {
            value for value in (await s.browser.get("/shown")).json().values() if isinstance(value, str)
        }
        for seen in (text, repr(base64.b64decode(text))):
            for hidden in (session_id, session_id[:12], "card", "hidden-number"):
                assert hidden not in seen
        second = (await s.browser.get("/shown")).json()
        assert text not in second.values(), "not even that it is the same is to be seen"

    on_stage(test)


def test_metadata_that_an_app_has_changed_are_refused() -> None:
    async def test(s: Stage) -> None:
        await s.browser.post("/put?a=1")
        data = json.loads(await s.store.read(session_id=s.cookie, lifetime=60))
        for wrong in ("", "nonsense", 7, data["__metadata__"]["greenroom"][:-8] + "AAAAAAA="):
            data["__metadata__"]["greenroom"] = wrong
            with pytest.raises(UsageError, match="changed the metadata"):
                await s.store.write(session_id=s.cookie, data=json.dumps(data).encode(), lifetime=60, ttl=60)

    on_stage(test)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000])
def test_what_is_sealed_comes_back_from_the_same_process_alone(size: int) -> None:
    seal, other = Seal(), Seal()
    payload = bytes(size)
    text = seal.close(payload)
    assert seal.open(text) == payload
    assert other.open(text) is None
    assert seal.close(payload) != text
    raw = bytearray(base64.b64decode(text))
    assert size < 16 or bytes(16) not in raw
    for at in range(0, len(raw), 7):
        changed = raw.copy()
        changed[at] ^= 1
        assert seal.open(base64.b64encode(changed).decode()) is None
    for wrong in (None, b"", "", "\u00e9", text[:-4], f" {text}", base64.b64encode(raw[:20]).decode()):
        assert seal.open(wrong) is None


@pytest.mark.parametrize("data", POISONS.values(), ids=POISONS)
def test_a_session_that_cannot_be_read_is_none(data: bytes) -> None:
    async def scenario(s: Stage) -> None:
        await s.browser.post("/put?a=1")
        poisoned = s.cookie
        poison(s.memory, poisoned, data)
        assert await s.data() == {}
        await s.browser.post("/put?b=2")
        assert s.cookie != poisoned
        assert await s.data() == {"b": "2"}

    on_stage(scenario)


def test_what_the_serializer_cannot_write_is_none() -> None:
    """As of an app that kept bytes in its sessions, by Greenroom's own middleware."""

    async def scenario(s: Stage) -> None:
        await s.browser.post("/put?a=1")
        await s.below.patch(s.cookie, set={"photo": b"\xff"})
        assert await s.data() == {}

    on_stage(scenario)


def test_what_a_later_version_stored_is_not_overwritten() -> None:
    async def scenario(s: Stage) -> None:
        await s.browser.post("/put?a=1")
        kept = s.cookie
        poison(s.memory, kept, NEWER)
        assert await s.data() == {}
        with pytest.raises(UnavailableError, match="later version"):
            await s.browser.post("/put?b=2")
        assert s.cookie == kept
        assert holds(s.memory, kept)
        await s.browser.post("/login/alice")
        assert s.cookie != kept

    on_stage(scenario, user_key="user_id")


def test_what_would_outlive_every_session_of_this_app_is_not_spared() -> None:
    async def scenario(s: Stage) -> None:
        await s.browser.post("/put?a=1")
        poisoned = s.cookie
        poison(s.memory, poisoned, NEWER, expires_us=253_402_300_799_999_999)
        await s.browser.post("/put?b=2")
        assert s.cookie != poisoned

    on_stage(scenario)


def test_nothing_of_one_user_goes_to_the_next() -> None:
    async def scenario(s: Stage) -> None:
        await s.browser.post("/login/alice")
        await s.browser.post("/put?cart.mug=1")
        former = s.cookie
        gate = s.below.hold("patch")
        other = s.new_browser(former)

        async def meanwhile() -> None:
            await gate.reached()  # the old session is about to end
            await s.memory.patch(former, set={("cart", "secret"): 1})
            gate.open()

        await asyncio.gather(other.post("/login/bob"), meanwhile())
        s.browser = other
        assert await s.data() == {"user_id": "bob"}
        assert await s.memory.get(former) is None
        assert await s.memory.list_by_user("alice") == []

    on_stage(scenario, user_key="user_id", keep=True)


def test_many_changes_with_a_new_id_are_not_under_the_old_one() -> None:
    async def scenario(s: Stage) -> None:
        await s.browser.post("/put?a=1")
        planted = s.cookie
        values = {f"key-{number}": str(number) for number in range(PATHS_MAX + 1)}
        s.below.fail("rotate", times=1)
        with pytest.raises(UnavailableError):
            await s.browser.post("/put", params={**values, "user_id": "alice"})
        left = await s.memory.get(planted)
        assert left is not None
        assert left.data == {"a": "1"}

    on_stage(scenario, user_key="user_id")


@pytest.mark.parametrize("user_key", [None, "user_id"])
def test_a_request_that_sets_very_many_keys(user_key: str | None) -> None:
    async def scenario(s: Stage) -> None:
        await s.browser.post("/put?a=1")
        values = {f"key-{number}": str(number) for number in range(PATHS_MAX + 1)}
        user = {} if user_key is None else {user_key: "alice"}
        await s.browser.post("/put", params={**values, **user})
        assert await s.data() == {**({} if user else {"a": "1"}), **values, **user}

    on_stage(scenario, user_key=user_key)
