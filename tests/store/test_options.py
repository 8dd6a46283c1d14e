"""What makes no sense is refused where it is given, by the name under which it was given, in every place."""

import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from litestar.stores.memory import MemoryStore as LitestarMemory
from starsessions import InMemoryStore

from greenroom import ClusterStore, MemoryStore, SqliteStore, UsageError, store_from_url
from greenroom import options as table
from greenroom.integrations import aiohttp, litestar, moving, quart, starsessions
from greenroom.integrations.fastapi import RequireUser, session_of_request
from greenroom.option_kinds import Options
from greenroom.options import TABLE
from greenroom.testing import FaultyStore, ManualClock, library_named, login_as
from greenroom.testing.clusters import running_cluster
from greenroom.web import CookieSettings, Session, SessionMiddleware
from greenroom.web.control import SessionControl
from tests.store.option_stage import HIDDEN, SECRET, Hidden, app, new_session

NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001  as people write it


class Word(StrEnum):
    LAX = "lax"


class OldWord(str, Enum):  # noqa: UP042  as before Python 3.11: its str() is another than its value
    SHOP = "shop"


class Number(IntEnum):
    HOUR = 3600


def new_middleware(**options: Any) -> SessionMiddleware:
    if options.get("session") is not None:
        return SessionMiddleware(app, **options)
    return SessionMiddleware(app, **{"secret_key": SECRET, "store": MemoryStore(), **options})


def failing(**options: Any) -> None:
    FaultyStore().fail("get", **options)


PLACES: dict[str, tuple[Callable[..., Any], Options, dict[str, Any]]] = {
    "Session": (new_session, table.SESSION, {}),
    "SessionMiddleware": (new_middleware, table.MIDDLEWARE, {}),
    "CookieSettings": (CookieSettings, table.COOKIE, {}),
    "MemoryStore": (MemoryStore, table.MEMORY_STORE, {}),
    "SqliteStore": (lambda **options: SqliteStore("sessions.db", **options), table.SQLITE_STORE, {}),
    "ClusterStore": (lambda **options: ClusterStore("a:1", **options), table.CLUSTER_STORE, {}),
    "SessionPlugin": (litestar.SessionPlugin, table.LITESTAR_PLUGIN, {"sessions": new_session()}),
    "litestar.GreenroomStore": (litestar.GreenroomStore, table.LITESTAR_STORE, {"store": MemoryStore()}),
    "GreenroomStorage": (aiohttp.GreenroomStorage, table.AIOHTTP_STORAGE, {"sessions": new_session()}),
    "GreenroomSessions": (quart.GreenroomSessions, table.QUART_SESSIONS, {"sessions": new_session()}),
    "starsessions.GreenroomStore": (
        starsessions.GreenroomStore,
        table.STARSESSIONS_STORE,
        {"store": MemoryStore()},
    ),
    "RequireUser": (RequireUser, table.FASTAPI, {}),
    "StarletteCookies": (
        moving.StarletteCookies,
        table.OLD_STARLETTE,
        {"secret_key": "a secret for tests only, long enough"},
    ),
    "StarsessionsStore": (moving.StarsessionsStore, table.OLD_STARSESSIONS, {"store": InMemoryStore()}),
    "LitestarStore": (moving.LitestarStore, table.OLD_LITESTAR, {"store": LitestarMemory()}),
    "AiohttpStorage": (
        moving.AiohttpStorage,
        table.OLD_AIOHTTP,
        {"storage": EncryptedCookieStorage(b"k" * 32)},
    ),
    "OtherStore": (moving.OtherStore, table.OLD_STORE, {"old": MemoryStore()}),
}

