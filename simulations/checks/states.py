"""What a session is at one moment, for the search that explains histories."""

from typing import Any, NamedTuple, TypeAlias

Path: TypeAlias = tuple[str, ...]
Leaf: TypeAlias = tuple[Path, Any]
Leaves: TypeAlias = frozenset[Leaf]


class Record(NamedTuple):
    """A live session. If not `exact`, its version is not known, only that it is above `version`."""

    version: int
    exact: bool
    data: Leaves


class State(NamedTuple):
    """One session with its ids: the live ones, and the highest version known to have been given.

    With `floors` that is known of each id alone, and `floor` is 0.
    """

    live: tuple[tuple[str, Record], ...] = ()
    floor: int = 0
    floors: tuple[tuple[str, int], ...] | None = None

    def given(self, key: str) -> int:
        """Return the highest version known to have been given to what lives under `key`, or did."""
        return self.floor if self.floors is None else dict(self.floors).get(key, 0)

    def record(self, key: str) -> Record | None:
        """Return what lives under `key`."""
        for name, record in self.live:
            if name == key:
                return record
        return None

    def without(self, key: str) -> "State":
        """Return the state after `key` died."""
        return self._replace(live=tuple(item for item in self.live if item[0] != key))

    def having(self, key: str, record: Record) -> "State":
        """Return the state after `key` got this record."""
        others = [item for item in self.live if item[0] != key]
        live = tuple(sorted([*others, (key, record)], key=lambda item: item[0]))
        floor = max(self.given(key), record.version)
        if self.floors is None:
            return State(live, floor)
        return self._replace(live=live, floors=tuple(sorted({**dict(self.floors), key: floor}.items())))
