"""Changes to single paths of session data: dicts merge key by key, everything else is a whole value.

The facade turns a caller's mappings into encoded `Changes`; the store that holds the session applies them
with `patch_data`. That side does not decode the extensions of `greenroom.codec`, so a server needs no code of
the client's, and both replicas of a shard get the same bytes from the same bytes.

`patch_data` works in this order. It compares every expectation, with types (1, True and 1.0 differ; the order
of dict keys does not count). It unsets paths; absent ones are fine. It sets values in the given order. A dict
that is set over a dict merges with it at every depth; to replace a dict whole, unset its path in the same
patch. A scalar on the path is replaced by a dict. A path through a list is refused, because the list would be
lost with everything in it.

The work grows with the sizes of the data and of the patch, not with the number of paths: each is scanned and
decoded once (`greenroom.scan`), and the outcome is encoded once.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw

from greenroom.bases import plain_key
from greenroom.codec import INT_MAX, INT_MIN, encode_value
from greenroom.errors import UsageError
from greenroom.fields import ABSENT
from greenroom.scan.bounds import (
    DEPTH_MAX,
    HASHED_PER_CONTAINER_MAX,
    ITEMS_MAX,
    SMALL_BYTES,
    MalformedError,
    RefusedError,
    Tally,
    check_hashed,
    path_text,
)
from greenroom.scan.checks import check_data, open_data
from greenroom.scan.plain import check_numbers
from greenroom.wire import PATHS_MAX, Key, Path, PathValue

PathLike: TypeAlias = Key | tuple[Key, ...]
PathValues: TypeAlias = Mapping[Any, Any]
"""Values by `PathLike`. Said as Any, because type checkers would refuse a `dict[str, int]` where keys are a
union; what is no path raises UsageError."""

_MISSING: Any = object()
_encode = msgspec.msgpack.Encoder().encode

_CONTAINERS = frozenset({dict, list})
_KEYS = frozenset({str, int})

LIST_IN_PATH = "a list stands at "


class ListInPathError(ValueError):
    """A path runs through a list. The caller gets the text, which is the same on every replica."""


class UnexpectedValueError(ValueError):
    """An expectation failed. The text is its path, the same on every replica."""


class Changes(NamedTuple):
    """The encoded changes of a patch, as `patch_data` and `wire.Patch` take them."""

    set: tuple[PathValue, ...]
    unset: tuple[Path, ...]
    expect: tuple[PathValue, ...]


# --- the caller's side -----------------------------------------------------------------------------------


def encode_changes(
    set: PathValues | None = None,  # noqa: A002  the name that `patch` gives it
    unset: Iterable[PathLike] = (),
    expect: PathValues | None = None,
) -> Changes:
    """Return the changes, encoded.

    Raises UsageError for a bad path, more than 1,024 of them, or a value that cannot be stored.
    """
    if isinstance(unset, str | int | Mapping) or not isinstance(unset, Iterable):
        raise UsageError('unset is a list of paths, for example unset=["theme", ("cart", "sku-1")]')
    to_set = tuple(_encoded_items(set, "set"))
    to_unset = tuple(normalize_path(path) for path in unset)
    expected = tuple(_encoded_items(expect, "expect"))
    paths = len(to_set) + len(to_unset) + len(expected)
    if paths > PATHS_MAX:
        raise UsageError(
            f"a patch names at most {PATHS_MAX} paths in set, unset and expect together, this one {paths}; "
            "set dicts instead of what is in them, or use update"
        )
    _check_apart([path for path, _ in to_set])
    return Changes(to_set, to_unset, expected)


def normalize_path(path: PathLike) -> Path:
    """Return the tuple of keys: `"theme"` is `("theme",)`. Raises UsageError if it is no path."""
    keys = path if isinstance(path, tuple) else (path,)
    if not _KEYS.issuperset(map(type, keys)) or type(keys) is not tuple:
        keys = tuple(plain_key(key) for key in keys)  # type: ignore[misc]  # what is no key is refused below
    if not keys:
        raise UsageError("a path has at least one key; to replace all of a session's data, use update")
    if len(keys) > DEPTH_MAX:
        raise UsageError(f"a path has at most {DEPTH_MAX} keys, this one has {len(keys)}")
    for key in keys:
        kind = type(key)
        if kind is int:
            if not INT_MIN <= int(key) <= INT_MAX:
                raise UsageError("an int key must fit into 64 bits")
        elif kind is not str:
            raise UsageError(f"a path is a str, an int or a tuple of them; this one holds a {kind.__name__}")
        elif not str(key).isascii() and any("\ud800" <= character <= "\udfff" for character in str(key)):
            raise UsageError("a str key holds a lone surrogate, which UTF-8 cannot")
    return keys


def _check_apart(paths: list[Path]) -> None:
    """Refuse paths of which one lies below another: the outcome would depend on their order."""
    if len(paths) < 2:
        return
    known = {*paths}
    if len(known) < len(paths):
        raise UsageError('set names one path twice: a key and a tuple of that key alone, "a" and ("a",)')
    for path in paths:
        for length in range(1, len(path)):
            if path[:length] in known:
                raise UsageError(
                    f"set names {path_text(path[:length])} and, below it, {path_text(path)}: which of the "
                    "two holds? Put one into the value of the other, or name the paths below one by one"
                )


def _encoded_items(items: PathValues | None, name: str) -> Iterable[PathValue]:
    if items is None:
        return
    if not isinstance(items, Mapping):
        raise UsageError(f'{name} is a dict of paths and values, for example {name}={{"theme": "dark"}}')
    for path_like, value in items.items():
        path = normalize_path(path_like)
        if value is ABSENT:
            if name != "expect":
                raise UsageError("ABSENT stands only in expect; to remove a path, name it in unset")
            yield path, b""
        else:
            yield path, encode_value(value, path)


# --- the holder's side -----------------------------------------------------------------------------------


def patch_data(
    data: bytes,
    set: tuple[PathValue, ...] = (),  # noqa: A002  the name on the wire
    unset: tuple[Path, ...] = (),
    expect: tuple[PathValue, ...] = (),
    walked: Tally | None = None,
) -> bytes:
    """Return the session data after the changes.

    In `expect`, empty bytes demand that the path is absent. The outcome depends on the arguments alone.
    `walked.items` grows by the number of items read in Python, which is slow, even if this raises. Raises
    UnexpectedValueError if an expectation failed, ListInPathError if a path to set or unset runs through a
    list, MalformedError if a session may not hold the data, a value or the outcome, and another ValueError
    for a path of no key or more than 64.
    """
    for path in unset:
        _check_path(path)
    for path, _ in set:
        _check_path(path)
    for path, _ in expect:
        _check_path(path)
    root, new, old, by_code, int_keyed = open_data(data, set, expect, walked)
    for (path, encoded), wanted in zip(expect, old, strict=True):
        found = _lookup(root, _coded(path) if by_code else path)
        if (found is not _MISSING) if not encoded else (found is _MISSING or not _same(found, wanted)):
            raise UnexpectedValueError(path_text(path))
    for path in unset:
        _unset(root, path, _coded(path) if by_code else path)
    for (path, _), value in zip(set, new, strict=True):
        _put(root, path, _coded(path) if by_code else path, value)
    int_keyed = int_keyed or any(int in map(type, path) for path, _ in set)
    return _checked(root, walked, int_keyed=int_keyed, by_code=by_code)


def _coded(path: Path) -> tuple[Any, ...]:
    """Return the keys of a path as `open_data` shows them if it reads by code."""
    return tuple([key if type(key) is str else _encode(key) for key in path])


def _lookup(root: dict[Any, Any], keys: tuple[Any, ...]) -> Any:
    """Return the value at a path, or _MISSING."""
    node: Any = root
    for key in keys:
        if type(node) is not dict:
            return _MISSING
        node = node.get(key, _MISSING)
    return node


def _unset(root: dict[Any, Any], path: Path, keys: tuple[Any, ...]) -> None:
    node = root
    for depth, key in enumerate(keys[:-1], 1):
        inner = node.get(key)
        if type(inner) is not dict:
            _refuse_list(inner, path, depth)
            return
        node = inner
    node.pop(keys[-1], None)


def _put(root: dict[Any, Any], path: Path, keys: tuple[Any, ...], value: Any) -> None:
    node = root
    for depth, key in enumerate(keys[:-1], 1):
        inner = node.get(key)
        if type(inner) is not dict:
            _refuse_list(inner, path, depth)
            inner = node[key] = {}
        node = inner
    if type(value) is dict:
        _merge(node, keys[-1], value)
    else:
        node[keys[-1]] = value


def _refuse_list(value: Any, path: Path, depth: int) -> None:
    if type(value) is list:
        raise ListInPathError(
            f"{LIST_IN_PATH}{path_text(path[:depth])}, and the path {path_text(path)} runs through it; a "
            "list is one value: set it whole, or change it with modify"
        )


def _merge(node: dict[Any, Any], key: Any, value: dict[Any, Any]) -> None:
    """Set `node[key]`, merging dicts. Without recursion: values come from outside."""
    waiting = [(node, key, value)]
    while waiting:
        holder, name, new = waiting.pop()
        if type(new) is dict and type(old := holder.get(name)) is dict:
            waiting.extend((old, inner, new[inner]) for inner in reversed(new))
        else:
            holder[name] = new


def _same(left: Any, right: Any) -> bool:
    """Compare with types; a NaN equals itself. Takes time in proportion to the smaller of the two."""
    waiting = [([left], [right])]
    while waiting:
        lefts, rights = waiting.pop()
        kinds = list(map(type, lefts))
        if kinds != list(map(type, rights)):
            return False
        inner = _CONTAINERS.intersection(kinds)
        if not inner and lefts == rights:
            continue
        for left, right, kind in zip(lefts, rights, kinds, strict=True):
            if kind in inner:
                if len(left) != len(right):
                    return False
                if kind is list:
                    waiting.append((left, right))
                elif left.keys() != right.keys():
                    return False
                else:
                    waiting.append((list(left.values()), [right[key] for key in left]))
            elif left != right and (left == left or right == right):  # the latter: not both NaN
                return False
    return True


def _check_path(path: Path) -> None:
    if not 1 <= len(path) <= DEPTH_MAX:
        raise ValueError("a path has 1 to 64 keys")


def _checked(root: dict[Any, Any], walked: Tally | None, *, int_keyed: bool, by_code: bool) -> bytes:
    """Return the patched data, encoded. Raises MalformedError if no session may hold it.

    Every part was scanned, so the only possible fault is too much of something, and only if it is not small.
    """
    if int_keyed and by_code:
        data, items = _written(root)
    else:
        data, items = _encode(root), 0
        if not int_keyed:
            if len(data) > ITEMS_MAX:
                check_numbers(root, data)
        elif len(data) > SMALL_BYTES:
            items = check_data(data)
    if walked is not None:
        walked.items += items
    return data


def _written(root: dict[Any, Any]) -> tuple[bytes, int]:
    """Return the encoding of what has int keys as their encoding, and how many items it holds.

    Raises MalformedError for too many items, or int keys in one dict. It is no deeper than its parts were.
    """
    parts: list[bytes | Raw] = []
    items = 0
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if type(node) is Raw:
            parts.append(node)
        elif type(node) is dict:
            items = _more(items, node)
            if len(node) > HASHED_PER_CONTAINER_MAX:
                _check_hashed(node)
            parts.append(_head(len(node), 0x80, 0xDE))
            for key in reversed(node):
                waiting += (node[key], Raw(_encode(key) if type(key) is str else key))
        elif type(node) is list:
            items = _more(items, node)
            parts.append(_head(len(node), 0x90, 0xDC))
            waiting += reversed(node)
        else:
            parts.append(_encode(node))
    return b"".join(parts), items


def _check_hashed(node: dict[Any, Any]) -> None:
    try:
        check_hashed(sum([type(key) is bytes for key in node]))
    except RefusedError as error:
        raise MalformedError(str(error)) from None


def _more(items: int, node: dict[Any, Any] | list[Any]) -> int:
    items += len(node)
    if items > ITEMS_MAX:
        raise MalformedError(f"there are more than {ITEMS_MAX} items")
    return items


def _head(count: int, short: int, long: int) -> bytes:
    """Return the first bytes of a map or an array."""
    if count < 16:
        return bytes((short + count,))
    return bytes((long,)) + count.to_bytes(2, "big")  # there are never more than ITEMS_MAX
