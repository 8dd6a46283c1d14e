"""All replicas of one actor behind one synchronous door.

`step(now_ns, wall_us, event)` takes what happened and returns what is to be done, in order;
`next_deadline()` says when a step is due even if nothing happens. There is no I/O, clock, task or randomness
here: the driver brings the first three and injects the last, and a simulation can bring its own.

Effects must be performed in order and before the next step. For example, no acknowledgement follows a
proposal to take over, which helps only if the order is kept on the wire; and what follows a `Persist` must
not be said unless that is written.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

from greenroom.cluster_map import ClusterMap, ShardEntry
from greenroom.errors import InvariantError
from greenroom_cluster.shard.catching_up import catch_up
from greenroom_cluster.shard.clients.requests import Requests
from greenroom_cluster.shard.context import Context, OpenProposal
from greenroom_cluster.shard.disk_log import DiskLog, Stable
from greenroom_cluster.shard.effects import HostEffect
from greenroom_cluster.shard.inputs import (
    ClientRequests,
    ConnectionClosed,
    CoordinationUp,
    Decisions,
    DiskMeasured,
    HostInput,
    LinkDown,
    LinkUp,
    MapChanged,
    MemoryMeasured,
    PeerMessages,
    Synced,
    Tick,
)
from greenroom_cluster.shard.pairs.incoming import Incoming
from greenroom_cluster.shard.pairs.strangers import Strangers
from greenroom_cluster.shard.peers import Peers
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.roles.accepts import deliver
from greenroom_cluster.shard.roles.near_reads import attend_all
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.roles.replicas import Replicas
from greenroom_cluster.shard.roles.role import InputKind, Role
from greenroom_cluster.shard.settings import HostSettings, ns
from greenroom_cluster.shard.showing import shown
from greenroom_cluster.shard.state.memory import Memory
from greenroom_cluster.shard.step import Mark
from greenroom_cluster.shard.sweeping import Sweeper

JOINER_SILENCE_GRACES = 8


class Host:
    """The replicas of the actor incarnation `incarnation`, which runs in `slot`.

    `remembered` is what its directory tells of the newest map: lineage, version, epochs by shard, identity.
    `shown` is what it tells a coordinator that has lost its map. After a step it `awaits_disk` if anything
    waits for a sync.
    """

    def __init__(
        self,
        incarnation: bytes,
        slot: str,
        settings: HostSettings,
        generator: random.Random,
        mark: Mark | None = None,
        disk: Stable | None = None,
    ) -> None:
        self._context = Context(incarnation, slot, settings, generator)
        self._disk = None if disk is None else DiskLog(incarnation, disk)
        self._resources = Resources(self._context, [0, 0, 0] if mark is None else mark, self._disk)
        self._step = self._resources.step
        self._joins = self._resources.joins
        self._memory = self._resources.memory
        self._pairs = self._resources.pairs
        self._alarms = self._resources.near.alarms
        self._strangers = Strangers(self._context, self._pairs, self._memory)
        self._replicas = Replicas(self._resources)
        self._peers = Peers(self._replicas, self._strangers)
        self._settings = settings
        self._requests = Requests(self._replicas)
        self._starting: dict[int, OpenProposal] = {}
        self._heard: Synced | None = None
        self.awaits_disk = False
        self._recovery = self._replicas.recovery
        self.remembered = (0, 0, (), b"") if disk is None else disk.remembered
        self.shown = () if disk is None else shown(slot, disk)
        for copy in () if disk is None else disk.copies.values():
            self._recovery.find(copy)
        self._memory.refilled = bool(self._recovery.replicas)
        self._manage_due_ns = 0
        self._sweeper = Sweeper(settings)
        self._on_input: dict[type, Callable[[int, int, Any], None]] = {
            ClientRequests: self._requests.take_in,
            PeerMessages: self._peers.take_in,
            Tick: self._tick,
            ConnectionClosed: self._requests.connection_closed,
            LinkUp: self._peers.link_up,
            LinkDown: self._peers.link_down,
            MapChanged: self._map_changed,
            MemoryMeasured: self._memory_measured,
            Decisions: self._decisions,
            CoordinationUp: self._coordination_up,
            Synced: self._synced,
            DiskMeasured: self._disk_measured,
        }

    @property
    def map(self) -> ClusterMap | None:
        """The newest cluster map taken in."""
        return self._context.map

    @property
    def memory(self) -> Memory:
        """The books of this actor's memory, up to date. For inspection only."""
        self._memory.count_all()
        return self._memory

    @property
    def replicas(self) -> list[Replica | None]:
        """The replicas by shard, None where this actor has none. For inspection only."""
        return self._replicas.by_shard

    @property
    def found(self) -> list[Replica]:
        """The copies found on disk that have no role yet. For inspection only."""
        return self._recovery.replicas

    def to_come_bytes(self) -> int:
        """Return about how much the copies found on disk take that are yet to be applied."""
        return self._memory.found_bytes

    def clock_us(self, now_ns: int, wall_us: int) -> int:
        """Return the time by which sessions end here; it follows the host's clock only slowly.

        Stores take their time from it. With a clock that was set back they would send expiries that are past
        already; with one that jumped ahead, sessions would live that much longer.
        """
        clocks = [each.clock for each in self.replicas if each is not None and each.clock.last_us]
        if not clocks:
            return wall_us
        return max(clocks, key=lambda clock: clock.last_us).shown(now_ns, wall_us)

    def step(self, now_ns: int, wall_us: int, event: HostInput) -> list[HostEffect]:
        """Take in one event and return the effects, to be performed in order before the next step.

        Raises InvariantError on a state that must not exist; then the process must exit and send no more.
        """
        effects: list[HostEffect] = []
        said: list[HostEffect] = []
        self._context.effects = effects
        step = self._step
        step.begin(now_ns)
        if self._heard is not None:
            heard, self._heard = self._heard, None
            self._synced(now_ns, wall_us, heard)
        self._on_input[type(event)](now_ns, wall_us, event)
        joins = self._joins
        while joins.renewed and (shard := joins.take_turn()) is not None:
            self._manage(now_ns, wall_us, shard)
        while True:
            while step.ready:
                ready = list(step.ready)
                step.ready.clear()
                deliver(self._replicas, ready, now_ns, wall_us, b"", InputKind.CATCH_UP)
            for pair in self._pairs.outgoing.values():
                if pair.unsent:
                    pair.flush()
            if self._disk is None:
                return effects
            more = self._disk.finish(now_ns, effects)
            if said or more:
                said += effects
            if not more:
                self.awaits_disk = self._disk.is_awaited
                return said or effects
            effects = self._context.effects = []
            self._go_on(now_ns, wall_us)

    def hear(self, synced: Synced) -> None:
        """Take this in with the next input, before it."""
        self._heard = synced

    def next_deadline(self) -> int:
        """Return the time (`now_ns`) at which a `Tick` is due."""
        step = self._step
        if step.behind:
            return step.now_ns
        # Comparisons instead of `min`, which takes longer: this is asked after every step.
        due, sweeper = self._manage_due_ns, self._sweeper
        if sweeper.due_ns < due:
            due = sweeper.due_ns
        if step.unfinished:
            due = min(due, sweeper.pages_due_ns)
        if self._requests.fair.debts:
            due = min(due, self._requests.fair.due_ns())
        if (alarms := self._alarms) and alarms[0][0] < due:
            due = alarms[0][0]
        for pair in self._pairs.outgoing.values():
            if pair.beacon_due_ns < due:
                due = pair.beacon_due_ns
            if pair.retry_ns < due:
                due = pair.retry_ns
            if pair.lease_until_ns < due and not pair.lapsed:
                due = pair.lease_until_ns
        for incoming in self._pairs.incoming.values():
            over_ns = incoming.heard_ns + self._context.grace_ns + 1
            if over_ns < due and incoming.grace_due_ns < due and incoming.backed:
                due = max(over_ns, incoming.grace_due_ns)
        return due

    def spent(self, now_ns: int, spent_ns: int) -> Sequence[str]:
        """Take in how long the latest step took, if that was long; return who is charged for it."""
        return self._requests.spent(now_ns, spent_ns)

    def _memory_measured(self, now_ns: int, _wall_us: int, event: MemoryMeasured) -> None:
        self._memory.count_all()
        self._memory.measured(event.resident_bytes)
        if self._memory.refilled:
            self._memory.refilled = self._tell_if_overfull(now_ns)

    def _tell_if_overfull(self, now_ns: int) -> bool:
        """Tell an operator if what was on disk exceeds the bound; return whether it does, or yet may.

        Of that nothing is given up, so nothing may grow until there is room.
        """
        memory = self._memory
        if not memory.excess_bytes:
            return bool(self._recovery.replicas) or memory.kept_bytes > 0
        if memory.refuse(self._context.slot, now_ns):
            held, room = memory.used_bytes >> 20, max(memory.limit_bytes, 0) >> 20
            self._context.warn(
                f"this actor is over its bound: what it found on its disk takes {held} MiB of memory, and "
                f"--memory-max leaves {room} for that. It keeps all of it, and takes nothing that grows: "
                "raise --memory-max, or add a node"
            )
        return True

    # --- the disk -------------------------------------------------------------------------------------------

    def _synced(self, now_ns: int, wall_us: int, event: Synced) -> None:
        assert self._disk is not None
        self._disk.synced(now_ns, event.position, event.mark)
        self._go_on(now_ns, wall_us)
        assert self._resources.compaction is not None
        self._resources.compaction.step()

    def _disk_measured(self, _now_ns: int, _wall_us: int, event: DiskMeasured) -> None:
        assert self._disk is not None
        self._disk.short = event.free_bytes < self._settings.disk_free_bytes_min
        self._context.note_disk(self._context.incarnation, short=self._disk.short)

    def _go_on(self, now_ns: int, wall_us: int) -> None:
        """Commit what has become stable here, and serve under configurations that have."""
        assert self._disk is not None
        settled = self._disk.grow()
        # Most often their backups have not acknowledged yet, and there is nothing to do.
        if self._disk.awaited:
            awaited, self._disk.awaited = self._disk.awaited, {}
            self._advance(now_ns, wall_us, awaited)
        if settled:
            replicas = self._replicas
            shards = [copy.shard for copy in settled if replicas.get(copy.shard) is copy]
            self._advance(now_ns, wall_us, shards)
            served = self._served(shards)
            deliver(self._replicas, served, now_ns, wall_us, b"", InputKind.LEASE)
            for shard in served:
                self._manage(now_ns, wall_us, shard)

    def _advance(self, now_ns: int, wall_us: int, shards: Iterable[int]) -> None:
        """Have the primaries here commit what they can of these shards."""
        deliver(self._replicas, self._served(shards), now_ns, wall_us, b"", InputKind.CATCH_UP)

    def _served(self, shards: Iterable[int]) -> list[int]:
        """Return those of some shards that a primary here serves."""
        replicas = self._replicas
        return [
            shard
            for shard in shards
            if (replica := replicas.get(shard)) is not None and replica.primary is not None
        ]

    # --- coordination ---------------------------------------------------------------------------------------

    def _entry(self, shard: int) -> ShardEntry:
        assert self._context.map is not None
        return self._context.map.shards[shard]

    def _map_changed(self, now_ns: int, wall_us: int, event: MapChanged) -> None:
        context = self._context
        before, after = context.map, event.map
        if before is not None and not after.newer_than(before):
            context.ignore("MapChanged", f"version {after.version} is not newer")
            return
        if before is None:
            self._replicas.by_shard = [None] * after.shard_count
            self._requests.serve(after.shard_count)
        elif before.shard_count != after.shard_count:
            raise InvariantError("the number of shards is fixed when a cluster is created")
        context.learn(after)
        if self._disk is not None:
            self._disk.map = after
        self._resources.joins.forget_others(after.actors)
        changed = []
        for shard, entry in enumerate(after.shards):
            known = None if before is None else before.shards[shard]
            if known is entry:
                continue
            changed.append(shard)
            if known is None or known.epoch != entry.epoch:
                if before is not None and before.lineage != after.lineage:
                    self._begin_lineage(now_ns, shard, before.shards[shard], entry)
                self._configuration_changed(now_ns, wall_us, shard, entry)
            elif (replica := self._replicas.by_shard[shard]) is not None:
                replica.reconsider(now_ns, wall_us, known.suspect, entry.suspect)
        for incoming in list(self._pairs.incoming.values()):
            if incoming.peer in context.dead:
                self._grace_over(now_ns, wall_us, incoming)
        if before is None or before.actors != after.actors:
            self._manage_all(now_ns, wall_us)
        else:
            # Maps change often while thousands of shards move: look only at what changed.
            for shard in changed:
                self._manage(now_ns, wall_us, shard)
        self._pairs.close_unused()
        primaries = {
            replica.primary_incarnation for replica in self._replicas.by_shard if replica is not None
        }
        self._strangers.forget_departed(before, primaries)

    def _configuration_changed(self, now_ns: int, wall_us: int, shard: int, entry: ShardEntry) -> None:
        context = self._context
        replica = self._replicas.by_shard[shard]
        started = self._starting.pop(shard, None)
        if replica is not None and replica.role is Role.JOINING and entry.epoch <= replica.epoch:
            return  # The snapshot belongs to this configuration, or to one that a later map will bring.
        if context.incarnation in entry.members:
            if started is not None and entry.nonce == started.proposal.nonce:
                # A late snapshot may have come from a dead primary; it lacks what was acknowledged last.
                self._replicas.close(shard, now_ns, "the shard begins anew")
                replica = self._begin_empty(shard, now_ns)
            if replica is None:
                replica = self._recovered(now_ns, wall_us, shard, entry)
            if replica is None or not replica.fits():
                self._decline(now_ns, shard, entry)
                return
            replica.adopt(now_ns, wall_us, entry)
        elif replica is not None and not (
            replica.role is Role.JOINING and replica.primary_incarnation == entry.primary
        ):
            self._replicas.close(shard, now_ns, "not a member any more")

    def _begin_empty(self, shard: int, now_ns: int) -> Replica:
        replica = self._replicas.begin(shard, 0, now_ns)
        if self._disk is not None:
            self._disk.begin(replica)
        return replica

    def _recovered(self, now_ns: int, wall_us: int, shard: int, entry: ShardEntry) -> Replica | None:
        replica = self._recovery.take(now_ns, wall_us, shard, entry)
        if replica is not None:
            self._replicas.by_shard[shard] = replica
        return replica

    def _begin_lineage(self, now_ns: int, shard: int, known: ShardEntry, entry: ShardEntry) -> None:
        """Trust that logs agree across lineages only if the new lineage continues our configuration."""
        replica = self._replicas.by_shard[shard]
        if replica is not None and not replica.continues(known, entry):
            if entry.primary == self._context.incarnation and replica.receiver is None:
                replica.doubted = True
            elif self._context.incarnation in entry.members:
                self._replicas.close(shard, now_ns, "a new lineage begins from an older configuration")

    def _decline(self, now_ns: int, shard: int, entry: ShardEntry) -> None:
        """Tell the primary that this actor has no copy, so that it is removed and can join anew."""
        self._replicas.close(shard, now_ns, "named a member without a whole copy")
        self._context.warn("a configuration names this actor, which has no copy of the shard", shard)
        if entry.primary != self._context.incarnation:
            self._pairs.hear_of(entry.primary, now_ns).refuse(shard, entry.epoch)

    def _start_if_wanted(self, now_ns: int, shard: int, entry: ShardEntry) -> None:
        """Propose to begin a shard that nobody holds, if the plan gives it to this actor."""
        context = self._context
        if not entry.wanted or entry.wanted[0] != context.slot:
            return
        if context.current.get(context.slot) != context.incarnation:
            return
        if any(member not in context.dead for member in entry.members):
            return
        assert context.map is not None
        actors = context.map.actors
        if any(actors[member].durability for member in entry.members if member in actors):
            return  # it waits for a directory
        if self._recovery.newer_than(shard, entry):
            return  # the map is an older copy, and what is on disk may be the only copy of the sessions
        opened = self._starting.get(shard)
        if opened is None or opened.proposal.epoch != entry.epoch:
            self._starting[shard] = context.propose(
                now_ns, shard, entry.epoch, "start", context.incarnation, ()
            )
        elif now_ns >= opened.resend_ns:
            context.repropose(now_ns, opened)

    def _decisions(self, now_ns: int, _wall_us: int, event: Decisions) -> None:
        for decision in event.decisions:
            replica = self._replicas.get(decision.shard)
            started = self._starting.get(decision.shard)
            self._recovery.on_decision(decision)
            if replica is not None:
                replica.on_decision(now_ns, decision)
            elif started is not None and started.proposal.nonce == decision.nonce and not decision.applied:
                # A nonce that was refused stays refused; if the shard is still wanted, ask under another.
                del self._starting[decision.shard]

    def _coordination_up(self, now_ns: int, _wall_us: int, _event: CoordinationUp) -> None:
        for opened in self._starting.values():
            self._context.repropose(now_ns, opened)
        self._recovery.on_coordination_up(now_ns)
        for replica in self._replicas.by_shard:
            if replica is not None and replica.proposal is not None:
                self._context.repropose(now_ns, replica.proposal)

    # --- time -----------------------------------------------------------------------------------------------

    def _tick(self, now_ns: int, wall_us: int, _event: Tick) -> None:
        step = self._step
        if step.behind:
            catch_up(self._replicas, now_ns, wall_us)
        for pair in self._pairs.outgoing.values():
            if now_ns >= pair.retry_ns:
                pair.retry()
            if now_ns >= pair.beacon_due_ns:
                pair.beacon(now_ns)
            if not pair.lapsed and now_ns >= pair.lease_until_ns:
                pair.lapsed = True
                self._manage_due_ns = now_ns
        for incoming in list(self._pairs.incoming.values()):
            if now_ns - incoming.heard_ns > self._context.grace_ns:
                self._memory.withdraw(incoming.peer)
                if incoming.backed:
                    self._grace_over(now_ns, wall_us, incoming)
        if self._alarms:
            attend_all(self._replicas, now_ns, wall_us)
        if now_ns >= self._manage_due_ns:
            self._manage_all(now_ns, wall_us)
            self._pairs.close_unused()
        if now_ns >= self._sweeper.due_ns:
            self._sweeper.step(now_ns, wall_us, self._replicas.by_shard)
        if step.unfinished and now_ns >= self._sweeper.pages_due_ns:
            self._sweeper.go_on(now_ns, wall_us, self._replicas.by_shard, step.unfinished)
        if self._requests.fair.debts:
            self._requests.go_on(now_ns, wall_us)
        self._requests.copies.end_idle(now_ns)

    def _grace_over(self, now_ns: int, wall_us: int, incoming: Incoming) -> None:
        incoming.grace_due_ns = now_ns + ns(self._settings.beacon_seconds)
        backed = sorted(incoming.backed)
        for shard in backed:
            if self._replicas.by_shard[shard] is None:
                raise InvariantError(f"shard {shard} is backed without a replica")
        heard = repeat(incoming.heard_ns)
        deliver(self._replicas, backed, now_ns, wall_us, incoming.peer, InputKind.GRACE_OVER, heard)

    def _manage_all(self, now_ns: int, wall_us: int) -> None:
        self._manage_due_ns = now_ns + ns(self._settings.beacon_seconds)
        for shard in range(len(self._replicas.by_shard)):
            self._manage(now_ns, wall_us, shard)

    def _manage(self, now_ns: int, wall_us: int, shard: int) -> None:
        replica = self._replicas.by_shard[shard]
        if replica is None:
            self._recovery.manage(now_ns, shard, self._entry(shard))
            self._start_if_wanted(now_ns, shard, self._entry(shard))
        elif replica.primary is not None:
            replica.primary.manage(now_ns, wall_us)
        elif replica.opened is not None:
            if now_ns >= replica.opened.resend_ns:
                self._context.repropose(now_ns, replica.opened)
        elif replica.role is Role.JOINING:
            self._drop_if_abandoned(replica, now_ns)

    def _drop_if_abandoned(self, replica: Replica, now_ns: int) -> None:
        context, receiver, entry = self._context, replica.receiver, self._entry(replica.shard)
        # A map from before the epoch of this join says nothing about the members of that.
        orphaned = entry.epoch >= replica.epoch and all(member in context.dead for member in entry.members)
        whole = receiver is not None and receiver.complete
        if whole and not orphaned and (context.slot in entry.wanted or entry.epoch <= replica.epoch):
            return  # It may have been proposed already; its primary counts it until that is decided.
        incoming = self._pairs.incoming.get(replica.primary_incarnation)
        heard_ns = replica.since_ns if incoming is None else max(incoming.heard_ns, replica.since_ns)
        if orphaned or now_ns - heard_ns > JOINER_SILENCE_GRACES * context.grace_ns:
            self._replicas.close(
                replica.shard, now_ns, "the primary went silent before the join was complete"
            )
