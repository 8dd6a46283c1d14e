"""Sends the cluster map to subscribers: first the whole map, then every change.

The coordinator and every node have subscribers. All get the same message object, so it is encoded only once.
"""

from greenroom import wire
from greenroom.cluster_map import ClusterMap, MapDelta, delta_between


class MapFeed:
    """The subscribers of one map, by the numbers of their connections, and the newest map published."""

    def __init__(self) -> None:
        self.map: ClusterMap | None = None
        self._whole: wire.MapFull | None = None
        self._subscribers: dict[int, None] = {}

    @property
    def subscribers(self) -> tuple[int, ...]:
        """The connections that follow the map."""
        return tuple(self._subscribers)

    @property
    def whole(self) -> wire.MapFull | None:
        """The whole map, once there is one."""
        if self._whole is None and self.map is not None:
            self._whole = wire.MapFull(self.map)
        return self._whole

    def subscribe(self, number: int) -> wire.MapFull | None:
        """Add a subscriber; return what to send it now. Without a map it gets the first one published."""
        self._subscribers[number] = None
        return self.whole

    def forget(self, number: int) -> None:
        """Send nothing more to this connection; unknown numbers are fine."""
        self._subscribers.pop(number, None)

    def publish(self, new: ClusterMap, delta: MapDelta | None = None) -> wire.MapFull | wire.MapChange | None:
        """Return what to send to every subscriber: the change, or else the whole map.

        `delta` is the change since the map last published, if the caller has it. The same map, or an older
        one, is not sent.
        """
        old = self.map
        if old is not None and not new.newer_than(old):
            return None
        self.map, self._whole = new, None
        if not self._subscribers:
            return None
        if old is None or old.lineage != new.lineage or old.shard_count != new.shard_count:
            return self.whole
        return wire.MapChange(delta or delta_between(old, new))