SIGNATURES: dict[str, tuple[Callable[..., Any], Options]] = {
    "Session": (Session, table.SESSION),
    "SessionMiddleware": (SessionMiddleware, table.MIDDLEWARE),
    "CookieSettings": (CookieSettings, table.COOKIE),
    "MemoryStore": (MemoryStore, table.MEMORY_STORE),
    "SqliteStore": (SqliteStore, table.SQLITE_STORE),
    "logout_everywhere": (Session.logout_everywhere, table.CALLS),
    "check": (Session.check, table.CALLS),
    "check of a store": (ClusterStore.check, table.CALLS),
    "ClusterStore": (ClusterStore, table.CLUSTER_STORE),
    "SessionPlugin": (litestar.SessionPlugin, table.LITESTAR_PLUGIN),
    "litestar.GreenroomStore": (litestar.GreenroomStore, table.LITESTAR_STORE),
    "GreenroomStorage": (aiohttp.GreenroomStorage, table.AIOHTTP_STORAGE),
    "GreenroomSessions": (quart.GreenroomSessions, table.QUART_SESSIONS),
    "starsessions.GreenroomStore": (starsessions.GreenroomStore, table.STARSESSIONS_STORE),
    "RequireUser": (RequireUser, table.FASTAPI),
    "StarletteCookies": (moving.StarletteCookies, table.OLD_STARLETTE),
    "StarsessionsStore": (moving.StarsessionsStore, table.OLD_STARSESSIONS),
    "LitestarStore": (moving.LitestarStore, table.OLD_LITESTAR),
    "AiohttpStorage": (moving.AiohttpStorage, table.OLD_AIOHTTP),
    "OtherStore": (moving.OtherStore, table.OLD_STORE),
    "OldSessions": (moving.OldSessions, table.OLD_SESSIONS),
    "session_of_request": (session_of_request, table.FASTAPI),
    "FaultyStore": (FaultyStore, table.TESTING),
    "FaultyStore.fail": (FaultyStore.fail, table.TESTING),
    "ManualClock": (ManualClock, table.TESTING),
    "running_cluster": (running_cluster, table.TESTING),
    "login_as": (login_as, Options(**dict(table.TESTING), **dict(table.LOGIN))),
    "login": (SessionControl.login, table.LOGIN),
    "login of a Session": (Session.login, table.LOGIN),
}

NO_OPTIONS = {
    "self",
    "connection",
    "app",
    "nodes",
    "path",
    "client",
    "user_id",
    "data",
    "user",
    "options",
    "operation",
    "command",
}


@pytest.mark.parametrize("place", SIGNATURES)
def test_the_table_has_every_option(place: str) -> None:
    taken, options = SIGNATURES[place]
    given = inspect.signature(taken).parameters
    missing = {name for name in given if name not in options} - NO_OPTIONS
    assert not missing


@pytest.mark.parametrize(
    "place", ["Session", "SessionMiddleware", "MemoryStore", "SqliteStore", "ClusterStore"]
)
def test_the_table_has_no_option_that_nobody_takes(place: str) -> None:
    taken, options = SIGNATURES[place]
    assert {name for name, _ in options} <= {*inspect.signature(taken).parameters}


def test_the_page_shows_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs/options.md").read_text()
    shown = "".join(
        f"\n## {place}\n\n| option | is |\n|---|---|\n"
        + "".join(f"| `{name}` | {option.takes} |\n" for name, option in options)
        for place, options in TABLE.items()
    )
    assert page.endswith(shown), f"docs/options.md is to end with:\n{shown}"


SENSELESS = [
    *(None, True, False, 0, 1, -1, 0.5, 10**400, -(10**400), float("inf"), float("nan"), 1e12, 3.5),
    *("", "false", "1800", HIDDEN, "\ud800", "a b", "/", b"bytes", bytearray(b"x"), 1j),
    *([], [None], [HIDDEN], (), {}, {HIDDEN}, {HIDDEN: 1}, frozenset(), range(3)),
    *(timedelta(minutes=30), Decimal(1800), Fraction(1, 3), datetime.now(UTC), NAIVE),
    *(Hidden(), Hidden, object(), object, MemoryStore, Session, Ellipsis, NotImplemented, app, len),
    *(Word.LAX, OldWord.SHOP, Number.HOUR, lambda: None, lambda: NAIVE, lambda: Hidden()),
    *(lambda _: Hidden(), UsageError("no"), new_session(), MemoryStore()),
]


def every_option() -> Iterator[tuple[str, str]]:
    for place, (_, options, _needed) in PLACES.items():
        for name, _ in options:
            yield place, name


@pytest.mark.parametrize(("place", "name"), list(every_option()))
@pytest.mark.filterwarnings("ignore:a session secret is shorter")
@pytest.mark.filterwarnings("ignore:sessions are kept in the memory")
def test_whatever_an_option_is_given_it_is_taken_or_refused_by_name(place: str, name: str) -> None:
    made, options, needed = PLACES[place]
    refused = 0
    for value in SENSELESS:
        if name == "secret_key" and isinstance(value, Session):
            continue  # see test_a_session_may_be_the_first_argument_of_the_middleware
        by_table = refusal(options.checked, name, value)
        by_place = refusal(made, **{**needed, name: value})
        assert HIDDEN not in by_table + by_place
        if by_table:
            refused += 1
            assert by_place.startswith(f"{name} is "), value
    assert refused > len(SENSELESS) / 3


