"""Peers with the map of another cluster of the same name: they take part in nothing.

When a cluster is created anew on the ports of a former one, leftovers of that may connect: a node that was
paused, cut off, or forgotten on another host. Lineage and version of its map mean nothing here, and it holds
sessions of its own cluster, which must not mix with those of this one.

Peers subscribe before anything else, so the first message of a connection tells.
"""

from typing import TypeAlias

from greenroom import wire
from greenroom.cluster_map import are_foreign
from greenroom_cluster.coordination.messages import (
    DeclareDead,
    ForgetNode,
    Heartbeat,
    Propose,
    RegisterActor,
    RegisterNode,
    Rejected,
    RemoveNode,
    ReportDead,
)

Request: TypeAlias = (
    Propose | RegisterNode | RegisterActor | ReportDead | RemoveNode | ForgetNode | DeclareDead
)

OTHER_CLUSTER = "other-cluster"
"""The code of the `Goodbye` to such a peer."""

WHY_FOREIGN = (
    "the cluster of this coordinator has the same name as yours and is another, which was created anew: stop "
    "this node, which ends the sessions that it holds in memory, and start it again to have it join, with an "
    "empty --data-dir if it keeps sessions on disk; or give it the coordinator of its own cluster "
    "(--coordinator)"
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
        """Note which cluster a peer's map is of; return whether that is another one."""
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
        """Return a warning about such peers, at most once a minute."""
        came, self._came = self._came, False
        if not came or now_ns < self._tell_due_ns:
            return []
        self._tell_due_ns = now_ns + round(TELL_SECONDS * 1e9)
        told = (
            "an actor or a supervisor of another cluster of this name asks this coordinator, and is turned "
            "away: a node runs that was started before this cluster was created, or its directory was. Stop "
            "it, and start it again if it is to join this one, with an empty --data-dir if it had one"
        )
        return [told]


def refusal(
    message: wire.Subscribe | Request | Heartbeat, code: str = OTHER_CLUSTER, reason: str = WHY_FOREIGN
) -> wire.Goodbye | Rejected:
    """Return the reply to any message of such a peer."""
    if isinstance(message, wire.Subscribe | Heartbeat):
        return wire.Goodbye(code, reason)
    return Rejected(message.request_id, reason)
