#!/usr/bin/env bash
# A session cookie that one host has just signed counts as expired on the next one, if that one's clock is behind.
#
# Starlette's and Quart's sessions hand `max_age` to itsdangerous, which then refuses a negative age too, as
# "SignatureExpired", and takes times in whole seconds. So a tenth of a second is enough if a full second lies between.
# The visitor gets an empty session: no error, and no line in a log. A clock that is set back does the same to one host
# alone. (aiohttp-session's encrypted cookies are Fernet tokens, which may come from up to a minute ahead.)
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check \
    itsdangerous==2.2.0 starlette==1.10.0 quart==0.22.0 aiohttp==3.14.5 aiohttp-session==2.12.1 cryptography==50.0.2 \
    httpx==0.28.1 freezegun==1.5.5

cat >clocks.py <<'PY'
import asyncio
import sys
from functools import partial
from importlib.metadata import version

import httpx
import quart
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from cryptography.fernet import Fernet
from freezegun import freeze_time
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route

FORTNIGHT = 14 * 86400
BASKET = {"basket": "mug"}
HERE = "2030-01-01 12:00:00.95"
# The clock of the host that signs, and what Starlette and Quart find then on the host whose clock says HERE.
SIGNED_AT = {"2030-01-01 12:00:00.99": BASKET, "2030-01-01 12:00:01.05": {}, "2030-01-01 12:00:03": {}}


def in_starlette():
    async def fill(request):
        request.session.update(BASKET)
        return JSONResponse({})

    async def show(request):
        return JSONResponse(request.session)

    kept = Middleware(SessionMiddleware, secret_key="the key of both hosts", max_age=FORTNIGHT)
    return Starlette(routes=[Route("/fill", fill), Route("/", show)], middleware=[kept])


def in_quart():
    app = quart.Quart("clocks")
    app.secret_key = "the key of both hosts"

    @app.get("/fill")
    async def fill():
        quart.session.update(BASKET)
        return {}

    @app.get("/")
    async def show():
        return dict(quart.session)

    return app


async def by_asgi(make, signed_at):
    cookies = httpx.Cookies()
    for moment, path in ((signed_at, "/fill"), (HERE, "/")):
        transport = httpx.ASGITransport(make())  # each host has a process of its own
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", cookies=cookies) as browser:
            with freeze_time(moment, real_asyncio=True):
                answer = await browser.get(path)
            cookies = browser.cookies
    return answer.json()


async def by_aiohttp(signed_at, key=Fernet.generate_key()):
    storage = EncryptedCookieStorage(Fernet(key), max_age=FORTNIGHT)
    with freeze_time(signed_at):
        answer, session = web.Response(), await storage.new_session()
        session.update(BASKET)
        await storage.save_session(make_mocked_request("GET", "/"), answer, session)
    cookie = f"{storage.cookie_name}={answer.cookies[storage.cookie_name].value}"
    with freeze_time(HERE):
        return dict(await storage.load_session(make_mocked_request("GET", "/", headers={"Cookie": cookie})))


print(f"expected: a session that is kept for 14 days and was signed just now is there, on a host where it is {HERE[11:]}")
changed = False
for signed_at, wanted in SIGNED_AT.items():
    for name, visit, found_as in (
        ("starlette", partial(by_asgi, in_starlette), wanted),
        ("quart", partial(by_asgi, in_quart), wanted),
        ("aiohttp-session", by_aiohttp, BASKET),
    ):
        found = asyncio.run(asyncio.wait_for(visit(signed_at), 30))
        changed |= found != found_as
        print(
            f"seen: {name} {version(name)}, signed on a host where it is {signed_at[11:]}: {found}"
            f"{'' if found == found_as else '  <- CHANGED'}"
        )
print(f"    with itsdangerous {version('itsdangerous')}")
sys.exit(changed)
PY
venv/bin/python clocks.py
