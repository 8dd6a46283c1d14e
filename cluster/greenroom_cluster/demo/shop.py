"""A small shop on Starlette that keeps its carts and logins in a Greenroom store, and nothing in itself.

Any number of worker processes may serve the same customers: all they share is the store's URL. What it shows:

- A customer who only looks costs nothing: the session is created with the first thing put into the cart.
- Login gives the session a new id (`rotate`), so that an id planted before is worthless, and the cart stays.
- Two requests of one browser at once both count: each changes one path of the session (`patch`), and a
  quantity, whose new value depends on the old one, is changed only if it still is what was read (`expect`).
- Logout deletes the session. Nothing that arrives late brings it back.
- An error of the store is told truthfully: 503 "unavailable" was not done and may be repeated, 503
  "outcome-unknown" may have been done.

The cookie is HttpOnly and SameSite=Lax. It is not Secure, because the demo speaks plain HTTP on loopback; a
real site sets `secure=True`.
"""

import contextlib
import html
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

import greenroom

COOKIE = "shop-session"
LIFETIME = timedelta(hours=2)
ABSOLUTE_LIFETIME = timedelta(hours=12)
LABEL_BYTES_MAX = 256
NOTE_CHARACTERS_MAX = 500
QUANTITY_MAX = 100_000
CART_ATTEMPTS_MAX = 50

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


