#!/usr/bin/env bash
# delete_cookie("__Host-basket") of Starlette, Litestar, Quart and aiohttp deletes nothing.
#
# Browsers, and curl, take a cookie whose name begins with `__Host-` or `__Secure-` only if it says `Secure` (RFC
# 6265bis, 4.1.3 and 5.7), and a deletion is a Set-Cookie like any other. These four leave `Secure` out unless they are
# told, so the client drops the deletion without a word, and the cookie stays. Litestar's method cannot be told.
# Django's says `Secure` by itself for such a name.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
    starlette==1.10.0 litestar==2.25.0 quart==0.22.0 aiohttp==3.14.5 django==5.2.19 httpx==0.28.1 curl-cffi==0.17.0

cat >deleting.py <<'PY'
import asyncio
import http.server
import sys
import threading
from importlib.metadata import version

import django.conf
import django.http
import httpx
import litestar
import quart
import starlette.responses
from aiohttp import web
from curl_cffi import requests

NAME = "__Host-basket"
SETTING = f"{NAME}=mug; Path=/; Secure; HttpOnly; SameSite=Lax"
ADDRESS = "127.0.0.1"
django.conf.settings.configure()


def by_starlette(**options):
    response = starlette.responses.Response()
    response.delete_cookie(NAME, **options)
    return response.headers["set-cookie"]


def by_django():
    response = django.http.HttpResponse()
    response.delete_cookie(NAME)
    return response.cookies[NAME].OutputString()


def by_aiohttp(**options):
    response = web.Response()
    response.del_cookie(NAME, **options)
    return response.cookies[NAME].OutputString()


def by_quart(**options):
    response = quart.Response()
    response.delete_cookie(NAME, **options)
    return response.headers["set-cookie"]


def by_litestar():
    @litestar.get("/")
    async def empty() -> litestar.Response[None]:
        response = litestar.Response(None)
        response.delete_cookie(NAME)
        return response

    async def get():
        transport = httpx.ASGITransport(litestar.Litestar([empty], logging_config=None))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{ADDRESS}") as client:
            return (await client.get("/")).headers["set-cookie"]

    return asyncio.run(asyncio.wait_for(get(), 30))


class Page(http.server.BaseHTTPRequestHandler):
    """Sets the cookie that the server was told to, and shows those that came."""

    def do_GET(self):
        came = self.headers.get("cookie", "").encode()
        self.send_response(200)
        if self.server.setting:
            self.send_header("Set-Cookie", self.server.setting)
        self.send_header("Content-Length", str(len(came)))
        self.end_headers()
        self.wfile.write(came)

    def log_message(self, *_):
        pass


def left_after(deletion):
    """Return what curl still sends after this header. It takes loopback for safe enough for `Secure`."""
    with http.server.ThreadingHTTPServer((ADDRESS, 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with requests.Session(trust_env=False) as client:
                for setting in (SETTING, deletion):
                    server.setting = setting
                    client.get(f"http://{ADDRESS}:{server.server_port}/", timeout=30)
                server.setting = None
                return client.get(f"http://{ADDRESS}:{server.server_port}/", timeout=30).text
        finally:
            server.shutdown()


print(f"expected: after the framework's delete_cookie({NAME!r}) the client has no such cookie")
changed = False
for name, said, deletion, stays in (
    ("starlette", "", by_starlette(), True),
    ("litestar", "", by_litestar(), True),
    ("quart", "", by_quart(), True),
    ("aiohttp", "", by_aiohttp(), True),
    ("django", "", by_django(), False),
    ("starlette", " with secure=True", by_starlette(secure=True), False),
    ("quart", " with secure=True", by_quart(secure=True), False),
    ("aiohttp", " with secure=True", by_aiohttp(secure=True), False),
):
    left = left_after(deletion)
    as_found = left == (f"{NAME}=mug" if stays else "")
    changed |= not as_found
    print(
        f"seen: {name} {version(name)}{said} sends {deletion!r}: curl then sends {left or 'no cookie'}"
        f"{'' if as_found else '  <- CHANGED'}"
    )
sys.exit(changed)
PY
venv/bin/python deleting.py
