"""What changed between two states of session data, as the paths of one patch. Pure.

Dicts are compared key by key at any depth; lists and all other values are whole. So two requests that change
different keys, however deep, never overwrite each other's work. Values are compared by what would be stored:
1, True and 1.0 differ, and so do one moment in two time zones; the order of dict keys does not count.
"""

from collections import Counter
from typing import Any, NamedTuple

from greenroom.codec import encode_value
from greenroom.fields import ABSENT
from greenroom.wire import PATHS_MAX, Key, Path


class Difference(NamedTuple):
    """The arguments of `patch`: values by path, and the paths that are gone."""

    set: dict[Path, Any]
    unset: tuple[Path, ...]

    def __bool__(self) -> bool:
        return bool(self.set or self.unset)


_TELLING = frozenset({str, bytes, int, bool, type(None)})
"""Types of which equal values are stored alike: not so with floats, of which 0.0 equals -0.0."""

NO_DIFFERENCE = Difference({}, ())


def difference(old: dict[Any, Any], new: dict[Any, Any]) -> Difference:
    """Return what turns `old` into `new`, down to the deepest changed dict path.

    A dict that gave way to another kind of value, or the reverse, is set whole. So are dicts on top in which
    so much changed that a patch could not name all the paths; those with the most changes first. Raises
    UsageError naming the path of a value in either that cannot be stored.
    """
    changed: dict[Path, Any] = {}
    gone: list[Path] = []
    _compare(old, new, (), changed, gone)
    if len(changed) + len(gone) > PATHS_MAX:
        return _coarser(changed, gone, new)
    return Difference(changed, tuple(gone))


def _coarser(changed: dict[Path, Any], gone: list[Path], new: dict[Key, Any]) -> Difference:
    below = Counter(path[0] for path in (*changed, *gone) if len(path) > 1)
    excess = len(changed) + len(gone) - PATHS_MAX
    whole: dict[Key, Any] = {}
    for key, count in below.most_common():
        if excess <= 0 or count <= 2:
            break
        whole[key] = new[key]
        excess -= count - 2  # it is unset, then set
    kept = {path: value for path, value in changed.items() if path[0] not in whole}
    return Difference(
        {**kept, **{(key,): value for key, value in whole.items()}},
        (*(path for path in gone if path[0] not in whole), *((key,) for key in whole)),
    )


def _compare(
    old: dict[Key, Any], new: dict[Key, Any], above: Path, changed: dict[Path, Any], gone: list[Path]
) -> None:
    gone.extend((*above, key) for key in old if key not in new)
    for key, value in new.items():
        path = (*above, key)
        if key not in old:
            changed[path] = value
            continue
        before = old[key]
        kind = type(value)
        # The usual, and with a hundred thousand keys the difference between 0.5 and 0.05 s in the event loop.
        if type(before) is kind and kind in _TELLING and before == value:
            continue
        if type(before) is dict and type(value) is dict:
            _compare(before, value, path, changed, gone)
        elif encode_value(before, path) != encode_value(value, path):
            changed[path] = value


def over_lists(changes: Difference, stored: dict[Any, Any], wanted: dict[Any, Any]) -> Difference:
    """Return the changes for data in which lists have come to stand on some of their paths.

    Two requests gave one path different values then, of which the later one wins, whole: so the list gives
    way to what stands there in `wanted`, the data that the changes lead to.
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


def value_at(data: dict[Any, Any], path: Path) -> Any:
    """Return the value at that path, or ABSENT."""
    value: Any = data
    for key in path:
        if type(value) is not dict or key not in value:
            return ABSENT
        value = value[key]
    return value


def _list_on(data: dict[Any, Any], path: Path) -> Path | None:
    """Return where on the way to `path` a list stands, if one does."""
    for length in range(1, len(path)):
        if type(value_at(data, path[:length])) is list:
            return path[:length]
    return None
