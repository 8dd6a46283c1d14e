"""The rules of cookies are those of a real browser: what is refused would not have come back as meant."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote, unquote

import pytest
import uvicorn

from greenroom import UsageError
from greenroom.web import CookieSettings

pytestmark = [pytest.mark.browser, pytest.mark.system]

SHOP, HERE = "www.shop.localhost", "localhost"
LONG = "x" * 1023

# The host of the page, the settings, and a path at which the cookie is to come back.
SETTINGS: list[tuple[str, dict[str, Any], str]] = [
    (HERE, {}, "/"),
    (HERE, {"path": "/shop"}, "/shop/cart"),
    (HERE, {"path": "/a%20b"}, "/a%20b/x"),
    (HERE, {"path": "/a b"}, "/a%20b/x"),
    (HERE, {"path": "/a?b"}, "/a?b"),
    (HERE, {"path": "/a#b"}, "/a"),
    (HERE, {"path": f"/{LONG}"}, f"/{LONG}/x"),
    (HERE, {"path": f"/{LONG}x"}, f"/{LONG}x/x"),
    (HERE, {"secure": False}, "/"),
    (HERE, {"same_site": "strict"}, "/"),
    (HERE, {"same_site": "none"}, "/"),
    (HERE, {"same_site": "none", "secure": False}, "/"),
    (HERE, {"same_site": "none", "partitioned": True}, "/"),
    (HERE, {"same_site": "none", "partitioned": True, "secure": False}, "/"),
    *((HERE, {"name": name}, "/") for name in ("__Host-a", "__host-a", "__HTTP-a", "__Host-Http-a")),
    *((HERE, {"name": name, "secure": False}, "/") for name in ("__Host-a", "__secure-a", "__HTTP-a")),
    *((HERE, {"name": name, "path": "/shop"}, "/shop/x") for name in ("__HOST-a", "__host-http-a")),
    *((HERE, {"name": name, "path": "/shop"}, "/shop/x") for name in ("__Secure-a", "__http-a")),
    *((SHOP, {"domain": domain}, "/") for domain in ("shop.localhost", ".shop.localhost", "Shop.localhost")),
    *((SHOP, {"domain": f"{domain}"}, "/") for domain in ("*.shop.localhost", "shop.localhost.")),
    *((SHOP, {"domain": f"{domain}"}, "/") for domain in ("shop.localhost:80", "http://shop.localhost")),
    *((SHOP, {"domain": f"{domain}"}, "/") for domain in ("shop localhost", "..shop.localhost", "0.0.1")),
    (SHOP, {"name": "__Host-a", "domain": "shop.localhost"}, "/"),
    (SHOP, {"name": "__Secure-a", "domain": "shop.localhost"}, "/"),
]


async def echo(scope: Any, _receive: Any, send: Any) -> None:
    """Set the cookie that the query names, and show those that came."""
    query = scope["query_string"].decode()
    headers = [(b"content-type", b"text/plain")]
    if query.startswith("set="):
        headers.append((b"set-cookie", unquote(query[4:]).encode()))
    came = b"; ".join(value for name, value in scope["headers"] if name == b"cookie")
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"came: " + came})


@contextmanager
def serving() -> Iterator[int]:
    server = uvicorn.Server(uvicorn.Config(echo, port=0, log_level="error", lifespan="off"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        deadline = monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert monotonic() < deadline
            sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)


def unchecked(options: dict[str, Any]) -> CookieSettings:
    """Return settings as they would be without any rule."""
    settings = object.__new__(CookieSettings)
    fields = {name: getattr(CookieSettings(), name) for name in CookieSettings.__slots__}
    for name, value in {**fields, "name": "a", **options}.items():
        object.__setattr__(settings, name, value)
    return settings


def is_taken(options: dict[str, Any]) -> bool:
    try:
        CookieSettings(**{"name": "a", **options})
    except UsageError:
        return False
    return True


def test_settings_are_refused_where_a_browser_does_not_heed_them(chrome: Any) -> None:
    wrong = []
    with serving() as port:
        for host, options, path in SETTINGS:
            settings = unchecked(options)
            device = chrome.new_context()
            page = device.new_page()
            page.goto(f"http://{host}:{port}/?set={quote(settings.header('v'))}")
            comes = []
            for each in (path, "/"):
                page.goto(f"http://{host}:{port}{each}")
                comes.append(f"{settings.name}=v" in page.inner_text("body"))
            device.close()
            as_meant = comes == [True, settings.path == "/"]
            if as_meant is not is_taken(options):
                wrong.append((options, comes))
    assert not wrong
