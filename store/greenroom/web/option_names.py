"""The options of Starlette's middleware in the terms of `Session`."""

from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from greenroom.errors import UsageError
from greenroom.options import SESSION

P = ParamSpec("P")

SESSION_NAMES = frozenset(name for name, _ in SESSION)
_MIDDLEWARE = frozenset({"session", "skip", "autoload", "max_age", "session_cookie", "https_only"})
_MEANT = {
    "secret_key": "secret",
    "session_cookie": "cookie_name",
    "max_age": "idle_seconds, with persistent=True",
    "https_only": "secure",
    "sessions": "session",
}
_REMOVED = {
    "retry_after_seconds": "a 503 asks for 1 s, or 60 s if the store is full; for more, set Retry-After in a "
    "middleware around this one",
    "extension_threshold_seconds": "leave it out; for an end at a fixed time set absolute_seconds",
}
_OURS = {"secret_key": "secret", "session_cookie": "cookie_name", "https_only": "secure"}


def session_options(starlette: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return the options of `Session` for those of Starlette's middleware and for its own.

    Starlette's `max_age` means the lifetime and a cookie that outlives the browser; None: a cookie that does
    not. Raises UsageError for an option that is passed under both its names.
    """
    options = dict(more)
    for name, value in starlette.items():
        if name == "max_age":
            own = {"persistent": value is not None} | ({} if value is None else {"idle_seconds": value})
        else:
            own = {_OURS.get(name, name): value}
        for each in own.keys() & more.keys():
            raise UsageError(f"{name} and {each} are one option; give one of them")
        options |= own
    for name in options:
        if name not in SESSION_NAMES:
            raise unknown_option("SessionMiddleware", name)
    return options


def by_name(init: Callable[Concatenate[Any, P], None]) -> Callable[Concatenate[Any, P], None]:
    """Have `Session.__init__` refuse other options than its own as all that makes no sense is refused."""

    @wraps(init)
    def checked(self: Any, *arguments: P.args, **options: P.kwargs) -> None:
        if arguments:
            raise UsageError("Session takes its options by name: secret=..., store=...")
        for name in options:
            if name not in SESSION_NAMES:
                raise unknown_option("Session", name)
        init(self, *arguments, **options)

    return checked  # type: ignore[return-value]  # its self has a name


def unknown_option(taker: str, name: str) -> UsageError:
    """Return the error for an option that is none, with the one that may be meant."""
    names = SESSION_NAMES if taker == "Session" else SESSION_NAMES | _MIDDLEWARE
    if name in _REMOVED:
        return UsageError(f"{taker} has no option {name} any longer: {_REMOVED[name]}")
    meant = _MEANT.get(name) or next(iter(get_close_matches(name, names, 1)), None)
    hint = "" if meant is None else f"; did you mean {meant}?"
    return UsageError(f"{taker} has no option {name}{hint}")
