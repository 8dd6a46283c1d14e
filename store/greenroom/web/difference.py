"""The difference between two states of session data, as the paths of one patch. Pure.

Dicts are compared key by key at any depth; lists and all other values are whole. So two requests that change
different keys, however deep, never overwrite each other's work. Values are compared as they would be stored:
1, True and 1.0 differ, and so does one moment in two time zones; the order of dict keys does not count.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from greenroom.codec import decode_data, encode_value
from greenroom.fields import ABSENT
from greenroom.scan.plain import NOT_PLAIN, bare_value
from greenroom.wire import Key, Path


class Difference(NamedTuple):
    """The arguments of `patch`: values by path, and the paths that are gone."""

    set: dict[Path, Any]
    unset: tuple[Path, ...]

    def __bool__(self) -> bool:
        return bool(self.set or self.unset)

    @property
    def width(self) -> int:
        """The number of paths that it names."""
        return len(self.set) + len(self.unset)


_encode_plain = msgspec.msgpack.Encoder().encode
_top = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode
_TOP_BYTES_MAX = 1 << 17
"""Of both together. Larger data may have very many keys at the top."""

_TELLING = frozenset({str, bytes, int, bool, type(None)})
"""Types of which equal values are stored alike: not so with floats, of which 0.0 equals -0.0."""

NO_DIFFERENCE = Difference({}, ())


def difference_of(old: bytes, new: bytes) -> Difference:
    """Return the changes that turn one encoded session into another.

    At the top, only values that differ are decoded. Raises UnreadableSessionError for bytes that are not
    encoded session data.
    """
    found = _difference_of_top(old, new) if len(old) + len(new) <= _TOP_BYTES_MAX else None
    return difference(decode_data(old), decode_data(new)) if found is None else found


def _difference_of_top(old: bytes, new: bytes) -> Difference | None:
    """Return the difference of what is plain and has str keys at the top, else None."""
    try:
        before, after = _top(old), _top(new)
    except msgspec.MsgspecError:
        return None
    changed: dict[Path, Any] = {}
    gone: list[Path] = []
    if not before.keys() <= after.keys():
        gone.extend((key,) for key in before if key not in after)
    for key, raw in after.items():
        was = before.get(key)
        if was == raw:
            continue
        value = bare_value(bytes(raw))
        value_before = None if was is None else bare_value(bytes(was))
        if value is NOT_PLAIN or value_before is NOT_PLAIN:
            return None
        if type(value) is dict and type(value_before) is dict:
            _compare(value_before, value, (key,), changed, gone, _encode_plain)
        else:
            changed[(key,)] = value
    return Difference(changed, tuple(gone))


def difference(old: dict[Any, Any], new: dict[Any, Any]) -> Difference:
    """Return the changes that turn `old` into `new`, down to the deepest changed dict path.

    If a dict was replaced by another kind of value, or the reverse, the new value is set whole. Raises
    UsageError naming the path of a value in either that cannot be stored.
    """
    changed: dict[Path, Any] = {}
    gone: list[Path] = []
    _compare(old, new, (), changed, gone, None)
    return Difference(changed, tuple(gone))


def _compare(
    old: dict[Key, Any],
    new: dict[Key, Any],
    above: Path,
    changed: dict[Path, Any],
    gone: list[Path],
    encode_plain: Callable[[Any], bytes] | None,
) -> None:
    """Note the differences. `encode_plain` is given for data of which it encodes all as it is stored."""
    if not old.keys() <= new.keys():
        gone.extend((*above, key) for key in old if key not in new)
    for key, value in new.items():
        if key not in old:
            changed[(*above, key)] = value
            continue
        before = old[key]
        kind = type(value)
        # The usual. Encoding both instead doubles the time that a large session holds up the event loop.
        if type(before) is kind and kind in _TELLING and before == value:
            continue
        path = (*above, key)
        if encode_plain is not None and encode_plain(before) == encode_plain(value):
            continue
        if type(before) is dict and type(value) is dict:
            _compare(before, value, path, changed, gone, encode_plain)
        elif encode_plain is not None or encode_value(before, path) != encode_value(value, path):
            changed[path] = value


def over_lists(changes: Difference, stored: dict[Any, Any], wanted: dict[Any, Any]) -> Difference:
    """Return the changes for stored data that now has lists on some of their paths.

    Two requests gave one path different values, and the later one wins as a whole: so the list is replaced by
    the value at its path in `wanted`, the data that the changes lead to.
    """
    changed: dict[Path, Any] = {}
    for path, value in changes.set.items():
        at = _list_on(stored, path)
        if at is None:
            changed[path] = value
        else:
            changed[at] = value_at(wanted, at)
    gone = tuple(path for path in changes.unset if _list_on(stored, path) is None)
    return Difference(changed, gone)


def apply(changes: Difference, data: dict[Any, Any]) -> None:
    """Make the changes in `data`, as a patch does: values first unset, dicts merged into dicts.

    A value other than a dict on a path is replaced, even a list.
    """
    for path in changes.unset:
        above = value_at(data, path[:-1])
        if type(above) is dict:
            above.pop(path[-1], None)
    for path, value in changes.set.items():
        node = data
        for key in path[:-1]:
            if type(node.get(key)) is not dict:
                node[key] = {}
            node = node[key]
        _merge(node, path[-1], value)


def _merge(node: dict[Any, Any], key: Key, value: Any) -> None:
    if type(value) is dict and type(node.get(key)) is dict:
        for inner, item in value.items():
            _merge(node[key], inner, item)
    else:
        node[key] = value


def value_at(data: dict[Any, Any], path: Path) -> Any:
    """Return the value at that path, or ABSENT."""
    value: Any = data
    for key in path:
        if type(value) is not dict or key not in value:
            return ABSENT
        value = value[key]
    return value


def _list_on(data: dict[Any, Any], path: Path) -> Path | None:
    """Return the prefix of `path` at which there is a list, if there is one."""
    for length in range(1, len(path)):
        if type(value_at(data, path[:length])) is list:
            return path[:length]
    return None
