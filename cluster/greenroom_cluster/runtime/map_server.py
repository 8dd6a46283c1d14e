"""A node's service on its public address: the cluster map, to clients and operators."""

import trio

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.framing import messages_decoder
from greenroom_cluster.access import AT_NODE, sees_processes
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.listener import Listener, ListenerSettings, Service
from greenroom_cluster.runtime.map_publisher import MapPublisher

# Some hundreds of requests. A client needs one, and decoding a flood must not take long at a time.
_READ_BYTES = 4096


class MapServer:
    """Serves `Subscribe` on one listening address, bound at construction (UsageError if it cannot be).

    `publish` is called with every map that the node gets; `run` serves until cancelled.
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
        whole = sees_processes(hello.role, connection.holder)
        try:
            while True:
                # One reply serves all requests that were read at once.
                await connection.receive()
                self._publisher.subscribe(number, connection, whole=whole)
                # Everything else in this process gets its turn before the next reply, and a client that does
                # not read gets no further one.
                await trio.lowlevel.checkpoint()
                await connection.room()
        finally:
            self._publisher.forget(number)
