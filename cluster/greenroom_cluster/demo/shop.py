"""A small shop on Starlette that keeps its carts and logins in Greenroom sessions, and nothing in itself.

Any number of worker processes may serve the same customers: all they share is the store's URL and the secret
that signs the cookies. What it shows:

- A customer who only looks costs nothing: the session is created with the first thing put into the cart.
- Login gives the session a new id, so that an id planted before is worthless, and the cart stays.
- Two requests of one browser at once both count: only what changed is written, and a quantity, whose new
  value depends on the old one, is changed by `modify`.
- Logout deletes the session. Nothing that arrives late brings it back.
- A user sees where else they are logged in, and logs another device out: at once, wherever it is served.
- An error of the store is told truthfully: 503 "unavailable" was not done and may be repeated, 503
  "outcome-unknown" may have been done. That is why handlers here load and save in so many words; most apps
  leave both to the middleware.

Programs are answered in JSON, browsers with the pages of `pages`. The cookie is not Secure (`dev=True`),
because the demo speaks plain HTTP on loopback.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import greenroom
from greenroom.web import RequestSession, Session, SessionMiddleware
from greenroom_cluster.demo import pages

COOKIE = "shop-session"
IDLE_SECONDS = 2 * 3600
ABSOLUTE_SECONDS = 12 * 3600
NOTE_CHARACTERS_MAX = 500
HANDLE_CHARACTERS_MAX = 200
QUANTITY_MAX = 100_000

CATALOGUE = {
    "apron": "Linen apron",
    "bowl": "Stoneware bowl",
    "candle": "Beeswax candle",
    "kettle": "Copper kettle",
    "ladle": "Olive wood ladle",
    "lamp": "Reading lamp",
    "mug": "Enamel mug",
    "pan": "Iron pan",
    "plate": "Dinner plate",
    "rug": "Wool rug",
    "teapot": "Clay teapot",
    "towel": "Waffle towel",
}


class RefusedError(Exception):
    """The request itself is wrong; the text says how."""


class NoSessionError(Exception):
    """This browser has no session (any more)."""


def create_app(store: greenroom.BaseSessionStore | str, secret: str) -> Starlette:
    """Return the shop over a store or its URL; from a URL, the store is closed when the server stops."""
    sessions = Session(
        secret=secret,
        store=store,
        dev=True,
        cookie_name=COOKIE,
        idle_seconds=IDLE_SECONDS,
        absolute_seconds=ABSOLUTE_SECONDS,
    )
    app = Starlette(
        routes=[
            Route("/", catalogue),
            Route("/login", login_form),
            Route("/login", login, methods=["POST"]),
            Route("/logout", logout, methods=["POST"]),
            Route("/cart", cart),
            Route("/cart/add", cart_add, methods=["POST"]),
            Route("/cart/remove", cart_remove, methods=["POST"]),
            Route("/note", note, methods=["POST"]),
            Route("/account", account),
            Route("/devices", devices),
            Route("/devices/end", devices_end, methods=["POST"]),
        ],
        exception_handlers={
            RefusedError: _refused,
            greenroom.UsageError: _refused,
            NoSessionError: _no_session,
            greenroom.UnavailableError: _unavailable,
            greenroom.VersionConflictError: _unavailable,
            greenroom.OutcomeUnknownError: _outcome_unknown,
        },
    )
    middleware: Any = SessionMiddleware  # its options are too many for Starlette's types
    app.add_middleware(middleware, session=sessions, autoload=False)
    return app


# --- pages -----------------------------------------------------------------------------------------------


async def catalogue(_request: Request) -> Response:
    """Show what there is to buy. Needs no session and makes none."""
    return pages.catalogue_page(CATALOGUE)


async def login_form(_request: Request) -> Response:
    """Ask who it is. Needs no session and makes none."""
    return pages.login_page()


async def login(request: Request) -> Response:
    """Log a user in. The cart filled before stays, the id does not."""
    user = _text(await _form(request), "user", characters_max=64)
    session = await _loaded(request)
    session.greenroom.login(user, {"login": datetime.now(UTC).isoformat()}, keep=("cart", "note"))
    await session.greenroom.save()
    return _done(request, session)


async def logout(request: Request) -> Response:
    """End the session; without one there is nothing to end."""
    session = await _loaded(request)
    session.greenroom.logout()
    await session.greenroom.save()
    return pages.redirect("/login") if pages.wanted(request) else JSONResponse({"ok": True})


async def cart(request: Request) -> Response:
    """Show the cart and the note."""
    session = await _session(request)
    if pages.wanted(request):
        return pages.cart_page(
            CATALOGUE, session.greenroom.user_id, session.get("cart", {}), session.get("note")
        )
    return _shown(session)


async def account(request: Request) -> Response:
    """Show who is logged in, and from where."""
    session, _user = await _login(request)
    [device] = [each for each in await session.greenroom.devices() if each.handle == session.greenroom.handle]
    return JSONResponse(
        {
            "user": session.greenroom.user_id,
            "label": device.label,
            "since": device.created.isoformat(),
            "until": device.expires.isoformat(),
        }
    )


async def devices(request: Request) -> Response:
    """Show where else this user is logged in."""
    session, user = await _login(request)
    found = await session.greenroom.devices()
    if pages.wanted(request):
        return pages.devices_page(user, found, session.greenroom.handle)
    listed = [
        {"handle": each.handle, "label": each.label, "this": each.handle == session.greenroom.handle}
        for each in found
    ]
    return JSONResponse({"user": user, "devices": listed}, headers={"cache-control": "no-store"})


async def devices_end(request: Request) -> Response:
    """Log one of this user's devices out; when this is answered, it is out."""
    handle = _text(await _form(request), "handle", characters_max=HANDLE_CHARACTERS_MAX)
    session, _user = await _login(request)
    here = handle == session.greenroom.handle
    await session.greenroom.end_device(handle)
    await session.greenroom.save()
    if pages.wanted(request):
        return pages.redirect("/login" if here else "/devices")
    return JSONResponse({"ok": True})


