"""How a primary changes the members of its shard: removals, additions, hand-overs.

Only the primary proposes these; the controller only says which members are wanted (`planning.placement`).
Each is a compare-and-set on the epoch. While a proposal is open the primary behaves so that either outcome is
right: it commits nothing without a joiner from before it proposes to add it, it acknowledges alone only once
a removal is decided, and it has stopped serving before it proposes a hand-over.
"""

from greenroom.errors import InvariantError
from greenroom_cluster.shard.context import OpenProposal
from greenroom_cluster.shard.disk_log import DiskStalledError
from greenroom_cluster.shard.effects import Send
from greenroom_cluster.shard.joining.continuation import Continuation, Departed
from greenroom_cluster.shard.joining.snapshot import SnapshotSender
from greenroom_cluster.shard.messages import SnapshotOk, SnapshotRefused
from greenroom_cluster.shard.near.served import Near
from greenroom_cluster.shard.pairs.outgoing import Recipient
from greenroom_cluster.shard.pairs.replication import Replication
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.roles.releases import Releases
from greenroom_cluster.shard.settings import ns

JOINER_LAG_RECORDS = 256
FULL_RETRIES = 8


class Membership:
    """The recipients of one primary, and the changes under way.

    `catching_up`: the joiner counts, and is proposed once it has logged all that was committed without it.
    `draining`: new requests are held, so that everything logged can be committed before a hand-over.
    `refusal`: why the newest join was refused, else empty. `refused_by`: the slot of a joiner that has no
    memory for the `refused_bytes` of the copy.
    `quiet_until_ns`: until then requests are held too, and no hand-over or join begins; 0: not quiet.
    """

    __slots__ = (
        "_context",
        "_copy",
        "_disk",
        "_join_due_ns",
        "_joins",
        "_offered",
        "_pairs",
        "_releases",
        "_replication",
        "_step",
        "catching_up",
        "draining",
        "joiner",
        "near",
        "opened",
        "quiet_until_ns",
        "refusal",
        "refused_by",
        "refused_bytes",
        "transfer",
    )

    def __init__(
        self, replication: Replication, resources: Resources, releases: Releases, now_ns: int
    ) -> None:
        self._replication = replication
        self._releases = releases
        self._copy = replication.copy
        self._context = resources.context
        self._step = resources.step
        self._pairs = resources.pairs
        self._joins = resources.joins
        self._disk = resources.disk
        self._join_due_ns = now_ns
        self.joiner: Recipient | None = None
        self.transfer: SnapshotSender | Continuation | None = None
        self._offered: Departed | None = None
        self.opened: OpenProposal | None = None
        self.near: Near | None = None
        self.catching_up = False
        self.draining = False
        self.quiet_until_ns = 0
        self.refusal = ""
        self.refused_by = ""
        self.refused_bytes = 0

    # --- what was decided -----------------------------------------------------------------------------------

    def keep_quiet(self, until_ns: int) -> None:
        """Serve nothing until then: the former primary may hold a promise, or clients what it answered."""
        self.quiet_until_ns = self._join_due_ns = until_ns

    def reconfigure(self, now_ns: int) -> None:
        """Make the replica's members the recipients."""
        copy, replication = self._copy, self._replication
        self.opened = None
        self._stop_draining()
        self.draining = self.quiet_until_ns > 0
        backups = copy.members[1:]
        joiner = self.joiner
        if joiner is not None and joiner.pair.peer in backups:
            self._end_transfer(joined=True)
        elif joiner is not None and joiner.counted:
            self._abort_join("it was not added", now_ns)
        for recipient in [each for each in replication.recipients if each is not self.joiner]:
            if recipient.pair.peer not in backups or copy.doubted:
                replication.drop(recipient)
                if recipient.counted and not copy.doubted:
                    reached = recipient.acknowledged
                    replication.depart(recipient.directory, reached, now_ns, copy.table.settled_bytes)
        known = {recipient.pair.peer for recipient in replication.recipients}
        for peer in backups:
            if peer not in known:
                # After a hand-over: the former primary proposed it only when all members had the whole log.
                safe = max(copy.committed, replication.inherited)
                acknowledged = safe if copy.doubted else copy.log.appended
                self._send_to(peer, acknowledged, now_ns, counted=True)
        for recipient in replication.recipients:
            recipient.refused = copy.doubted or recipient.pair.refuses(copy.shard, copy.epoch)
            if recipient is not self.joiner and recipient.acknowledged < copy.committed:
                raise InvariantError(f"shard {copy.shard}: a member lacks what was committed")
        # A joiner could not take in commit points before its snapshot was complete.
        replication.tell_commit_point()
        copy.doubted = False
        replication.count_recipients()

    def _send_to(self, peer: bytes, acknowledged: int, now_ns: int, *, counted: bool) -> Recipient:
        pair = self._pairs.toward(peer, now_ns)
        return self._replication.send_to(pair, acknowledged, now_ns, counted=counted)

    def close(self) -> None:
        """Send nothing more to any recipient."""
        if self.joiner is not None:
            self._end_transfer()
        for recipient in list(self._replication.recipients):
            self._replication.drop(recipient)
        self._replication.count_recipients()
        self.opened = None

    # --- what to propose ------------------------------------------------------------------------------------

    def manage(self, now_ns: int) -> None:
        """Check the recipients and the plan, and propose the next step; called when something may be due."""
        if self._replication.departed:
            self._replication.forget_departed(now_ns)
        self._check_disk(now_ns)
        if self._replication.behind:
            self._step.ready[self._copy.shard] = None
        if self.quiet_until_ns and now_ns >= self.quiet_until_ns:
            self.quiet_until_ns = 0
            self._stop_draining()
        if self.opened is not None:
            if now_ns >= self.opened.resend_ns:
                self._context.repropose(now_ns, self.opened)
            return
        lost = [
            (recipient, reason)
            for recipient in self._replication.recipients
            if (reason := self._lost(recipient, now_ns)) is not None
        ]
        for recipient, reason in lost:
            if recipient is self.joiner:
                self._abort_join(reason, now_ns)
        gone = [(recipient, reason) for recipient, reason in lost if recipient.counted and recipient.active]
        if gone:
            self._propose_removal([recipient.pair.peer for recipient, _ in gone], gone[0][1], now_ns)
            self._stop_draining()
            return
        replication = self._replication
        if self._copy.unsettled or (replication.behind and not replication.copy_first):
            return  # what it will commit without asking anybody, a joiner might lack
        self._follow_plan(now_ns)

    def _lost(self, recipient: Recipient, now_ns: int) -> str | None:
        """Return why this recipient can no longer be relied on, None if it can."""
        context = self._context
        if recipient.pair.peer in context.dead:
            return "known dead"
        if recipient.refused:
            return "it no longer backs this epoch"
        # After standing still, this process must first ask again: it was silent, not the recipient. If it
        # removed its backup now, it would acknowledge alone just when it is in doubt itself.
        asked_ns = self._step.awake_ns + ns(context.settings.beacon_seconds)
        if now_ns >= max(recipient.pair.lease_until_ns, recipient.since_ns + context.lease_ns, asked_ns):
            return "lease run out"
        waiting = recipient.waiting_since_ns
        if recipient.counted and waiting:
            waiting = max(waiting, self._step.awake_ns)
            # If this actor's own disk has no more than that either, nobody is to blame.
            behind = self._copy.stable > recipient.acknowledged
            if behind and now_ns - waiting > context.acknowledge_ns:
                return "it acknowledges too slowly"
        return None

    def _check_disk(self, now_ns: int) -> None:
        """End this process if its disk keeps back what a backup has: nothing of it could be handed over.

        Raises DiskStalledError.
        """
        disk = self._disk
        since_ns = None if disk is None else disk.waits_since_ns
        if since_ns is None or now_ns - max(since_ns, self._step.awake_ns) <= self._context.stall_ns:
            return
        if any(each.acknowledged > self._copy.stable for each in self._replication.counted):
            raise DiskStalledError(
                f"shard {self._copy.shard}: a backup has what this actor's own disk has not written for "
                f"{self._context.settings.stall_seconds:g} s"
            )

    def _propose_removal(self, peers: list[bytes], reason: str, now_ns: int) -> None:
        copy = self._copy
        rest = tuple(peer for peer in copy.members[1:] if peer not in peers)
        self._propose(now_ns, "remove", copy.members[0], rest)
        self._context.transition(
            copy.shard, copy.epoch, copy.role.value, f"removal of a backup proposed: {reason}"
        )

    def _propose(self, now_ns: int, kind: str, primary: bytes, backups: tuple[bytes, ...]) -> None:
        copy = self._copy
        self.opened = self._context.propose(now_ns, copy.shard, copy.epoch, kind, primary, backups)

    def on_refused(self, now_ns: int, reason: str) -> None:
        """Call off a proposal that was refused at the present epoch, by moving the epoch on.

        A refusal says what was decided at that moment; a copy of the proposal may still be on its way. Only a
        later epoch makes sure that it never applies.
        """
        opened, copy = self.opened, self._copy
        if opened is None or opened.proposal.epoch != copy.epoch or opened.proposal.kind == "reaffirm":
            self._context.ignore("Decision", reason, copy.shard, copy.epoch)
            return
        self._context.warn(f"proposal to {opened.proposal.kind} refused: {reason}", copy.shard)
        self._propose(now_ns, "reaffirm", copy.members[0], copy.members[1:])

    def _follow_plan(self, now_ns: int) -> None:
        context, copy = self._context, self._copy
        if context.map is None:
            return
        plan = context.map.shards[copy.shard].wanted
        wanted = [context.current.get(slot, b"") for slot in plan]
        if self.joiner is not None:
            if self.joiner.pair.peer not in wanted:
                self._abort_join("it is not wanted any more", now_ns)
            else:
                self._add_if_ready(now_ns)
            return
        missing = [peer for peer in wanted if peer and peer not in copy.members]
        if missing:
            self._stop_draining()
            if now_ns >= self._join_due_ns:
                # In turn, so that one that cannot be reached does not keep the others from joining.
                peer = missing[self._joins.begun % len(missing)]
                if self._may_go_on(peer) or self._joins.free(peer):
                    self._start_join(peer, now_ns)
                else:
                    self._joins.wait(peer, copy.shard)
            return
        if not plan or not all(wanted):
            self._stop_draining()
            return
        surplus = [peer for peer in copy.members[1:] if peer not in wanted]
        if wanted[0] != copy.members[0]:
            if self.near is not None and not self.near.leave(now_ns):
                return
            self.draining = True
            self.hand_over_if_drained(now_ns)
            return
        self._stop_draining()
        if surplus:
            self._propose_removal(surplus, "not wanted any more", now_ns)

    # --- hand-over ------------------------------------------------------------------------------------------

    def hand_over_if_drained(self, now_ns: int) -> None:
        """Propose the wanted primary once all that is logged is committed, that is, in every member's log."""
        context, copy = self._context, self._copy
        if self.opened is not None or copy.committed != copy.log.appended or context.map is None:
            return
        if self.quiet_until_ns:
            return
        if any(recipient.acknowledged != copy.log.appended for recipient in self._replication.recipients):
            return
        successor = context.current.get(context.map.shards[copy.shard].wanted[0], b"")
        if successor not in copy.members[1:]:
            return
        rest = tuple(peer for peer in copy.members if peer != successor)
        self._propose(now_ns, "handover", successor, rest)
        copy.become_handing_over()

    def _stop_draining(self) -> None:
        if self.near is not None:
            self.near.leaving = False
        if not self.quiet_until_ns:
            self.draining = False

    # --- joining --------------------------------------------------------------------------------------------

    def _start_join(self, peer: bytes, now_ns: int) -> None:
        copy = self._copy
        self.joiner = self._send_to(peer, copy.committed, now_ns, counted=False)
        number = self._joins.begin()
        self.refusal = self.refused_by = ""
        self.refused_bytes = 0
        self.joiner.pair.use_bulk()
        self.transfer = self._continuation(self.joiner, number)
        if self.transfer is None:
            self._joins.take(peer)
            self.transfer = self._snapshot(number)
        self.on_release(now_ns)
        self._send_chunks()

    def _may_go_on(self, peer: bytes) -> bool:
        """Whether a peer came back with a directory from which it may go on, which takes hardly anything."""
        return self._disk is not None and self._context.directory_of(peer) in self._replication.departed

    def _continuation(self, joiner: Recipient, number: int) -> Continuation | None:
        """Return an offer to a former member that came back with its directory."""
        departed = self._offered = self._replication.departed.pop(joiner.directory, None)
        if departed is None or self._disk is None:
            return None  # without a disk of its own it keeps no ladder
        copy = self._copy
        if departed.kept_from + 1 < copy.log.first:
            return None  # it had more when it left again, and the rest was dropped
        # From now on the joiner keeps these records from being dropped.
        joiner.acknowledged = joiner.sent = departed.kept_from
        return Continuation(copy, number, departed)

    def _snapshot(self, number: int) -> SnapshotSender:
        context, copy = self._context, self._copy
        # Records are sent only after the first chunk is acknowledged: before, the joiner has no log.
        return SnapshotSender(
            copy.shard,
            copy.epoch,
            number,
            (copy.last_epoch, copy.committed),
            copy.table,
            context.settings.chunk_bytes,
        )

    def _send_chunks(self) -> None:
        joiner, transfer = self.joiner, self.transfer
        if joiner is None or transfer is None or not joiner.pair.bulk_up:
            return
        if transfer.next_number == 0:
            # What was logged since it began, while there was no connection, follows at once.
            transfer.measure(self._copy.log)
        window = self._context.settings.chunks_in_flight_max
        while not transfer.finished and transfer.in_flight < window:
            chunk = transfer.chunk(self._copy.clock.last_us)
            self._context.effects.append(Send(joiner.pair.peer, chunk, bulk=True))

    def on_release(self, now_ns: int) -> None:
        """Give up a join, before its first chunk, if the joiner's release cannot read what it would get."""
        joiner, transfer = self.joiner, self.transfer
        if joiner is None or transfer is None or transfer.next_number:
            return
        if objection := self._releases.objection_to(joiner, transfer):
            self._abort_join(objection, now_ns)
            self.refusal = objection
            self._join_due_ns = now_ns + FULL_RETRIES * ns(self._context.settings.join_retry_seconds)

    def on_bulk_up(self, now_ns: int, peer: bytes) -> None:
        """Go on with a join now that the snapshot connection to the peer is up."""
        if self._joins_at(peer) and self.transfer is not None and self.transfer.next_number == 0:
            self.on_release(now_ns)
            self._send_chunks()

    def on_bulk_down(self, now_ns: int, peer: bytes) -> None:
        """Start a join over: the snapshot connection broke, and what was on its way is lost."""
        transfer = self.transfer if self._joins_at(peer) else None
        if transfer is not None and transfer.next_number > 0 and not transfer.complete:
            self._abort_join("the snapshot connection broke", now_ns)

    def _joins_at(self, peer: bytes) -> bool:
        return self.joiner is not None and self.joiner.pair.peer == peer

    def on_chunk_ok(self, message: SnapshotOk, now_ns: int) -> None:
        """Send the next chunk, or propose to add the joiner once it has all of them."""
        joiner, transfer = self.joiner, self.transfer
        if joiner is None or transfer is None or message.join != transfer.join:
            self._context.ignore("SnapshotOk", "no such join", self._copy.shard, self._copy.epoch)
            return
        transfer.acknowledged = max(transfer.acknowledged, message.number)
        transfer.mark = max(transfer.mark, message.mark)
        if isinstance(transfer, Continuation) and not joiner.streaming:
            reached = min(message.sequence, self._copy.log.appended)
            joiner.acknowledged = joiner.sent = max(joiner.acknowledged, reached)
        if not joiner.streaming:
            joiner.streaming = True
            # For what was logged since the first chunk told the size, the joiner keeps no room of its own.
            joiner.pair.room_bytes -= self._copy.log.charge_after(transfer.told)
            joiner.pair.resend(joiner)
        self._send_chunks()
        if self.opened is None:
            self._add_if_ready(now_ns)

    def on_join_refused(self, message: SnapshotRefused, now_ns: int) -> None:
        """Note why the joiner cannot take the snapshot now."""
        transfer, joiner = self.transfer, self.joiner
        if transfer is not None and joiner is not None and transfer.join == message.join:
            if not (message.waits or message.full):
                self._offered = None
            self._abort_join(message.reason, now_ns)
            if isinstance(transfer, Continuation) and not message.full:
                return  # it is offered again soon, or else gets a snapshot
            self.refusal = message.reason
            if message.full:
                self.refused_by = self._context.slot_of(joiner.pair.peer)
                self.refused_bytes = transfer.shard_bytes
            if message.full or message.waits:
                # Memory becomes free slowly, and each attempt costs a chunk or two. The joiner takes back the
                # room that it keeps for this actor only after hearing nothing for a grace.
                self._join_due_ns = now_ns + FULL_RETRIES * ns(self._context.settings.join_retry_seconds)

    def on_lease(self, now_ns: int) -> None:
        """Propose to add a joiner that only lacked a lease."""
        if self.joiner is not None and self.opened is None:
            self._add_if_ready(now_ns)

    def _add_if_ready(self, now_ns: int) -> None:
        joiner, transfer, copy = self.joiner, self.transfer, self._copy
        if joiner is None or transfer is None or not transfer.complete:
            return
        if joiner.pair.lease_until_ns <= now_ns or joiner.refused:
            return
        if copy.log.appended - joiner.acknowledged > JOINER_LAG_RECORDS:
            return
        if not joiner.counted:
            # From here on nothing is committed without it, so that it can catch up even under load.
            joiner.counted = self.catching_up = True
            joiner.waiting_since_ns = now_ns if copy.log.appended > joiner.acknowledged else 0
            self._replication.count_recipients()
        self.add_if_caught_up(now_ns)

    def add_if_caught_up(self, now_ns: int) -> None:
        """Propose the joiner once it has logged all that was committed without it.

        A member that lacks an acknowledged record would lose it if it took over.
        """
        joiner, transfer, copy = self.joiner, self.transfer, self._copy
        if joiner is None or self.opened is not None or joiner.acknowledged < copy.committed:
            return
        if self.near is not None and not self.near.may_add(joiner.pair, now_ns):
            return  # from now on nothing is held here, and what is held is over soon
        assert transfer is not None
        self.catching_up = False
        peer = joiner.pair.peer
        marks = ((peer, transfer.mark),) if transfer.mark else ()
        self.opened = self._context.propose(
            now_ns, copy.shard, copy.epoch, "add", copy.members[0], (*copy.members[1:], peer), marks=marks
        )

    def _end_transfer(self, *, joined: bool = False) -> None:
        assert self.joiner is not None
        self.catching_up = False
        if not isinstance(self.transfer, Continuation):
            self._joins.give_back(self.joiner.pair.peer, joined=joined)
        elif self._offered is not None and not joined:
            self._replication.departed[self.joiner.directory] = self._offered
        self.joiner.pair.release_bulk()
        self.joiner = None
        self.transfer = None

    def _abort_join(self, reason: str, now_ns: int) -> None:
        joiner = self.joiner
        if joiner is None or (joiner.counted and self.opened is not None):
            # Proposed already: only the outcome ends it.
            return
        self._context.ignore("join", reason, self._copy.shard, self._copy.epoch)
        self._end_transfer()
        self._replication.drop(joiner)
        self._replication.count_recipients()
        self._join_due_ns = now_ns + ns(self._context.settings.join_retry_seconds)
        self._replication.trim()
        if joiner.counted:
            # Records that only the joiner had not acknowledged can be committed now.
            self._step.ready[self._copy.shard] = None

    def shed(self, now_ns: int) -> None:
        """Give up a join that keeps too much of the log in memory."""
        if self.joiner is not None and not self.joiner.counted:
            self._abort_join("the joiner is too far behind", now_ns)
