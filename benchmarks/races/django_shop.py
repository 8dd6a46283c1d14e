"""The shop in Django, under ASGI, with its cache sessions in its Redis cache."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import django
from django.conf import settings
from django.contrib.sessions.backends.base import VALID_KEY_CHARS
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import path
from redis.asyncio import Redis

from benchmarks.races.browser import pass_gate
from benchmarks.races.calls import redis_calls
from benchmarks.races.shops import COOKIE, IDLE_SECONDS, USER, Shop


async def _health(_request: Any) -> Any:
    return HttpResponse("well")


async def _session(request: Any) -> Any:
    data = dict(await request.session.aitems())
    await pass_gate(request.scope)
    return JsonResponse({"user": data.get("user"), "data": data})


async def _set(request: Any, key: str) -> Any:
    await request.session.aget("user")
    await pass_gate(request.scope)
    await request.session.aset(key, True)  # noqa: FBT003  as Django has it
    return HttpResponse("set")


async def _cart(request: Any, sku: str) -> Any:
    cart = await request.session.aget("cart", {})
    await pass_gate(request.scope)
    await request.session.aset("cart", {**cart, sku: 1})
    return HttpResponse("added")


async def _count(request: Any) -> Any:
    count = await request.session.aget("count", 0)
    await pass_gate(request.scope)
    await request.session.aset("count", count + 1)
    return HttpResponse("counted")


async def _save(request: Any) -> Any:
    await request.session.aset("saved", True)  # noqa: FBT003  as Django has it
    redirect = HttpResponseRedirect("/session")
    redirect.status_code = 303
    return redirect


async def _login(request: Any) -> Any:
    # What django.contrib.auth.login does with the session, without its table of users.
    await request.session.acycle_key()
    await request.session.aset("user", USER)
    return HttpResponse("done")


async def _logout(request: Any) -> Any:
    await request.session.aflush()
    return HttpResponse("done")


urlpatterns = [
    path("health", _health),
    path("session", _session),
    path("set/<str:key>", _set),
    path("cart/<str:sku>", _cart),
    path("count", _count),
    path("save", _save),
    path("login", _login),
    path("logout", _logout),
]


def _made_up() -> str:
    return "".join(secrets.choice(VALID_KEY_CHARS) for _ in range(32))


@asynccontextmanager
async def open_django(addresses: Mapping[str, str]) -> AsyncIterator[Shop]:
    """Open the shop. Once in a process: Django's settings are its own."""
    url = f"redis://{addresses['redis']}"
    settings.configure(
        SECRET_KEY=secrets.token_hex(32),
        ALLOWED_HOSTS=["shop.example"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}},
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        SESSION_COOKIE_NAME=COOKIE,
        SESSION_COOKIE_AGE=IDLE_SECONDS,
        SESSION_COOKIE_SECURE=True,
        LOGGING_CONFIG=None,
    )
    django.setup()
    redis = Redis.from_url(url)
    try:
        yield Shop(get_asgi_application(), _made_up, partial(redis_calls, redis))
    finally:
        await redis.aclose()
