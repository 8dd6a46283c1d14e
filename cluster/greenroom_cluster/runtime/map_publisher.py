"""Sends the cluster map, and then every change of it, to the connections that subscribed.

Each version of the map and each change is encoded once for all subscribers that see the same of it. A
subscriber that does not read loses its connection, whose outbound queue is bounded.
"""

from greenroom import wire
from greenroom.cluster_map import ClusterMap, MapDelta
from greenroom.errors import LocalProtocolError
from greenroom.framing import encode_frames
from greenroom_cluster.coordination.feed import MapFeed
from greenroom_cluster.coordination.public_map import PublicMaps
from greenroom_cluster.runtime.connection import FramedConnection


class MapPublisher:
    """The subscribers of one map. They wait for the first `publish`."""

    def __init__(self) -> None:
        self._whole = _Audience()
        self._public = _Audience()
        self._public_maps = PublicMaps()

    @property
    def map(self) -> ClusterMap | None:
        """The newest map published."""
        return self._whole.map

    @property
    def subscribers(self) -> int:
        """How many connections follow the map."""
        return len(self._whole) + len(self._public)

    def subscribe(self, number: int, connection: FramedConnection, *, whole: bool) -> None:
        """Send the map now, or once there is one, and every change; the public one unless `whole`."""
        (self._whole if whole else self._public).subscribe(number, connection)

    def forget(self, number: int) -> None:
        """Send nothing more to this connection; unknown numbers are fine."""
        self._whole.forget(number)
        self._public.forget(number)

    def publish(self, new: ClusterMap, delta: MapDelta | None = None) -> None:
        """Send a newer map to every subscriber; `delta` is its change since the last one, if known."""
        self._whole.publish(new, delta)
        self._public.publish(self._public_maps.of(new))


class _Audience:
    """Those who see the same of a map."""

    def __init__(self) -> None:
        self._feed = MapFeed()
        self._connections: dict[int, FramedConnection] = {}
        self._encoded: tuple[wire.MapFull, bytes] | None = None

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def map(self) -> ClusterMap | None:
        return self._feed.map

    def subscribe(self, number: int, connection: FramedConnection) -> None:
        self._connections[number] = connection
        whole = self._feed.subscribe(number)
        if whole is not None:
            connection.send_encoded(self._encode(whole))

    def forget(self, number: int) -> None:
        self._feed.forget(number)
        self._connections.pop(number, None)

    def publish(self, new: ClusterMap, delta: MapDelta | None = None) -> None:
        news = self._feed.publish(new, delta)
        if news is None:
            return
        frames = self._encode(news) if isinstance(news, wire.MapFull) else self._encode_change(news)
        for number in self._feed.subscribers:
            self._connections[number].send_encoded(frames)

    def _encode_change(self, change: wire.MapChange) -> bytes:
        try:
            return bytes(encode_frames([change]))
        except LocalProtocolError:  # it is longer than the map, which fits
            assert self._feed.whole is not None
            return self._encode(self._feed.whole)

    def _encode(self, whole: wire.MapFull) -> bytes:
        if self._encoded is None or self._encoded[0] is not whole:
            self._encoded = (whole, bytes(encode_frames([whole])))
        return self._encoded[1]
