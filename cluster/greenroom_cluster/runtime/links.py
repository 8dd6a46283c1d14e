"""The connections that this actor opens to its peers, kept open for as long as the core wants them.

At most two to a peer: one for beacons and records, one (`bulk`) for snapshots. A link whose queue exceeds its
bound is dropped and opened again; the core is told, and sends what still matters.
"""

from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import trio

from greenroom import wire
from greenroom.framing import messages_decoder
from greenroom.negotiation import hello
from greenroom_cluster.links.outbox import farewell
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.delivery import Delivery
from greenroom_cluster.runtime.dialing import stay_connected
from greenroom_cluster.runtime.poller import Poller
from greenroom_cluster.runtime.proving import Safeguard
from greenroom_cluster.runtime.reading import ConnectionEndedError
from greenroom_cluster.shard.messages import PEER_FRAME_BYTES_MAX, PeerReply

_decoder = messages_decoder(PeerReply | wire.Goodbye)


class OnUp(Protocol):
    """A callback for a link that is up."""

    def __call__(self, peer: bytes, line: FramedConnection, *, bulk: bool) -> None:
        """Take it in."""


class OnDown(Protocol):
    """A callback for a link that is down."""

    def __call__(self, peer: bytes, *, bulk: bool) -> None:
        """Take it in."""


class PeerLinks:
    """The links of one actor.

    `on_up(peer, connection, bulk=...)`, `on_down(peer, bulk=...)` and `on_messages(peer, messages)` must not
    block. A link closed on this side reports nothing afterwards. `trust_in(peer)` says how to secure the
    connection to a peer.
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
        trust_in: Callable[[bytes], Safeguard | None] = lambda _: None,
    ) -> None:
        self._trust_in = trust_in
        self._cluster = cluster
        self._incarnation = incarnation
        self._nursery = nursery
        self._poller = poller
        self._on_up = on_up
        self._on_down = on_down
        self._on_messages = on_messages
        self._links: dict[tuple[bytes, bool], _Link] = {}

    def open(self, peer: bytes, address: str, *, bulk: bool) -> None:
        """Keep a connection to this peer open from now on."""
        greeting = hello(self._cluster, wire.ROLE_PEER, self._incarnation, peer)
        link = self._links[peer, bulk] = _Link(
            peer, bulk, self._poller, self._on_up, self._on_down, self._on_messages
        )
        self._nursery.start_soon(link.keep, address, greeting, self._nursery, self._trust_in(peer))

    def close(self, peer: bytes, *, bulk: bool) -> None:
        """End the connection to this peer, or the attempt."""
        self._links.pop((peer, bulk)).stop()


class _Link:
    """One link."""

    def __init__(
        self,
        peer: bytes,
        bulk: bool,  # noqa: FBT001  half of the link's name
        poller: Poller,
        on_up: OnUp,
        on_down: OnDown,
        on_messages: Callable[[bytes, list[Any]], None],
    ) -> None:
        self._peer = peer
        self._bulk = bulk
        self._poller = poller
        self._on_up = on_up
        self._on_down = on_down
        self._on_messages = on_messages
        self._scope = trio.CancelScope()

    async def keep(
        self, address: str, greeting: wire.Hello, nursery: trio.Nursery, trust: Safeguard | None
    ) -> None:
        """Keep it open until it is stopped."""
        what = f"peer {self._peer.hex()[:8]}{' bulk' if self._bulk else ''}"
        with self._scope:
            await stay_connected(address, greeting, nursery, self, what=what, trust=trust)

    def stop(self) -> None:
        """End it; report nothing afterwards."""
        self._scope.cancel()

    def begin(self, connection: FramedConnection, address: str) -> None:
        """Report that it is up."""
        if self._scope.cancel_called:
            return  # it was stopped when it was down for a moment, as another connection took its place
        connection.speak(_decoder, PEER_FRAME_BYTES_MAX)
        self._on_up(self._peer, connection, bulk=self._bulk)

    async def use(self, connection: FramedConnection) -> NoReturn:
        """Pass on what arrives."""
        await Delivery(connection, self._poller, self._take).run()

    def end(self) -> None:
        """Report that it is down."""
        if not self._scope.cancel_called:
            self._on_down(self._peer, bulk=self._bulk)

    def failed(self, reason: str, code: str) -> None:
        """Ignore the reason: a peer that is not there may have any."""

    def _take(self, messages: list[Any]) -> None:
        if self._scope.cancel_called:
            return  # its task is about to end
        goodbye = farewell(messages)
        if goodbye is not None:
            raise ConnectionEndedError(f"the peer said goodbye: {goodbye.message}")
        self._on_messages(self._peer, messages)