def refusal(action: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Return the text of a UsageError, empty if there is none; anything else is a failure."""
    try:
        action(*arguments, **options)
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"idle_seconds": "1800"}, "not a str"),
        ({"idle_seconds": timedelta(minutes=30)}, "total_seconds"),
        ({"idle_seconds": float("inf")}, "not inf"),
        ({"idle_seconds": float("nan")}, "not nan"),
        ({"idle_seconds": 1e12}, "at most 3153600000; not 1000000000000"),
        ({"idle_seconds": True}, "not True"),
        ({"idle_seconds": None}, "not None"),
        ({"absolute_seconds": 10**400}, "at most 3153600000, or None; not one that large"),
        ({"dev": "false"}, "True or False; not a str"),
        ({"dev": 0}, "not 0"),
        ({"secure": "false"}, "True, False or None; not a str"),
        ({"host_prefix": "no"}, "not a str"),
        ({"partitioned": 1}, "not 1"),
        ({"persistent": None}, "not None"),
        ({"same_site": ["lax"]}, "not a list"),
        ({"on_unavailable": {}}, "not a dict"),
        ({"label": "phone"}, "not a str"),
        ({"label": app}, "async"),
        ({"serialize_user": app}, "async"),
        ({"deserialize_user": 3}, "not 3"),
        ({"clock": datetime.now(UTC)}, "not a datetime"),
        ({"clock": datetime.now}, "no time zone"),
        ({"clock": __import__("time").time}, "returns [0-9]"),
        ({"clock": app}, "async"),
        ({"clock": len}, "calling it raised TypeError"),
        ({"store": MemoryStore}, "the class MemoryStore"),
        ({"store": {}}, "not a dict"),
        ({"cookie_name": b"session"}, "not a bytes"),
        ({"path": None}, "not None"),
    ],
)
def test_what_is_wrong_is_said(options: dict[str, Any], reason: str) -> None:
    (name,) = options
    with pytest.raises(UsageError, match=f"^{name} is .*{reason}"):
        new_session(**options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"max_age": 0}, "max_age"),
        ({"max_age": -1}, "max_age"),
        ({"max_age": "3600"}, "max_age"),
        ({"max_age": timedelta(days=14)}, "max_age"),
        ({"session_cookie": ""}, "session_cookie"),
        ({"session_cookie": "a;b"}, "session_cookie"),
        ({"https_only": "false"}, "https_only"),
        ({"secret_key": ""}, "secret_key"),
        ({"secret_key": b"0123456789abcdef"}, "secret_key"),
        ({"autoload": "no"}, "autoload"),
        ({"skip": "/static"}, "skip"),
        ({"skip": ["static"]}, "skip"),
        ({"skip": ["/static/*"]}, "skip"),
        ({"skip": ["/items/{sku}"]}, "skip"),
        ({"skip": ["/static/.*"]}, "skip"),
        ({"skip": [b"/static"]}, "skip"),
        ({"skip": None}, "skip"),
        ({"skip": app}, "skip"),
        ({"skip": 5}, "skip"),
        ({"skip": iter(["static"])}, "skip"),
    ],
)
def test_the_middleware_names_its_own_options(options: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name} is "):
        new_middleware(**options)


@pytest.mark.parametrize(
    "url",
    ["", "redis://a:1", "greenroom://a", "greenroom://a:1?deadline_seconds=0", "memory:", "greenroom://"],
)
@pytest.mark.parametrize(
    "make", [new_session, new_middleware, litestar.GreenroomStore, starsessions.GreenroomStore]
)
def test_a_wrong_url_is_told_by_the_option(url: str, make: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"^store is a store, or the URL of one; ") as caught:
        make(store=url)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("query", ["inf", "nan", "301", "-5", "0", "1e400", "0x5", "five", ""])
def test_the_url_names_its_option(query: str) -> None:
    with pytest.raises(UsageError, match=r"^deadline_seconds .* deadline_seconds=5"):
        store_from_url(f"greenroom://a:1?deadline_seconds={query}")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: FaultyStore(MemoryStore), "inner"),  # type: ignore[arg-type]
        (lambda: failing(error=UsageError), "error"),
        (lambda: failing(error=KeyboardInterrupt()), "error"),
        (lambda: failing(times=0), "times"),
        (lambda: failing(applied="no"), "applied"),
        (lambda: ManualClock(NAIVE), "start"),
        (lambda: ManualClock("2030-01-01"), "start"),  # type: ignore[arg-type]
        (lambda: running_cluster("greenroom", nodes=0).__enter__(), "nodes"),
        (lambda: running_cluster("greenroom", actors=True).__enter__(), "actors"),
        (lambda: running_cluster("greenroom", ready_seconds=0).__enter__(), "ready_seconds"),
        (lambda: login_as(object(), "alice", session="sessions"), "session"),
        (lambda: session_of_request(""), "cookie_name"),
        (lambda: session_of_request("a b"), "cookie_name"),
    ],
)
def test_helpers_for_tests_and_dependencies_name_their_options(make: Callable[[], Any], name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name} is "):
        make()


def test_what_is_based_on_a_type_is_taken_as_that() -> None:
    made = new_session(cookie_name=OldWord.SHOP, same_site=Word.LAX, idle_seconds=Number.HOUR)
    assert made.cookie.header("v") == "__Host-shop=v; Path=/; HttpOnly; SameSite=Lax; Secure"
    assert type(made.idle_seconds) is int
    assert new_session(serialize_user=str, label=str.upper, deserialize_user=app).idle_seconds == 1800


@pytest.mark.parametrize("wrong", ["false", 0, 1, None])
def test_flags_of_calls_are_no_texts(wrong: Any) -> None:
    """`keep_current="false"` would leave the session that was stolen logged in."""

    async def story() -> None:
        sessions = new_session()
        visit = sessions.visit([])
        visit.session.greenroom.login("alice")
        with pytest.raises(UsageError, match=r"^keep_current is "):
            visit.session.greenroom.logout_everywhere(keep_current=wrong)
        with pytest.raises(UsageError, match=r"^every_shard is "):
            await sessions.check(every_shard=wrong)
        with pytest.raises(UsageError, match=r"^every_shard is "):
            await ClusterStore("a:1").check(every_shard=wrong)

    library_named("asyncio").run(story, 30)


def test_an_async_function_in_a_plain_one_is_noticed() -> None:
    async def always(_scope: Any) -> bool:
        return True

    skipping_all = new_middleware(skip=lambda scope: always(scope))

    async def change(data: dict[Any, Any]) -> None:
        data["n"] = 1

    async def story() -> None:
        with pytest.raises(UsageError, match="skip is a plain function"):
            await skipping_all({"type": "http", "path": "/", "headers": []}, None, None)  # type: ignore[arg-type]
        visit = new_session().visit([])
        visit.session["a"] = 1
        with pytest.raises(UsageError, match="modify takes a plain function"):
            await visit.session.greenroom.modify(change)

    library_named("asyncio").run(story, 30)


def test_a_session_may_be_the_first_argument_of_the_middleware() -> None:
    sessions = new_session()
    assert SessionMiddleware(app, sessions).session is sessions
    with pytest.raises(UsageError, match="two Sessions"):
        SessionMiddleware(app, sessions, session=sessions)
    with pytest.raises(UsageError, match="either session= or max_age"):
        SessionMiddleware(app, sessions, max_age=5)


@pytest.mark.parametrize(
    ("options", "both"),
    [
        ({"max_age": 5, "idle_seconds": 6}, "max_age and idle_seconds"),
        ({"session_cookie": "a", "cookie_name": "b"}, "session_cookie and cookie_name"),
        ({"https_only": True, "secure": False}, "https_only and secure"),
        ({"secret_key": SECRET, "secret": SECRET}, "secret_key and secret"),
    ],
)
def test_one_option_is_not_given_by_two_names(options: dict[str, Any], both: str) -> None:
    with pytest.raises(UsageError, match=both):
        SessionMiddleware(app, **{"store": MemoryStore(), **options})


def test_a_memory_url_follows_the_clock() -> None:
    clock = ManualClock()
    for store in (
        new_session(store="memory://", clock=clock).store,
        store_from_url("memory://", clock=clock),
        litestar.GreenroomStore("memory://", clock=clock)._store,
        starsessions.GreenroomStore("memory://", clock=clock)._store,
    ):
        assert isinstance(store, MemoryStore)
        assert store._clock is clock
