"""One shard's copy with its role, and the transitions between roles.

PacificA (Lin et al., MSR-TR-2008-25): configurations are decided elsewhere by compare-and-set on the shard's
epoch; here a replica only adopts what was decided. Roles change in `become_*` and nowhere else.

`primary`, `backup` and `joiner` hold what a replica does in these roles.
"""

from greenroom import wire
from greenroom.cluster_map import ShardEntry, SuspectRecord
from greenroom.errors import InvariantError
from greenroom_cluster.coordination.messages import Decision
from greenroom_cluster.shard.context import OpenProposal
from greenroom_cluster.shard.joining.snapshot import SnapshotReceiver
from greenroom_cluster.shard.messages import SnapshotChunk
from greenroom_cluster.shard.near.leases import drifted
from greenroom_cluster.shard.pairs.incoming import Incoming
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.roles.primary import Primary
from greenroom_cluster.shard.roles.role import Role
from greenroom_cluster.shard.roles.suspension import Suspension
from greenroom_cluster.shard.state.copy import Copy
from greenroom_cluster.shard.state.stored import expiry_of

TAKEOVER = "takeover"
RECOVERED = "recovered from disk"
STARTED = "started"
KEPT_RECORDS = 1024
"""How many records are kept for former members that may come back with their directories."""


