"""Litestar: a cart, a login, "your devices", and Litestar's response cache in the same cluster.

    uv run python examples/litestar_app.py

Sessions are kept in memory, or in the cluster that GREENROOM_URL names.
The cookies are signed with SESSION_SECRET, else with a fixed value for development: so with a cluster
visitors stay logged in when the app is started again.
"""

import os
from datetime import datetime

import uvicorn
from litestar import Litestar, get, post
from litestar.exceptions import NotAuthorizedException
from litestar.params import FromPath

from greenroom.integrations.litestar import GreenroomStore, SessionDep, SessionPlugin
from greenroom.web import Session

URL = os.environ.get("GREENROOM_URL", "memory://")

# dev=True is for plain http on this machine. In production no dev, and no secret in the code.
sessions = Session(
    dev=True,
    secret=os.environ.get("SESSION_SECRET", "not a secret, only for these examples"),
    store=URL,
)


@get("/cart")
async def cart(session: SessionDep) -> dict[str, int]:
    return session.get("cart", {})


@post("/cart/{sku:str}")
async def add(sku: FromPath[str], session: SessionDep) -> dict[str, int]:
    cart = session.setdefault("cart", {})
    cart[sku] = cart.get(sku, 0) + 1
    return cart


@post("/login/{user:str}")
async def login(user: FromPath[str], session: SessionDep) -> dict[str, str]:
    session.greenroom.login(user, keep=("cart",))  # a new id, in the same step; the cart stays
    return {"user": user}


@post("/logout")
async def logout(session: SessionDep) -> dict[str, str]:
    session.greenroom.logout()
    return {"goodbye": "see you"}


@get("/devices")
async def devices(session: SessionDep) -> list[dict[str, object]]:
    if session.greenroom.user_id is None:
        raise NotAuthorizedException
    return [
        {
            "device": each.label,
            "since": each.created,
            "handle": each.handle,
            "this": each.handle == session.greenroom.handle,
        }
        for each in await session.greenroom.devices()
    ]


@post("/devices/{handle:str}/end")
async def end(handle: FromPath[str], session: SessionDep) -> dict[str, bool]:
    return {"ended": await session.greenroom.end_device(handle)}


@get("/time", cache=10)
async def time() -> datetime:
    return datetime.now().astimezone()


app = Litestar(
    [cart, add, login, logout, devices, end, time],
    plugins=[SessionPlugin(sessions)],
    stores={"response_cache": GreenroomStore(URL, namespace="cache")},
)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
