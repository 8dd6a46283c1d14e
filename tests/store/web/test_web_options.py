"""What `Session` accepts, refuses and warns of; and that nothing it shows holds an id or a secret."""

import logging
import shlex
import subprocess
import sys
import warnings
from base64 import b64encode
from secrets import token_bytes, token_hex, token_urlsafe
from typing import Any

import pytest

from greenroom import MemoryStore, UsageError
from greenroom.integrations.moving import OtherStore, StarletteCookies
from greenroom.testing import FaultyStore, library_named
from greenroom.web import Session
from greenroom.web.secret_strength import bytes_of
from tests.store.extras import requirements_of
from tests.store.web.web_stage import SECRET, Stage, browser, session_of


def session(**options: Any) -> Session:
    return Session(**{"secret": SECRET, "store": MemoryStore(), **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"secret": None}, "secret is missing"),
        ({"secret": ""}, "none may be empty"),
        ({"secret": []}, "none may be empty"),
        ({"secret": [SECRET, ""]}, "none may be empty"),
        ({"idle_seconds": 0}, "idle_seconds"),
        ({"absolute_seconds": 0}, "absolute_seconds"),
        ({"idle_seconds": 1e-7}, "idle_seconds"),
        ({"absolute_seconds": 1e-7}, "absolute_seconds"),
        ({"idle_seconds": 7200, "absolute_seconds": 3600}, "within absolute_seconds"),
        ({"absolute_seconds": 600}, r"idle_seconds \(1800\) lies within absolute_seconds \(600\)"),
        ({"on_unavailable": "open"}, "on_unavailable"),
        ({"cookie_name": "a b"}, "cookie_name"),
        ({"cookie_name": ""}, "cookie_name"),
        ({"path": "shop"}, "slash"),
        ({"path": "/\r\nSet-Cookie: x=y"}, "slash"),
        ({"domain": "a;b"}, "domain"),
        ({"domain": ""}, "domain"),
        ({"same_site": "sometimes"}, "same_site"),
        ({"same_site": "none", "secure": False}, "not secure"),
        ({"partitioned": True, "secure": False}, "not secure"),
        ({"cookie_name": "__Host-a", "secure": False}, "host_prefix adds"),
        ({"cookie_name": "__Host-a", "path": "/shop"}, "no domain"),
        (
            {"host_prefix": True, "domain": "shop.example"},
            "host_prefix=True contradicts domain: .* no domain",
        ),
        ({"host_prefix": True, "path": "/shop"}, "host_prefix=True contradicts path: "),
        ({"host_prefix": True, "secure": False}, "host_prefix=True contradicts secure=False: "),
        ({"host_prefix": True, "secure": False, "path": "/a"}, "contradicts secure=False and path: "),
        (
            {"host_prefix": True, "cookie_name": "__Secure-a"},
            "contradicts cookie_name, which has another prefix",
        ),
        ({"host_prefix": False, "cookie_name": "__host-a"}, "host_prefix=False contradicts cookie_name"),
        ({"store": "redis://localhost"}, "greenroom://"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        session(**options)


def test_cookie_attributes() -> None:
    assert session().cookie.header("v") == "__Host-session=v; Path=/; HttpOnly; SameSite=Lax; Secure"
    assert session(dev=True).cookie.header("v") == "session=v; Path=/; HttpOnly; SameSite=Lax"
    assert session(cookie_name="shop").cookie.name == "__Host-shop"
    assert session(cookie_name="__Host-shop").cookie.name == "__Host-shop"
    assert session(host_prefix=False).cookie.name == "session"
    assert session(cookie_name="__Secure-shop").cookie.name == "__Secure-shop"
    # Where browsers would refuse the prefix it is left away.
    assert session(path="/shop").cookie.name == "session"
    assert session(domain="shop.example").cookie.name == "session"
    assert session(secure=False).cookie.name == "session"
    assert session(host_prefix=True, dev=True).cookie.name == "session"
    assert (
        session(same_site="none", partitioned=True)
        .cookie.header("v")
        .endswith("; SameSite=None; Secure; Partitioned")
    )
    assert session(cookie_name="__Secure-a").cookie.clearing_header().startswith("__Secure-a=; Max-Age=0; ")


@pytest.mark.parametrize("name", ["__Host-shop", "__Secure-shop"])
def test_a_cookie_with_a_prefix_is_removed_so_that_browsers_heed_it(name: str) -> None:
    """They ignore a removal without Secure, which is what the frameworks' own methods send."""
    old = StarletteCookies("the secret key of the old app", session_cookie=name)
    for cookie in (session(cookie_name=name).cookie, *old.cookies_to_clear(lambda _name: [])):
        value, *attributes = cookie.clearing_header().split("; ")
        assert value == f"{name}="
        assert {"Max-Age=0", "Path=/", "Secure"} <= set(attributes)
        assert not any(each.startswith("Domain") for each in attributes)


def test_first_secret_signs_and_all_verify() -> None:
    older, newer = (f"{SECRET}: the {each} one" for each in ("old", "new"))
    old, both, new = session(secret=older), session(secret=[newer, older]), session(secret=newer)
    assert both.signer.sign("id") == new.signer.sign("id") != old.signer.sign("id")
    assert both.signer.verify(old.signer.sign("id").encode()) == "id"
    assert new.signer.verify(old.signer.sign("id").encode()) is None


def test_starlettes_secret_is_opened() -> None:
    from starlette.datastructures import Secret

    assert session(secret=Secret(SECRET)).signer.sign("id") == session().signer.sign("id")  # type: ignore[arg-type]


def test_memory_store_is_the_default_and_warns_once_outside_of_dev() -> None:
    with pytest.warns(UserWarning, match='store="greenroom://host:port') as caught:
        made = Session(secret=SECRET)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert isinstance(made.store, MemoryStore)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session()
        Session(dev=True)


SHORT = [
    ("hunter2-hunter2", 7 + 1 + 7),
    ("hunter2-" * 9, 8),
    ("x" * 99, 1),
    ("0123456789abcdef" + "fedcba9876543210", 16),
    ("\u00fc" * 3 + "a secret of bytes", 23),
    ("a secret of thirty-one bytes...", 31),
]


@pytest.mark.parametrize(("secret", "size"), SHORT)
def test_a_short_secret_is_refused_outside_of_dev(secret: str, size: int) -> None:
    """The error tells what is measured, and the command that makes one; it shows nothing of the secret."""
    assert bytes_of(secret) == size
    with pytest.raises(UsageError, match=rf"^secret is too short: {size} bytes, .* at least 32") as caught:
        session(secret=secret)
    assert secret not in str(caught.value)
    assert secret[:7] not in str(caught.value)
    command = str(caught.value).partition("Make one with: ")[2].partition(". To replace")[0]
    made = subprocess.run(
        shlex.split(command.replace("python", sys.executable, 1)), capture_output=True, text=True
    )
    session(secret=made.stdout.strip())
    session(secret=secret, dev=True)
    with pytest.warns(UserWarning, match="old secret .* too short") as warned:
        session(secret=[SECRET, secret])
    assert warned[0].filename == __file__
    assert secret not in str(warned[0].message)


@pytest.mark.parametrize(
    "secret",
    [token_hex(32), token_hex(32).upper(), token_urlsafe(32), SECRET, b64encode(token_bytes(24)).decode()],
)
def test_a_secret_that_a_tool_made_is_taken(secret: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session(secret=secret)


def test_a_cookie_of_one_app_is_none_of_another() -> None:
    """With the same secret and the same name of the cookie, on two hosts or two ports of one."""
    plain, shop, blog = session(), session(app="shop"), session(app="blog")
    for one in (
        plain,
        shop,
        blog,
        session(app="shop", cookie_name="other"),
        session(cookie_name="session-shop"),
    ):
        signed = one.signer.sign("id").encode()
        for other in (plain, shop, blog):
            assert other.signer.verify(signed) == ("id" if other is one else None)
    assert session(app="shop").signer.verify(shop.signer.sign("id").encode()) == "id"


def test_an_app_that_gets_a_name_keeps_its_sessions() -> None:
    async def story() -> None:
        store = MemoryStore()
        before = session(store=store)
        visit = before.visit([])
        visit.session["n"] = 1
        visit.session.greenroom.login("alice")
        await visit.save()
        sessions = session(store=store, app="shop", moves_from=OtherStore(before))
        cookies = [visit.set_cookies()[0].partition(";")[0].encode()]
        for _ in range(2):
            after = sessions.visit(cookies)
            await after.load()
            assert (after.session.greenroom.user_id, dict(after.session)) == ("alice", {"n": 1})
            await after.save()
            cookies = [each.partition(";")[0].encode() for each in after.set_cookies()] or cookies
        assert sessions.statistics().moved == 1
        assert len(await store.list_by_user("alice")) == 1

    library_named("asyncio").run(story, 30)


def test_secure_cookie_over_http_warns_once_and_names_the_mends(caplog: pytest.LogCaptureFixture) -> None:
    async def add(request: Any) -> Any:
        from starlette.responses import PlainTextResponse

        session_of(request)["n"] = 1
        return PlainTextResponse("ok")

    async def story(**options: Any) -> None:
        stage = Stage(**options)
        app = stage.app(add)
        for url in ("https://app.test", "http://app.test", "http://app.test"):
            async with browser(app, url) as visitor:
                await visitor.get("/add")

    def told() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name.startswith("greenroom")]

    library_named("asyncio").run(lambda: story(dev=True), 30)
    assert not told()
    with caplog.at_level(logging.WARNING):
        library_named("asyncio").run(story, 30)
    (record,) = told()
    for mend in ("dev=True", "--proxy-headers", 'base_url="https://testserver"'):
        assert mend in record.getMessage()
    assert "where most clients do not return it" in record.getMessage(), "some do on localhost"


@pytest.mark.parametrize(
    ("label", "shown", "warnings"),
    [
        (lambda _: None, "", 0),
        (lambda _: "\ud800", "?", 0),
        (lambda _: 7, "", 1),
        (lambda agent: agent[99], "", 1),
    ],
)
def test_no_page_fails_over_a_label(
    label: Any, shown: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def add(request: Any) -> Any:
        from starlette.responses import PlainTextResponse

        session_of(request).greenroom.login("alice")
        return PlainTextResponse("ok")

    async def story() -> list[str]:
        stage = Stage(label=label)
        async with browser(stage.app(add)) as visitor:
            for _ in range(3):
                assert (await visitor.get("/add")).status_code == 200
        return [info.label for info in await stage.store.list_by_user("alice")]

    labels = library_named("asyncio").run(story, 30)
    assert labels[0] == shown
    told = [record.getMessage() for record in caplog.records if "label" in record.getMessage()]
    assert len(told) == warnings


def test_a_dropped_change_is_logged_with_its_possible_causes(caplog: pytest.LogCaptureFixture) -> None:
    session().events.dropped(None)
    for cause in ("deleted", "new id", "both its replicas were lost"):
        assert cause in caplog.text


def test_nothing_shown_holds_an_id_or_a_secret() -> None:
    async def story() -> None:
        sessions = session()
        visit = sessions.visit([], user_agent="x")
        visit.session.greenroom.login("alice")
        await visit.save()
        assert visit.stored is not None
        random_part = visit.stored.session_id[8:]
        shown = f"{visit!r} {sessions!r} {sessions.signer!r} {visit.session!r} {visit.stored!r}"
        shown += repr(sessions.statistics()) + repr(sessions.cookie) + repr(FaultyStore())
        assert random_part not in shown
        assert SECRET not in shown

    library_named("asyncio").run(story, 30)


def test_users_are_strings_or_have_a_hook() -> None:
    with pytest.raises(UsageError, match="serialize_user"):
        session().users.id_of(7)
    assert session(serialize_user=str).users.id_of(7) == "7"
    with pytest.raises(UsageError, match="1 to 256 bytes"):
        session().users.id_of("")


def test_label_hook_and_its_limit() -> None:
    async def label_of(sessions: Session, agent: str) -> str:
        visit = sessions.visit([], user_agent=agent)
        visit.session.greenroom.login("alice")
        await visit.save()
        return (await visit.session.greenroom.devices())[0].label

    def run(sessions: Session, agent: str) -> str:
        return library_named("asyncio").run(lambda: label_of(sessions, agent), 30)

    assert run(session(), "Browser/1") == "Browser/1"
    assert run(session(label=str.upper), "Browser/1") == "BROWSER/1"
    assert run(session(), "ü" * 300) == "ü" * 128


def test_as_context_manager_and_clean() -> None:
    async def story() -> None:
        async with session(store="memory://") as sessions:
            assert await sessions.clean() == 0

    library_named("asyncio").run(story, 30)


@pytest.mark.parametrize(
    ("absent", "module", "extra"),
    [
        ("itsdangerous", "greenroom.web", "web"),
        ("fastapi", "greenroom.integrations.fastapi", "fastapi"),
    ],
)
def test_without_its_library_the_import_says_what_to_install(absent: str, module: str, extra: str) -> None:
    script = (
        f"import sys; sys.modules[{absent!r}] = None\ntry: import {module}\nexcept ImportError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert f"pip install {requirements_of(extra)}" in done.stdout, done.stderr


def test_the_middleware_needs_no_framework() -> None:
    script = (
        "import sys\n"
        "for name in ('starlette', 'fastapi', 'trio', 'anyio', 'httpx', 'pytest'): sys.modules[name] = None\n"
        "import greenroom.web"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
