"""The shop in Litestar, with its server-side sessions in its Redis store."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from litestar import Litestar, Request, get, post
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.stores.redis import RedisStore
from redis.asyncio import Redis

from benchmarks.races.browser import pass_gate
from benchmarks.races.calls import redis_calls
from benchmarks.races.shops import COOKIE, IDLE_SECONDS, USER, Shop


@get("/health")
async def _health() -> str:
    return "well"


@get("/session")
async def _session(request: Request[Any, Any, Any]) -> dict[str, Any]:
    seen = {"user": request.session.get("user"), "data": dict(request.session)}
    await pass_gate(request.scope)
    return seen


@post("/set/{key:str}")
async def _set(request: Request[Any, Any, Any], key: FromPath[str]) -> str:
    request.session.get("user")
    await pass_gate(request.scope)
    request.session[key] = True
    return "set"


@post("/cart/{sku:str}")
async def _cart(request: Request[Any, Any, Any], sku: FromPath[str]) -> str:
    cart = request.session.get("cart", {})
    await pass_gate(request.scope)
    request.session["cart"] = {**cart, sku: 1}
    return "added"


@post("/count")
async def _count(request: Request[Any, Any, Any]) -> str:
    count = request.session.get("count", 0)
    await pass_gate(request.scope)
    request.session["count"] = count + 1
    return "counted"


@post("/save", status_code=303)
async def _save(request: Request[Any, Any, Any]) -> Redirect:
    request.session["saved"] = True
    return Redirect("/session", status_code=303)


@post("/login")
async def _login(request: Request[Any, Any, Any]) -> str:
    request.set_session({**request.session, "user": USER})
    return "done"


@post("/logout")
async def _logout(request: Request[Any, Any, Any]) -> str:
    request.clear_session()
    return "done"


@asynccontextmanager
async def open_litestar(addresses: Mapping[str, str]) -> AsyncIterator[Shop]:
    """Open the shop."""
    redis = Redis.from_url(f"redis://{addresses['redis']}")
    try:
        config = ServerSideSessionConfig(key=COOKIE, max_age=IDLE_SECONDS, secure=True)
        app = Litestar(
            [_health, _session, _set, _cart, _count, _save, _login, _logout],
            middleware=[config.middleware],
            stores={"sessions": RedisStore(redis)},
            openapi_config=None,
        )
        yield Shop(app, partial(secrets.token_hex, 32), partial(redis_calls, redis))
    finally:
        await redis.aclose()
