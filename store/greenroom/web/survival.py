"""What survives of an anonymous session when its visitor logs in. Pure.

Someone else may have filled it: on a shared computer, or by planting its cookie. So nothing survives unless
the app names it. What the request of the login has set itself is its own, and stays.
"""

from collections.abc import Collection
from typing import Any, TypeAlias

from greenroom.codec import encode_value
from greenroom.web.difference import Difference
from greenroom.wire import Key, Path

Keep: TypeAlias = bool | Collection[Key]
"""True for everything, False for nothing, or the keys that survive."""
Kept: TypeAlias = frozenset[Key] | None
"""The keys that survive; None for everything."""


def kept_by(keep: bool | frozenset[Key]) -> Kept:  # noqa: FBT001  a value that was checked
    """Return the keys that survive."""
    return None if keep is True else frozenset() if keep is False else keep


def after_login(contents: dict[Any, Any], loaded: dict[Any, Any], kept: Kept) -> dict[Any, Any]:
    """Return what a login leaves of contents: what is kept, and what this request has set or changed."""
    if kept is None:
        return contents
    return {
        key: value for key, value in contents.items() if key in kept or not _is_as_loaded(loaded, key, value)
    }


def _is_as_loaded(loaded: dict[Any, Any], key: Any, value: Any) -> bool:
    return key in loaded and type(loaded[key]) is type(value) and bool(loaded[key] == value)


def leftovers(data: dict[Any, Any], wanted: dict[Any, Any], kept: frozenset[Key]) -> Difference:
    """Return the changes that remove from stored data what is neither kept nor wanted.

    Other requests may have written it under the old id while this one ran. Dicts are replaced, not merged.
    """
    changed: dict[Path, Any] = {}
    gone: list[Path] = []
    for key in data.keys() - kept:
        if key not in wanted:
            gone.append((key,))
        elif encode_value(data[key]) != encode_value(wanted[key]):
            gone.append((key,))
            changed[(key,)] = wanted[key]
    return Difference(changed, tuple(gone))