def create_app(store: greenroom.BaseSessionStore) -> Starlette:
    """Return the shop over `store`, which it closes when the server stops."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with store:
            yield

    app = Starlette(
        routes=[
            Route("/", catalogue),
            Route("/login", login, methods=["POST"]),
            Route("/logout", logout, methods=["POST"]),
            Route("/cart", cart),
            Route("/cart/add", cart_add, methods=["POST"]),
            Route("/cart/remove", cart_remove, methods=["POST"]),
            Route("/note", note, methods=["POST"]),
            Route("/account", account),
        ],
        exception_handlers={
            RefusedError: _refused,
            greenroom.UsageError: _refused,
            greenroom.SessionNotFoundError: _no_session,
            greenroom.UnavailableError: _unavailable,
            greenroom.OutcomeUnknownError: _outcome_unknown,
        },
        lifespan=lifespan,
    )
    app.state.store = store
    return app


# --- pages -----------------------------------------------------------------------------------------------


async def catalogue(_request: Request) -> Response:
    """Show what there is to buy. Needs no session and makes none."""
    items = "".join(f"<li>{html.escape(name)} ({sku})</li>" for sku, name in CATALOGUE.items())
    return HTMLResponse(f"<!doctype html><title>Shop</title><h1>Shop</h1><ul>{items}</ul>")


async def login(request: Request) -> Response:
    """Log a user in. The cart filled before stays, the id does not."""
    user = _text(await _form(request), "user", characters_max=64)
    store, now = _store(request), datetime.now(UTC)
    old = request.cookies.get(COOKIE)
    session: greenroom.SessionData | None = None
    if old is not None:
        # A cookie that names no session (any more) is no obstacle to a login, and never becomes one.
        with contextlib.suppress(greenroom.SessionNotFoundError, greenroom.UsageError):
            session = await store.rotate(
                old, user_id=user, set={"login": now.isoformat()}, expires=now + LIFETIME
            )
    if session is None:
        session = await _created(request, user_id=user, data={"login": now.isoformat()})
    return _with_cookie(_shown(session), session.session_id)


async def logout(request: Request) -> Response:
    """End the session; without one there is nothing to end."""
    old = request.cookies.get(COOKIE)
    if old is not None:
        await _store(request).delete(old)
    response = JSONResponse({"ok": True})
    response.delete_cookie(COOKIE)
    return response


async def cart(request: Request) -> Response:
    """Show the cart and the note."""
    return _shown(await _session(request))


async def account(request: Request) -> Response:
    """Show who is logged in, and from where."""
    session = await _session(request)
    if session.user_id is None:
        raise greenroom.SessionNotFoundError("log in first")
    return JSONResponse(
        {
            "user": session.user_id,
            "label": session.label,
            "since": session.created.isoformat(),
            "until": session.expires.isoformat(),
        }
    )


async def cart_add(request: Request) -> Response:
    """Put more of an article into the cart; a first article makes a session."""
    form = await _form(request)
    sku, quantity = _sku(form), _quantity(form)
    session_id = request.cookies.get(COOKIE)
    if session_id is None:
        session = await _created(request, user_id=None, data={"cart": {sku: quantity}})
        return _with_cookie(_shown(session), session.session_id)
    return _shown(await _add(_store(request), session_id, sku, quantity))


async def cart_remove(request: Request) -> Response:
    """Take an article out of the cart."""
    sku = _sku(await _form(request))
    return _shown(await _store(request).patch(_session_id(request), unset=[("cart", sku)]))


async def note(request: Request) -> Response:
    """Keep a word for the delivery, beside the cart."""
    text = _text(await _form(request), "text", characters_max=NOTE_CHARACTERS_MAX)
    return _shown(await _store(request).patch(_session_id(request), set={"note": text}))


# --- sessions --------------------------------------------------------------------------------------------


def _store(request: Request) -> greenroom.BaseSessionStore:
    store: greenroom.BaseSessionStore = request.app.state.store
    return store


def _session_id(request: Request) -> str:
    session_id = request.cookies.get(COOKIE)
    if session_id is None:
        raise greenroom.SessionNotFoundError("this browser has no session: put something into the cart first")
    return session_id


async def _session(request: Request) -> greenroom.SessionData:
    session = await _store(request).get(_session_id(request))
    if session is None:
        raise greenroom.SessionNotFoundError("there is no such session (any more)")
    return session


async def _created(request: Request, *, user_id: str | None, data: dict[str, Any]) -> greenroom.SessionData:
    now = datetime.now(UTC)
    session = greenroom.SessionData(
        session_id=greenroom.new_session_id(),
        user_id=user_id,
        expires=now + LIFETIME,
        absolute_expires=now + ABSOLUTE_LIFETIME,
        label=_label(request.headers.get("user-agent", "")),
        data=data,
    )
    await _store(request).create(session)
    return session


async def _add(
    store: greenroom.BaseSessionStore, session_id: str, sku: str, quantity: int
) -> greenroom.SessionData:
    """Add to one quantity, whatever other requests of the same browser do meanwhile.

    Only a change of this very article makes it read again; changes of others merge.
    """
    path = ("cart", sku)
    for _ in range(CART_ATTEMPTS_MAX):
        session = await store.get(session_id)
        if session is None:
            break
        held = session.data.get("cart", {}).get(sku)
        with contextlib.suppress(greenroom.VersionConflictError):
            return await store.patch(
                session_id,
                set={path: min((held or 0) + quantity, QUANTITY_MAX)},
                expect={path: greenroom.ABSENT if held is None else held},
            )
    else:
        raise greenroom.UnavailableError(f"{sku} was changed by other requests all the time: repeat this one")
    raise greenroom.SessionNotFoundError("there is no such session (any more)")


# --- requests and responses ------------------------------------------------------------------------------


async def _form(request: Request) -> Mapping[str, Any]:
    return await request.form()


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


def _label(user_agent: str) -> str:
    return user_agent.encode()[:LABEL_BYTES_MAX].decode(errors="ignore")


def _shown(session: greenroom.SessionData) -> JSONResponse:
    return JSONResponse(
        {
            "user": session.user_id,
            "cart": session.data.get("cart", {}),
            "note": session.data.get("note"),
        },
        headers={"cache-control": "no-store"},
    )


def _with_cookie(response: JSONResponse, session_id: str) -> JSONResponse:
    response.set_cookie(COOKIE, session_id, httponly=True, samesite="lax", secure=False, path="/")
    return response


def _problem(status: int, error: str, message: str, **headers: str) -> JSONResponse:
    return JSONResponse({"error": error, "message": message}, status_code=status, headers=headers)


async def _refused(_request: Request, error: Exception) -> Response:
    return _problem(400, "refused", str(error))


async def _no_session(_request: Request, _error: Exception) -> Response:
    return _problem(401, "no-session", "log in, or put something into the cart")


async def _unavailable(_request: Request, _error: Exception) -> Response:
    headers = {"retry-after": "1"}
    return _problem(503, "unavailable", "this was not done: please try again in a moment", **headers)


async def _outcome_unknown(_request: Request, _error: Exception) -> Response:
    headers = {"retry-after": "1"}
    return _problem(
        503, "outcome-unknown", "this may have been done: please look before trying again", **headers
    )
