"""Clients that leave: what a handler raises then is no failure of its own, and what it wrote counts.

A handler that only sends learns of it from its server, which raises what it likes: a subclass of OSError
(uvicorn, gunicorn; ASGI 2.4), which frameworks pass on or turn into an exception of their own. One that reads
is told by a message, of which frameworks make exceptions too. Other servers say nothing and let it go on.
"""

from greenroom.web.shielding import only_cancelled

_NAMES = frozenset({"WebSocketDisconnect", "ClientDisconnect"})
"""What Starlette, FastAPI and Litestar call it. None of them is imported here."""


def is_departure(error: BaseException, sending: BaseException | None = None) -> bool:
    """Tell whether a handler ended only because its client left, or because it was cancelled.

    `sending` is what the server raised when it was last given a message, None if nothing.
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
