"""What can happen to a node's supervisor. Every input reaches it through `Agent.step(now_ns, input)`."""

from typing import TypeAlias

import msgspec

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.messages import Accepted, Rejected
from greenroom_cluster.suspect_records import InHand


class Input(msgspec.Struct, frozen=True):
    """Base of every input."""


class MapSeen(Input, frozen=True):
    """The coordinator published this map, which is newer than the one before."""

    map: ClusterMap


class CoordinatorUp(Input, frozen=True):
    """The connection to the coordinator is established, and the map was received on it."""


class CoordinatorDown(Input, frozen=True):
    """The connection to the coordinator is gone."""


class CoordinatorRefused(Input, frozen=True):
    """Another than this cluster's coordinator answers; no repeating changes that."""

    reason: str


class Answered(Input, frozen=True):
    """The reply to the call of that number; None if none came in time."""

    call: int
    reply: Accepted | Rejected | None


class ChildStarting(Input, frozen=True):
    """A new incarnation of the child in that slot is about to start."""

    slot: str
    incarnation: bytes


class ChildReady(Input, frozen=True):
    """A child serves at that address; its process has this id, and started so many ticks after the boot."""

    slot: str
    incarnation: bytes
    address: str
    pid: int
    started_ticks: int


class RecordMark(msgspec.Struct, frozen=True):
    """The record that a child has in hand, and the processor seconds it has used so far (None: unknown)."""

    slot: str
    incarnation: bytes
    pid: int
    in_hand: InHand | None
    busy_seconds: float | None


class MarksRead(Input, frozen=True):
    """The marks of all children that are ready; read every `suspect_records.WATCH_SECONDS`."""

    marks: tuple[RecordMark, ...]


class ChildEnded(Input, frozen=True):
    """The exit of a child was seen, with this as its last mark. `crashed`: it ended by its own doing."""

    mark: RecordMark
    crashed: bool


class Looked(Input, frozen=True):
    """What became of the processes of an effect `LookFor`, by incarnation."""

    running: tuple[bytes, ...]
    gone: tuple[bytes, ...]


class DrainAsked(Input, frozen=True):
    """The node is to leave (SIGTERM); asked again, it stops at once."""


class StopAsked(Input, frozen=True):
    """The node is to stop at once (SIGINT)."""


class ChildrenStopped(Input, frozen=True):
    """No child runs any more, and none is started again."""


class Tick(Input, frozen=True):
    """Time passed; due when the clock reaches `Agent.next_deadline()`."""


AgentInput: TypeAlias = (
    MapSeen
    | CoordinatorUp
    | CoordinatorDown
    | CoordinatorRefused
    | Answered
    | ChildStarting
    | ChildReady
    | MarksRead
    | ChildEnded
    | Looked
    | DrainAsked
    | StopAsked
    | ChildrenStopped
    | Tick
)
