"""The options of Starlette's middleware in the terms of `Session`."""

from typing import Any

from greenroom.errors import UsageError

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
    return options
