"""Handlers that stories of the middleware put into their apps."""

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from tests.store.web.web_stage import session_of


async def plain(_request: Request) -> Response:
    return PlainTextResponse("no session here")


async def show(request: Request) -> Response:
    return JSONResponse(request.session)


async def who(request: Request) -> Response:
    return JSONResponse(session_of(request).greenroom.user_id)


async def add(request: Request) -> Response:
    """Change a list inside a dict: nothing that a dict of its own could notice."""
    request.session.setdefault("cart", {}).setdefault("items", []).append("mug")
    return RedirectResponse("/show", 303)


async def login(request: Request) -> Response:
    session_of(request).greenroom.login(
        request.query_params.get("user", "alice"), {"since": "now"}, keep=True
    )
    return RedirectResponse("/who", 303)


async def logout(request: Request) -> Response:
    session_of(request).greenroom.logout()
    return PlainTextResponse("bye")


async def regenerate(request: Request) -> Response:
    session_of(request).greenroom.regenerate()
    return PlainTextResponse("new")


async def fail(request: Request) -> Response:
    request.session["half"] = "done"
    session_of(request).greenroom.login("mallory")
    raise RuntimeError("the handler failed")


HANDLERS = (plain, show, who, add, login, logout, regenerate, fail)
