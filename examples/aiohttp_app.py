"""aiohttp with aiohttp-session: a cart, a login, and "your devices".

    uv run python examples/aiohttp_app.py

Sessions are kept in memory, or in the cluster that GREENROOM_URL names.
The cookies are signed with SESSION_SECRET, else with a fixed value for development: so with a cluster
visitors stay logged in when the app is started again.
"""

import os

import aiohttp_session
from aiohttp import web
from aiohttp_session import get_session

from greenroom.integrations.aiohttp import GreenroomStorage
from greenroom.web import Session

routes = web.RouteTableDef()


@routes.get("/cart")
async def cart(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.json_response(session.get("cart", {}))


@routes.post("/cart/{sku}")
async def add(request: web.Request) -> web.Response:
    session = await get_session(request)
    cart = session.setdefault("cart", {})
    sku = request.match_info["sku"]
    cart[sku] = cart.get(sku, 0) + 1
    return web.json_response(cart)


@routes.post("/login/{user}")
async def login(request: web.Request) -> web.Response:
    session = await get_session(request)
    # A new id, in the same step; the cart stays.
    session.greenroom.login(request.match_info["user"], keep=("cart",))
    return web.json_response({"user": session.greenroom.user_id})


@routes.post("/logout")
async def logout(request: web.Request) -> web.Response:
    (await get_session(request)).greenroom.logout()
    return web.json_response({"goodbye": "see you"})


@routes.get("/devices")
async def devices(request: web.Request) -> web.Response:
    session = await get_session(request)
    if session.greenroom.user_id is None:
        raise web.HTTPUnauthorized
    return web.json_response(
        [
            {
                "device": each.label,
                "since": each.created.isoformat(),
                "handle": each.handle,
                "this": each.handle == session.greenroom.handle,
            }
            for each in await session.greenroom.devices()
        ]
    )


@routes.post("/devices/{handle}/end")
async def end(request: web.Request) -> web.Response:
    session = await get_session(request)
    ended = await session.greenroom.end_device(request.match_info["handle"])
    return web.json_response({"ended": ended})


def create_app() -> web.Application:
    # dev=True is for plain http on this machine. In production no dev, and no secret in the code.
    sessions = Session(
        dev=True,
        secret=os.environ.get("SESSION_SECRET", "not a secret, only for these examples"),
        store=os.environ.get("GREENROOM_URL", "memory://"),
    )
    app = web.Application()
    aiohttp_session.setup(app, GreenroomStorage(sessions))
    app.add_routes(routes)

    async def close(_app: web.Application) -> None:
        await sessions.aclose()

    app.on_cleanup.append(close)
    return app


if __name__ == "__main__":
    web.run_app(create_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
