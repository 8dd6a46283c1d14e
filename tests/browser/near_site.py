"""A site with one page for who is logged in, whose workers keep sessions in their near caches."""

import os
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from greenroom import ClusterStore, store_from_url
from greenroom.web import Session, SessionMiddleware

WORKER = "x-worker"
"""The header in which each answer names the process that gave it."""
COOKIE = "near-site"
SHOWN = "For ann alone"
NOBODY = "Nobody is logged in"
_FORM = (
    '<!doctype html><title>Near</title><p>{}</p><form method="post" action="{}"><button>{}</button></form>'
)

STORE = store_from_url(os.environ.get("GREENROOM_TEST_STORE", "memory://"))
SESSIONS = Session(store=STORE, secret="a secret for tests only, long enough", dev=True, cookie_name=COOKIE)


async def page(request: Request) -> Response:
    """The page."""
    if request.session.greenroom.user_id is None:  # type: ignore[attr-defined]  # it is a session of Greenroom
        return HTMLResponse(_FORM.format(NOBODY, "/login", "Log in"), 401)
    return HTMLResponse(_FORM.format(SHOWN, "/logout", "Log out"))


async def login(request: Request) -> Response:
    """Log ann in."""
    session: Any = request.session
    session.greenroom.login("ann")
    return RedirectResponse("/page", 303)


async def logout(request: Request) -> Response:
    """Log out. What comes after the page of that is for the browser to ask."""
    session: Any = request.session
    session.greenroom.logout()
    return HTMLResponse("<!doctype html><p>Logged out</p>")


async def counts(request: Request) -> Response:
    """What the near cache of this worker has done."""
    assert isinstance(STORE, ClusterStore)
    return JSONResponse(msgspec.to_builtins(STORE.near()))


class Named:
    """Names the worker in each answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def named(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (WORKER.encode(), str(os.getpid()).encode())]
            await send(message)

        await self._app(scope, receive, named)


_pages: Any = Starlette(
    routes=[
        Route("/page", page),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/counts", counts),
    ]
)
_pages.add_middleware(SessionMiddleware, session=SESSIONS)
app = Named(_pages)
