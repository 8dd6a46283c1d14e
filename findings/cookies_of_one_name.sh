#!/usr/bin/env bash
# Of two cookies with one name Starlette and Litestar take the one that is meant for the whole site, Quart the nearer.
#
# A browser sends both where one was set for a path and one for all of the site, and "cookies with longer paths are
# listed before cookies with shorter paths" (RFC 6265, 5.4, which tells servers not to rely on it). Quart, by Werkzeug,
# takes the first, which is the one for this page. Starlette and Litestar let each cookie overwrite the one before, and
# so the general one hides the special one.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
    starlette==1.10.0 litestar==2.25.0 quart==0.22.0 werkzeug==3.1.9 httpx==0.28.1

cat >naming.py <<'PY'
import asyncio
import sys
from importlib.metadata import version

import httpx
import litestar
import quart
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

OF_THE_SITE, OF_THE_SHOP = "language=en; Path=/", "language=fr; Path=/shop"


def in_starlette():
    async def show(request):
        return JSONResponse([request.headers["cookie"], request.cookies["language"]])

    return Starlette(routes=[Route("/shop/cart", show)])


def in_litestar():
    @litestar.get("/shop/cart")
    async def show(request: litestar.Request) -> list[str]:
        return [request.headers["cookie"], request.cookies["language"]]

    return litestar.Litestar([show], logging_config=None)


def in_quart():
    app = quart.Quart("naming")

    @app.get("/shop/cart")
    async def show():
        return quart.jsonify([quart.request.headers["cookie"], quart.request.cookies["language"]])

    return app


def setting_both(app):
    """Return the app with a page before it that sets the two cookies."""

    async def outer(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/":
            headers = [(b"set-cookie", each.encode()) for each in (OF_THE_SITE, OF_THE_SHOP)]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body"})
        else:
            await app(scope, receive, send)

    return outer


async def read(app):
    transport = httpx.ASGITransport(setting_both(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as browser:
        await browser.get("/")
        return (await browser.get("/shop/cart")).json()


print(f"expected: on /shop/cart, {OF_THE_SHOP!r} goes before {OF_THE_SITE!r} in every framework")
changed = False
for name, make, wanted in (
    ("quart", in_quart, "fr"),
    ("starlette", in_starlette, "en"),
    ("litestar", in_litestar, "en"),
):
    found = asyncio.run(asyncio.wait_for(read(make()), 30))
    as_found = found == ["language=fr; language=en", wanted]
    changed |= not as_found
    print(
        f"seen: {name} {version(name)}: of the header {found[0]!r} it takes {found[1]!r}"
        f"{'' if as_found else '  <- CHANGED'}"
    )
sys.exit(changed)
PY
venv/bin/python naming.py
