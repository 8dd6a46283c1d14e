"""Rules that must hold after every step, whatever faults struck. Each violation names the rule it broke.

The oracles know more than any process: they see every log, every clock, and who is really dead. They judge

    core         the core's own invariants, and any exception
    fence        who has proposed to take over acknowledges nothing at that epoch any more
    serving      at most one primary per shard would answer a read at this instant, and only such a one does
    epochs       they only rise, and one epoch is one configuration for ever
    records      the same epoch and sequence mean the same record everywhere
    commits      one record per sequence is committed, in the order of their times; nobody commits what no
                 primary has
    durable      whoever becomes primary has everything that was committed in earlier epochs
    synced       with fsync, a record is committed only once it is on the disk of every member
    leader       only who holds the key of the leader in etcd writes a map, see `leaders`; so does `line`
    lost         what was on a disk comes back, see `losses`; so do `undone` and `stale`
    once         each request of a client is applied once
    death        only who is dead is called dead, and a shard starts empty only when all its members are
    bounds       queues stay within their limits
    release      an actor of a release that knows no namespaces is sent nothing of them
    quota        no namespace has more in a shard than its part, or is refused or evicted for another's
    memory       no actor's replicas hold more than their bound; the books tell what they hold
    poison       nobody applies a record on which another had ended, if the map told of it
    suspended    a shard is suspended only before a record that ends, or holds up, whoever applies it
    client       a request that was called "not applied" was never applied; servers keep to the protocol
    identity     nobody who holds the map of one cluster takes that of another, or is entered into it; but a
                 client does once nobody of its own is left, and not before

History-wide rules (linearizability, liveness, equal replicas) are judged in `world` at the end, and whether
operations end by their deadlines in `workload.callers`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from greenroom import wire
from greenroom.cluster_map import ClusterMap, SuspectRecord
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.effects import HostEffect, ReplyToClient, ReplyToPeer
from greenroom_cluster.shard.messages import (
    Beacon,
    BeaconOk,
    Prepare,
    PrepareOk,
    SnapshotChunk,
    SnapshotOk,
    SnapshotRefused,
)
from greenroom_cluster.shard.roles.primary import Primary
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.roles.role import Role
from greenroom_cluster.shard.state import copy as copy_module
from greenroom_cluster.shard.state.log import Log
from greenroom_cluster.shard.state.records import Command, EncodedRecord, Record
from greenroom_cluster.suspect_records import InHand
from simulations.checks.leaders import LeaderOracle
from simulations.checks.losses import LossOracle
from simulations.checks.memory import MemoryOracle
from simulations.checks.quotas import QuotaOracle
from simulations.checks.releases import check_former
from simulations.checks.synced import SyncOracle
from simulations.cluster.actors import ActorProcess
from simulations.cluster.marks import PoisonBook
from simulations.cluster.serving import Coordinating, Told
from simulations.cluster.stage import Stage

_REFUSALS = frozenset({wire.Redirect, wire.Overloaded, wire.Failed, wire.Unknowable})
_OF_ONE_SHARD = frozenset({SnapshotChunk, SnapshotOk, SnapshotRefused})


class ObservedLog(Log):
    """A log that keeps new records until the oracles look: it may drop them within the same step."""

    __slots__ = ("fresh",)

    def __init__(self, appended: int = 0) -> None:
        super().__init__(appended)
        self.fresh: list[Record] = []

    def append(self, record: Record, size: int, charge: int) -> None:
        """Add the next record, as a primary does."""
        super().append(record, size, charge)
        self.fresh.append(record)

    def receive(self, records: Sequence[Record], charge: Callable[[Command], int] | None = None) -> bool:
        """Add what is new of a primary's records, as its recipients do."""
        before = self.appended
        whole = super().receive(records, charge)
        self.fresh += self.records(before, self.appended)
        return whole

    def restore(self, records: Sequence[EncodedRecord]) -> None:
        """Add what was on a disk."""
        before = self.appended
        super().restore(records)
        self.fresh += self.records(before, self.appended)


copy_module.Log = ObservedLog  # type: ignore[attr-defined]  # it is watched from outside


