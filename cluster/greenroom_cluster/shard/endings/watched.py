"""What is watched in one shard, and what its primary tells of that.

An end is told once its record is applied: it is committed then, and can never vanish. Where clients show
sessions without asking (`near`), it is told once none of them may show the session any more, like every other
answer that shows the new state.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

from greenroom import wire
from greenroom.end_reasons import end_of
from greenroom.ending_messages import Watching, WatchSession, told
from greenroom.endings import EndReason
from greenroom.ids import DIGEST_BYTES
from greenroom_cluster.shard.endings.looks import Looks
from greenroom_cluster.shard.endings.watchers import Watcher, Watchers
from greenroom_cluster.shard.near.barriers import Origin
from greenroom_cluster.shard.near.served import Near
from greenroom_cluster.shard.state.copy import Copy
from greenroom_cluster.shard.state.namespaces import bare
from greenroom_cluster.shard.state.records import Evict, Record
from greenroom_cluster.shard.state.stored import expiry_of

Apply: TypeAlias = Callable[[Record], wire.EncodedReply | None]


class Serving(Protocol):
    """The primary of the shard, as far as its watches need it."""

    near: Near | None

    @property
    def paused(self) -> bool: ...  # noqa: D102  as it is there

    def leased(self, now_ns: int) -> bool: ...  # noqa: D102  as it is there


class Watched:
    """The watches of one shard."""

    __slots__ = ("_by_key", "_looks", "_primary", "_table", "_watchers", "shard")

    def __init__(self, copy: Copy, watchers: Watchers, primary: Serving) -> None:
        self.shard = copy.shard
        self._table = copy.table
        self._watchers = watchers
        self._primary = primary
        # Most sessions are watched by few connections: a tuple takes a quarter of what a dict does.
        self._by_key: dict[bytes, tuple[Watcher, ...]] = {}
        self._looks = Looks()

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def is_sure(self, now_ns: int) -> bool:
        """Whether this actor certainly is the primary now."""
        return not self._primary.paused and self._primary.leased(now_ns)

    def watch(
        self, now_ns: int, time_us: int, connection: Origin, request: WatchSession, stored: bytes
    ) -> None:
        """Register a watch of a session that is there."""
        assert isinstance(connection, int), "nobody asks many shards for a watch"
        watcher = self._watchers.add(now_ns, connection, self, request.digest)
        if watcher is not None:
            known = self._by_key.get(request.digest, ())
            if watcher not in known:
                self._by_key[request.digest] = (*known, watcher)
            if not known:
                self._looks.enter(request.digest, expiry_of(stored), time_us)
        self._watchers.say(connection, Watching(request.request_id, watcher is None))

    def forget(self, watcher: Watcher, key: bytes) -> None:
        """Note that a connection watches this no longer."""
        left = tuple(each for each in self._by_key.get(key, ()) if each is not watcher)
        if left:
            self._by_key[key] = left
        else:
            self._by_key.pop(key, None)
            self._looks.leave(key)

    def over(self, time_us: int, most: int) -> list[bytes]:
        """Return sessions that are watched and over by now, each once, after at most so many looks."""
        return self._looks.due(time_us, self._expires_us, most)

    def _expires_us(self, key: bytes) -> int | None:
        stored = self._table.sessions.get(key)
        return None if stored is None else expiry_of(stored)

    def applying(self, apply: Apply) -> Apply:
        """Return what applies a record, and tells whose session it has ended."""
        return partial(self._apply, apply)

    def _apply(self, apply: Apply, record: Record) -> wire.EncodedReply | None:
        gone: list[bytes] = []
        self._table.gone = gone
        try:
            reply = apply(record)
        finally:
            self._table.gone = None
        for key in gone:
            if key in self._by_key:
                self._tell(key, _reason(record, key))
        return reply

    def _tell(self, key: bytes, reason: EndReason) -> None:
        message = told(reason, key[:DIGEST_BYTES])
        self._looks.leave(key)
        for watcher in self._by_key.pop(key):
            self._watchers.release(watcher, key)
            self._watchers.told += 1
            if self._primary.near is None:
                self._watchers.say(watcher.connection, message)
            else:
                self._primary.near.tell(watcher.connection, message, key)

    def close(self) -> None:
        """Stop being primary: whoever watches anything is to ask the next one."""
        watched, self._by_key = self._by_key, {}
        self._looks = Looks()
        for key, watchers in watched.items():
            for watcher in watchers:
                self._watchers.release(watcher, key)
        self._watchers.leave((each for watchers in watched.values() for each in watchers), self.shard)


def _reason(record: Record, key: bytes) -> EndReason:
    command = record.command
    if isinstance(command, Evict):
        return "eviction"
    command = bare(command)
    if type(command) is wire.DeleteByHandle and not record.client:
        return "logout_everywhere"  # a page of that
    return end_of(command, key).reason
