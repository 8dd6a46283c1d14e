"""FastAPI: a cart, a login, and "your devices".

    uv run python examples/fastapi_app.py

Sessions are kept in memory, or in the cluster that GREENROOM_URL names. The API is shown at /docs.
The cookies are signed with SESSION_SECRET, else with a fixed value for development: so with a cluster
visitors stay logged in when the app is started again.
"""

import os

import uvicorn
from fastapi import FastAPI

from greenroom.integrations.fastapi import SessionDep, UserIdDep
from greenroom.web import Session, SessionMiddleware

# dev=True is for plain http on this machine. In production no dev, and no secret in the code.
sessions = Session(
    dev=True,
    secret=os.environ.get("SESSION_SECRET", "not a secret, only for these examples"),
    store=os.environ.get("GREENROOM_URL", "memory://"),
)
app = FastAPI(title="Greenroom with FastAPI")
app.add_middleware(SessionMiddleware, session=sessions)


@app.get("/cart")
def cart(session: SessionDep) -> dict[str, int]:
    return session.get("cart", {})


@app.post("/cart/{sku}")
def add(sku: str, session: SessionDep) -> dict[str, int]:
    cart = session.setdefault("cart", {})
    cart[sku] = cart.get(sku, 0) + 1
    return cart


@app.post("/login/{user}")
def login(user: str, session: SessionDep) -> dict[str, str]:
    session.greenroom.login(user, keep=("cart",))  # a new id, in the same step; the cart stays
    return {"user": user}


@app.post("/logout")
def logout(session: SessionDep) -> dict[str, str]:
    session.greenroom.logout()
    return {"goodbye": "see you"}


@app.get("/devices")
async def devices(session: SessionDep, _user: UserIdDep) -> list[dict[str, object]]:
    return [
        {
            "device": each.label,
            "since": each.created,
            "handle": each.handle,
            "this": each.handle == session.greenroom.handle,
        }
        for each in await session.greenroom.devices()
    ]


@app.post("/devices/{handle}/end")
async def end(handle: str, session: SessionDep, _user: UserIdDep) -> dict[str, bool]:
    return {"ended": await session.greenroom.end_device(handle)}


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
