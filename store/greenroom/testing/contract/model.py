"""What a store should do, in plain dicts: obvious rather than fast, and apart from the stores' code."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from greenroom.sessions import ABSENT, SessionData

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True)
class Expected:
    """One live session as the model has it."""

    user_id: str | None
    created: datetime
    expires: datetime
    absolute_expires: datetime | None
    label: str
    version: int
    data: dict[Any, Any]

    def matches(self, found: SessionData) -> bool:
        """Whether the store's session is this one, in values and types."""
        return same_value(found.data, self.data) and (
            found.user_id,
            found.created,
            found.expires,
            found.absolute_expires,
            found.label,
            found.version,
        ) == (self.user_id, self.created, self.expires, self.absolute_expires, self.label, self.version)


def patched(data: dict[Any, Any], values: Mapping[Path, Any], unset: Iterable[Path]) -> dict[Any, Any] | None:
    """Return what a patch makes of the data, or None if a path runs through a list, which is refused."""
    result = deepcopy(data)
    for path in unset:
        if crosses_list(result, path):
            return None
        if value_at(result, path) is not ABSENT:
            holder = result if len(path) == 1 else value_at(result, path[:-1])
            del holder[path[-1]]
    for path, value in values.items():
        if crosses_list(result, path):
            return None
        tree = deepcopy(value)
        for key in reversed(path):
            tree = {key: tree}
        result = merged(result, tree)
    return result


def apart(values: Mapping[Any, Any]) -> dict[Path, Any]:
    """Return the values without those whose path lies below another, which no patch may name at once."""
    return {
        path: value
        for path, value in values.items()
        if not any(path[:length] in values for length in range(1, len(path)))
    }


def crosses_list(data: Any, path: Path) -> bool:
    """Whether a list stands on the way to that path."""
    return any(isinstance(value_at(data, path[:length]), list) for length in range(1, len(path)))


def merged(old: Any, new: Any) -> Any:
    """Return `new` merged into `old`: dicts key by key, everything else as a whole."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}


def value_at(data: Any, path: Path) -> Any:
    """Return the value at that path, or ABSENT."""
    for key in path:
        if not isinstance(data, dict) or key not in data:
            return ABSENT
        data = data[key]
    return data


def same_value(left: Any, right: Any) -> bool:
    """Whether two values are equal with their types; a NaN equals itself."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_value(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same_value, left, right))
    return bool(left == right) or (left != left and right != right)
