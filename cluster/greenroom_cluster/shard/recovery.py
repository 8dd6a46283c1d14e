"""The copies that an actor found in its directory, until it is known what they are worth.

A directory never goes on in the role that it had: logs of one epoch may differ in length, and those who had
the others may have gone on. If every member of a configuration is known dead, an heir of one proposes to
recover the shard alone, with what it has on disk; the coordinator decides once all that count have claimed
(`coordination.recovery`). A copy whose shard went on without it is given up.
"""

from collections.abc import Sequence

import msgspec

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, ShardEntry
from greenroom_cluster.coordination.absence import is_away
from greenroom_cluster.coordination.messages import Decision
from greenroom_cluster.disk.entries import Based
from greenroom_cluster.disk.replay import DiskCopy
from greenroom_cluster.shard.context import OpenProposal
from greenroom_cluster.shard.messages import SnapshotChunk
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.state.ladder import Rung, common_end


class Found:
    """A copy from disk: the replica that it could be, and the epoch of its newest configuration."""

    __slots__ = ("epoch", "last", "opened", "replica")

    def __init__(self, replica: Replica, epoch: int, last: tuple[int, int]) -> None:
        self.replica = replica
        self.epoch = epoch
        self.last = last
        self.opened: OpenProposal | None = None


class Recovery:
    """What was found on disk, by shard."""

    def __init__(self, resources: Resources) -> None:
        self._context = resources.context
        self._resources = resources
        self._found: dict[int, Found] = {}
        self._starts = {} if resources.disk is None else dict(resources.disk.starts)

    def find(self, copy: DiskCopy) -> None:
        """Take in a copy from disk. Its chunks are freed, or left to the replica, which reads them later."""
        assert self._resources.disk is not None
        replica = restored(copy, self._resources)
        self._found[copy.shard] = Found(replica, _epoch_of(copy), copy.last)
        self._resources.disk.find(replica, copy)
        copy.chunks, copy.records = [], []
        self._resources.memory.keep_for_found(copy.shard, replica.log.to_come_bytes)
        replica.count_now()

    @property
    def replicas(self) -> list[Replica]:
        """The copies that have no role yet."""
        return [found.replica for found in self._found.values()]

    def states(self, now_ns: int) -> tuple[wire.ReplicaState, ...]:
        """Return these copies as operators see them: without a role, up to the last record on disk."""
        return tuple(
            msgspec.structs.replace(
                found.replica.state(now_ns),
                epoch=found.last[0],
                proposes="" if found.opened is None else found.opened.proposal.kind,
            )
            for found in self._found.values()
        )

    def newer_than(self, shard: int, entry: ShardEntry) -> bool:
        """Whether the disk knows a later configuration than the map, which must be an older copy."""
        found = self._found.get(shard)
        return found is not None and found.epoch > entry.epoch

    def _begin_if_started(self, shard: int, entry: ShardEntry) -> None:
        """Begin a copy empty if whose heir this is was to do so and has ended before: it has no other yet.

        It acts on no configuration before that is on its disk, so nobody can have written to the shard.
        """
        start, disk = self._starts.get(shard), self._resources.disk
        if start is None or disk is None or start.nonce != entry.nonce:
            return
        del self._starts[shard]
        self.give_up(shard)
        copy = DiskCopy(shard, 0, disk.mark, disk.given_bytes)
        copy.base = Based(shard, 0, 0, ())
        self.find(copy)
        disk.begin(self._found[shard].replica)

    def manage(self, now_ns: int, shard: int, entry: ShardEntry) -> None:
        """Claim a shard that no living member holds, or give up a copy that counts no longer."""
        known = self._context.map
        mine = None if known is None else known.actors.get(self._context.incarnation)
        if known is None or mine is None:
            return  # nobody knows yet whose heir this actor is
        self._begin_if_started(shard, entry)
        found = self._found.get(shard)
        if found is None or found.epoch > entry.epoch:
            return
        owners = [known.actors[member].directory for member in entry.members if member in known.actors]
        if mine.directory not in owners:
            found.opened = None
            # Until the shard is whole without this actor, its primary may have it go on from here.
            if self._context.slot not in entry.wanted and len(entry.members) >= known.replicas:
                self.give_up(shard)
        elif any(self._is_present(member, known) for member in entry.members):
            return  # whoever lives goes on without this copy
        elif not self._has_rested(now_ns, entry, known):
            return
        elif found.opened is None or found.opened.proposal.epoch != entry.epoch:
            incarnation = self._context.incarnation
            found.replica.bereft_ns = self._bereft_ns(now_ns, entry, known, mine)
            found.replica.awaited = {owner for owner in owners if owner} - {mine.directory}
            found.opened = self._context.propose(
                now_ns, shard, entry.epoch, "recover", incarnation, (), last=found.last
            )
        elif now_ns >= found.opened.resend_ns:
            self._context.repropose(now_ns, found.opened)

    def _bereft_ns(self, now_ns: int, entry: ShardEntry, known: ClusterMap, mine: ActorEntry) -> int | None:
        """Return since when the shard's primary is dead at the latest; None if it need not be."""
        primary = known.actors.get(entry.primary)
        if primary is not None and primary.directory == mine.directory:
            assert self._resources.disk is not None
            return self._resources.disk.opened_ns
        return now_ns if entry.primary in self._context.dead else None

    def _is_present(self, member: bytes, known: ClusterMap) -> bool:
        """Whether a member is not known dead, and not one that the coordinator may pass over."""
        if member in self._context.dead or member not in known.actors:
            return False
        return not known.recover_alone_seconds or not is_away(member, known.actors, known.nodes)

    def _has_rested(self, now_ns: int, entry: ShardEntry, known: ClusterMap) -> bool:
        """Whether the shard's primary, should it live, has no lease any more from whom this actor is heir of.

        That one was dead when its directory was opened. A primary on a node that is not heard goes on until
        its backup does not answer, so whoever serves in its place waits for that, as a takeover does.
        """
        if entry.primary in self._context.dead or entry.primary not in known.actors:
            return True
        assert self._resources.disk is not None
        opened_ns = self._resources.disk.opened_ns
        return opened_ns is not None and now_ns >= opened_ns + self._context.grace_ns

    def take_up(self, shard: int, continues: tuple[int, Sequence[Rung]]) -> Replica | None:
        """Return the replica to go on with, cut to what its primary's log has too; None if it cannot.

        What was applied is in the snapshot alone, so that all after it can still be cut.
        """
        through = self._common_end(shard, continues)
        if through is None:
            return None
        found = self._found.pop(shard)
        # Its primary has said what it takes by now, and the room for that is kept instead.
        self._resources.memory.keep_for_found(shard, 0)
        log = found.replica.log
        if through < log.appended:
            log.cut(through)
            found.replica.ladder.cut(through)
            assert self._resources.disk is not None
            self._resources.disk.cut(shard, through)
        found.replica.recovered = False
        return found.replica

    def missed_bytes(self, offer: SnapshotChunk) -> int | None:
        """Return about how much a copy grows by what it missed; None if nobody knows, or none can go on."""
        if offer.continues is None:
            return None
        through = self._common_end(offer.shard, offer.continues)
        if through is None:
            return None
        missed, since = offer.sequence - through, offer.sequence - offer.continues[0]
        if missed <= 0:
            return 0
        # The sender does not know how far the copy got.
        return None if offer.missed_bytes < 0 else offer.missed_bytes * min(missed, since) // since + 1

    def _common_end(self, shard: int, continues: tuple[int, Sequence[Rung]]) -> int | None:
        """Return up to which record a copy is as its primary's; None if it cannot go on from there."""
        kept_from, theirs = continues
        found = self._found.get(shard)
        if found is None or self._holds_suspect(shard, found):
            return None
        replica = found.replica
        through = common_end(replica.ladder.rungs(replica.log.appended), theirs)
        return None if through < max(kept_from, replica.committed) else through

    def _holds_suspect(self, shard: int, found: Found) -> bool:
        """Whether this copy has yet to apply the record that ended an actor, which a snapshot spares it."""
        known = self._context.map
        suspect = None if known is None else known.shards[shard].suspect
        return suspect is not None and suspect.sequence > found.replica.committed

    def take(self, now_ns: int, wall_us: int, shard: int, entry: ShardEntry) -> Replica | None:
        """Return the replica if this configuration was made by its claim, to take its role now."""
        found = self._found.get(shard)
        if found is None or found.opened is None or found.opened.proposal.nonce != entry.nonce:
            return None
        del self._found[shard]
        replica = found.replica
        replica.since_ns = now_ns
        replica.clock.resume(now_ns, wall_us, entry.recovered_us)
        return replica

    def on_decision(self, decision: Decision) -> None:
        """Ask under another nonce next time, if a claim was refused."""
        found = self._found.get(decision.shard)
        opened = None if found is None else found.opened
        if found is None or opened is None or decision.applied:
            return
        if opened.proposal.nonce == decision.nonce:
            found.opened = None

    def on_coordination_up(self, now_ns: int) -> None:
        """Claim again: a coordinator keeps claims in memory."""
        for found in self._found.values():
            if found.opened is not None:
                self._context.repropose(now_ns, found.opened)

    def give_up(self, shard: int) -> None:
        """Forget the copy of a shard, on disk too."""
        found = self._found.pop(shard, None)
        if found is None:
            return
        assert self._resources.disk is not None
        self._resources.disk.leave(found.replica)
        self._resources.memory.drop_found(shard)


def restored(copy: DiskCopy, resources: Resources) -> Replica:
    """Return the replica of which this is the copy on disk; what follows the snapshot is only prepared.

    The snapshot is read now only if this actor is likely to serve the shard.

    Raises InvariantError if the snapshot lacks its last chunk.
    """
    assert copy.base is not None
    replica = Replica(resources, copy.shard, 0, 0)
    replica.recovered = True
    sequence = copy.base.sequence
    epoch = copy.base.ladder[-1][0] if copy.base.ladder else 0
    replica.begin_at(replica.table, (epoch, sequence))
    replica.log.put_off(copy.chunks)
    if not _was_backup(copy):
        replica.read_all()
    replica.log.restore(copy.records)
    replica.ladder.resume(copy.ladder, sequence)
    replica.clock.heard(copy.time_us, 0)
    return replica


def _was_backup(copy: DiskCopy) -> bool:
    """Whether the directory belonged to a backup: of logs that end alike the primary's goes on."""
    known = copy.configuration
    return known is not None and known.holder in known.backups


def _epoch_of(copy: DiskCopy) -> int:
    return copy.last[0] if copy.configuration is None else copy.configuration.epoch
