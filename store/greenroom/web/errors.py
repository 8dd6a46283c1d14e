"""Exceptions and messages of the web part alone; all others are in `greenroom.errors`."""

from greenroom.errors import GreenroomError, UnavailableError, UsageError

__all__ = [
    "CONTESTED",
    "CROWDED",
    "DROPPED",
    "SessionDataError",
    "SessionNotLoadedError",
    "SessionOverError",
    "degraded",
    "newer",
    "not_loaded",
    "not_passed_on",
    "over",
    "started",
]


DROPPED = (
    "a change to a session was dropped: while the request ran, the session was deleted or got a new id (a "
    "logout or login was faster), or both its replicas were lost"
)
"""Logged when a change is lost and nothing can be raised."""

CONTESTED = (
    "a request brought the cookies of live sessions of different users, so these sessions were ended and the "
    "request went on without a session: either another host of this domain plants cookies, which "
    "host_prefix=True prevents, or two apps on one host need a cookie_name each"
)
"""Logged when it is impossible to tell whose request it is."""


CROWDED = (
    "a request brought many cookies {} of the form that is made here: another host of this domain plants "
    "them, which host_prefix=True prevents, or they are made up. Up to 256 of them are verified and looked up"
)
"""Logged when a request costs more than usual to tell whose it is."""


class SessionNotLoadedError(UsageError):
    """A handler used the session before `await session.greenroom.load()`, with `autoload=False`."""


class SessionOverError(UsageError):
    """A session was changed after its request had ended, so the change could not be stored."""


class SessionDataError(GreenroomError):
    """The session's data does not fit the requested type. The session itself is unchanged."""


def not_loaded() -> SessionNotLoadedError:
    """Return the error for using a session that was not loaded."""
    return SessionNotLoadedError(
        "this session is not loaded: call `await session.greenroom.load()` first, or remove autoload=False"
    )


def degraded() -> UnavailableError:
    """Return the error for writing to a session that is empty because the store did not answer."""
    return UnavailableError(
        "the session store did not answer when this request began, so this session cannot be written: "
        'repeat the request, or use on_unavailable="closed" to answer 503 at once'
    )


def newer() -> UnavailableError:
    """Return the error for writing to a session that a later version has stored."""
    return UnavailableError(
        "this session was stored by a later version of greenroom, so this version can neither read nor "
        "overwrite it: finish the upgrade; only a login or logout ends it"
    )


def over() -> SessionOverError:
    """Return the error for changing a session after its request has ended."""
    return SessionOverError(
        "the request of this session has ended, so the change would not be stored: make it before the "
        "handler returns, or let the handler wait for the task that makes it"
    )


def not_passed_on(action: str) -> UsageError:
    """Return the error for needing a cookie when the server drops the headers of `websocket.accept`."""
    return UsageError(
        f"{action} needs a cookie, and this server (granian, daphne) drops cookies that are set when a "
        "WebSocket is accepted: do it in an earlier request, or use uvicorn, hypercorn or gunicorn"
    )


def started(action: str) -> UsageError:
    """Return the error for needing a cookie after the headers were sent."""
    return UsageError(
        f"{action} needs a cookie, but the response has started: do it before the response (before accept() "
        "of a WebSocket), not in a background task"
    )
