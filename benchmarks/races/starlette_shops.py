"""The shop in Starlette, without sessions and with its own in cookies."""

import secrets
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as CookieSessions
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from benchmarks.races.browser import pass_gate
from benchmarks.races.calls import no_calls
from benchmarks.races.shops import COOKIE, IDLE_SECONDS, USER, Shop

Act = Callable[[Request], None]


# --- the pages -------------------------------------------------------------------------------------------


async def _health(_request: Request) -> Response:
    return PlainTextResponse("well")


async def _set(request: Request) -> Response:
    request.session.get("user")
    await pass_gate(request.scope)
    request.session[request.path_params["key"]] = True
    return PlainTextResponse("set")


async def _cart(request: Request) -> Response:
    cart = request.session.get("cart", {})
    await pass_gate(request.scope)
    request.session["cart"] = {**cart, request.path_params["sku"]: 1}
    return PlainTextResponse("added")


async def _count(request: Request) -> Response:
    count = request.session.get("count", 0)
    await pass_gate(request.scope)
    request.session["count"] = count + 1
    return PlainTextResponse("counted")


async def _save(request: Request) -> Response:
    request.session["saved"] = True
    return RedirectResponse("/session", 303)


def log_in(request: Request) -> None:
    """Log in as who has no word for it."""
    request.session["user"] = USER


def _log_out(request: Request) -> None:
    request.session.clear()


def _user(request: Request) -> Any:
    return request.session.get("user")


def starlette_shop(
    middleware: list[Middleware],
    log_in: Act = log_in,
    log_out: Act = _log_out,
    user: Callable[[Request], Any] = _user,
    more: list[Route] | None = None,
) -> Starlette:
    """Return the shop behind this middleware."""

    async def session(request: Request) -> Response:
        seen = {"user": user(request), "data": {**request.session}}
        await pass_gate(request.scope)
        return JSONResponse(seen)

    def acting(act: Act) -> Callable[[Request], Awaitable[Response]]:
        async def page(request: Request) -> Response:
            act(request)
            return PlainTextResponse("done")

        return page

    routes = [
        Route("/health", _health),
        Route("/session", session),
        Route("/set/{key}", _set, methods=["POST"]),
        Route("/cart/{sku}", _cart, methods=["POST"]),
        Route("/count", _count, methods=["POST"]),
        Route("/save", _save, methods=["POST"]),
        Route("/login", acting(log_in), methods=["POST"]),
        Route("/logout", acting(log_out), methods=["POST"]),
        *(more or []),
    ]
    return Starlette(routes=routes, middleware=middleware)


# --- without any -----------------------------------------------------------------------------------------


class _Forgetful:
    """Gives every request an empty dict: what the app costs without sessions."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["session"] = {}
        await self._app(scope, receive, send)


@asynccontextmanager
async def open_forgetful(_addresses: Mapping[str, str]) -> AsyncIterator[Shop]:
    """Open the shop that forgets everything."""
    yield Shop(starlette_shop([Middleware(_Forgetful)]), secrets.token_hex, no_calls)


# --- Starlette's own -------------------------------------------------------------------------------------


@asynccontextmanager
async def open_cookies(_addresses: Mapping[str, str]) -> AsyncIterator[Shop]:
    """Open the shop with all data in a signed cookie."""
    middleware = Middleware(
        CookieSessions,
        secret_key=secrets.token_hex(32),
        session_cookie=COOKIE,
        max_age=IDLE_SECONDS,
        https_only=True,
    )

    def made_up() -> str:
        data = b64encode(b'{"user": "ada"}').decode()
        return f"{data}.{secrets.token_urlsafe(4)}.{secrets.token_urlsafe(20)}"

    yield Shop(starlette_shop([middleware]), made_up, no_calls)
