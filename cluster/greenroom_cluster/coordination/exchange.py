"""What comes to a coordinator, from which connection, and what comes of it."""

import msgspec

from greenroom import wire
from greenroom.cluster_map import ClusterMap, MapDelta
from greenroom_cluster.coordination.messages import CoordinatorReply, Handled


class ConnectionClosed(msgspec.Struct, frozen=True):
    """In place of a message, after all others of the connection: it has ended."""


class Incoming(msgspec.Struct, frozen=True):
    """One message of a connection; `sender` and `role` are those of the connection's hello."""

    connection: int
    sender: bytes
    message: Handled | ConnectionClosed
    role: str = wire.ROLE_PEER


class Response(msgspec.Struct, frozen=True):
    """A message for that connection; dropped if it is gone."""

    connection: int
    message: CoordinatorReply


class Outcome(msgspec.Struct, frozen=True):
    """Persist, then publish `delta`, then respond, in this order. `persist` and `delta` come together.

    `ask`: the addresses of nodes to ask for the maps that they hold, for `Coordinator.shown`.
    """

    persist: ClusterMap | None = None
    delta: MapDelta | None = None
    responses: tuple[Response, ...] = ()
    warnings: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
