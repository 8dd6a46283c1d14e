"""Paths that get no session."""

from collections.abc import Callable, Iterable, MutableMapping
from functools import partial
from inspect import iscoroutine
from typing import Any, TypeAlias

from greenroom.errors import UsageError

Skip: TypeAlias = Iterable[str] | Callable[[MutableMapping[str, Any]], bool]


def skipping(skip: Skip) -> Callable[[MutableMapping[str, Any]], bool]:
    """Return a function that says whether a scope gets no session.

    Each path covers itself and everything below it, as the app around the middleware sees it: without the
    `root_path` of a server, a proxy or a mount.
    """
    if callable(skip):
        return partial(_by_rule, skip)
    paths = [*skip]
    if not paths:
        return _nothing
    paths = [path.rstrip("/") or "/" for path in paths]
    beginnings = tuple(f"{path}/" for path in paths if path != "/")
    exact = frozenset(paths)

    def skips(scope: MutableMapping[str, Any]) -> bool:
        path = path_within(scope)
        return path in exact or path.startswith(beginnings)

    return skips


def _nothing(_scope: MutableMapping[str, Any]) -> bool:
    return False


def _by_rule(rule: Callable[[MutableMapping[str, Any]], object], scope: MutableMapping[str, Any]) -> bool:
    found = rule(scope)
    if iscoroutine(found):  # which would count as true for every path
        found.close()
        raise UsageError("skip is a plain function of the scope, not an async one")
    return bool(found)


def path_within(scope: MutableMapping[str, Any]) -> str:
    """Return the path of a request as the app or mount sees it, "/" at its root.

    Under ASGI `path` begins with `root_path`. If it does not (a proxy has cut it off, and the app was told
    so), `path` is the result already.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"}:
        return path[len(root) :] or "/"
    return path
