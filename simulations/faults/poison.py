"""Poisoned records, which end the actors that apply them, and an operator who drops them.

A fault arms a shard: the next record that its primary applies crashes it, hangs it, or holds it up for a
while. That record then does the same to every other actor that applies it. The core is the real one:
what ends it is its own mark of the record in hand.
"""

from greenroom import wire
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.suspect_records import InHand
from simulations.checks.oracles import Oracles
from simulations.cluster.actors import ActorProcess
from simulations.cluster.marks import PoisonBook, PoisonedError
from simulations.cluster.stage import Stage
from simulations.kernel.timeline import MILLISECOND

CRASH, HANG, SLOW = "crash", "hang", "slow"
KINDS = (CRASH, HANG, SLOW)
_OPERATOR = b"operator"
_NO_CONNECTION = -1
_LOOK_NS = 100 * MILLISECOND
_DROP_LOOKS = 5


class Poisons:
    """The poison of one world, of which `book` tells others."""

    def __init__(self, stage: Stage, book: PoisonBook, oracles: Oracles) -> None:
        self.stage = stage
        self._book = book
        self._oracles = oracles
        self._any = False
        self._armed: dict[int, tuple[str, float]] = {}
        self._victims: dict[InHand, str] = {}
        self._seen: dict[InHand, int] = {}

    def arm(self, shard: int, kind: str, seconds: float) -> None:
        """Make poison of the next record that this shard's primary applies; slow ones last so long."""
        if not self._any:
            self._any = True
            self.stage.timeline.after(_LOOK_NS, self._operate)
        self._armed[shard] = (kind, seconds)

    def disarm(self) -> None:
        """Make poison of nothing more; what is poison stays so."""
        self._armed.clear()

    def touched(self, actor: ActorProcess, record: InHand) -> None:
        """Take effect if the record is poison. Raises PoisonedError where the actor does not survive it."""
        if not self._any:
            return
        known = self._book.records.get(record)
        if known is None:
            replica = actor.host.replicas[record.shard]
            leads = replica is not None and replica.primary is not None and len(replica.members) > 1
            if record.shard not in self._armed or not leads:
                return
            # Not one that was acknowledged, and is applied again from a disk: an operator would drop it, and
            # may, but then nothing explains what callers were told.
            if self._oracles.has_committed(record.shard, record.sequence):
                return
            known = self._book.records[record] = self._armed.pop(record.shard)
            self.stage.note(f"{actor.name} applies {record}, which is poison: {known[0]}")
        kind, seconds = known
        if kind == SLOW:
            if record not in self._victims:
                self._victims[record] = actor.name
                actor.slow_down(record, seconds)
            return
        self._judge(actor, record)
        actor.succumb(record, hangs=kind == HANG)
        raise PoisonedError

    def _judge(self, actor: ActorProcess, record: InHand) -> None:
        former = self._victims.setdefault(record, actor.name)
        if former == actor.name:
            self.stage.network.happened["record ended an actor"] += 1
            return
        replica = actor.host.replicas[record.shard]
        suspect = self._oracles.suspect_at(record.shard, 0 if replica is None else replica.epoch)
        told = suspect is not None and (suspect.epoch, suspect.sequence) == (record.epoch, record.sequence)
        if told or self.stage.plan.spares:
            self.stage.violate("poison", f"{actor.name} applied {record}, on which {former} had ended")
        self.stage.network.happened["record ended two actors"] += 1

    # --- the operator ------------------------------------------------------------------------------------

    def _operate(self) -> None:
        """Drop what suspends a shard, a while after it was seen; again until it is done."""
        self.stage.timeline.after(_LOOK_NS, self._operate)
        for actor in list(self.stage.actors.values()):
            if not actor.alive or actor.paused:
                continue
            for replica in actor.host.replicas:
                if replica is not None and replica.suspension is not None:
                    suspect = replica.suspension.suspect
                    record = InHand(replica.shard, suspect.epoch, suspect.sequence)
                    self._seen[record] = self._seen.get(record, 0) + 1
                    if self._seen[record] >= _DROP_LOOKS:
                        self._drop(actor, record)

    def _drop(self, actor: ActorProcess, record: InHand) -> None:
        replica = actor.host.replicas[record.shard]
        assert replica is not None
        assert replica.suspension is not None
        dropped = replica.suspension.record
        request = (dropped.client, getattr(dropped.command, "request_id", 0))
        # Known before the step, whose outcome is judged at its end.
        self._book.dropped.add(record)
        self._book.dropped_requests.add(request)
        command = wire.DropRecord(1, record.shard, record.epoch, record.sequence)
        actor.step(ins.ClientRequests(_NO_CONNECTION, _OPERATOR, [command]))
        if replica.state(actor.machine.now_ns()).suspended is not None:
            self._book.dropped.discard(record)
            self._book.dropped_requests.discard(request)
        else:
            self.stage.network.happened["record dropped by an operator"] += 1
            self.stage.note(f"an operator had {actor.name} drop {record}")
