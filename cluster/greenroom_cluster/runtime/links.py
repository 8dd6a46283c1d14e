"""The connections that this actor opens to its peers, kept open for as long as the core wants them.

Two to a peer at most: one for beacons and records, one (`bulk`) for snapshots. A link whose queue passes its
bound is dropped and opened again; the core hears of it and sends what still matters.
"""

from collections.abc import Callable
from typing import Any, Protocol

import trio

from greenroom import wire
from greenroom.framing import messages_decoder
from greenroom.negotiation import hello
from greenroom_cluster.links.outbox import farewell
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.delivery import Delivery
from greenroom_cluster.runtime.dialing import stay_connected
from greenroom_cluster.runtime.poller import Poller
from greenroom_cluster.runtime.reading import ConnectionEndedError
from greenroom_cluster.shard.messages import PEER_FRAME_BYTES_MAX, PeerReply

_decoder = messages_decoder(PeerReply | wire.Goodbye)


class OnUp(Protocol):
    """Is told of a link that is up."""

    def __call__(self, peer: bytes, connection: FramedConnection, *, bulk: bool) -> None:
        """Take it in."""


class OnDown(Protocol):
    """Is told of a link that is down."""

    def __call__(self, peer: bytes, *, bulk: bool) -> None:
        """Take it in."""


class _Link:
    __slots__ = ("address", "bulk", "peer", "scope")

    def __init__(self, peer: bytes, address: str, *, bulk: bool) -> None:
        self.peer = peer
        self.address = address
        self.bulk = bulk
        self.scope = trio.CancelScope()


class PeerLinks:
    """The links of one actor.

    `on_up(peer, connection, bulk=...)`, `on_down(peer, bulk=...)` and `on_messages(peer, messages)` must not
    block. A link that was closed on this side reports nothing any more.
    """

    def __init__(
        self,
        cluster: str,
        incarnation: bytes,
        nursery: trio.Nursery,
        poller: Poller,
        *,
        on_up: OnUp,
        on_down: OnDown,
        on_messages: Callable[[bytes, list[Any]], None],
    ) -> None:
        self._cluster = cluster
        self._incarnation = incarnation
        self._nursery = nursery
        self._poller = poller
        self._on_up = on_up
        self._on_down = on_down
        self._on_messages = on_messages
        self._links: dict[tuple[bytes, bool], _Link] = {}

    def open(self, peer: bytes, address: str, *, bulk: bool) -> None:
        """Keep a connection open to this peer from now on."""
        link = self._links[peer, bulk] = _Link(peer, address, bulk=bulk)
        self._nursery.start_soon(self._keep, link)

    def close(self, peer: bytes, *, bulk: bool) -> None:
        """End the connection to this peer, or the attempt."""
        self._links.pop((peer, bulk)).scope.cancel()

    async def _keep(self, link: _Link) -> None:
        greeting = hello(self._cluster, wire.ROLE_PEER, self._incarnation, link.peer)
        what = f"peer {link.peer.hex()[:8]}{' bulk' if link.bulk else ''}"

        async def serve(connection: FramedConnection) -> None:
            await self._serve(link, connection)

        with link.scope:
            await stay_connected(link.address, greeting, self._nursery, serve, what=what)

    async def _serve(self, link: _Link, connection: FramedConnection) -> None:
        connection.speak(_decoder, PEER_FRAME_BYTES_MAX)

        def handle(messages: list[Any]) -> None:
            if self._links.get((link.peer, link.bulk)) is not link:
                return  # closed meanwhile; the link's task is about to end
            goodbye = farewell(messages)
            if goodbye is not None:
                raise ConnectionEndedError(f"the peer said goodbye: {goodbye.message}")
            self._on_messages(link.peer, messages)

        try:
            self._on_up(link.peer, connection, bulk=link.bulk)
            await Delivery(connection, self._poller, handle).run()
        finally:
            if self._links.get((link.peer, link.bulk)) is link:
                self._on_down(link.peer, bulk=link.bulk)
