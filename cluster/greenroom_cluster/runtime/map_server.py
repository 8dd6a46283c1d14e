"""What a node serves on its public address: the cluster map, to clients and operators."""

import msgspec

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.listener import Listener, ListenerSettings, Service
from greenroom_cluster.runtime.map_publisher import MapPublisher

_decoder = msgspec.msgpack.Decoder(wire.Subscribe)


class MapServer:
    """Serves `Subscribe` on one listening address, bound at construction (UsageError if it cannot be).

    `publish` is called with every map that the node learns; `run` serves until cancelled.
    """

    def __init__(self, settings: ListenerSettings) -> None:
        self._publisher = MapPublisher()
        service = Service(_decoder, self._handle)
        self.listener = Listener(settings, {wire.ROLE_CLIENT: service, wire.ROLE_ADMIN: service})

    def publish(self, cluster_map: ClusterMap) -> None:
        """Send this map's changes to every subscriber."""
        self._publisher.publish(cluster_map)

    async def run(self) -> None:
        """Serve until cancelled."""
        await self.listener.run()

    async def _handle(self, connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        try:
            while True:
                await connection.receive()
                self._publisher.subscribe(number, connection)
        finally:
            self._publisher.forget(number)