async def cart_add(request: Request) -> Response:
    """Put more of an article into the cart; a first article makes a session.

    Requests of the same browser at once all count: each adds to what is really stored.
    """
    form = await _form(request)
    sku, quantity = _sku(form), _quantity(form)
    session = await (_session(request) if COOKIE in request.cookies else _loaded(request))

    def add(data: dict[Any, Any]) -> None:
        cart = data.setdefault("cart", {})
        cart[sku] = min(cart.get(sku, 0) + quantity, QUANTITY_MAX)

    return _done(request, _confirmed(session, saved=await session.greenroom.modify(add)))


async def cart_remove(request: Request) -> Response:
    """Take an article out of the cart."""
    sku = _sku(await _form(request))
    session = await _session(request)
    session.get("cart", {}).pop(sku, None)
    return _done(request, _confirmed(session, saved=await session.greenroom.save()))


async def note(request: Request) -> Response:
    """Keep a word for the delivery, beside the cart."""
    text = _text(await _form(request), "text", characters_max=NOTE_CHARACTERS_MAX)
    session = await _session(request)
    session["note"] = text
    return _done(request, _confirmed(session, saved=await session.greenroom.save()))


# --- sessions --------------------------------------------------------------------------------------------


async def _loaded(request: Request) -> RequestSession:
    """Return the session of this browser, which may be none yet."""
    session: RequestSession = request.scope["session"]
    await session.greenroom.load()
    return session


async def _session(request: Request) -> RequestSession:
    """Return the session of this browser, which there must be."""
    session = await _loaded(request)
    if not session.greenroom.stored:
        raise NoSessionError
    return session


async def _login(request: Request) -> tuple[RequestSession, str]:
    """Return the session of this browser and who is logged in there, as somebody must be."""
    session = await _session(request)
    if session.greenroom.user_id is None:
        raise NoSessionError
    return session, session.greenroom.user_id


def _confirmed(session: RequestSession, *, saved: bool) -> RequestSession:
    """Return the session unless it ended while this request ran, so that its change was dropped."""
    if not saved:
        raise NoSessionError
    return session


# --- requests and responses ------------------------------------------------------------------------------


async def _form(request: Request) -> Mapping[str, Any]:
    try:
        return await request.form()
    except ClientDisconnect:
        # Nobody reads the answer; without one the server would log a traceback.
        raise RefusedError("the request ended before its form had arrived") from None


def _text(form: Mapping[str, Any], field: str, *, characters_max: int) -> str:
    value = form.get(field)
    if not isinstance(value, str) or not 0 < len(value.strip()) <= characters_max:
        raise RefusedError(f"the form needs a field {field!r} of 1 to {characters_max} characters")
    return value.strip()


def _sku(form: Mapping[str, Any]) -> str:
    sku = form.get("sku")
    if not isinstance(sku, str) or sku not in CATALOGUE:
        raise RefusedError("the form needs a field 'sku' that names an article of the catalogue")
    return sku


def _quantity(form: Mapping[str, Any]) -> int:
    text = form.get("quantity", "1")
    if not isinstance(text, str) or not (text.isascii() and text.isdigit() and 0 < int(text) <= 1000):
        raise RefusedError("the field 'quantity' is a number from 1 to 1000")
    return int(text)


def _done(request: Request, session: RequestSession) -> Response:
    return pages.redirect("/cart") if pages.wanted(request) else _shown(session)


def _shown(session: RequestSession) -> JSONResponse:
    return JSONResponse(
        {"user": session.greenroom.user_id, "cart": session.get("cart", {}), "note": session.get("note")},
        headers={"cache-control": "no-store"},
    )


def _problem(request: Request, status: int, error: str, message: str, **headers: str) -> Response:
    if pages.wanted(request):
        return pages.problem_page(status, message, headers)
    return JSONResponse({"error": error, "message": message}, status_code=status, headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    return _problem(request, 400, "refused", str(error))


async def _no_session(request: Request, _error: Exception) -> Response:
    return _problem(request, 401, "no-session", "log in, or put something into the cart")


async def _unavailable(request: Request, _error: Exception) -> Response:
    headers = {"retry-after": "1"}
    return _problem(request, 503, "unavailable", "this was not done: please try again in a moment", **headers)


async def _outcome_unknown(request: Request, _error: Exception) -> Response:
    headers = {"retry-after": "1"}
    return _problem(
        request,
        503,
        "outcome-unknown",
        "this may have been done: please look before trying again",
        **headers,
    )
