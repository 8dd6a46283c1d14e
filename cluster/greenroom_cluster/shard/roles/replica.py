"""One shard's copy on one actor: its state, and the transitions between roles.

PacificA (Lin et al., MSR-TR-2008-25): configurations are decided elsewhere by compare-and-set on the shard's
epoch; here a replica only adopts what was decided. Roles change in `become_*` and nowhere else.

What a role does stands in `primary` and, for replicas that follow, in `following`.
"""

from collections.abc import Sequence

from greenroom import wire
from greenroom.cluster_map import ShardEntry, SuspectRecord
from greenroom.errors import InvariantError
from greenroom_cluster.coordination.messages import Decision
from greenroom_cluster.shard.context import (
    MARK_EPOCH,
    MARK_SEQUENCE,
    MARK_SHARD,
    Context,
    OpenProposal,
)
from greenroom_cluster.shard.joining.snapshot import SnapshotReceiver
from greenroom_cluster.shard.messages import SnapshotChunk, SnapshotRefused
from greenroom_cluster.shard.pairs.incoming import Incoming, hear_of
from greenroom_cluster.shard.roles.accepts import Role
from greenroom_cluster.shard.roles.primary import Primary
from greenroom_cluster.shard.roles.suspension import Suspension
from greenroom_cluster.shard.state.clock import ShardClock
from greenroom_cluster.shard.state.log import Log
from greenroom_cluster.shard.state.pacing import affordable
from greenroom_cluster.shard.state.stored import expiry_of
from greenroom_cluster.shard.state.table import SessionTable

_ANSWERS_UNTOLD_BYTES = 64 << 10


