"""How much of the log one step applies: what is committed together may be many commands, or costly ones.

What is left is applied by the steps that follow at once, with others' messages and beacons in between. A
replica that has not applied all that is committed is like one that has yet to hear of it.
"""

from greenroom import wire
from greenroom.scan.bounds import MalformedError
from greenroom.scan.plain import NOT_PLAIN, plain_value
from greenroom_cluster.shard.log import Log
from greenroom_cluster.shard.records import Evict
from greenroom_cluster.shard.table import SessionTable

_RECORD_BYTES = 128
"""Any command takes time as if it brought that much."""
_NOTED_BYTES = 2048
_OPENED = 16
"""Opening a byte takes more than so many times as long as storing it: up to 50 ns against 1 ns."""
_TRIED_BYTES = range(128, 64 * 1024)
"""What is smaller takes no time, and what is larger has a step for itself."""
_WALKED_WEIGHT = 16
_SURE = 4
"""A batch of so many times less than the room is not looked through: nearly all are."""


def work_bytes(data: bytes) -> int:
    """Return about how many bytes of plain data take as long to open and to write as this.

    What is not plain is read in Python, see `greenroom.scan`.
    """
    size = len(data)
    if size not in _TRIED_BYTES:
        return size
    try:
        return size if plain_value(data, 0) is not NOT_PLAIN else size * _WALKED_WEIGHT
    except MalformedError:
        return size


# No unions: those would be made anew at each look.
_WRITES = (wire.Update, wire.Create)
_CHANGES = (wire.Patch, wire.Rotate)


def affordable(log: Log, table: SessionTable, after: int, through: int, room: int) -> tuple[int, int]:
    """Return up to which record after `after` to apply now, and what is left of the room.

    The room is for what commands bring and open; one of them may be larger. The log must hold all.
    """
    if room <= 0:
        return after, room
    most = log.held_bytes + (through - after) * table.stored_bytes_max
    if most * _SURE <= room and log.evicted_at <= after:
        # Even if each opened the largest session, and read it in Python.
        return through, room - most
    sessions = table.sessions
    # What the commands before will have made of sessions: the data, or what it takes to open it.
    made: dict[bytes, bytes | int] = {}
    reached = after
    for record in log.records(after, through):
        command = record.command
        if isinstance(command, _WRITES):
            # It was read when it came, and is stored as it is; a patch that follows opens it.
            cost = len(command.data) // _OPENED
            if len(command.data) > _NOTED_BYTES:
                made[command.digest] = command.data
        elif isinstance(command, _CHANGES):
            opened = made.get(command.digest)
            if opened is None:
                opened = sessions.get(command.digest, b"")
            if not isinstance(opened, int):
                opened = work_bytes(opened)
            cost = opened + sum([work_bytes(value) for _, value in command.set])
            if cost > _NOTED_BYTES:
                digest = command.digest if isinstance(command, wire.Patch) else command.new_digest
                made[digest] = cost
        else:
            cost = _RECORD_BYTES * len(command.digests) if isinstance(command, Evict) else 0
        if reached > after and cost + _RECORD_BYTES > room:
            return reached, 0
        room -= cost + _RECORD_BYTES
        reached = record.sequence
        if room <= 0:
            break
    return reached, room
