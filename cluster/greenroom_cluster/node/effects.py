"""Effects of a node's supervisor, to be performed in the order returned."""

from typing import Any, Literal, TypeAlias

import msgspec

from greenroom.cluster_map import ActorEntry, ClusterMap
from greenroom.errors import GreenroomError
from greenroom_cluster.coordination.messages import (
    RegisterActor,
    RegisterNode,
    RemoveNode,
    ReportDead,
    Suspicion,
)

Level: TypeAlias = Literal["info", "warning", "error"]
AgentRequest: TypeAlias = RegisterNode | RegisterActor | ReportDead | RemoveNode


class Effect(msgspec.Struct, frozen=True):
    """Base of every effect."""


class Heartbeat(Effect, frozen=True):
    """Tell the coordinator that the node is alive; dropped while unconnected."""

    node: str
    suspicions: tuple[Suspicion, ...]
    marks: tuple[tuple[bytes, int], ...] = ()


class Call(Effect, frozen=True):
    """Send this request under an id of the link's, and bring the reply as `Answered`."""

    call: int
    request: AgentRequest


class Publish(Effect, frozen=True):
    """Serve this map on the node's public address from now on."""

    map: ClusterMap


class LookFor(Effect, frozen=True):
    """Find out which of these actors' processes run on this host, and bring the result as `Looked`."""

    actors: tuple[ActorEntry, ...]


class ReadMarks(Effect, frozen=True):
    """Read the marks of all children, and bring them as `MarksRead`."""


class KillChild(Effect, frozen=True):
    """Kill the child in that slot; it is started again as a new incarnation."""

    slot: str


class StopChildren(Effect, frozen=True):
    """Stop all children for good, then bring `ChildrenStopped`."""


class Finished(Effect, frozen=True):
    """The node is done. `removed`: it was removed from the map. Raise `error`, if there is one."""

    removed: bool
    error: GreenroomError | None


class Log(Effect, frozen=True):
    """Log an event."""

    level: Level
    event: str
    fields: dict[str, Any]


AgentEffect: TypeAlias = (
    Heartbeat | Call | Publish | LookFor | ReadMarks | KillChild | StopChildren | Finished | Log
)
