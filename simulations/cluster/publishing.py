"""Sends the cluster map to subscribers: a shell around `greenroom_cluster.coordination.feed`."""

from collections.abc import Callable, Container
from typing import Any

from greenroom import wire
from greenroom.cluster_map import ClusterMap, MapDelta
from greenroom_cluster.coordination.feed import MapFeed
from simulations.cluster.connections import Served
from simulations.kernel.network import Network


class Publisher:
    """The subscribers of one process. `pack` makes a message's payload; senders in `stale` get no changes."""

    def __init__(self, network: Network, pack: Callable[[wire.Frame], Any]) -> None:
        self.stale: Container[bytes] = ()
        self._network = network
        self._pack = pack
        self._feed = MapFeed()
        self._served: dict[int, Served] = {}
        self._packed: tuple[wire.MapFull, Any] | None = None

    def subscribe(self, served: Served) -> None:
        """Send the map now, or once there is one, and every change after it."""
        self._served[served.number] = served
        whole = self._feed.subscribe(served.number)
        if whole is not None:
            self._network.send(served.end, self._pack_whole(whole))

    def forget(self, number: int) -> None:
        """Send nothing more on this connection."""
        self._feed.forget(number)
        self._served.pop(number, None)

    def publish(self, new: ClusterMap, delta: MapDelta | None = None) -> None:
        """Send a newer map to every subscriber."""
        news = self._feed.publish(new, delta)
        if news is None:
            return
        payload = self._pack_whole(news) if isinstance(news, wire.MapFull) else self._pack(news)
        for number in self._feed.subscribers:
            served = self._served[number]
            if served.sender in self.stale:
                self._network.happened["stale map"] += 1
            else:
                self._network.send(served.end, payload)

    def _pack_whole(self, whole: wire.MapFull) -> Any:
        if self._packed is None or self._packed[0] is not whole:
            self._packed = (whole, self._pack(whole))
        return self._packed[1]
