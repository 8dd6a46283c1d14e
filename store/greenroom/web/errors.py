"""What only the web part raises; everything else comes from `greenroom.errors`."""

from greenroom.errors import GreenroomError, UnavailableError, UsageError

__all__ = ["DROPPED", "SessionDataError", "SessionNotLoadedError", "degraded", "started"]


DROPPED = (
    "a change to a session was dropped: while the request ran, it was deleted or got a new id (a logout or "
    "login that was faster), or both its replicas were lost"
)
"""What is logged where nothing is raised."""


class SessionNotLoadedError(UsageError):
    """With `autoload=False`, a session was looked at before `await session.load()`."""


class SessionDataError(GreenroomError):
    """What the session holds does not fit the type asked for. The session itself is untouched and goes on."""


def not_loaded() -> SessionNotLoadedError:
    """Return the error of looking at a session that was not loaded."""
    return SessionNotLoadedError(
        "this session is not loaded: call `await session.load()` first, or leave out autoload=False"
    )


def degraded() -> UnavailableError:
    """Return the error of writing to a session that is anonymous only because the store did not answer."""
    return UnavailableError(
        "the session store did not answer when this request began, so nothing can be written to its session; "
        'repeat the request, or use on_unavailable="closed" to answer 503 at once'
    )


def started(action: str) -> UsageError:
    """Return the error of what needs a cookie when the headers are sent already."""
    return UsageError(
        f"{action} needs a cookie, and the response has started; do it before the response (before accept() "
        "of a WebSocket), and not in background tasks"
    )
