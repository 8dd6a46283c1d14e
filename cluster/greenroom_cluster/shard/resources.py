"""What the replicas of one actor share. Each part of a replica takes from it what it needs."""

from greenroom_cluster.shard.compaction import Compaction
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.disk_log import DiskLog
from greenroom_cluster.shard.endings.watchers import Watchers
from greenroom_cluster.shard.joining.slots import JoinSlots
from greenroom_cluster.shard.near.leases import Leases
from greenroom_cluster.shard.pairs.registry import Pairs
from greenroom_cluster.shard.state.memory import Memory
from greenroom_cluster.shard.state.quotas import Quotas
from greenroom_cluster.shard.state.table import SessionTable
from greenroom_cluster.shard.step import Mark, Step


class Opening:
    """How many `bytes` the logged commands of all primaries of an actor will open when they are applied."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class Evictions:
    """The evictions of all primaries of one actor: how many sessions so far, and the bytes under way.

    `wanted_bytes`: a shard with nothing to evict asks the others to free so much.
    """

    __slots__ = ("sessions", "tables", "under_way_bytes", "wanted_bytes")

    def __init__(self) -> None:
        self.tables: dict[SessionTable, None] = {}
        self.sessions = 0
        self.under_way_bytes = 0
        self.wanted_bytes = 0

    @property
    def evictable_bytes(self) -> int:
        """How much all primaries here could free."""
        return sum(table.evictable_bytes for table in self.tables)


class Resources:
    """What replicas share beside the context. `disk` and `compaction` are None if nothing is kept on one."""

    __slots__ = (
        *("compaction", "context", "disk", "evictions", "joins"),
        *("memory", "near", "opening", "pairs", "quotas", "step", "watchers"),
    )

    def __init__(self, context: Context, mark: Mark, disk: DiskLog | None = None) -> None:
        self.context = context
        self.disk = disk
        self.compaction = None if disk is None else Compaction(context, disk)
        self.step = Step(context.settings, mark)
        self.memory = Memory(context.settings, context.slot)
        self.pairs = Pairs(context, self.memory)
        self.joins = JoinSlots(context.settings)
        self.opening = Opening()
        self.evictions = Evictions()
        self.quotas = Quotas(context)
        self.near = Leases(context)
        self.watchers = Watchers(context)
