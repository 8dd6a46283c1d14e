"""The current step: what it has done, what it may still do, and what it leaves for later steps."""

from typing import Protocol, TypeAlias

from greenroom import wire
from greenroom.namespace_use import NamespaceUse
from greenroom_cluster.shard.settings import HostSettings, ns

ITEMS_MAX = 8192
"""A step stops applying after so many items that were read in Python, at about 4 us each."""

MARK_SHARD, MARK_EPOCH, MARK_SEQUENCE, MARK_DIRECTORY = range(4)


Inspected: TypeAlias = tuple[tuple[wire.ReplicaState, ...], tuple[NamespaceUse, ...]]


class Mark(Protocol):
    """Three integers that name the record about to be applied; a sequence number of 0: none is.

    A fourth is how far the actor's directory has come; who writes there sets it, not the core.

    They are kept where they outlive the process, so that a successor can avoid the record on which this one
    died. Not a function: three stores take a tenth of a microsecond, a call that packs them twice that.
    """

    def __setitem__(self, field: int, value: int, /) -> None:
        """Set one of them."""


class Step:
    """What one step counts. The sets of shards are dicts, since those keep their order.

    `ready`: primaries that may be able to commit, in this step. `behind`: replicas that left some of what is
    committed to a later step. `unfinished`: primaries that may have another page of a long command to log.
    """

    __slots__ = (
        "_bytes_max",
        "_pause_ns",
        "applied_bytes",
        "awake_ns",
        "behind",
        "bytes_left",
        "copied",
        "fanned_out",
        "identity",
        "inspected",
        "items_left",
        "late",
        "listed",
        "mark",
        "now_ns",
        "ready",
        "unfinished",
        "walked_items",
    )

    def __init__(self, settings: HostSettings, mark: Mark) -> None:
        self._bytes_max = settings.step_bytes
        # A gap between steps means that this process stood still, so what it knows of others is as old.
        self._pause_ns = ns(2 * settings.beacon_seconds)
        self.mark = mark
        self.now_ns = 0
        self.awake_ns = 0
        # Whether the requests that are served now have waited here.
        self.late = False
        self.ready: dict[int, None] = {}
        self.behind: dict[int, None] = {}
        self.unfinished: dict[int, None] = {}
        # How much may still be applied: bytes that commands bring and open, and items read in Python.
        self.bytes_left = self._bytes_max
        self.items_left = ITEMS_MAX
        # Entries listed, parts of shards copied, shards asked by requests to many, items of data read, what
        # operators were shown.
        self.listed = 0
        self.copied = 0
        self.fanned_out = 0
        self.walked_items = 0
        self.inspected: Inspected | None = None
        # By identity: requests taken in, and bytes of commands applied.
        self.identity = ""
        self.applied_bytes: dict[str, int] = {}

    def begin(self, now_ns: int) -> None:
        """Begin the next step."""
        self.listed = self.copied = self.fanned_out = self.walked_items = 0
        self.inspected = None
        self.identity = ""
        self.bytes_left, self.items_left = self._bytes_max, ITEMS_MAX
        if self.applied_bytes:
            self.applied_bytes = {}
        if now_ns - self.now_ns > self._pause_ns:
            self.awake_ns = now_ns
        self.now_ns = now_ns
