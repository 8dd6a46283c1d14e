"""The log of one replica: consecutive records, without gaps.

The primary drops committed records that every recipient has logged; a backup drops those that it has applied.
So the log is short; a new replica gets everything older as a snapshot.

After a start from a disk it is long, and of many replicas nobody needs it soon. So what comes from there
stays encoded, and is decoded piece by piece as it is applied. So does the snapshot that it follows, in parts.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from greenroom import wire
from greenroom.errors import InvariantError
from greenroom.fields import LABEL_BYTES_MAX, USER_ID_BYTES_MAX
from greenroom_cluster.shard.state.memory import (
    EXPIRY_BYTES,
    GROWTH_BYTES,
    NAMED_BYTES,
    REPLY_BYTES,
    SESSION_BYTES,
)
from greenroom_cluster.shard.state.records import (
    Command,
    EncodedRecord,
    Evict,
    Expire,
    ForgetClients,
    Record,
    Within,
    decoded_record,
)

RECORD_OVERHEAD_BYTES = 96
RECORD_BYTES = 128
"""Applying any command costs at least as much as opening this many bytes of a session."""
OPENED = 16
"""Opening a byte takes over this many times as long as storing it: up to 50 ns against 1 ns."""
COMMAND_BYTES = 64
"""What a command takes besides what its client chooses."""
_NEVER = 1 << 63
_APPLIED_BYTES = SESSION_BYTES + EXPIRY_BYTES + REPLY_BYTES - RECORD_OVERHEAD_BYTES
"""About how much more a record takes once it is applied, if it makes a session."""
_READ_TIMES = 2
"""A session of 300 bytes takes about twice as much in a table as in a snapshot."""
_COMMAND_BYTES = RECORD_OVERHEAD_BYTES + COMMAND_BYTES


def _kind_of(command: Command) -> type:
    return type(command.command if isinstance(command, Within) else command)


def record_bytes(command: Command) -> int:
    """Return about how many bytes a record of this command takes on the wire.

    Everything counts whose length a client chooses, so that a batch of seemingly small records never exceeds
    the limit of a frame.
    """
    chosen = _CHOSEN_BYTES.get(type(command))
    return _COMMAND_BYTES if chosen is None else chosen(command)


def _session_bytes(command: wire.Create | wire.Update) -> int:
    size = _COMMAND_BYTES + len(command.data)
    if command.label or command.user_id is not None:
        size += text_bytes(command.label) + text_bytes(command.user_id)
    return size


def _patch_bytes(command: wire.Patch) -> int:
    return _change_bytes(command) + values_bytes(command.expect)


def _change_bytes(command: wire.Patch | wire.Rotate) -> int:
    size = _COMMAND_BYTES + values_bytes(command.set) + sum(_path_bytes(path) for path in command.unset)
    return size + (0 if command.user is None else text_bytes(command.user[0]))


def _of_user_bytes(command: wire.DeleteByUser | wire.DeleteByHandle) -> int:
    return _COMMAND_BYTES + text_bytes(command.user_id)


def values_bytes(values: tuple[wire.PathValue, ...]) -> int:
    """Return about how many bytes paths and their values take."""
    return sum(_path_bytes(path) + len(value) for path, value in values)


def _path_bytes(path: wire.Path) -> int:
    size = 8
    for key in path:
        size += 9 if type(key) is int else 5 + text_bytes(key)  # type: ignore[arg-type]  # a key is an int or a str
    return size


def text_bytes(text: str | None) -> int:
    """Return how many bytes a text takes in UTF-8."""
    if text is None:
        return 0
    return len(text) if text.isascii() else len(text.encode())


_CHANGES = frozenset({wire.Patch, wire.Rotate})
_WRITES = frozenset({wire.Update, wire.Create})
_REST_BYTES = _COMMAND_BYTES + USER_ID_BYTES_MAX + LABEL_BYTES_MAX
"""The most that a write takes besides its data."""

_CHEAP = frozenset({wire.Update, wire.Create, wire.Delete, wire.DeleteByHandle})
"""Commands whose size says how long they take to apply."""

_CHOSEN_BYTES: dict[type, Callable[[Any], int]] = {
    wire.Create: _session_bytes,
    wire.Update: _session_bytes,
    wire.Patch: _patch_bytes,
    wire.Rotate: _change_bytes,
    wire.DeleteByUser: _of_user_bytes,
    wire.DeleteByHandle: _of_user_bytes,
    Expire: lambda command: RECORD_OVERHEAD_BYTES + 34 * len(command.digests),
    Within: lambda command: record_bytes(command.command) + NAMED_BYTES,
    Evict: lambda command: RECORD_OVERHEAD_BYTES + 34 * len(command.digests),
    ForgetClients: lambda command: RECORD_OVERHEAD_BYTES + 18 * len(command.clients),
}


class LogDivergedError(InvariantError):
    """A record of the primary differs from the one here under its number: this log is not a copy."""


class Log:
    """Records `first`..`appended`, with sequence numbers that rise by one.

    An empty log has `first == appended + 1`.
    """

    __slots__ = (
        "_encoded_through",
        "_entries",
        "appended",
        "charged_bytes",
        "costly_at",
        "encoded_from",
        "held_bytes",
        "opening_at",
        "unread",
    )

    def __init__(self, appended: int = 0) -> None:
        # Each with its size, and with the most that applying it adds to memory.
        self._entries: deque[tuple[Record | EncodedRecord, int, int]] = deque()
        self.encoded_from = _NEVER
        """The first record that may still be encoded."""
        self._encoded_through = 0
        self.appended = appended
        self.opening_at = 0
        """The newest record that opens a session; only that shows how long it takes."""
        self.costly_at = 0
        """The newest record whose size does not say how long it takes to apply."""
        self.held_bytes = 0
        self.charged_bytes = 0
        self.unread: deque[bytes] = deque()
        """What is still to be read of the snapshot before the log; nothing is applied before that."""

    @property
    def first(self) -> int:
        """Sequence number of the oldest record held."""
        return self.appended - len(self._entries) + 1

    @property
    def decoded(self) -> bool:
        """Whether nothing is encoded any longer."""
        return self.encoded_from == _NEVER

    @property
    def to_come_bytes(self) -> int:
        """About how much more a copy from disk takes once it is read and applied; 0 of any other."""
        if self.decoded:
            return 0
        records = max(self._encoded_through - self.encoded_from + 1, 0)
        return records * _APPLIED_BYTES + (_READ_TIMES - 1) * sum(map(len, self.unread))

    def append(self, record: Record, size: int, charge: int) -> None:
        """Add the next record, of that size; raises InvariantError on a gap.

        `charge` is the most that applying it adds to memory.
        """
        sequence = record.sequence
        if sequence != self.appended + 1:
            raise InvariantError(f"record {sequence} appended after {self.appended}")
        self._entries.append((record, size, charge))
        self.appended = sequence
        self.held_bytes += size
        self.charged_bytes += charge
        if type(record.command) not in _CHEAP:
            self._note_costly(_kind_of(record.command), sequence)

    def _note_costly(self, kind: type, sequence: int) -> None:
        if kind in _CHANGES:
            self.opening_at = sequence
        elif kind not in _CHEAP:
            self.costly_at = sequence

    def receive(self, records: Sequence[Record], charge: Callable[[Command], int] | None = None) -> bool:
        """Add those of a primary's records that are not here yet; stop before a gap and return False.

        Their sizes are rough, counting only what they store: a recipient needs no more. `charge` returns the
        most that applying one adds, if that matters. Raises LogDivergedError if a record that is here already
        differs.
        """
        enter, appended = self._entries.append, self.appended
        for record in records:
            if record.sequence != appended + 1:
                if record.sequence > appended:
                    return False
                self._compare(record)
                continue
            command = record.command
            kind, size, charged = type(command), _REST_BYTES, 0
            if kind in _WRITES:
                size += len(command.data)  # type: ignore[union-attr]  # kind says which
            elif kind not in _CHEAP:
                inner: Any = command.command if isinstance(command, Within) else command
                within = type(inner)
                if within in _WRITES:
                    size += len(inner.data)
                elif within in _CHANGES:
                    size += sum([len(value) for _, value in inner.set])
                self._note_costly(within, appended + 1)
            if charge is not None:
                charged = charge(command)
                self.charged_bytes += charged
            enter((record, size, charged))
            self.appended = appended = appended + 1
            self.held_bytes += size
        return True

    def put_off(self, parts: Sequence[bytes]) -> None:
        """Leave the parts of the snapshot before the log, which is empty yet, to be read later."""
        self.unread.extend(parts)
        self.charged_bytes += sum(map(len, parts))
        if parts:
            self.encoded_from = self.appended + 1

    def next_part(self) -> bytes:
        """Take out what is to be read next of the snapshot."""
        part = self.unread.popleft()
        self.charged_bytes -= len(part)
        self._note_decoded()
        return part

    def _note_decoded(self) -> None:
        if self._encoded_through < self.encoded_from and not self.unread:
            self.encoded_from = _NEVER

    def restore(self, records: Sequence[EncodedRecord]) -> None:
        """Add records that were on a disk. Each is charged what it takes until it is applied."""
        if not records:
            return
        self.encoded_from = min(self.encoded_from, self.appended + 1)
        sizes = [RECORD_OVERHEAD_BYTES + len(record) for record in records]
        self._entries.extend(zip(records, sizes, sizes, strict=True))
        self.appended = self._encoded_through = self.appended + len(records)
        size = sum(sizes)
        self.held_bytes += size
        self.charged_bytes += size

    def read_ahead(self, after: int, room: int) -> tuple[int, int]:
        """Decode records after a number, as many as there is room to apply, but at least one.

        Return up to which record all are decoded, and the least that it costs to apply what was decoded now.
        """
        first = self.encoded_from
        if first > after + 1:
            return first - 1, 0
        if self.unread:
            return after, 0
        entries = self._entries
        reached, cost, start = after, 0, first - self.first
        entries.rotate(-start)
        while reached < self._encoded_through and (cost < room or reached == after):
            encoded, size, charge = entries.popleft()
            record = decoded_record(encoded)  # type: ignore[arg-type]  # none is decoded from there on
            reached += 1
            if record.sequence != reached:
                raise InvariantError(f"record {record.sequence} is on disk in the place of {reached}")
            if type(record.command) not in _CHEAP:
                self._note_costly(_kind_of(record.command), reached)
            entries.append((record, size, charge))
            cost += RECORD_BYTES + size // OPENED
        entries.rotate(start + reached - after)
        self.encoded_from = reached + 1 if reached < self._encoded_through else _NEVER
        return (reached if self.encoded_from < _NEVER else self.appended), cost

    def _compare(self, record: Record) -> None:
        """Demand that a repeated record equals the one held, if that is still here."""
        place = record.sequence - self.first
        if place < 0:
            return
        held = _decoded(self._entries[place][0])
        if held is not record and held != record:
            raise LogDivergedError(f"record {record.sequence} came again and is another")

    def cut(self, after: int) -> None:
        """Drop the records after a number; raises InvariantError if those before it are gone."""
        entries = self._entries
        if after < self.first - 1:
            raise InvariantError(f"the log begins at {self.first}: it cannot be cut after {after}")
        for _ in range(self.appended - after):
            _, size, charge = entries.pop()
            self.held_bytes -= size
            self.charged_bytes -= charge
        self.appended = min(self.appended, after)
        self._encoded_through = min(self._encoded_through, after)
        self._note_decoded()

    def records(self, after: int, through: int) -> list[Record]:
        """Return the records after one number up to another; raises InvariantError if not all are held."""
        first = self.first
        start = after + 1 - first
        if start < 0 or through > self.appended:
            raise InvariantError(
                f"records {after + 1}..{through} are not all in the log {first}..{self.appended}"
            )
        found = islice(self._entries, start, through + 1 - first)
        if through < self.encoded_from:
            return [record for record, _, _ in found]  # type: ignore[misc]  # none of them is encoded
        return [_decoded(record) for record, _, _ in found]

    def within(self, after: int, room: int) -> tuple[tuple[Record, ...], int]:
        """Return the records after a number that fit into `room` bytes, and the bytes left.

        Raises InvariantError if they are not all held.
        """
        entries = self._entries
        start = len(entries) - (self.appended - after)
        if start < 0:
            raise InvariantError(f"records after {after} are gone: the log begins at {self.first}")
        records = []
        for record, size, _ in islice(entries, start, None):
            if room <= 0:
                break
            records.append(record if isinstance(record, Record) else decoded_record(record))
            room -= size
        return tuple(records), room

    def charged_after(self, sequence: int) -> int:
        """Return what the records after a number may add."""
        unknown = self.appended - sequence
        if not unknown:
            return 0
        entries = self._entries
        return sum(charge for _, _, charge in islice(entries, max(len(entries) - unknown, 0), None))

    def charge_after(self, after: int) -> int:
        """Return the most that applying the records after a number adds to memory."""
        skipped = max(after + 1 - self.first, 0)
        return sum(charge for _, _, charge in islice(self._entries, skipped, None))

    def growth_after(self, after: int) -> int:
        """Return about the most by which the records after a number let a copy grow.

        Unlike `charge_after` also of records that were not charged here: those of a former primary.
        """
        skipped = max(after + 1 - self.first, 0)
        entries = islice(self._entries, skipped, None)
        return sum(max(charge, size + GROWTH_BYTES) for _, size, charge in entries)

    def trim(self, through: int) -> None:
        """Drop the records up to and including this sequence number."""
        entries = self._entries
        for _ in range(min(through - self.first + 1, len(entries))):
            _, size, charge = entries.popleft()
            self.held_bytes -= size
            self.charged_bytes -= charge
        if self.encoded_from <= through:
            self.encoded_from = through + 1 if through < self._encoded_through else _NEVER

    def take(self, after: int, through: int) -> list[Record]:
        """Return the records after one number up to another, and drop them with all before.

        Raises InvariantError if not all are held.
        """
        entries = self._entries
        older = len(entries) - (self.appended - after)
        if older < 0 or through > self.appended:
            raise InvariantError(
                f"records {after + 1}..{through} are not all in the log {self.first}..{self.appended}"
            )
        if older:
            self.trim(after)
        if self.encoded_from <= through:
            encoded = self.records(after, through)
            self.trim(through)
            return encoded
        if through == self.appended:
            # The usual: all of them.
            taken = [record for record, _, _ in entries]
            entries.clear()
            self.held_bytes = self.charged_bytes = 0
            return taken  # type: ignore[return-value]  # none of them is encoded
        popleft = entries.popleft
        entered = [popleft() for _ in range(through - after)]
        for _, size, charge in entered:
            self.held_bytes -= size
            self.charged_bytes -= charge
        return [record for record, _, _ in entered]  # type: ignore[misc]  # none of them is encoded


def _decoded(record: Record | EncodedRecord) -> Record:
    return record if isinstance(record, Record) else decoded_record(record)
