"""What an actor's core writes to its disk, and what waits until that is stable.

The entries of a step (`disk.entries`) leave together, under the next position. What would tell others that
something is held here waits until all before it is stable: acknowledgements of records and snapshots, and
proposals. A primary commits no record before that, and acts on no configuration. All else goes at once: a
record leaves for the backups while it is still being written here.

A position is stable once it is synced. In mode "interval" it is enough that it is written, but not if one of
its entries ends a session, and not while anything older has waited for its sync for longer than the interval.
As what follows a `Persist` is said only once that is written, a position counts as written in its own step.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Literal, TypeAlias

import msgspec

from greenroom import wire
from greenroom.cluster_map import ClusterMap, ShardEntry
from greenroom.errors import InvariantError
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.disk.entries import (
    Based,
    Chunk,
    Configured,
    Cut,
    Entry,
    Left,
    Logged,
    Proposed,
)
from greenroom_cluster.disk.replay import DiskCopy
from greenroom_cluster.shard.effects import HostEffect, Persist, Propose, ReplyToPeer
from greenroom_cluster.shard.messages import PrepareOk, SnapshotChunk, SnapshotOk
from greenroom_cluster.shard.settings import ns
from greenroom_cluster.shard.state.copy import Copy
from greenroom_cluster.shard.state.log import record_bytes
from greenroom_cluster.shard.state.records import Command, Evict, Expire, Record, Within

Durability: TypeAlias = Literal["interval", "fsync"]

_ENDINGS = frozenset(
    {wire.Delete, wire.DeleteByHandle, wire.DeleteByUser, wire.Rotate, wire.Clean, Expire, Evict}
)
_MAY_END = _ENDINGS | {Within}
_MAY_WAIT = frozenset({Propose, ReplyToPeer})
ENTRY_BYTES = 96
_command_of = attrgetter("command")
_encode = msgspec.msgpack.Encoder().encode


class Stable(msgspec.Struct, frozen=True, kw_only=True):
    """The directory of an actor as it was opened: how far it had come, how large it is, and what it holds.

    `starts` are as in `Replay`. `remembered` is lineage and version of the newest map that it tells of,
    epochs by shard, and identity. `directory` is its id, and `openers` are those that opened it last. At
    `opened_ns`, by the clock of the core, all who had written to it before were dead; None if nobody knows
    when that was.
    """

    durability: Durability
    interval_seconds: float = 1.0
    mark: int = 0
    stored_bytes: int = 0
    copies: Mapping[int, DiskCopy] = {}
    starts: Mapping[int, Proposed] = {}
    remembered: tuple[int, int, tuple[int, ...], bytes] = (0, 0, (), b"")
    directory: bytes = b""
    openers: tuple[bytes, ...] = ()
    opened_ns: int | None = None


def is_ending(command: Command) -> bool:
    """Whether a command ends sessions, so that it must never be undone once it was seen."""
    return type(command.command if isinstance(command, Within) else command) in _ENDINGS


class DiskStalledError(InvariantError):
    """The disk of a primary does not finish a sync, and a backup has what waits for it."""


class Base:
    """Where the log of a shard begins: after batch `mark`, when `given_bytes` had been given out in all."""

    __slots__ = ("copy", "given_bytes", "mark")

    def __init__(self, copy: Copy, mark: int, given_bytes: int) -> None:
        self.copy = copy
        self.mark = mark
        self.given_bytes = given_bytes


class DiskLog:
    """The log on disk as the core sees it. `position` is the newest given out, `stable` the newest that is.

    `mark` is the number of the newest batch on stable storage. `bases` and `configurations` are by shard,
    and so are `proposals`, those at the present epoch by their others; `map` is the newest. `rebased` is set
    when a base changes, `short` while the disk is nearly full. `given_bytes` is about what all entries ever
    took. `awaited` are the shards of which a primary here cannot commit what all others have, for this disk
    alone lacks it. `opened_ns` and `starts` are as in `Stable`.
    """

    def __init__(self, incarnation: bytes, stable: Stable) -> None:
        self._incarnation = incarnation
        self._fsync = stable.durability == "fsync"
        self._interval_ns = ns(stable.interval_seconds)
        self.mark = stable.mark
        self.opened_ns = stable.opened_ns
        self.starts = stable.starts
        self.position = 0
        self.stable = 0
        self._synced = 0
        self.configurations: dict[int, Configured] = {}
        self.proposals: dict[int, dict[tuple[bytes, ...], Proposed]] = {}
        self.map: ClusterMap | None = None
        self.bases: dict[int, Base] = {}
        self.rebased = False
        self.short = False
        self.given_bytes = stable.stored_bytes
        self.awaited: dict[int, None] = {}
        self._nonces: dict[int, bytes] = {}
        # What this step leaves; records of a shard are gathered until something else of it follows.
        self._entries: list[Entry] = []
        self._records: dict[int, list[Record]] = {}
        self._grown: dict[Copy, int] = {}
        self._configured: dict[Copy, None] = {}
        self._ends = self._rare = False
        # By position: what becomes stable with it, and what waits for it.
        self._growing: deque[tuple[int, dict[Copy, int], dict[Copy, None]]] = deque()
        self._held: deque[tuple[int, HostEffect]] = deque()
        self._ending: deque[int] = deque()
        self._rare_position = 0
        self._unsynced: deque[tuple[int, int]] = deque()

    # --- what is written ------------------------------------------------------------------------------------

    def append(self, copy: Copy, record: Record, size: int) -> None:
        """Write a record, of that size, which this actor has stamped as the primary."""
        self._grown[copy] = record.sequence
        self.given_bytes += size
        if type(record.command) in _MAY_END and is_ending(record.command):
            self._ends = True
        records = self._records.get(copy.shard)
        if records is None:
            self._records[copy.shard] = [record]
        else:
            records.append(record)

    def receive(self, copy: Copy, records: Sequence[Record], after: int, through: int) -> None:
        """Write those of a primary's records that are new here: after one number up to another."""
        if through - after < len(records):
            records = [record for record in records if after < record.sequence <= through]
        if records[-1].epoch != copy.ladder.newest:
            copy.ladder.extend(records)
        for record in records:
            self.given_bytes += record_bytes(record.command)
        kinds = map(type, map(_command_of, records))
        if not _MAY_END.isdisjoint(kinds) and any(map(is_ending, map(_command_of, records))):
            self._ends = True
        known = self._records.get(copy.shard)
        if known is None:
            self._records[copy.shard] = list(records)
        else:
            known.extend(records)

    def configure(self, copy: Copy, entry: ShardEntry, known: ClusterMap) -> None:
        """Write a configuration of that map; the copy is `unsettled` until it is stable."""
        copy.unsettled = True
        self._configured[copy] = None
        self._grown[copy] = copy.log.appended
        configured = Configured(
            copy.shard,
            known.lineage,
            known.version,
            entry.epoch,
            entry.nonce,
            entry.primary,
            entry.backups,
            known.identity,
            self._incarnation,
            _slots(entry.members, known),
            known.shard_count,
        )
        self.configurations[copy.shard] = configured
        self.proposals.pop(copy.shard, None)
        self.enter(configured)

    def find(self, copy: Copy, found: DiskCopy) -> None:
        """Note a copy that was in the log when it was opened."""
        self.bases[copy.shard] = Base(copy, found.mark, found.begin_bytes)
        if found.configuration is not None:
            self.configurations[copy.shard] = found.configuration
        self.proposals[copy.shard] = dict(found.proposals)

    def begin(self, copy: Copy) -> None:
        """Write that a copy begins empty."""
        self._begin(copy)
        self.enter(Based(copy.shard, 0, 0, ()))

    def take_chunk(self, copy: Copy, chunk: SnapshotChunk) -> None:
        """Write a part of a snapshot that arrives; with the last one the copy is whole."""
        if chunk.number == 0:
            self._begin(copy)
        last = (chunk.last_epoch, chunk.sequence)
        self.enter_chunk(chunk, last)

    def enter_chunk(self, chunk: SnapshotChunk, last: tuple[int, int]) -> None:
        """Write a part of a snapshot up to the record with this epoch and number."""
        shard, (epoch, sequence) = chunk.shard, last
        body = _encode(chunk)
        self.enter(Chunk(shard, sequence, chunk.number, body), len(body))
        if chunk.last:
            ladder = ((epoch, sequence),) if sequence else ()
            self.enter(Based(shard, sequence, chunk.time_us, ladder, chunk.number + 1))

    def cut(self, shard: int, after: int) -> None:
        """Write that the records of a shard after a number are void."""
        self.enter(Cut(shard, after))

    def leave(self, copy: Copy) -> None:
        """Write that a copy was given up."""
        shard = copy.shard
        self._records.pop(shard, None)
        self.configurations.pop(shard, None)
        self.proposals.pop(shard, None)
        if self.bases.pop(shard, None) is not None:
            self.rebased = True
        self.enter(Left(shard))

    def _begin(self, copy: Copy) -> None:
        """Give up what was held of the shard before; its log begins here."""
        self.leave(copy)
        self.bases[copy.shard] = Base(copy, self.mark, self.given_bytes)

    def enter(self, entry: Entry, size: int = ENTRY_BYTES) -> None:
        """Write one more entry, of about that size."""
        # Behind the records of the shard so far.
        records = self._records.pop(entry.shard, None)
        if records:
            self._entries.append(Logged(entry.shard, tuple(records)))
        self._entries.append(entry)
        self._rare = self._rare or not isinstance(entry, Logged)
        self.given_bytes += size

    # --- what waits -----------------------------------------------------------------------------------------

    def synced(self, now_ns: int, position: int, mark: int) -> None:
        """Note that everything up to a position is on stable storage, as batch `mark`."""
        if position > self.position:
            raise InvariantError(f"position {position} was synced, but {self.position} is the newest")
        self._synced = max(self._synced, position)
        self.mark = max(self.mark, mark)
        while self._unsynced and self._unsynced[0][0] <= position:
            self._unsynced.popleft()
        while self._ending and self._ending[0] <= position:
            self._ending.popleft()
        self._settle(now_ns)

    def _settle(self, now_ns: int) -> None:
        """Work out how far everything is stable."""
        reached = self._synced
        if not self._fsync and not self._is_late(now_ns):
            reached = self.position
            if self._ending:
                reached = min(reached, self._ending[0] - 1)
        self.stable = max(self.stable, reached)

    def _is_late(self, now_ns: int) -> bool:
        """Whether something has waited for its sync for longer than the interval allows to lose."""
        return bool(self._unsynced) and now_ns - self._unsynced[0][1] > self._interval_ns

    @property
    def synced_position(self) -> int:
        """The newest position on stable storage."""
        return self._synced

    @property
    def is_awaited(self) -> bool:
        """Whether anything waits for a sync: what is held back, a primary, a configuration, a snapshot."""
        return bool(self._held or self.awaited) or self._rare_position > self._synced

    @property
    def waits_since_ns(self) -> int | None:
        """Since when the oldest of what is not synced waits; None if nothing does."""
        return self._unsynced[0][1] if self._unsynced else None

    def grow(self) -> dict[Copy, None]:
        """Tell copies how much of them is stable; return those whose configuration is now."""
        settled: dict[Copy, None] = {}
        growing, stable = self._growing, self.stable
        while growing and growing[0][0] <= stable:
            _, lengths, configured = growing.popleft()
            for copy, length in lengths.items():
                if length > copy.stable:
                    copy.stable = length
            if configured:
                settled |= configured
        if settled:
            for _, _, configured in growing:
                for copy in configured:
                    settled.pop(copy, None)
            for copy in settled:
                copy.unsettled = False
        return settled

    def finish(self, now_ns: int, effects: list[HostEffect]) -> bool:
        """End a step: have its entries written, and hold back what must wait for them, or no longer must.

        Return whether more is stable now, and there may be more to do.
        """
        if self._records:
            self._entries += [Logged(shard, tuple(records)) for shard, records in self._records.items()]
            self._records = {}
        told: list[HostEffect] = []
        # Most steps have nothing of the kind, and many replies.
        if not _MAY_WAIT.isdisjoint(map(type, effects)):
            told = [effect for effect in effects if _is_held(effect)]
            for effect in told:
                if isinstance(effect, Propose):
                    self._note_proposal(effect.proposal)
            if told:
                effects[:] = [effect for effect in effects if not _is_held(effect)]
        before = self.stable
        if self._entries:
            self._give_out(now_ns, effects)
            if not self._fsync:
                self._settle(now_ns)
        for effect in told:
            self._held.append((self.position, effect))
        if self._held and self._held[0][0] <= self.stable:
            self._release(effects)
        return self.stable > before

    def _release(self, effects: list[HostEffect]) -> None:
        """Say what no longer waits."""
        released: list[HostEffect] = []
        while self._held and self._held[0][0] <= self.stable:
            released.append(self._marked(self._held.popleft()[1]))
        if self._fsync:
            effects[:0] = released
        else:
            effects += released  # behind what has to be written before

    def _note_proposal(self, proposal: Proposal) -> None:
        """Write a proposal, unless it is only sent again."""
        shard, nonce = proposal.shard, proposal.nonce
        if self._nonces.get(shard) != nonce:
            self._nonces[shard] = nonce
            kind, primary, backups = proposal.kind, proposal.primary, proposal.backups
            slots = _slots((primary, *backups), self.map)
            proposed = Proposed(shard, proposal.epoch, nonce, kind, primary, backups, slots)
            self.proposals.setdefault(shard, {})[proposed.others] = proposed
            self.enter(proposed)

    def _give_out(self, now_ns: int, effects: list[HostEffect]) -> None:
        self.position += 1
        at_once = self._fsync or self._ends or self._rare
        effects.append(Persist(self.position, tuple(self._entries), at_once))
        if self._grown:
            self._growing.append((self.position, self._grown, self._configured))
            self._grown, self._configured = {}, {}
        if at_once:
            self._ending.append(self.position)
        if self._rare:
            self._rare_position = self.position
        self._unsynced.append((self.position, now_ns))
        self._entries = []
        self._ends = self._rare = False

    def _marked(self, effect: HostEffect) -> HostEffect:
        """Add to what is let go how far the directory has come."""
        if isinstance(effect, Propose):
            proposal = effect.proposal
            marks = (*proposal.marks, (self._incarnation, self.mark))
            return Propose(msgspec.structs.replace(proposal, marks=marks))
        if isinstance(effect, ReplyToPeer) and isinstance(effect.message, SnapshotOk):
            return ReplyToPeer(effect.peer, msgspec.structs.replace(effect.message, mark=self.mark))
        return effect


def _slots(members: tuple[bytes, ...], known: ClusterMap | None) -> tuple[str, ...]:
    actors = {} if known is None else known.actors
    return tuple(actors[member].slot if member in actors else "" for member in members)


def _is_held(effect: HostEffect) -> bool:
    return isinstance(effect, Propose) or (
        isinstance(effect, ReplyToPeer) and isinstance(effect.message, PrepareOk | SnapshotOk)
    )
