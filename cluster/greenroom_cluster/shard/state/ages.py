"""The order of age of sessions without a user: which of a namespace was stored first.

Dicts, not lists: the garbage collector does not traverse them, see `expiry`.
"""

from collections.abc import Iterator

from greenroom_cluster.shard.state.namespaces import namespace_of


class AgeOrder:
    """The sessions of a shard without a user, the oldest first in each namespace ("" is `default`)."""

    __slots__ = ("_keys", "_sizes", "entries", "stored_bytes")

    def __init__(self) -> None:
        self._keys: dict[str, dict[bytes, None]] = {}
        self._sizes: dict[str, int] = {}
        self.entries = 0
        self.stored_bytes = 0

    def __len__(self) -> int:
        return self.entries

    def __iter__(self) -> Iterator[bytes]:
        for keys in self._keys.values():
            yield from keys

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that have any."""
        return tuple(self._keys)

    def taken_by(self, namespace: str) -> tuple[int, int]:
        """Return how many a namespace has, and how many bytes they take as they are stored."""
        return len(self._keys.get(namespace, ())), self._sizes.get(namespace, 0)

    def holds(self, key: bytes) -> bool:
        """Whether a session is here."""
        return key in self._keys.get(namespace_of(key), ())

    def oldest(self, namespace: str) -> Iterator[bytes]:
        """Yield those of a namespace, the oldest first; nothing may change meanwhile."""
        return iter(self._keys.get(namespace, ()))

    def enter(self, key: bytes, size: int) -> None:
        """Enter a session as the newest."""
        namespace = namespace_of(key)
        self._keys.setdefault(namespace, {})[key] = None
        self._sizes[namespace] = self._sizes.get(namespace, 0) + size
        self.entries += 1
        self.stored_bytes += size

    def grow(self, key: bytes, more: int) -> None:
        """Count that a session takes so many bytes more, or less."""
        self._sizes[namespace_of(key)] += more
        self.stored_bytes += more

    def leave(self, key: bytes, size: int) -> None:
        """Take one out; raises KeyError if it is not there."""
        namespace = namespace_of(key)
        keys = self._keys[namespace]
        del keys[key]
        self._sizes[namespace] -= size
        self.entries -= 1
        self.stored_bytes -= size
        if not keys:
            del self._keys[namespace], self._sizes[namespace]
