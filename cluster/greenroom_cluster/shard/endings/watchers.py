"""The connections that watch sessions, and how much all of them watch.

A watch costs memory here until it is withdrawn, or its connection ends. So each connection may have a number
of them, and so may all together; beyond that a client is told that nothing will be told, and asks again.
"""

from collections.abc import Iterable
from typing import Protocol

from greenroom.ending_messages import Unwatched, WatchEcho, WatchReply
from greenroom.watch_use import WatchUse
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.effects import ReplyToClient

WATCHED_MAX = 32_768
"""The most that one connection watches, all of which it may let go in one step."""


class Part(Protocol):
    """What is watched in one shard, of which this actor is primary."""

    @property
    def shard(self) -> int: ...  # noqa: D102  the number of the shard

    def is_sure(self, now_ns: int) -> bool:
        """Whether this actor certainly is the primary now."""

    def forget(self, watcher: "Watcher", key: bytes) -> None:
        """Note that a connection watches this no longer."""


class Watcher:
    """One connection: what it watches, by key, and how much of it in each shard."""

    __slots__ = ("connection", "parts", "watched")

    def __init__(self, connection: int) -> None:
        self.connection = connection
        self.watched: dict[bytes, Part] = {}
        self.parts: dict[Part, int] = {}


class Watchers:
    """All of one actor. `count` is how much is watched; `told` and `refused` count since its start."""

    __slots__ = ("_by_connection", "_context", "count", "refused", "told")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._by_connection: dict[int, Watcher] = {}
        self.count = 0
        self.told = self.refused = 0

    @property
    def use(self) -> WatchUse:
        """What is watched now, and what came of it so far."""
        return WatchUse(self.count, self.told, self.refused)

    def add(self, now_ns: int, connection: int, part: Part, key: bytes) -> Watcher | None:
        """Note that a connection watches a session; None if that is too much."""
        watcher = self._by_connection.get(connection)
        if watcher is not None and watcher.watched.get(key) is part:
            return watcher
        settings = self._context.settings
        if self.count >= settings.watches_max or (watcher and len(watcher.watched) >= WATCHED_MAX):
            self.refused += 1
            self._context.warn_now_and_then(
                now_ns,
                "watches",
                f"{self.count} endings are watched here, of --watches-max {settings.watches_max}, "
                f"at most {WATCHED_MAX} of one connection: others are asked for again and told seconds late; "
                "raise --watches-max, or add nodes",
            )
            return None
        if watcher is None:
            watcher = self._by_connection[connection] = Watcher(connection)
        watcher.watched[key] = part
        watcher.parts[part] = watcher.parts.get(part, 0) + 1
        self.count += 1
        return watcher

    def release(self, watcher: Watcher, key: bytes) -> None:
        """Note that a connection watches this no longer."""
        part = watcher.watched.pop(key, None)
        if part is None:
            return
        self.count -= 1
        left = watcher.parts[part] - 1
        if left:
            watcher.parts[part] = left
        else:
            del watcher.parts[part]
        if not watcher.watched:
            self._by_connection.pop(watcher.connection, None)

    def unwatch(self, connection: int, keys: Iterable[bytes]) -> None:
        """Take back what a connection watches no longer by its own wish."""
        watcher = self._by_connection.get(connection)
        if watcher is None:
            return
        for key in keys:
            part = watcher.watched.get(key)
            if part is not None:
                self.release(watcher, key)
                part.forget(watcher, key)

    def connection_closed(self, connection: int) -> None:
        """Forget all that a connection has watched."""
        watcher = self._by_connection.get(connection)
        if watcher is not None:
            self.unwatch(connection, tuple(watcher.watched))

    def beacon(self, now_ns: int, connection: int, number: int) -> None:
        """Say whether what a connection watches is watched by a primary."""
        watcher = self._by_connection.get(connection)
        sure = watcher is None or all(part.is_sure(now_ns) for part in watcher.parts)
        self.say(connection, WatchEcho(number, self._context.map_version, sure))

    def leave(self, watchers: Iterable[Watcher], shard: int) -> None:
        """Tell connections that nothing of a shard is watched for them any longer."""
        for watcher in dict.fromkeys(watchers):
            self.say(watcher.connection, Unwatched((shard,)))

    def say(self, connection: int, message: WatchReply) -> None:
        """Send a connection a message."""
        self._context.effects.append(ReplyToClient(connection, message))
