"""What only the web part raises; everything else comes from `greenroom.errors`."""

from greenroom.errors import GreenroomError, UnavailableError, UsageError

__all__ = [
    "CONTESTED",
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
    "a change to a session was dropped: while the request ran, it was deleted or got a new id (a logout or "
    "login that was faster), or both its replicas were lost"
)
"""What is logged where nothing is raised."""

CONTESTED = (
    "a request brought the cookies of live sessions of different users, so it went on without a session and "
    "these sessions were ended: either another host of this domain plants cookies, which host_prefix=True "
    "prevents, or two apps on one host need a cookie_name each"
)
"""What is logged where it cannot be told whose request it is."""


class SessionNotLoadedError(UsageError):
    """With `autoload=False`, a session was looked at before `await session.greenroom.load()`."""


class SessionOverError(UsageError):
    """A session was changed when its request had ended, so the change could not be stored."""


class SessionDataError(GreenroomError):
    """What the session holds does not fit the type asked for. The session itself is untouched and goes on."""


def not_loaded() -> SessionNotLoadedError:
    """Return the error of looking at a session that was not loaded."""
    return SessionNotLoadedError(
        "this session is not loaded: call `await session.greenroom.load()` first, or leave out autoload=False"
    )


def degraded() -> UnavailableError:
    """Return the error of writing to a session that is anonymous only because the store did not answer."""
    return UnavailableError(
        "the session store did not answer when this request began, so nothing can be written to its session; "
        'repeat the request, or use on_unavailable="closed" to answer 503 at once'
    )


def newer() -> UnavailableError:
    """Return the error of writing to a session that a later version has stored."""
    return UnavailableError(
        "this session was stored by a later version of greenroom, so it can be neither read nor overwritten "
        "here: finish the upgrade; only a login or logout ends it"
    )


def over() -> SessionOverError:
    """Return the error of changing a session whose request has ended."""
    return SessionOverError(
        "the request of this session has ended, so a change to it would not be stored: make it before the "
        "handler returns, or have the handler wait for the task that makes it"
    )


def not_passed_on(action: str) -> UsageError:
    """Return the error of what needs a cookie where the server drops the headers of `websocket.accept`."""
    return UsageError(
        f"{action} needs a cookie, and this server (granian, daphne) does not pass on those that are set "
        "when a WebSocket is accepted: do it in a request before, or use uvicorn, hypercorn or gunicorn"
    )


def started(action: str) -> UsageError:
    """Return the error of what needs a cookie when the headers are sent already."""
    return UsageError(
        f"{action} needs a cookie, and the response has started; do it before the response (before accept() "
        "of a WebSocket), and not in background tasks"
    )
