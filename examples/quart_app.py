"""Quart: a cart, a login, and "your devices".

    uv run python examples/quart_app.py

Sessions are kept in memory, or in the cluster that GREENROOM_URL names.
The cookies are signed with SESSION_SECRET, else with a fixed value for development: so with a cluster
visitors stay logged in when the app is started again.
"""

import os
from typing import Any

from quart import Quart, abort, session

from greenroom.integrations.quart import GreenroomSessions
from greenroom.web import Session

# dev=True is for plain http on this machine. In production no dev, and no secret in the code.
sessions = Session(
    dev=True,
    secret=os.environ.get("SESSION_SECRET", "not a secret, only for these examples"),
    store=os.environ.get("GREENROOM_URL", "memory://"),
)
app = Quart(__name__)
GreenroomSessions(sessions).init_app(app)


@app.get("/cart")
async def cart() -> dict[str, int]:
    return session.get("cart", {})


@app.post("/cart/<sku>")
async def add(sku: str) -> dict[str, int]:
    cart = session.setdefault("cart", {})
    cart[sku] = cart.get(sku, 0) + 1
    return cart


@app.post("/login/<user>")
async def login(user: str) -> dict[str, str]:
    session.greenroom.login(user, keep=("cart",))  # a new id, in the same step; the cart stays
    return {"user": user}


@app.post("/logout")
async def logout() -> dict[str, str]:
    session.greenroom.logout()
    return {"goodbye": "see you"}


@app.get("/devices")
async def devices() -> list[dict[str, Any]]:
    if session.greenroom.user_id is None:
        abort(401)
    return [
        {
            "device": each.label,
            "since": each.created,
            "handle": each.handle,
            "this": each.handle == session.greenroom.handle,
        }
        for each in await session.greenroom.devices()
    ]


@app.post("/devices/<handle>/end")
async def end(handle: str) -> dict[str, bool]:
    return {"ended": await session.greenroom.end_device(handle)}


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8000")))