class Replica:
    """A replica in one of its roles. `leader` is the incarnation it follows, empty for a primary."""

    __slots__ = (
        "clock",
        "committed",
        "context",
        "doubted",
        "epoch",
        "known_committed",
        "leader",
        "log",
        "members",
        "opened",
        "primary",
        "receiver",
        "role",
        "settled_answers_bytes",
        "settled_bytes",
        "shard",
        "since_ns",
        "suspension",
        "table",
    )

    def __init__(self, context: Context, shard: int, epoch: int, now_ns: int) -> None:
        self.context = context
        self.shard = shard
        self.epoch = epoch
        self.members: tuple[bytes, ...] = ()
        self.role = Role.JOINING
        self.leader = b""
        self.table = SessionTable(by_age=context.settings.eviction == "anonymous")
        self.log = Log()
        self.committed = 0
        # What was left to be applied by later steps, see `pacing`.
        self.known_committed = 0
        # What the table, and the answers in it, were charged with when the books were told last.
        self.settled_bytes = 0
        self.settled_answers_bytes = 0
        self.clock = ShardClock()
        self.since_ns = now_ns
        self.primary: Primary | None = None
        self.receiver: SnapshotReceiver | None = None
        self.opened: OpenProposal | None = None
        self.suspension: Suspension | None = None
        # The followers that the next configuration names may hold something else under the same numbers.
        self.doubted = False

    # --- transitions ----------------------------------------------------------------------------------------

    def adopt(self, now_ns: int, wall_us: int, entry: ShardEntry) -> None:
        """Take the place that a later configuration gives this replica; it must be a member of it."""
        if entry.epoch <= self.epoch and self.members:
            raise InvariantError(f"shard {self.shard}: epoch {entry.epoch} adopted after {self.epoch}")
        before = self.epoch
        self.epoch = entry.epoch
        self.members = entry.members
        self.opened = None
        if entry.primary != self.context.incarnation:
            self.become_backup(now_ns, entry.primary, before)
        elif self.primary is None:
            self.become_primary(now_ns, wall_us, before, entry.suspect)
        else:
            self.primary.reconfigure(now_ns, wall_us)
            self.context.transition(self.shard, self.epoch, self.role.value, "members changed")

    def fits(self) -> bool:
        """Whether this copy can take its place in a configuration that names it; a joiner must be whole.

        Whom it was taken from need not be a member any more: who proposes to add this actor does so over its
        latest copy (older snapshots are refused), and can have left only after a hand-over, for which every
        member had the whole log.
        """
        return self.receiver is None or self.receiver.complete

    def chunk_refusal(self, peer: bytes, chunk: SnapshotChunk) -> str | None:
        """Return why a chunk of a snapshot cannot be taken, None if it can.

        This copy may count for its primary already: neither a superseded primary nor a chunk of an earlier
        join that was long on its way may take its place.
        """
        receiver = self.receiver
        if receiver is None:
            return f"the joiner is {self.role.value} already"
        if chunk.epoch < self.epoch:
            return f"the joiner has a copy of epoch {self.epoch}"
        same_primary = self.leader == peer
        if chunk.number == 0 and not (same_primary and chunk.join <= receiver.join):
            return None
        if not same_primary or receiver.join != chunk.join:
            return "the chunk belongs to another join"
        if receiver.complete or receiver.next_number != chunk.number:
            return f"chunk {chunk.number} is not the next one"
        return None

    def continues(self, known: ShardEntry, entry: ShardEntry) -> bool:
        """Whether a configuration of a new lineage is the one that this replica is in, `known` by the map.

        A new lineage begins from a copy of the map, which may name members that have parted since: then one
        sequence number can stand for two records. The nonce tells whether anything happened in between.
        """
        return self.receiver is None and self.epoch == known.epoch and known.nonce == entry.nonce

    def count(self) -> None:
        """Tell the books what this replica holds: now, or where there is ample room with the next beacon.

        Until then they hold too much against it, never too little: what is logged was added when it was. Its
        kept answers are told of once they are many: they have a bound of their own.
        """
        context = self.context
        context.uncounted[self.shard] = self
        memory = context.memory
        if (
            memory.free_bytes <= memory.ample_bytes
            or self.table.clients.charged_bytes - self.settled_answers_bytes > _ANSWERS_UNTOLD_BYTES
        ):
            context.count_all()

    def count_arrived(self) -> None:
        """Tell the books of what a snapshot brought, for which room was kept when it began."""
        self.settled_bytes = self.table.charged_bytes + self.table.clients.charged_bytes
        self.count_now()

    def count_now(self) -> None:
        """Tell the books what this replica holds, and what of it the primary that it follows has added."""
        answers = self.table.clients.charged_bytes
        stored = self.table.charged_bytes + answers
        used = stored + self.log.charged_bytes
        if self.primary is not None:
            used += self.primary.held_bytes
        memory = self.context.memory
        memory.note(self.shard, used, answers)
        if stored > self.settled_bytes and self.leader:
            memory.spend(self.leader, stored - self.settled_bytes)
        self.settled_bytes, self.settled_answers_bytes = stored, answers
        if self.receiver is not None and self.receiver.complete:
            memory.joined(self.shard)

    def state(self, now_ns: int) -> wire.ReplicaState:
        """Return what an operator is shown of this replica."""
        primary = self.primary
        joiner = None if primary is None else primary.membership.joiner
        return wire.ReplicaState(
            self.shard,
            self.epoch,
            self.role.value,
            primary is not None and not primary.paused and primary.leased(now_ns),
            len(self.table.sessions),
            self.table.stored_bytes,
            self.log.appended,
            self.committed,
            () if joiner is None else (joiner.pair.peer,),
            "" if self.proposal is None else self.proposal.proposal.kind,
            None if self.suspension is None else self.suspension.state(),
            "" if primary is None else primary.membership.refusal,
            "" if primary is None else primary.membership.refused_by,
            0 if primary is None else primary.membership.refused_bytes,
        )

    def become_joining(self, leader: bytes, receiver: SnapshotReceiver) -> None:
        """Begin to take in a snapshot from the primary."""
        self.role = Role.JOINING
        self.leader = leader
        self.receiver = receiver
        self.table = receiver.table
        self.log = Log(receiver.sequence)
        self.committed = receiver.sequence
        self.context.transition(self.shard, self.epoch, self.role.value, "snapshot begins")

    def become_primary(
        self, now_ns: int, wall_us: int, before: int, suspect: SuspectRecord | None = None
    ) -> None:
        """Apply the whole prepared log, which may hold what was acknowledged, and only then serve.

        But stop before the suspect: a primary has died or hangs on that record.
        """
        if self.receiver is not None and not self.receiver.complete:
            raise InvariantError(f"shard {self.shard}: made primary while its snapshot is incomplete")
        former = self.leader
        if self.suspension is not None:
            # Also if the map has forgotten it, as one of a new lineage may.
            former, suspect = self.suspension.former, self.suspension.suspect
        reason = "started"
        if self.leader:
            reason = "handed over" if len(self.members) > 1 else "takeover"
            self._incoming(now_ns).refuse(self.shard, before)
        # Decided in one lineage, a leader has stopped before; of a new lineage it may not have heard.
        usurping = self.doubted and self.leader != b""
        self.leader = b""
        self.receiver = None
        # Only who takes over alone is in doubt: before a hand-over the primary has applied the whole log.
        if suspect is not None and former and len(self.members) == 1 and self._holds(suspect):
            self.become_suspended(former, suspect, reason)
            return
        self._begin_to_lead(now_ns, wall_us, reason, usurping=usurping)

    def become_suspended(self, former: bytes, suspect: SuspectRecord, reason: str) -> None:
        """Stop before the record on which the former primary died or hung."""
        self.role = Role.SUSPENDED
        undecided = self.log.records(self.committed, self.log.appended)
        self.suspension = Suspension(self.shard, former, undecided, suspect.sequence)
        self.approach_suspect()
        self.context.transition(self.shard, self.epoch, self.role.value, reason)
        self.context.warn(self.suspension.reason, self.shard)

    def approach_suspect(self) -> None:
        """Apply what one step may of what comes before the record at which this replica is suspended."""
        assert self.suspension is not None
        reached = self.affordable(self.suspension.record.sequence - 1)
        if reached > self.committed:
            self.commit(reached)
        self.count()

    def reconsider(
        self, now_ns: int, wall_us: int, before: SuspectRecord | None, after: SuspectRecord | None
    ) -> None:
        """Go on if the suspicion was taken back: the former primary has applied the record after all."""
        if self.suspension is not None and after is None and before == self.suspension.suspect:
            self._begin_to_lead(now_ns, wall_us, "the former primary passed the record")

    def drop_record(self, now_ns: int, wall_us: int) -> None:
        """Go on behind the record at which this replica is suspended, as if it had never changed anything.

        What is left of the log may hold another such record. It is applied once another member has it, who is
        suspended in turn if this one ends over it.
        """
        assert self.suspension is not None
        (record,) = self.log.take(self.committed, self.committed + 1)
        self.committed = record.sequence
        self.suspension.refuse_for_good(self.table.clients)
        reason = f"record {record.sequence} was dropped by an operator"
        self._begin_to_lead(now_ns, wall_us, reason, copy_first=True)

    def _holds(self, suspect: SuspectRecord) -> bool:
        """Whether that record is in the log here, and the former primary had not applied it either."""
        if not max(self.committed, self.known_committed) < suspect.sequence <= self.log.appended:
            return False
        (record,) = self.log.records(suspect.sequence - 1, suspect.sequence)
        return record.epoch == suspect.epoch

    def affordable(self, through: int) -> int:
        """Return up to which record to apply in this step; the rest is left for the next, see `pacing`."""
        context = self.context
        reached, context.step_bytes = affordable(
            self.log, self.table, self.committed, through, context.step_bytes
        )
        if reached < through:
            self._leave(through)
        return reached

    def commit(self, through: int) -> None:
        """Apply the log up to a record, marking each; stop earlier if that takes too long for one step."""
        context, table, log = self.context, self.table, self.log
        mark, apply, walked = context.mark, table.apply, table.walked
        mark[MARK_SHARD] = self.shard
        opening = log.opening_at > self.committed
        for record in (log.records if opening else log.take)(self.committed, through):
            mark[MARK_EPOCH] = record.epoch
            mark[MARK_SEQUENCE] = self.committed = record.sequence
            apply(record)
            if walked.items and self.walked_enough(through):
                break
        mark[MARK_SEQUENCE] = 0
        if opening:
            log.trim(self.committed)

    def walked_enough(self, through: int) -> bool:
        """Count what the latest command read in Python; return whether the rest waits for the next step."""
        context, walked = self.context, self.table.walked
        context.step_items -= walked.items
        walked.items = 0
        if context.step_items > 0 or self.committed >= through:
            return False
        context.step_bytes = 0
        self._leave(through)
        return True

    def _leave(self, through: int) -> None:
        self.known_committed = max(self.known_committed, through)
        self.context.behind[self.shard] = self

    def _begin_to_lead(
        self, now_ns: int, wall_us: int, reason: str, *, usurping: bool = False, copy_first: bool = False
    ) -> None:
        self.suspension = None
        self.count()
        self.role = Role.PRIMARY
        # The shard's time begins now at the latest: a clock that jumps before the first request has to be
        # doubted too.
        self.clock.read(now_ns, wall_us)
        self.primary = Primary(self, now_ns)
        self.primary.copy_first = copy_first and self.primary.behind
        self.context.transition(self.shard, self.epoch, self.role.value, reason)
        if usurping:
            self.primary.membership.keep_quiet(now_ns)
        self.primary.reconfigure(now_ns, wall_us)

    def become_backup(self, now_ns: int, leader: bytes, before: int) -> None:
        """Follow the primary of a configuration and back it from now on."""
        if self.receiver is not None and not self.receiver.complete:
            raise InvariantError(f"shard {self.shard}: made backup while its snapshot is incomplete")
        if self.primary is not None:
            if self.committed != self.log.appended:
                raise InvariantError(f"shard {self.shard}: handed over before everything was committed")
            self.primary.close()
            self.primary = None
            self.count()  # without the requests that it held
        reason = "members changed" if self.role is Role.BACKUP else f"was {self.role.value}"
        if self.leader and self.leader != leader:
            self._incoming(now_ns).refuse(self.shard, before)
        self.leader = leader
        self.receiver = None
        self.role = Role.BACKUP
        self.since_ns = now_ns
        self._incoming(now_ns).backed.add(self.shard)
        self.context.transition(self.shard, self.epoch, self.role.value, reason)

    def become_fenced(self, now_ns: int, reason: str) -> None:
        """As a backup, propose to take over, and from here on acknowledge nothing at this epoch."""
        self.role = Role.FENCED
        self._incoming(now_ns).refuse(self.shard, self.epoch)
        self.opened = self.context.propose(
            now_ns, self.shard, self.epoch, "takeover", self.context.incarnation, ()
        )
        self.context.transition(self.shard, self.epoch, self.role.value, reason)

    def close(self, now_ns: int, reason: str) -> None:
        """Give the replica up: it is not a member any more."""
        if self.primary is not None:
            self.primary.close()
            self.primary = None
        if self.leader and self.role is not Role.JOINING:
            # A joiner backs nobody yet, and may begin again at the same epoch.
            self._incoming(now_ns).refuse(self.shard, self.epoch)
        self.context.uncounted.pop(self.shard, None)
        self.context.memory.drop(self.shard)
        self.context.transition(self.shard, self.epoch, "none", reason)

    def sweep(self, now_ns: int, wall_us: int, looks: int) -> int:
        """Look at sessions that may be over, at most `looks`; return at how many it looked.

        Only a primary removes. A backup, who decides no expiry, keeps its index from growing.
        """
        if self.primary is not None:
            return self.primary.sweep(now_ns, wall_us, looks)
        if self.role is not Role.BACKUP:
            return 0
        time_us = self.clock.last_us
        over, looked = self.table.due(time_us, looks)
        for digest in over:
            self.table.expiry.enter(digest, expiry_of(self.table.sessions[digest]), time_us)
        return looked

    # --- proposals ------------------------------------------------------------------------------------------

    @property
    def proposal(self) -> OpenProposal | None:
        """The proposal of this replica whose outcome is not known."""
        return self.opened if self.primary is None else self.primary.opened

    def on_decision(self, now_ns: int, decision: Decision) -> None:
        """Take in the coordinator's word on the open proposal; what was applied shows in the map."""
        opened = self.proposal
        if opened is None or opened.proposal.nonce != decision.nonce:
            self.context.ignore("Decision", "no such proposal is open", self.shard, self.epoch)
            return
        if decision.applied:
            return
        if self.primary is not None:
            self.primary.on_refused(now_ns, decision.reason)
        elif decision.reason.startswith("stale"):
            self.context.ignore("Decision", decision.reason, self.shard, self.epoch)
        else:
            # Still fenced: only a later epoch frees it. A refused nonce stays refused, so ask under another.
            self.context.warn(f"takeover refused: {decision.reason}", self.shard)
            self.opened = self.context.prepare_takeover(now_ns, self.shard, self.epoch)

    def _incoming(self, now_ns: int) -> Incoming:
        return hear_of(self.context, self.leader, now_ns)


