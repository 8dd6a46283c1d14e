"""Records that end whoever applies them, and an operator who drops them.

A fault arms a shard: the next record that its primary applies crashes it, hangs it, or holds it up for a
while. Which one that was is kept, and it does the same to whoever else applies it. The core is the real one:
what ends it is its own mark of the record in hand.
"""

from typing import TYPE_CHECKING

from greenroom import wire
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.step import MARK_SEQUENCE, MARK_SHARD
from greenroom_cluster.suspicion import InHand
from simulations.timeline import MILLISECOND

if TYPE_CHECKING:
    from simulations.actors import ActorProcess
    from simulations.world import World

CRASH, HANG, SLOW = "crash", "hang", "slow"
KINDS = (CRASH, HANG, SLOW)
_OPERATOR = b"operator"
_NO_CONNECTION = -1
_LOOK_NS = 100 * MILLISECOND
_DROP_LOOKS = 5


class PoisonedError(Exception):
    """The record about to be applied ends this actor."""


class ActorMark:
    """An actor's mark. `last` is the newest record that it named in the step under way."""

    __slots__ = ("_fields", "_poisons", "actor", "last")

    def __init__(self, poisons: "Poisons") -> None:
        self._poisons = poisons
        self._fields = [0, 0, 0]
        self.actor: ActorProcess | None = None
        self.last: InHand | None = None

    def __setitem__(self, field: int, value: int) -> None:
        self._fields[field] = value
        if field == MARK_SEQUENCE and value:
            self.last = InHand(*self._fields)
            if self._poisons.any and self.actor is not None:
                self._poisons.touched(self.actor, self.last)
        elif field == MARK_SHARD:
            self.last = None


class Poisons:
    """The poison of one world. `dropped` are the records that the operator dropped, by shard and name."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.any = False
        self.dropped: set[InHand] = set()
        self.dropped_requests: set[tuple[bytes, int]] = set()
        self._armed: dict[int, tuple[str, float]] = {}
        self._records: dict[InHand, tuple[str, float]] = {}
        self._victims: dict[InHand, str] = {}
        self._seen: dict[InHand, int] = {}

    def arm(self, shard: int, kind: str, seconds: float) -> None:
        """Make poison of the next record that this shard's primary applies; slow ones last so long."""
        if not self.any:
            self.any = True
            self.world.timeline.after(_LOOK_NS, self._operate)
        self._armed[shard] = (kind, seconds)

    def disarm(self) -> None:
        """Make poison of nothing more; what is poison stays so."""
        self._armed.clear()

    def is_poison(self, record: InHand) -> bool:
        """Whether that record ends, or holds up, whoever applies it."""
        return record in self._records

    def touched(self, actor: "ActorProcess", record: InHand) -> None:
        """Take effect if the record is poison. Raises PoisonedError where the actor does not survive it."""
        known = self._records.get(record)
        if known is None:
            replica = actor.host.replicas[record.shard]
            leads = replica is not None and replica.primary is not None and len(replica.members) > 1
            if record.shard not in self._armed or not leads:
                return
            known = self._records[record] = self._armed.pop(record.shard)
            self.world.note(f"{actor.name} applies {record}, which is poison: {known[0]}")
        kind, seconds = known
        if kind == SLOW:
            if record not in self._victims:
                self._victims[record] = actor.name
                actor.slow_down(record, seconds)
            return
        self._judge(actor, record)
        actor.succumb(record, hangs=kind == HANG)
        raise PoisonedError

    def _judge(self, actor: "ActorProcess", record: InHand) -> None:
        former = self._victims.setdefault(record, actor.name)
        if former == actor.name:
            self.world.network.happened["record ended an actor"] += 1
            return
        replica = actor.host.replicas[record.shard]
        suspect = self.world.oracles.suspect_at(record.shard, 0 if replica is None else replica.epoch)
        told = suspect is not None and (suspect.epoch, suspect.sequence) == (record.epoch, record.sequence)
        if told or self.world.plan.spares:
            self.world.violate("poison", f"{actor.name} applied {record}, on which {former} had ended")
        self.world.network.happened["record ended two actors"] += 1

    # --- the operator ------------------------------------------------------------------------------------

    def _operate(self) -> None:
        """Drop what suspends a shard, a while after it was seen; again until it is done."""
        self.world.timeline.after(_LOOK_NS, self._operate)
        for actor in list(self.world.actors.values()):
            if not actor.alive or actor.paused:
                continue
            for replica in actor.host.replicas:
                if replica is not None and replica.suspension is not None:
                    suspect = replica.suspension.suspect
                    record = InHand(replica.shard, suspect.epoch, suspect.sequence)
                    self._seen[record] = self._seen.get(record, 0) + 1
                    if self._seen[record] >= _DROP_LOOKS:
                        self._drop(actor, record)

    def _drop(self, actor: "ActorProcess", record: InHand) -> None:
        replica = actor.host.replicas[record.shard]
        assert replica is not None
        assert replica.suspension is not None
        dropped = replica.suspension.record
        request = (dropped.client, getattr(dropped.command, "request", 0))
        # Known before the step, whose outcome is judged at its end.
        self.dropped.add(record)
        self.dropped_requests.add(request)
        command = wire.DropRecord(1, record.shard, record.epoch, record.sequence)
        actor.step(ins.ClientRequests(_NO_CONNECTION, _OPERATOR, [command]))
        if replica.state(actor.machine.now_ns()).suspended is not None:
            self.dropped.discard(record)
            self.dropped_requests.discard(request)
        else:
            self.world.network.happened["record dropped by an operator"] += 1
            self.world.note(f"an operator had {actor.name} drop {record}")
