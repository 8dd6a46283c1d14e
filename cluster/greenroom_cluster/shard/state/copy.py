"""One actor's copy of a shard, whatever its role: what it holds, and how its log is applied."""

from greenroom.errors import InvariantError
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.roles.role import BECOMES, Role
from greenroom_cluster.shard.state.clock import ShardClock
from greenroom_cluster.shard.state.ladder import Ladder
from greenroom_cluster.shard.state.log import Log
from greenroom_cluster.shard.state.memory import Memory
from greenroom_cluster.shard.state.pacing import affordable
from greenroom_cluster.shard.state.snapshot_parts import take_in
from greenroom_cluster.shard.state.table import SessionTable
from greenroom_cluster.shard.step import MARK_EPOCH, MARK_SEQUENCE, MARK_SHARD, Step

_REPLIES_UNTOLD_BYTES = 64 << 10
STABLE_WITHOUT_DISK = 1 << 63
READ = 4
"""Reading so many bytes of a snapshot takes as long as opening one of a session."""


class Copy:
    """The sessions and the log of a shard, as one replica has them.

    `primary_incarnation` is the actor that it takes them from, empty at the primary. `known_committed` is how
    far later steps have still to apply, see `pacing`. `held_bytes` is what the requests take that a primary
    holds. `doubted`: the recipients that the next configuration names may hold something else under the same
    numbers. `last_epoch` is the epoch of the newest record applied.

    `stable` is how far this actor's own disk has the log, if it has one. While the copy is `unsettled`, its
    configuration is not there yet.
    """

    __slots__ = (
        "_settled_bytes",
        "_settled_replies_bytes",
        "clock",
        "committed",
        "context",
        "doubted",
        "epoch",
        "held_bytes",
        "known_committed",
        "ladder",
        "last_epoch",
        "log",
        "members",
        "memory",
        "primary_incarnation",
        "role",
        "shard",
        "stable",
        "step",
        "table",
        "unsettled",
    )

    def __init__(self, context: Context, step: Step, memory: Memory, shard: int, epoch: int) -> None:
        self.context = context
        self.step = step
        self.memory = memory
        self.shard = shard
        self.epoch = epoch
        self.members: tuple[bytes, ...] = ()
        self.role = Role.NONE
        self.primary_incarnation = b""
        self.table = SessionTable(by_age=context.settings.eviction == "anonymous")
        self.log = Log()
        self.clock = ShardClock()
        self.committed = 0
        self.known_committed = 0
        self.last_epoch = 0
        self.ladder = Ladder()
        self.stable = STABLE_WITHOUT_DISK
        self.unsettled = False
        self.held_bytes = 0
        self.doubted = False
        # What the table, and the replies in it, were charged when the books were last told.
        self._settled_bytes = 0
        self._settled_replies_bytes = 0

    def _become(self, role: Role) -> None:
        """Take another role; only `become_*` calls this."""
        if role not in BECOMES[self.role]:
            raise InvariantError(f"shard {self.shard}: {self.role.value} became {role.value}")
        self.role = role

    def become_handing_over(self) -> None:
        """As the primary, wait for another to take over the role."""
        self._become(Role.HANDING_OVER)
        self.context.transition(self.shard, self.epoch, self.role.value, "hand-over proposed")

    def begin_at(self, table: SessionTable, last: tuple[int, int]) -> None:
        """Start over with the table of a snapshot up to a record, and with an empty log from there on."""
        self.table = table
        self.last_epoch, sequence = last
        self.ladder = Ladder(last)
        self.log = Log(sequence)
        self.committed = sequence

    def read_all(self) -> None:
        """Read the rest of the snapshot that was found on disk, however long that takes."""
        while self.log.unread:
            self.read_part()

    def read_part(self) -> None:
        """Read the next part of it. Raises InvariantError if it lacks its last part."""
        log = self.log
        part = log.next_part()
        last = take_in(self.table, part)
        if last == bool(log.unread):
            raise InvariantError(f"shard {self.shard}: the snapshot on disk lacks its last part")
        self.step.bytes_left -= len(part) // READ
        self.count_arrived()

    # --- the books ------------------------------------------------------------------------------------------

    def count(self) -> None:
        """Tell the books what this copy holds: at once, or with the next beacon if there is ample room.

        Until then the books charge it too much, never too little, because records were charged when logged.
        Kept replies are reported once there are many: they have a bound of their own.
        """
        memory = self.memory
        memory.uncounted[self.shard] = self
        if (
            memory.free_bytes <= memory.ample_bytes
            or self.table.clients.charged_bytes - self._settled_replies_bytes > _REPLIES_UNTOLD_BYTES
        ):
            memory.count_all()

    def count_arrived(self) -> None:
        """Tell the books what a snapshot brought; room for it was reserved when it began."""
        self._settled_bytes = self.table.settled_bytes
        self.count_now()

    def count_now(self) -> None:
        """Tell the books what this copy holds, and how much of that its primary has added."""
        clients = self.table.clients
        replies = clients.charged_bytes
        stored = self.table.settled_bytes
        memory = self.memory
        used = stored + self.log.charged_bytes + self.held_bytes
        memory.note(self.shard, used, replies, clients.named_bytes)
        if stored > self._settled_bytes and self.primary_incarnation and not memory.keeps_for(self.shard):
            memory.spend(self.primary_incarnation, stored - self._settled_bytes)
        self._settled_bytes, self._settled_replies_bytes = stored, replies

    # --- the log --------------------------------------------------------------------------------------------

    def affordable(self, through: int) -> int:
        """Return up to which record to apply in this step; later steps apply the rest, see `pacing`."""
        step = self.step
        reached, step.bytes_left = affordable(self.log, self.table, self.committed, through, step.bytes_left)
        if reached < through:
            self._leave(through)
        return reached

    def commit(self, through: int) -> None:
        """Apply the log up to a record, marking each; stop early if that takes too long for one step."""
        mark, table, log = self.step.mark, self.table, self.log
        apply, walked = table.apply, table.walked
        mark[MARK_SHARD] = self.shard
        opening = log.opening_at > self.committed
        for record in (log.records if opening else log.take)(self.committed, through):
            mark[MARK_EPOCH] = record.epoch
            mark[MARK_SEQUENCE] = self.committed = record.sequence
            apply(record)
            if walked.items and self.walked_enough(through):
                break
        mark[MARK_SEQUENCE] = 0
        self.last_epoch = record.epoch
        if opening:
            log.trim(self.committed)

    def walked_enough(self, through: int) -> bool:
        """Count what the latest command read in Python; return whether the rest must wait for a step."""
        step, walked = self.step, self.table.walked
        step.items_left -= walked.items
        walked.items = 0
        if step.items_left > 0 or self.committed >= through:
            return False
        step.bytes_left = 0
        self._leave(through)
        return True

    def _leave(self, through: int) -> None:
        self.known_committed = max(self.known_committed, through)
        self.step.behind[self.shard] = None
