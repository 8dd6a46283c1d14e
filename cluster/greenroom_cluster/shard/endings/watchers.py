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
from greenroom_cluster.shard.registrants import Registrant, Registrants

WATCHED_MAX = 32_768
"""The most that one connection watches, all of which it may let go in one step."""


class Part(Protocol):
    """What is watched in one shard, of which this actor is primary."""

    def is_sure(self, now_ns: int) -> bool:
        """Whether this actor certainly is the primary now."""

    def forget(self, watcher: "Watcher", key: bytes) -> None:
        """Note that a connection watches this no longer."""


class Watcher(Registrant[Part]):
    """One connection, and what it watches."""

    __slots__ = ()


class Watchers(Registrants[Watcher]):
    """All of one actor. `count` is how much is watched; `told` and `refused` count since its start."""

    __slots__ = ("_context", "refused", "told")

    def __init__(self, context: Context) -> None:
        super().__init__(Watcher)
        self._context = context
        self.told = self.refused = 0

    @property
    def use(self) -> WatchUse:
        """What is watched now, and what came of it so far."""
        return WatchUse(self.count, self.told, self.refused)

    def add(self, now_ns: int, connection: int, part: Part, key: bytes) -> Watcher | None:
        """Note that a connection watches a session; None if that is too much."""
        watcher = self.by_connection.get(connection)
        if watcher is not None and key in watcher.keys:
            return watcher
        settings = self._context.settings
        if self.count >= settings.watches_max or (watcher and len(watcher.keys) >= WATCHED_MAX):
            self.refused += 1
            self._context.warn_now_and_then(
                now_ns,
                "watches",
                f"{self.count} endings are watched here, of --watches-max {settings.watches_max}, "
                f"at most {WATCHED_MAX} of one connection: others are asked for again and told seconds late; "
                "raise --watches-max, or add nodes",
            )
            return None
        return self.register(connection, part, key)

    def release(self, registrant: Watcher, key: bytes) -> None:
        """Note that a connection watches this no longer, and forget one that watches nothing."""
        super().release(registrant, key)
        if not registrant.keys:
            self.by_connection.pop(registrant.connection, None)

    def connection_closed(self, connection: int) -> None:
        """Forget all that a connection has watched."""
        watcher = self.by_connection.get(connection)
        if watcher is not None:
            self.let_go(watcher, tuple(watcher.keys))

    def beacon(self, now_ns: int, connection: int, number: int) -> None:
        """Say whether what a connection watches is watched by a primary."""
        watcher = self.by_connection.get(connection)
        sure = watcher is None or all(part.is_sure(now_ns) for part in watcher.parts)
        self.say(connection, WatchEcho(number, self._context.map_version, sure))

    def leave(self, watchers: Iterable[Watcher], shard: int) -> None:
        """Tell connections that nothing of a shard is watched for them any longer."""
        for watcher in dict.fromkeys(watchers):
            self.say(watcher.connection, Unwatched((shard,)))

    def say(self, connection: int, message: WatchReply) -> None:
        """Send a connection a message."""
        self._context.effects.append(ReplyToClient(connection, message))
