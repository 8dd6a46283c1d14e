"""Clients that leave: an exception that follows is no failure of the handler, and its changes are saved.

A handler that only sends learns of the departure when sending raises: a subclass of OSError (uvicorn,
gunicorn; ASGI 2.4), which frameworks pass on or replace by their own exception. A handler that reads gets a
message, which frameworks also turn into an exception. Other servers say nothing and let the handler go on.
"""

from greenroom.web.shielding import only_cancelled

_NAMES = frozenset({"WebSocketDisconnect", "ClientDisconnect"})
"""The names of such exceptions in Starlette, FastAPI and Litestar, none of which is imported here."""


def is_departure(error: BaseException, sending: BaseException | None = None) -> bool:
    """Return whether a handler ended only because its client left, or because it was cancelled.

    `sending` is the exception that the server raised for the last message sent, if any.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_departure(each, sending) for each in error.exceptions)
    cause: BaseException | None = error
    while cause is not None:
        if cause is sending or only_cancelled(cause):
            return True
        if any(kind.__name__ in _NAMES for kind in type(cause).__mro__):
            return True
        cause = cause.__cause__
    return False
