#!/usr/bin/env bash
# Starlette's SessionMiddleware on a mounted app replaces the session of the app around it, whatever their cookies are.
#
# Both put their dict into scope["session"], and Mount hands the very same scope on. The outer middleware saves what
# stands there when the response starts: by then the inner one's dict, under the outer one's cookie.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check starlette==1.10.0 itsdangerous==2.2.0 httpx==0.28.1

cat >mounted.py <<'PY'
import asyncio
import sys
from importlib.metadata import version

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route


def kept_in(cookie):
    return [Middleware(SessionMiddleware, secret_key=f"the secret of {cookie}", session_cookie=cookie)]


async def show(request):
    return JSONResponse(request.session)


async def put_mug(request):
    request.session["cart"] = ["mug"]
    return JSONResponse(request.session)


async def choose_topic(request):
    request.session["topic"] = "cups"
    return JSONResponse(request.session)


forum = Starlette(routes=[Route("/topic", choose_topic)], middleware=kept_in("forum"))
shop = Starlette(
    routes=[Route("/cart", show), Route("/cart/mug", put_mug), Mount("/forum", forum)], middleware=kept_in("shop")
)


async def visit():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(shop), base_url="http://127.0.0.1") as browser:
        await browser.get("/cart/mug")
        before = (await browser.get("/cart")).json()
        answer = await browser.get("/forum/topic")
        names = sorted(each.split("=")[0] for each in answer.headers.get_list("set-cookie"))
        return before, names, (await browser.get("/cart")).json()


before, names, after = asyncio.run(asyncio.wait_for(visit(), 30))
print("expected: the cookie 'forum' keeps the topic, the cookie 'shop' goes on to keep the cart")
print(f"seen: starlette {version('starlette')}: session of the shop before {before}")
print(f"seen: one page of the forum sets the cookies {names}; session of the shop after it {after}")
sys.exit((before, names, after) != ({"cart": ["mug"]}, ["forum", "shop"], {"topic": "cups"}))
PY
venv/bin/python mounted.py
