"""The shop's pages for people: plain HTML with forms, no scripts, no styles, nothing from elsewhere.

Programs get JSON from the same addresses; clients that accept `text/html`, as browsers do, get these.
"""

import html
from collections.abc import Iterable, Mapping

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from greenroom.sessions import SessionInfo

SEE_OTHER = 303
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "vary": "Accept",
}
"""Of every page: kept by no cache, and nothing that a user wrote could be run in it."""

_NAVIGATION = (
    '<nav><a href="/">Catalogue</a> <a href="/cart">Cart</a> <a href="/devices">Your devices</a> '
    '<a href="/login">Log in</a></nav>'
)


def wanted(request: Request) -> bool:
    """Tell whether this is a browser, which is shown a page."""
    return "text/html" in request.headers.get("accept", "")


def redirect(path: str) -> Response:
    """Return the answer to a form: what it did is read from the store by the page that is shown next."""
    return RedirectResponse(path, SEE_OTHER, headers={"cache-control": "no-store", "vary": "Accept"})


def catalogue_page(catalogue: Mapping[str, str]) -> Response:
    """Show every article, with a button that puts it into the cart."""
    items = "".join(
        f"<li>{_text(name)} ({_text(sku)}) "
        + _form("/cart/add", "Add to the cart", sku=sku, quantity="1")
        + "</li>"
        for sku, name in sorted(catalogue.items())
    )
    return _page("Shop", f"<ul>{items}</ul>")


def login_page() -> Response:
    """Ask for the user's name. The demo's shop believes everyone."""
    return _page("Log in", _LOGIN_FORM)


def cart_page(
    catalogue: Mapping[str, str], user: str | None, cart: Mapping[str, int], note: object
) -> Response:
    """Show the cart and the note."""
    items = "".join(
        f'<li data-sku="{_text(sku)}"><span>{_text(catalogue.get(sku, sku))}: {_text(quantity)}</span> '
        + _form("/cart/remove", "Remove", sku=sku)
        + "</li>"
        for sku, quantity in sorted(cart.items())
    )
    word = "" if note is None else _text(note)
    note_form = (
        '<form method="post" action="/note"><label>A word for the delivery '
        f'<input name="text" value="{word}" maxlength="500" required></label> <button>Keep</button></form>'
    )
    who = "<p>Nobody is logged in.</p>" if user is None else f"<p>Logged in as <b>{_text(user)}</b>.</p>"
    leave = "" if user is None else _form("/logout", "Log out")
    return _page("Cart", f"{who}<ul>{items}</ul>{note_form}{leave}")


def devices_page(user: str, devices: Iterable[SessionInfo], this: str | None) -> Response:
    """Show where the user is logged in, with a button for each device that logs it out."""
    items = "".join(
        f"<li><span>{_text(device.label)}, since {device.created:%Y-%m-%d %H:%M} UTC"
        + (" (this device)" if device.handle == this else "")
        + "</span> "
        + _form("/devices/end", "Log out", handle=device.handle)
        + "</li>"
        for device in devices
    )
    return _page("Your devices", f"<p>Logged in as <b>{_text(user)}</b>.</p><ul>{items}</ul>")


def problem_page(status: int, message: str, headers: Mapping[str, str]) -> Response:
    """Describe the problem; a visitor without a session is asked to log in."""
    form = _LOGIN_FORM if status == 401 else ""
    return _page("Not so", f'<p role="alert">{_text(message)}</p>{form}', status, headers)


_LOGIN_FORM = (
    '<form method="post" action="/login"><label>Your name '
    '<input name="user" maxlength="64" required></label> <button>Log in</button></form>'
)


def _form(action: str, button: str, **fields: str) -> str:
    hidden = "".join(
        f'<input type="hidden" name="{_text(name)}" value="{_text(value)}">' for name, value in fields.items()
    )
    return f'<form method="post" action="{action}">{hidden}<button>{_text(button)}</button></form>'


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _page(title: str, body: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title>'
        f"{_NAVIGATION}<h1>{_text(title)}</h1>{body}</html>",
        status,
        {**HEADERS, **(headers or {})},
    )