def unserved(
    context: Context, replica: Replica | None, client: bytes, request: wire.Get | wire.Mutation
) -> wire.EncodedReply:
    """Return the answer to a request for a shard of which this actor is not the serving primary."""
    if replica is None or replica.suspension is None:
        return context.redirect(request.request)
    return replica.suspension.reply_to(client, request, replica.table.clients, context.map_version)


def join_refusal(
    context: Context, replicas: Sequence[Replica | None], peer: bytes, chunk: SnapshotChunk
) -> SnapshotRefused | None:
    """Return why a chunk of a snapshot for one of an actor's shards is not taken, None if it is."""
    reason, full = _objection(context, replicas, peer, chunk), False
    if reason is None and chunk.number == 0:
        context.count_all()
        reason = context.memory.refusal_of_join(chunk.shard, chunk.shard_bytes)
        full = reason is not None
    return None if reason is None else SnapshotRefused(chunk.shard, chunk.epoch, chunk.join, reason, full)


def _objection(
    context: Context, replicas: Sequence[Replica | None], peer: bytes, chunk: SnapshotChunk
) -> str | None:
    if context.map is None or not 0 <= chunk.shard < len(replicas):
        return "the joiner has no map with that shard yet"
    entry = context.map.shards[chunk.shard]
    if entry.epoch > chunk.epoch:
        return f"the joiner knows epoch {entry.epoch}"
    replica = replicas[chunk.shard]
    if replica is None:
        return None if chunk.number == 0 else "the chunk belongs to another join"
    return replica.chunk_refusal(peer, chunk)
