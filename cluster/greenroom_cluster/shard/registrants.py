"""The connections that have sessions registered, to hold or to watch them, and in which shards."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar


class Part(Protocol):
    """What is registered in one shard, of which this actor is primary."""

    def forget(self, registrant: Any, key: bytes) -> None:
        """Note that a connection has this registered no longer."""


PartT = TypeVar("PartT", bound=Part)


class Registrant(Generic[PartT]):
    """One connection. `keys` are its sessions, each with its part, and `parts` how many of each part."""

    __slots__ = ("connection", "keys", "parts")

    def __init__(self, connection: int) -> None:
        self.connection = connection
        self.keys: dict[bytes, PartT] = {}
        self.parts: dict[PartT, int] = {}


RegistrantT = TypeVar("RegistrantT", bound=Registrant[Any])


class Registrants(Generic[RegistrantT]):
    """All of one actor. `count` is how much is registered."""

    __slots__ = ("_make", "by_connection", "count")

    def __init__(self, make: Callable[[int], RegistrantT]) -> None:
        self._make = make
        self.by_connection: dict[int, RegistrantT] = {}
        self.count = 0

    def register(self, connection: int, part: Part, key: bytes) -> RegistrantT:
        """Register a session for a connection; return it."""
        registrant = self.by_connection.get(connection)
        if registrant is None:
            registrant = self.by_connection[connection] = self._make(connection)
        if key not in registrant.keys:
            registrant.keys[key] = part
            registrant.parts[part] = registrant.parts.get(part, 0) + 1
            self.count += 1
        return registrant

    def release(self, registrant: RegistrantT, key: bytes) -> None:
        """Note that a connection has this registered no longer."""
        part = registrant.keys.pop(key, None)
        if part is None:
            return
        self.count -= 1
        left = registrant.parts[part] - 1
        if left:
            registrant.parts[part] = left
        else:
            del registrant.parts[part]

    def withdraw(self, connection: int, keys: Iterable[bytes]) -> None:
        """Let go of what a connection wants no longer."""
        registrant = self.by_connection.get(connection)
        if registrant is not None:
            self.let_go(registrant, keys)

    def let_go(self, registrant: RegistrantT, keys: Iterable[bytes]) -> None:
        """Release these, also in their shards."""
        for key in keys:
            part = registrant.keys.get(key)
            if part is not None:
                self.release(registrant, key)
                part.forget(registrant, key)
