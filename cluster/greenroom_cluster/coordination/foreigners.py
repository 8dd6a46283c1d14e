"""Peers whose map is of another cluster, although that has the same name: they take part in nothing.

A cluster that is started anew on the ports of a former one is met by what is left of that: a node that was
paused, cut off, or forgotten on another host. Lineage and version of its map mean nothing here, and it holds
sessions of its own cluster, which may not be mixed with those of this one.

Peers subscribe before all else, so a connection is known for what it is by the first that comes on it.
"""

from typing import TypeAlias

from greenroom import wire
from greenroom.cluster_map import are_foreign
from greenroom_cluster.coordination.messages import (
    ForgetNode,
    Heartbeat,
    Propose,
    RegisterActor,
    RegisterNode,
    Rejected,
    RemoveNode,
    ReportDead,
)

Request: TypeAlias = Propose | RegisterNode | RegisterActor | ReportDead | RemoveNode | ForgetNode

OTHER_CLUSTER = "other-cluster"
"""Code of the `Goodbye` that such a peer gets."""

WHY_FOREIGN = (
    "the cluster of this coordinator has the same name as yours and is another, which was created anew: stop "
    "this node, which ends the sessions that it holds, and start it again to have it join; or give it the "
    "coordinator of its own cluster (--coordinator)"
)

TELL_SECONDS = 60.0
_CONNECTIONS_MAX = 1 << 14


class Foreigners:
    """The connections of such peers to the coordinator of the cluster with this identity."""

    def __init__(self, identity: bytes) -> None:
        self._identity = identity
        self._connections: dict[int, None] = {}
        self._came = False
        self._tell_due_ns = 0

    def note(self, connection: int, identity: bytes) -> bool:
        """Take in of which cluster a peer has a map; return whether that is another."""
        if not are_foreign(self._identity, identity):
            return False
        self._came = True
        self._connections[connection] = None
        if len(self._connections) > _CONNECTIONS_MAX:
            del self._connections[next(iter(self._connections))]
        return True

    def __contains__(self, connection: int) -> bool:
        return connection in self._connections

    def closed(self, connection: int) -> None:
        """Note the end of a connection."""
        self._connections.pop(connection, None)

    def news(self, now_ns: int) -> list[str]:
        """Return what there is to tell of those that came, at most once a minute."""
        came, self._came = self._came, False
        if not came or now_ns < self._tell_due_ns:
            return []
        self._tell_due_ns = now_ns + round(TELL_SECONDS * 1e9)
        told = (
            "an actor or a supervisor of another cluster of this name asks this coordinator, and is turned "
            "away: a node runs that was started before this cluster was created. Stop it, and start it again "
            "if it is to join this one"
        )
        return [told]


def refusal(
    message: wire.Subscribe | Request | Heartbeat, code: str = OTHER_CLUSTER, reason: str = WHY_FOREIGN
) -> wire.Goodbye | Rejected:
    """Return the answer to whatever comes from a peer that takes part in nothing."""
    if isinstance(message, wire.Subscribe | Heartbeat):
        return wire.Goodbye(code, reason)
    return Rejected(message.request_id, reason)
