"""Changes to single paths of session data: dicts merge key by key, everything else is a whole value.

The facade turns a caller's mappings into encoded `Changes`; whoever holds the session applies them with
`patch_data`. That side knows nothing of the types in `greenroom.codec`: extensions stay closed, so the server
needs no code of the client's, and both replicas of a shard get the same bytes from the same bytes.

Rules of `patch_data`, in this order: every expectation is compared, with types (1, True and 1.0 differ; the
order of dict keys does not count); then paths are unset, absent ones being fine; then values are set, in the
order given. Setting a dict where a dict stands merges the two at every depth; to replace a dict whole, unset
its path in the same patch. Setting through a scalar replaces that by a dict; setting or unsetting through a
list is refused, because the list would be lost with all it holds.

Only what lies on a path is decoded, where that is safe: the rest of the session is copied as the bytes that
it is. It is safe if nothing can be nested so deep that decoding, which recurses, fails above one stack and
not above another: the replicas of a shard must decide alike. How many bytes may begin a container tells.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw

from greenroom.codec import DEPTH_MAX, INT_MAX, INT_MIN, encode_value
from greenroom.errors import UsageError
from greenroom.fields import ABSENT
from greenroom.wire import Key, Path, PathValue

PathLike: TypeAlias = Key | tuple[Key, ...]
PathValues: TypeAlias = Mapping[Any, Any]
"""Values by `PathLike`. Said as Any, because type checkers would refuse a `dict[str, int]` where keys are a
union; what is no path raises UsageError."""

_MISSING: Any = object()
_CONTAINERS = (dict, list)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()
_level_decoder = msgspec.msgpack.Decoder(dict[Key, Raw])
_INVALID = (msgspec.MsgspecError, ValueError, TypeError, ArithmeticError, RecursionError)

# The first bytes of msgpack's maps and arrays, and all others.
_CONTAINER_STARTS = frozenset((*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF))
_OTHER_BYTES = bytes(byte for byte in range(256) if byte not in _CONTAINER_STARTS)
# Half of the interpreter's usual recursion limit.
_NESTED_MAX = 512
# Counting costs a third of a nanosecond a byte: of a long text more than to decode it.
_COUNTED_BYTES_MAX = 16_384

LIST_IN_PATH = "a list stands at "
_TEXT_MAX = 200


class ListInPathError(ValueError):
    """A path runs through a list. The text is the same on every replica, and what the caller is told."""


class Changes(NamedTuple):
    """What a patch says, encoded, as `patch_data` and `wire.Patch` take it."""

    set: tuple[PathValue, ...]
    unset: tuple[Path, ...]
    expect: tuple[PathValue, ...]


# --- the caller's side -----------------------------------------------------------------------------------


def encode_changes(
    set: PathValues | None = None,  # noqa: A002  the name that `patch` gives it
    unset: Iterable[PathLike] = (),
    expect: PathValues | None = None,
) -> Changes:
    """Return the changes, encoded. Raises UsageError for a bad path or a value that cannot be stored."""
    if isinstance(unset, str | int | Mapping) or not isinstance(unset, Iterable):
        raise UsageError('unset is a list of paths, for example unset=["theme", ("cart", "sku-1")]')
    to_set = tuple(_encoded_items(set, "set"))
    _check_apart([path for path, _ in to_set])
    return Changes(
        set=to_set,
        unset=tuple(normalize_path(path) for path in unset),
        expect=tuple(_encoded_items(expect, "expect")),
    )


def normalize_path(path: PathLike) -> Path:
    """Return the tuple of keys: `"theme"` is `("theme",)`. Raises UsageError if it is no path."""
    keys = path if isinstance(path, tuple) else (path,)
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
        elif any("\ud800" <= character <= "\udfff" for character in str(key)):
            raise UsageError("a str key holds a lone surrogate, which UTF-8 cannot")
    return keys


def path_text(path: Path) -> str:
    """Return a path as text, cut where it is long; the same text for the same path everywhere."""
    # Not repr: that differs between Python versions, and replicas must decide alike.
    text = f"[{', '.join(msgspec.json.encode(key).decode() for key in path)}]"
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}..."


def _check_apart(paths: list[Path]) -> None:
    """Refuse paths of which one lies below another: what comes out would depend on their order."""
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
) -> bytes | None:
    """Return the session data after the changes, or None if an expectation failed.

    In `expect`, empty bytes demand that the path is absent. The outcome depends on the arguments alone.
    Raises ListInPathError if a path to set or unset runs through a list, and another ValueError if any of
    them is malformed: no msgpack, data that is no dict, an empty path, or a value that would stand deeper
    than 64 levels. What the changes do not touch may be left as it is, malformed or not.
    """
    root = _opened_root(data)
    if _first_unmet(root, expect) is not None:
        return None
    for path in unset:
        _unset(root, path)
    for path, encoded in set:
        value = _unpacked(encoded)
        _check_depth(value, DEPTH_MAX - len(path))
        _put(root, path, value)
    return _encoded(root)


def unmet_expectation(data: bytes, expect: tuple[PathValue, ...]) -> str:
    """Return, as text, the first path that does not have the value expected; empty if all do.

    To be asked after `patch_data` returned None. Raises ValueError as it does.
    """
    path = _first_unmet(_opened_root(data), expect)
    return "" if path is None else path_text(path)


def _first_unmet(root: dict[Key, Any], expect: tuple[PathValue, ...]) -> Path | None:
    for path, expected in expect:
        if not _matches(_lookup(root, path), expected):
            return path
    return None


def _opened_root(data: bytes) -> dict[Key, Any]:
    """Return session data as a dict, in which any value may still be `Raw`."""
    # There are at most as many containers, because bytes of a text may look like one.
    if len(data) <= _COUNTED_BYTES_MAX and len(data.translate(None, _OTHER_BYTES)) <= _NESTED_MAX:
        try:
            return _level_decoder.decode(data)
        except _INVALID:
            pass  # What follows says why, or takes it.
    root = _decoded(data)
    if type(root) is not dict:
        raise ValueError("session data is not a dict")
    return root


def _opened(node: dict[Key, Any], key: Key) -> Any:
    """Return `node[key]`, None if there is none: not as `Raw`, but what is in it may still be that."""
    value = node.get(key)
    if type(value) is not Raw:
        return value
    opened: Any
    try:
        opened = _level_decoder.decode(value)
    except _INVALID:
        opened = _unpacked(value)
    node[key] = opened
    return opened


def _lookup(root: dict[Key, Any], path: Path) -> Any:
    """Return the value at a path, whole, or _MISSING."""
    _check_path(path)
    node = root
    for key in path[:-1]:
        node = _opened(node, key)
        if type(node) is not dict:
            return _MISSING
    value = node.get(path[-1], _MISSING)
    if type(value) is Raw:
        return _decoded(value)
    return _decoded(_encoded(value)) if type(value) is dict else value


def _unset(root: dict[Key, Any], path: Path) -> None:
    _check_path(path)
    node = root
    for depth, key in enumerate(path[:-1], 1):
        inner = _opened(node, key)
        if type(inner) is not dict:
            _refuse_list(inner, path, depth)
            return
        node = inner
    node.pop(path[-1], None)


def _put(root: dict[Key, Any], path: Path, value: Any) -> None:
    _check_path(path)
    node = root
    for depth, key in enumerate(path[:-1], 1):
        inner = _opened(node, key)
        if type(inner) is not dict:
            _refuse_list(inner, path, depth)
            inner = node[key] = {}
        node = inner
    _merge(node, path[-1], value)


def _refuse_list(value: Any, path: Path, depth: int) -> None:
    if type(value) is list:
        raise ListInPathError(
            f"{LIST_IN_PATH}{path_text(path[:depth])}, and the path {path_text(path)} runs through it; a "
            "list is one value: set it whole, or change it with modify"
        )


def _merge(node: dict[Key, Any], key: Key, value: Any) -> None:
    """Set `node[key]`, merging dicts. Without recursion: values come from outside."""
    if type(value) is not dict:
        node[key] = value
        return
    waiting = [(node, key, value)]
    while waiting:
        holder, name, new = waiting.pop()
        if type(new) is dict and type(old := _opened(holder, name)) is dict:
            waiting.extend((old, inner, new[inner]) for inner in reversed(new))
        else:
            holder[name] = new


def _matches(found: Any, expected: bytes) -> bool:
    if not expected:
        return found is _MISSING
    wanted = _decoded(expected)
    return found is not _MISSING and _same(found, wanted)


def _same(left: Any, right: Any) -> bool:
    """Equality with types, a NaN equal to itself. Its depth is bounded: both sides were checked."""
    if type(left) is not type(right):
        return False
    if type(left) is dict:
        return len(left) == len(right) and all(
            key in right and _same(item, right[key]) for key, item in left.items()
        )
    if type(left) is list:
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right) or (left != left and right != right)  # the latter: NaN


def _check_path(path: Path) -> None:
    if not 1 <= len(path) <= DEPTH_MAX:
        raise ValueError("a path has 1 to 64 keys")


def _decoded(data: bytes | Raw) -> Any:
    """Decode what came from outside; every way in which that fails is a ValueError."""
    value = _unpacked(data)
    _check_depth(value)
    return value


def _unpacked(data: bytes | Raw) -> Any:
    """Decode what is part of a whole whose depth is checked afterwards."""
    try:
        return _decoder.decode(data)
    except _INVALID:
        pass
    raise ValueError("malformed msgpack")


def _encoded(root: dict[Key, Any]) -> bytes:
    try:
        return _encoder.encode(root)
    except _INVALID:
        pass
    raise ValueError("the patched data cannot be encoded")


def _check_depth(value: Any, levels_max: int = DEPTH_MAX) -> None:
    """Refuse nesting beyond this many levels.

    Counted here rather than left to the interpreter's recursion limit: that depends on the stack below, and
    both replicas of a shard must decide alike.
    """
    if type(value) not in _CONTAINERS:
        return
    level: list[Any] = [[value]]
    for _ in range(levels_max):
        # Empty ones have no level below: a megabyte holds a million of them.
        level = [
            item
            for node in level
            for item in (node.values() if type(node) is dict else node)
            if type(item) in _CONTAINERS and item
        ]
        if not level:
            return
    for node in level:
        for item in node.values() if type(node) is dict else node:
            if type(item) in _CONTAINERS:
                raise ValueError(f"nesting beyond {DEPTH_MAX} levels")
