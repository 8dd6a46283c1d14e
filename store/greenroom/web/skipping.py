"""Paths that get no session."""

from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

Skip: TypeAlias = Iterable[str] | Callable[[MutableMapping[str, Any]], bool]


def skipping(skip: Skip) -> Callable[[MutableMapping[str, Any]], bool]:
    """Return a function that tells of a scope whether it gets no session.

    Each path stands for itself and all below it.
    """
    if callable(skip):
        return skip
    paths = [path.rstrip("/") or "/" for path in skip]
    beginnings = tuple(f"{path}/" for path in paths if path != "/")
    exact = frozenset(paths)

    def skips(scope: MutableMapping[str, Any]) -> bool:
        path = scope["path"]
        return path in exact or path.startswith(beginnings)

    return skips
