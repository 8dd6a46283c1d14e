"""Sends the cluster map, and then every change of it, to the connections that subscribed.

A version of the map and a change are encoded once however many subscribe. A subscriber that does not read is
ended by its connection's outbound bound.
"""

from greenroom import wire
from greenroom.cluster_map import ClusterMap, MapDelta, delta_between
from greenroom.errors import LocalProtocolError
from greenroom.framing import encode_frames
from greenroom_cluster.runtime.connection import FramedConnection


class MapPublisher:
    """The subscribers of one map. Before the first `publish` they wait for it."""

    def __init__(self) -> None:
        self._map: ClusterMap | None = None
        self._full: bytes | None = None
        self._subscribers: dict[int, FramedConnection] = {}

    @property
    def map(self) -> ClusterMap | None:
        """The newest map published."""
        return self._map

    @property
    def subscribers(self) -> int:
        """How many connections follow the map."""
        return len(self._subscribers)

    def subscribe(self, number: int, connection: FramedConnection) -> None:
        """Send the map now, or once there is one, and every change after it."""
        self._subscribers[number] = connection
        if self._map is not None:
            connection.send_encoded(self._encoded(self._map))

    def forget(self, number: int) -> None:
        """Send nothing more to this connection; unknown numbers are fine."""
        self._subscribers.pop(number, None)

    def publish(self, new: ClusterMap, delta: MapDelta | None = None) -> None:
        """Send what changed; the whole map where a change would not continue the former one.

        `delta` is the change since the map published last, if the caller has it. The same map, or an older
        one, is not sent.
        """
        old, self._map = self._map, new
        if old is not None:
            if not new.newer_than(old):
                self._map = old
                return
            if old.lineage != new.lineage or old.shard_count != new.shard_count:
                delta = old = None
        self._full = None
        if not self._subscribers:
            return
        if old is None:
            frames = self._encoded(new)
        else:
            frames = self._encoded_change(new, delta or delta_between(old, new))
        for connection in list(self._subscribers.values()):
            connection.send_encoded(frames)

    def _encoded_change(self, new: ClusterMap, delta: MapDelta) -> bytes:
        try:
            return bytes(encode_frames([wire.MapChange(delta)]))
        except LocalProtocolError:  # it is longer than the map, which fits
            return self._encoded(new)

    def _encoded(self, current: ClusterMap) -> bytes:
        if self._full is None:
            self._full = bytes(encode_frames([wire.MapFull(current)]))
        return self._full
