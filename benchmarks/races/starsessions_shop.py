"""The shop in Starlette with starsessions in Redis."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import starsessions
from redis.asyncio import Redis
from starlette.middleware import Middleware
from starlette.requests import Request
from starsessions.stores.redis import RedisStore

from benchmarks.races.calls import redis_calls
from benchmarks.races.shops import COOKIE, IDLE_SECONDS, Shop
from benchmarks.races.starlette_shops import log_in, starlette_shop


def _log_in_anew(request: Request) -> None:
    starsessions.regenerate_session_id(request)
    log_in(request)


@asynccontextmanager
async def open_starsessions(addresses: Mapping[str, str]) -> AsyncIterator[Shop]:
    """Open the shop with starsessions in Redis."""
    redis = Redis.from_url(f"redis://{addresses['redis']}")
    try:
        middleware = [
            Middleware(
                starsessions.SessionMiddleware,
                store=RedisStore(connection=redis),
                lifetime=IDLE_SECONDS,
                rolling=True,
                cookie_name=COOKIE,
            ),
            Middleware(starsessions.SessionAutoloadMiddleware),
        ]
        app = starlette_shop(middleware, log_in=_log_in_anew)
        yield Shop(app, partial(secrets.token_hex, 16), partial(redis_calls, redis))
    finally:
        await redis.aclose()
