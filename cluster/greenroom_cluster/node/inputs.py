"""Inputs of a node's supervisor, passed to `Agent.step(now_ns, input)`."""

from typing import TypeAlias

import msgspec

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.messages import Accepted, Rejected
from greenroom_cluster.suspect_records import InHand


class Input(msgspec.Struct, frozen=True):
    """Base of every input."""


class MapSeen(Input, frozen=True):
    """The coordinator published this map, newer than the last one."""

    map: ClusterMap


class CoordinatorUp(Input, frozen=True):
    """The coordinator is connected, and has sent the map."""


class CoordinatorDown(Input, frozen=True):
    """The connection to the coordinator is gone."""


class CoordinatorRefused(Input, frozen=True):
    """The coordinator at that address is not this cluster's; retrying does not help."""

    reason: str


class Answered(Input, frozen=True):
    """The reply to the call with that number; None if none came in time."""

    call: int
    reply: Accepted | Rejected | None


class ChildStarting(Input, frozen=True):
    """A new incarnation of the child in that slot is about to start."""

    slot: str
    incarnation: bytes


class ChildReady(Input, frozen=True):
    """A child serves at that address; its process has that id, and started that many ticks after boot.

    `durability`, `directory` and `mark` are what it keeps on disk, as in `ActorEntry`.
    """

    slot: str
    incarnation: bytes
    address: str
    pid: int
    started_ticks: int
    durability: str = ""
    directory: bytes = b""
    mark: int = 0


class RecordMark(msgspec.Struct, frozen=True):
    """The record that a child is applying, and the processor seconds that it has used (None: unknown).

    `directory_mark` is how far its directory has come, 0 if it has none.
    """

    slot: str
    incarnation: bytes
    pid: int
    in_hand: InHand | None
    busy_seconds: float | None
    directory_mark: int = 0


class MarksRead(Input, frozen=True):
    """The marks of all children that are ready, as `ReadMarks` asks for them."""

    marks: tuple[RecordMark, ...]


class ChildEnded(Input, frozen=True):
    """A child exited, with this as its last mark. Its status is negative for a signal, None if unknown."""

    mark: RecordMark
    exit_status: int | None


class Looked(Input, frozen=True):
    """The result of a `LookFor`: which of the processes run, by incarnation."""

    running: tuple[bytes, ...]
    gone: tuple[bytes, ...]


class DrainAsked(Input, frozen=True):
    """Leave (SIGTERM). The second time: stop at once."""


class StopAsked(Input, frozen=True):
    """Stop at once (SIGINT)."""


class ChildrenStopped(Input, frozen=True):
    """All children have ended for good."""


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