class Seen:
    """The last known state of one replica, to find what is new."""

    __slots__ = ("committed", "epoch", "epochs", "log", "needed", "primary", "replica", "truth")

    def __init__(self, replica: Replica, truth: "ShardTruth") -> None:
        self.replica = replica
        self.truth = truth
        self.epoch = replica.epoch
        self.log = replica.log
        self.committed = replica.committed
        # What was committed before it became primary.
        self.needed = 0
        self.primary = False
        self.epochs: dict[int, Record] = {}


class ShardTruth:
    """The truth about one shard across all its replicas, since it began or began anew."""

    __slots__ = ("applied", "committed", "committed_by", "dropped", "logged_ns", "records")

    def __init__(self) -> None:
        self.records: dict[tuple[int, int], Record] = {}
        self.logged_ns: dict[tuple[int, int], int] = {}
        self.committed: dict[int, Record] = {}
        self.committed_by: dict[int, int] = {}
        self.applied: dict[tuple[bytes, int], int] = {}
        # Not of the whole cluster: a command of many shards stands in the log of each under the same number.
        self.dropped: set[tuple[bytes, int]] = set()


class Oracles:
    """Watches one world."""

    def __init__(self, stage: Stage, book: PoisonBook) -> None:
        self.stage = stage
        self._book = book
        self.shards = [ShardTruth() for _ in range(stage.plan.shards)]
        self.lost: set[int] = set()
        # The node that is left over of a former cluster, if there is one, and whose map each actor has.
        self.left = ""
        self.identities: dict[bytes, bytes] = {}
        self.configurations: list[dict[tuple[int, int], tuple[Any, ...]]] = [{} for _ in self.shards]
        self._serving: list[dict[ActorProcess, Primary]] = [{} for _ in self.shards]
        self._suspects: dict[tuple[int, int], SuspectRecord] = {}
        self.messages: Counter[tuple[str, str]] = Counter()
        self._seen: dict[ActorProcess, list[Seen | None]] = {}
        self._memory = MemoryOracle(stage) if stage.plan.memory_bytes else None
        part = stage.quota.part(stage.plan.shards) if stage.plan.quota_sessions else None
        self._quota = None if part is None else QuotaOracle(stage, part)
        self.losses = LossOracle(stage)
        self._synced = SyncOracle(stage)
        if stage.etcd is not None:
            stage.etcd.judge = LeaderOracle(stage, stage.etcd.store, self.losses)

    def count(self, role: str, kind: str) -> None:
        """Count a message of that kind that reached somebody in that role."""
        self.messages[role, kind] += 1

    # --- actors ------------------------------------------------------------------------------------------

    def before(self, actor: ActorProcess, event: ins.HostInput) -> None:
        """Count what reaches which role."""
        kind = type(event)
        replicas = actor.host.replicas
        check_former(self.stage, actor, event)
        if self._quota is not None:
            self._quota.before(actor, event)
        if kind is ins.MapChanged:
            self._check_identity(actor.incarnation, event.map)  # type: ignore[union-attr]  # kind says which
        if kind is ins.ClientRequests:
            shift = 16 - (len(replicas).bit_length() - 1)
            for request in event.requests:  # type: ignore[union-attr]
                point = getattr(request, "point", None)
                replica = replicas[point >> shift] if point is not None and replicas else None
                role = "actor" if point is None else "none" if replica is None else replica.role.value
                self.messages[role, type(request).__name__] += 1
        elif kind is ins.PeerMessages:
            for message in event.messages:  # type: ignore[union-attr]
                self._count_peer(replicas, message)
        else:
            self.messages["actor", kind.__name__] += 1

    def _check_reads(self, actor: ActorProcess, event: ins.ClientRequests, effects: list[HostEffect]) -> None:
        """Judge by the clock as it is now, whatever clock the core was shown."""
        replicas = actor.host.replicas
        shift = 16 - (len(replicas).bit_length() - 1)
        reads = {each.request_id: each.point >> shift for each in event.requests if type(each) is wire.Get}
        for effect in effects if reads else ():
            if type(effect) is not ReplyToClient or effect.connection != event.connection:
                continue
            shard = reads.get(getattr(effect.message, "request_id", 0))
            if shard is None or type(effect.message) in _REFUSALS:
                continue
            replica = replicas[shard]
            primary = None if replica is None else replica.primary
            if primary is None or not primary.leased(actor.machine.now_ns()):
                self.stage.violate("serving", f"{actor.name} answers a read of shard {shard} without a lease")

    def _check_fence(self, actor: ActorProcess, event: ins.PeerMessages, effects: list[HostEffect]) -> None:
        replicas = actor.host.replicas
        acknowledged = {
            effect.message.batch: effect.message.refused
            for effect in effects
            if type(effect) is ReplyToPeer and type(effect.message) is PrepareOk
        }
        for message in event.messages:
            if type(message) is not Prepare:
                continue
            refused = {shard for shard, _ in acknowledged.get(message.batch, ())}
            for entry in message.entries:
                replica = replicas[entry.shard] if replicas else None
                if replica is None or replica.role is not Role.FENCED or replica.primary is not None:
                    continue
                if message.batch in acknowledged and entry.shard not in refused:
                    self.stage.violate(
                        "fence", f"{actor.name} acknowledged for shard {entry.shard} after its proposal"
                    )

    def _count_peer(self, replicas: list[Replica | None], message: Any) -> None:
        kind = type(message)
        if kind is Prepare:
            shards = [entry.shard for entry in message.entries]
        elif kind in _OF_ONE_SHARD:
            shards = [message.shard]
        elif kind is Beacon and message.commits:
            shards = [each[0] for each in message.commits]
        elif (kind is PrepareOk or kind is BeaconOk) and message.refused:
            self.messages["actor", f"{kind.__name__} refusing"] += 1
            return
        else:
            self.messages["actor", kind.__name__] += 1
            return
        for shard in shards:
            replica = replicas[shard] if replicas else None
            self.messages["none" if replica is None else replica.role.value, kind.__name__] += 1

    def core_failed(self, actor: ActorProcess, event: ins.HostInput, error: Exception) -> None:
        """Report that a core raised."""
        self.stage.violate("core", f"{actor.name} at {type(event).__name__}: {type(error).__name__}: {error}")

    def after(self, actor: ActorProcess, event: ins.HostInput, effects: list[HostEffect]) -> None:
        """Judge what one step of a core has done."""
        replicas = actor.host.replicas
        if actor.disk is not None:
            self.losses.proposed(effects)
            self._synced.dropping(actor, effects)
        if type(event) is ins.PeerMessages:
            self._check_fence(actor, event, effects)
        elif type(event) is ins.ClientRequests:
            self._check_reads(actor, event, effects)
        if self._memory is not None:
            self._memory.after(actor)
        if self._quota is not None:
            self._quota.after(actor, event, effects)
        seen = self._seen.get(actor)
        if seen is None or len(seen) != len(replicas):
            seen = self._seen[actor] = [None] * len(replicas)
        for shard, replica in enumerate(replicas):
            known = seen[shard]
            if replica is None:
                if known is not None:
                    seen[shard] = None
                    self._serving[shard].pop(actor, None)
                continue
            if known is None or known.replica is not replica:
                known = seen[shard] = Seen(replica, self.shards[shard])
                self._serving[shard].pop(actor, None)
            if (
                replica.log.appended != known.log.appended
                or replica.log is not known.log
                or replica.committed != known.committed
                or replica.epoch != known.epoch
                or (replica.primary is not None) is not known.primary
                or known.log.fresh  # type: ignore[attr-defined]
            ):
                self._watch(actor, shard, replica, known)
            if known.primary and len(self._serving[shard]) > 1:
                self._check_serving(shard)

    def _watch(self, actor: ActorProcess, shard: int, replica: Replica, known: Seen) -> None:
        truth = known.truth
        if replica.epoch < known.epoch:
            self.stage.violate("epochs", f"{actor.name} shard {shard}: {known.epoch} then {replica.epoch}")
        known.epoch = replica.epoch
        if replica.log is not known.log:
            known.log = replica.log
            known.committed = replica.committed
            known.epochs.clear()
        fresh = known.log.fresh  # type: ignore[attr-defined]
        if fresh:
            for record in fresh:
                self._appended(actor, shard, truth, record)
                known.epochs[record.sequence] = record
            fresh.clear()
        while known.committed < replica.committed:
            known.committed += 1
            found = known.epochs.pop(known.committed, None)
            self._committed(actor, shard, truth, known.committed, found, replica)
        if replica.suspension is not None:
            suspect = replica.suspension.suspect
            if InHand(shard, suspect.epoch, suspect.sequence) not in self._book.records:
                self.stage.violate("suspended", f"{actor.name} shard {shard} stops before a sound record")
        primary = replica.primary
        if primary is None:
            if known.primary:
                known.primary = False
                self._serving[shard].pop(actor, None)
            return
        if not known.primary:
            known.primary = True
            self._serving[shard][actor] = primary
            self._check_inherited(actor, shard, replica, primary, known)
        if replica.committed < known.needed and not primary.paused:
            self.stage.violate(
                "durable",
                f"{actor.name} serves shard {shard} epoch {replica.epoch} with {replica.committed} records "
                f"applied, {known.needed} were committed before",
            )
        limit = actor.host_settings.held_requests_max
        if len(primary.held) > limit:
            self.stage.violate("bounds", f"{actor.name} holds {len(primary.held)} requests, over {limit}")

    def _check_inherited(
        self, actor: ActorProcess, shard: int, replica: Replica, primary: Primary, known: Seen
    ) -> None:
        """Judge with what a new primary begins."""
        truth = known.truth
        needed = max((last for epoch, last in truth.committed_by.items() if epoch < replica.epoch), default=0)
        have = max(replica.committed, primary.inherited)
        if have < needed and self.losses.judge(actor, shard, replica.epoch, truth, have):
            self.lost.add(shard)
            needed = have
        known.needed = needed
        if have < needed:
            self.stage.violate(
                "durable",
                f"{actor.name} became primary of shard {shard} epoch {replica.epoch} with "
                f"{primary.inherited} records, {needed} were committed before",
            )

    def _appended(self, actor: ActorProcess, shard: int, truth: ShardTruth, record: Record) -> None:
        key = (record.epoch, record.sequence)
        known = truth.records.setdefault(key, record)
        if known is record:
            truth.logged_ns[key] = self.stage.timeline.now
        elif known != record:
            self.stage.violate("records", f"{actor.name} shard {shard}: another record {key}")

    def _committed(
        self,
        actor: ActorProcess,
        shard: int,
        truth: ShardTruth,
        sequence: int,
        record: Record | None,
        replica: Replica,
    ) -> None:
        if record is None:
            self.stage.violate("commits", f"{actor.name} shard {shard}: {sequence} committed, not logged")
            return
        known = truth.committed.get(sequence)
        if known is not None:
            if known is not record and known != record:
                self.stage.violate("commits", f"{actor.name} shard {shard}: two records {sequence} committed")
            return
        if replica.primary is None and replica.suspension is None:
            self.stage.violate("commits", f"{actor.name} shard {shard}: backup committed {sequence} first")
        if (
            replica.primary is not None
            and InHand(shard, record.epoch, record.sequence) not in self._book.dropped
        ):
            self._synced.committed(replica, record)
        before = truth.committed.get(sequence - 1)
        if before is not None and record.time_us < before.time_us:
            self.stage.violate("commits", f"{actor.name} shard {shard}: time goes back at {sequence}")
        truth.committed[sequence] = record
        truth.committed_by[replica.epoch] = sequence
        if record.client:
            request = (record.client, record.command.request_id)  # type: ignore[union-attr]
            if InHand(shard, record.epoch, record.sequence) in self._book.dropped:
                truth.dropped.add(request)
                return
            if request in truth.dropped:
                self.stage.violate("once", f"shard {shard}: request {request[1]} was dropped, then logged")
            first = truth.applied.setdefault(request, sequence)
            if first != sequence:
                self.stage.violate(
                    "once", f"shard {shard}: request {request[1]} applied as {first} and as {sequence}"
                )

    def _check_serving(self, shard: int) -> None:
        serving = []
        for actor, primary in self._serving[shard].items():
            if actor.alive and not primary.paused and primary.leased(actor.machine.now_ns()):
                serving.append(actor.name)
        if len(serving) > 1:
            self.stage.violate("serving", f"shard {shard} is served by {' and '.join(serving)}")

    def died(self, actor: ActorProcess) -> None:
        """Forget a process that is gone."""
        self._seen.pop(actor, None)
        for serving in self._serving:
            serving.pop(actor, None)

    # --- coordination ------------------------------------------------------------------------------------

    def told(self, coordinator: Coordinating, sender: bytes, message: Told) -> None:
        """See what a coordinator is told of a node."""
        self.losses.told(coordinator, sender, message)

    def marks_lost(self) -> None:
        """Hear that an older copy of what the coordinator kept is in its place."""
        self.losses.forget_told()

    def coordinator_failed(self, coordinator: Coordinating, error: Exception) -> None:
        """Report that what decides in a coordinator has raised."""
        self.stage.violate("core", f"{coordinator.name}: {type(error).__name__}: {error}")

    def persisted(self, before: ClusterMap, after: ClusterMap) -> None:
        """Judge a map that went to disk."""
        for incarnation in after.actors.keys() - before.actors.keys():
            if self.identities.get(incarnation, after.identity) != after.identity:
                self.stage.violate(
                    "identity", f"{self.stage.name_of(incarnation)} of another cluster was entered"
                )
        self.losses.persisted(before, after)
        for shard, entry in enumerate(after.shards):
            former = before.shards[shard]
            if entry is former or (entry.epoch == former.epoch and entry.nonce == former.nonce):
                continue
            self.stage.recording.configured(
                shard, entry.epoch, self.stage.name_of(entry.primary), len(entry.members), self.stage.seconds
            )
            if entry.suspect is not None:
                self._suspects[shard, entry.epoch] = entry.suspect
            epoch = (after.lineage, entry.epoch)
            configuration = (entry.primary, entry.backups, entry.nonce)
            if self.configurations[shard].setdefault(epoch, configuration) != configuration:
                self.stage.violate("epochs", f"shard {shard}: epoch {entry.epoch} was decided twice")
            if entry.epoch <= former.epoch:
                self.stage.violate("epochs", f"shard {shard}: epoch {entry.epoch} after {former.epoch}")
            for member in set(entry.backups).difference(former.members):
                self._synced.added(shard, member)
            if not former.primary or entry.primary in former.members:
                continue
            if not before.recover_alone_seconds:
                self._check_dead(shard, former.members)
            if not self.losses.recovers(shard, former, entry, before, after):
                self.losses.check_empty(shard, former.members, before)
                self._began_empty(shard)

    def began_anew(self, left: str) -> None:
        """Judge another cluster from now on; `left` is the node left over from the former one, if any."""
        self.left = left
        self.shards = [ShardTruth() for _ in self.shards]
        self.configurations = [{} for _ in self.shards]
        self._serving = [{} for _ in self.shards]
        self._suspects.clear()
        self.lost.update(range(len(self.shards)))

    def _check_identity(self, incarnation: bytes, taken: ClusterMap) -> None:
        if self.identities.setdefault(incarnation, taken.identity) != taken.identity:
            self.stage.violate(
                "identity", f"{self.stage.name_of(incarnation)} took the map of another cluster"
            )

    def went_over(self, client: str) -> None:
        """Judge a client that took the map of another cluster."""
        if self.left:
            self.stage.violate("identity", f"{client} gave its cluster up while {self.left} answered")

    def has_committed(self, shard: int, sequence: int) -> bool:
        """Whether a record of this number was committed before the present step, so that it may be told."""
        return sequence in self.shards[shard].committed

    def suspect_at(self, shard: int, epoch: int) -> SuspectRecord | None:
        """Return the suspect that the map named when it decided that configuration."""
        return self._suspects.get((shard, epoch))

    def _check_dead(self, shard: int, members: tuple[bytes, ...]) -> None:
        living = [self.stage.name_of(member) for member in members if self.stage.is_alive(member)]
        if living:
            self.stage.violate("death", f"shard {shard} was started again while {living} lived")

    def _began_empty(self, shard: int) -> None:
        self.stage.network.happened["shard lost with all its members"] += 1
        # Replicas of what was lost may still run, and are judged by the log that they belong to.
        self.shards[shard] = ShardTruth()
        self.lost.add(shard)

    def reported_dead(self, supervisor: str, incarnations: tuple[bytes, ...]) -> None:
        """Judge the deaths that a supervisor reports."""
        for incarnation in incarnations:
            if self.stage.is_alive(incarnation):
                self.stage.violate(
                    "death", f"{supervisor} reported {self.stage.name_of(incarnation)}, which lives"
                )
