"""A node's service on its public address: the cluster map, to clients and operators."""

import trio

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.framing import messages_decoder
from greenroom_cluster.access import AT_NODE
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.listener import Listener, ListenerSettings, Service
from greenroom_cluster.runtime.map_publisher import MapPublisher

# Some hundreds of requests, of which a client needs one: decoding a flood of them must not take long at once.
_READ_BYTES = 4096


class MapServer:
    """Serves `Subscribe` on one listening address, bound at construction (UsageError if it cannot be).

    `publish` is called with every map that the node learns; `run` serves until cancelled.
    """

    def __init__(self, settings: ListenerSettings) -> None:
        self._publisher = MapPublisher()
        self.listener = Listener(
            settings,
            {
                role: Service(
                    messages_decoder(kinds), self._handle, read_bytes=_READ_BYTES, answers_shared=True
                )
                for role, kinds in AT_NODE.items()
            },
        )

    def publish(self, cluster_map: ClusterMap) -> None:
        """Send this map's changes to every subscriber."""
        self._publisher.publish(cluster_map)

    async def run(self) -> None:
        """Serve until cancelled."""
        await self.listener.run()

    async def _handle(self, connection: FramedConnection, hello: wire.Hello, number: int) -> None:
        try:
            while True:
                # However many requests came at once, one answer serves them.
                await connection.receive()
                self._publisher.subscribe(number, connection)
                # Everything else in this process has its turn before the next answer, and one that does not
                # read is asked for no more.
                await trio.lowlevel.checkpoint()
                await connection.room()
        finally:
            self._publisher.forget(number)
