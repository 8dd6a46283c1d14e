"""Servers that drop the headers of `websocket.accept`, and with them every cookie.

A login there would change the session's id, and the browser would go on with the dead one: silently logged
out. ASGI has these headers since version 2.1 of its specification for HTTP and WebSocket; a server that names
no version speaks 2.0 (daphne 4.2.3). granian 2.8.9 says 2.3 and drops them.
"""

from collections.abc import Mapping
from typing import Any

_HEADERS_SINCE = (2, 1)
_PATHSEND = "http.response.pathsend"
"""An extension for HTTP, which granian alone names in the scope of a WebSocket too."""


def drops_headers_of_accept(scope: Mapping[str, Any]) -> bool:
    """Return whether the server of a WebSocket is known to drop the headers of its acceptance."""
    if scope["type"] != "websocket":
        return False
    if _PATHSEND in (scope.get("extensions") or {}):
        return True
    # A scope without the field was made by a test, not by a server.
    asgi = scope.get("asgi") or {}
    return "version" in asgi and _parts(asgi.get("spec_version") or "2.0") < _HEADERS_SINCE


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