class Replica(Copy):
    """A copy with a role, held since `since_ns`. `opened` is a takeover that it has proposed.

    `recovered`: it comes from a directory, and has no role yet. `primary_directory` is what the primary of a
    backup writes to. `awaited` are the directories of former members that may come back. For the records up
    to `told`, room was kept when the replica joined. Since `bereft_ns` the shard's last primary is dead for
    certain, if this copy was found on disk; None if nobody knows since when.
    """

    __slots__ = (
        "awaited",
        "bereft_ns",
        "opened",
        "primary",
        "primary_directory",
        "quiet_until_ns",
        "receiver",
        "recovered",
        "resources",
        "since_ns",
        "suspension",
        "told",
    )

    def __init__(self, resources: Resources, shard: int, epoch: int, now_ns: int) -> None:
        super().__init__(resources.context, resources.step, resources.memory, shard, epoch)
        self.resources = resources
        if resources.disk is not None:
            self.stable = 0
        self.since_ns = now_ns
        self.primary: Primary | None = None
        self.receiver: SnapshotReceiver | None = None
        self.opened: OpenProposal | None = None
        self.suspension: Suspension | None = None
        self.recovered = False
        self.primary_directory = b""
        self.awaited: set[bytes] = set()
        self.told = 0
        self.bereft_ns: int | None = None
        # Until then clients may show what a former primary has answered, if this one has just taken over.
        self.quiet_until_ns = 0

    @property
    def inherits(self) -> bool:
        """Whether this is a primary that has yet to apply what its log held when it became one."""
        return self.primary is not None and self.primary.replication.behind

    # --- transitions ----------------------------------------------------------------------------------------

    def adopt(self, now_ns: int, wall_us: int, entry: ShardEntry) -> None:
        """Take the role that a later configuration gives this replica, which must be a member."""
        if entry.epoch <= self.epoch and self.members:
            raise InvariantError(f"shard {self.shard}: epoch {entry.epoch} adopted after {self.epoch}")
        before = self.epoch
        self.epoch = entry.epoch
        self.members = entry.members
        self.opened = None
        self._write_configuration(entry)
        if entry.primary != self.context.incarnation:
            self.become_backup(now_ns, entry.primary, before)
            return
        self.ladder.begin(entry.epoch, self.log.appended + 1)
        if self.primary is None:
            self.become_primary(now_ns, wall_us, before, entry.suspect)
        else:
            self.become_reconfigured(now_ns, wall_us)

    def _write_configuration(self, entry: ShardEntry) -> None:
        disk, known = self.resources.disk, self.context.map
        if disk is not None and known is not None:
            disk.configure(self, entry, known)

    def fits(self) -> bool:
        """Whether this copy can take its role in a configuration that names it; a joiner's must be complete.

        The primary that sent it need not be a member any longer: it proposed this actor on the strength of
        its latest copy (older snapshots are refused), and can have left only after a hand-over, for which
        every member had the whole log.
        """
        return self.receiver is None or self.receiver.complete

    def continues(self, known: ShardEntry, entry: ShardEntry) -> bool:
        """Whether `entry`, of a new lineage, is the configuration that this replica is in (`known`).

        A new lineage begins from a copy of the map. That may name members whose logs have diverged since:
        then one sequence number can stand for two records. The nonce shows whether anything happened in
        between.
        """
        return self.receiver is None and self.epoch == known.epoch and known.nonce == entry.nonce

    def count_now(self) -> None:
        """Tell the books what this replica holds; one that has arrived needs no room kept for it."""
        super().count_now()
        if self.memory.keeps_for_found(self.shard):
            self.memory.keep_for_found(self.shard, self.log.to_come_bytes)
        if self.committed >= self.told and (self.receiver is None or self.receiver.complete):
            self.memory.joined(self.shard)

    def state(self, now_ns: int) -> wire.ReplicaState:
        """Return the state of this replica as operators see it."""
        primary = self.primary
        joiner = None if primary is None else primary.membership.joiner
        transfer = None if primary is None else primary.membership.transfer
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
            0 if primary is None or primary.near is None else len(primary.near.holders),
            (0, 0) if transfer is None else transfer.progress,
        )

    def become_joining(self, primary: bytes, receiver: SnapshotReceiver) -> None:
        """Begin to take in a snapshot from the primary."""
        self._become(Role.JOINING)
        self.primary_incarnation = primary
        self.receiver = receiver
        self.begin_at(receiver.table, receiver.last)
        self.context.transition(self.shard, self.epoch, self.role.value, "snapshot begins")

    def become_continuing(self, now_ns: int, primary: bytes, offer: SnapshotChunk) -> None:
        """Join a primary with what this copy has, instead of a snapshot."""
        self._become(Role.JOINING)
        self.epoch = offer.epoch
        self.since_ns = now_ns
        self.primary_incarnation = primary
        self.receiver = SnapshotReceiver(offer, self.table)
        self.receiver.take(offer)
        self.told = offer.sequence
        self.clock.heard(offer.time_us, now_ns)
        self._read_soon()
        self.count_now()
        self.context.transition(self.shard, self.epoch, self.role.value, "goes on from its directory")

    def become_primary(
        self, now_ns: int, wall_us: int, before: int, suspect: SuspectRecord | None = None
    ) -> None:
        """Apply the whole log, which may hold acknowledged records, and only then serve.

        But stop before the suspect, the record on which a primary died or hangs.
        """
        if self.receiver is not None and not self.receiver.complete:
            raise InvariantError(f"shard {self.shard}: made primary while its snapshot is incomplete")
        former = self.primary_incarnation
        if self.suspension is not None:
            # Even if the map has forgotten the suspect, as a map of a new lineage may.
            former, suspect = self.suspension.former, self.suspension.suspect
        reason = STARTED
        if self.recovered:
            reason, former = RECOVERED, b"" if suspect is None else suspect.actor
        elif self.primary_incarnation:
            reason = "handed over" if len(self.members) > 1 else TAKEOVER
            self._incoming(now_ns).refuse(self.shard, before)
        self.quiet_until_ns = self._quiet_until_ns(now_ns, reason)
        # Within one lineage the former primary has stopped before. Of a new lineage it may not have heard.
        usurping = self.doubted and self.primary_incarnation != b""
        self.primary_incarnation = b""
        self.receiver = None
        self.told = 0
        self.recovered = False
        # Only after a takeover: before a hand-over the primary has applied the whole log.
        if suspect is not None and former and len(self.members) == 1 and self._holds(suspect):
            self.become_suspended(former, suspect, reason)
            return
        kept_from, settled_bytes, directories = self.committed, self.table.settled_bytes, self.awaited
        if reason == TAKEOVER:
            directories = {self.primary_directory}
        self.awaited = set()
        self._become_serving(now_ns, wall_us, reason, usurping=usurping)
        assert self.primary is not None
        kept_from = max(kept_from, self.log.appended - KEPT_RECORDS)
        for directory in () if usurping else directories:
            self.primary.replication.depart(directory, kept_from, now_ns, settled_bytes)

    def _quiet_until_ns(self, now_ns: int, reason: str) -> int:
        """Return until when clients may show what was answered before this is the primary, 0 if none may.

        Whoever hands over has waited for them. What a backup does not back any more, clients do not show for
        longer than the primary may answer. What a primary has answered that is dead, they do not show for
        longer than one lease after its death.
        """
        if reason == TAKEOVER:
            incoming = self._incoming(now_ns)
            rest_ns = max(incoming.heard_ns, self.since_ns) + self.context.grace_ns
            until_ns = min(now_ns + drifted(incoming.near_ns), rest_ns) if incoming.near_ns else 0
        elif reason == RECOVERED or (reason == STARTED and self.epoch > 1):
            lease_ns = self.resources.near.lease_ns
            since_ns = now_ns if self.bereft_ns is None else self.bereft_ns
            until_ns = since_ns + drifted(lease_ns) if lease_ns else 0
        else:
            until_ns = 0
        return until_ns if until_ns > now_ns else 0

    def become_suspended(self, former: bytes, suspect: SuspectRecord, reason: str) -> None:
        """Stop before the record on which the former primary died or hung."""
        self._become(Role.SUSPENDED)
        self.read_all()
        undecided = self.log.records(self.committed, self.log.appended)
        self.suspension = Suspension(self.shard, former, undecided, suspect.sequence)
        self.approach_suspect()
        self.context.transition(self.shard, self.epoch, self.role.value, reason)
        self.context.warn(self.suspension.reason, self.shard)

    def approach_suspect(self) -> None:
        """Apply records before the one at which this replica is suspended, as many as one step may."""
        assert self.suspension is not None
        reached = self.affordable(self.suspension.record.sequence - 1)
        if reached > self.committed:
            self.commit(reached)
        self.count()

    def reconsider(
        self, now_ns: int, wall_us: int, before: SuspectRecord | None, after: SuspectRecord | None
    ) -> None:
        """Go on if the suspicion was withdrawn: the former primary has applied the record after all."""
        if self.suspension is not None and after is None and before == self.suspension.suspect:
            self._become_serving(now_ns, wall_us, "the former primary passed the record")

    def drop_record(self, now_ns: int, wall_us: int) -> None:
        """Go on after the record at which this replica is suspended, as if that changed nothing.

        The rest of the log may hold another such record. So it is applied only once another member has it,
        which is suspended in turn if this one dies of it.
        """
        assert self.suspension is not None
        (record,) = self.log.take(self.committed, self.committed + 1)
        self.committed, self.last_epoch = record.sequence, record.epoch
        self.suspension.refuse_for_good(self.table.clients)
        if self.resources.compaction is not None:
            # A snapshot behind the record, so that no start finds it again.
            self.resources.compaction.rebase(self)
        reason = f"record {record.sequence} was dropped by an operator"
        self._become_serving(now_ns, wall_us, reason, copy_first=True)

    def _read_soon(self) -> None:
        """Read the snapshot that was found on disk: now, if it is short and nothing else waits, or later."""
        step = self.step
        while self.log.unread and step.bytes_left > 0 and not step.behind:
            self.read_part()
        if self.log.unread:
            step.behind[self.shard] = None

    def read_on(self, now_ns: int, wall_us: int) -> None:
        """Read more of the snapshot that was found on disk, as much as one step may; leave the rest."""
        step = self.step
        while self.log.unread and step.bytes_left > 0:
            self.read_part()
        step.behind[self.shard] = None
        if self.primary is not None:
            self.primary.end_inheritance(now_ns, wall_us)

    def _holds(self, suspect: SuspectRecord) -> bool:
        """Whether the suspect is in the log here, and the former primary had not applied it."""
        if not max(self.committed, self.known_committed) < suspect.sequence <= self.log.appended:
            return False
        (record,) = self.log.records(suspect.sequence - 1, suspect.sequence)
        return record.epoch == suspect.epoch

    def _become_serving(
        self, now_ns: int, wall_us: int, reason: str, *, usurping: bool = False, copy_first: bool = False
    ) -> None:
        self.suspension = None
        self.count()
        self._become(Role.PRIMARY)
        # The shard's time begins now at the latest, so that a clock that jumps before the first request is
        # doubted too.
        self.clock.read(now_ns, wall_us)
        self._read_soon()
        self.primary = Primary(self, self.resources, now_ns)
        replication = self.primary.replication
        replication.copy_first = copy_first and replication.behind
        self.context.transition(self.shard, self.epoch, self.role.value, reason)
        quiet_until_ns = now_ns + self.context.grace_ns if usurping else self.quiet_until_ns
        if quiet_until_ns > now_ns:
            self.primary.membership.keep_quiet(quiet_until_ns)
            self.resources.near.alarm(quiet_until_ns, self.shard)
        self.primary.reconfigure(now_ns, wall_us)

    def become_reconfigured(self, now_ns: int, wall_us: int) -> None:
        """As the primary, go on under a later configuration, whatever was proposed."""
        assert self.primary is not None
        self._become(Role.PRIMARY)
        self.primary.reconfigure(now_ns, wall_us)
        self.context.transition(self.shard, self.epoch, self.role.value, "members changed")

    def become_backup(self, now_ns: int, primary: bytes, before: int) -> None:
        """Log for the primary of a configuration, and back it, from now on."""
        if self.receiver is not None and not self.receiver.complete:
            raise InvariantError(f"shard {self.shard}: made backup while its snapshot is incomplete")
        if self.primary is not None:
            if self.committed != self.log.appended:
                raise InvariantError(f"shard {self.shard}: handed over before everything was committed")
            self.primary.close()
            self.primary = None
            self.count()  # without the requests that it held
        reason = "members changed" if self.role is Role.BACKUP else f"was {self.role.value}"
        if self.primary_incarnation and self.primary_incarnation != primary:
            self._incoming(now_ns).refuse(self.shard, before)
        self.primary_incarnation = primary
        self.primary_directory = self.context.directory_of(primary)
        self.receiver = None
        # More than that, this primary did not need it to have.
        self.told = min(self.told, self.log.appended)
        self._become(Role.BACKUP)
        self.since_ns = now_ns
        self._incoming(now_ns).backed.add(self.shard)
        self.context.transition(self.shard, self.epoch, self.role.value, reason)

    def become_fenced(self, now_ns: int, reason: str) -> None:
        """As a backup, propose to take over, and from here on acknowledge nothing at this epoch."""
        self._become(Role.FENCED)
        self._incoming(now_ns).refuse(self.shard, self.epoch)
        self.opened = self.context.propose(
            now_ns, self.shard, self.epoch, "takeover", self.context.incarnation, ()
        )
        self.context.transition(self.shard, self.epoch, self.role.value, reason)

    def close(self, now_ns: int, reason: str) -> None:
        """Give the replica up, because it is no longer a member."""
        if self.primary is not None:
            self.primary.close()
            self.primary = None
        if self.primary_incarnation and self.role is not Role.JOINING:
            # A joiner backs nobody yet, and may start over at the same epoch.
            self._incoming(now_ns).refuse(self.shard, self.epoch)
        self.memory.drop(self.shard)
        if self.resources.disk is not None:
            self.resources.disk.leave(self)
        self.context.transition(self.shard, self.epoch, "none", reason)

    def sweep(self, now_ns: int, wall_us: int, looks: int) -> int:
        """Look at up to `looks` sessions that may have expired; return how many it looked at.

        Only a primary removes sessions. A backup decides no expiry; it only keeps its index from growing.
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
        """Take in the coordinator's decision on the open proposal; if it was applied, the map shows it."""
        opened = self.proposal
        if opened is None or opened.proposal.nonce != decision.nonce:
            self.context.ignore("Decision", "no such proposal is open", self.shard, self.epoch)
            return
        if decision.applied:
            return
        if self.primary is not None:
            self.primary.membership.on_refused(now_ns, decision.reason)
        elif decision.reason.startswith("stale"):
            self.context.ignore("Decision", decision.reason, self.shard, self.epoch)
        else:
            # Still fenced until a later epoch. A refused nonce stays refused, so ask under another.
            self.context.warn(f"takeover refused: {decision.reason}", self.shard)
            self.opened = self.context.prepare_takeover(now_ns, self.shard, self.epoch)

    def _incoming(self, now_ns: int) -> Incoming:
        return self.resources.pairs.hear_of(self.primary_incarnation, now_ns)
