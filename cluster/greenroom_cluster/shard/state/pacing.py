"""How much of the log one step applies, because many or costly commands may be committed at once.

The steps that follow at once apply the rest, with beacons and other messages in between. A replica that has
not applied all that is committed is like one that has not heard of it yet.

Sizes predict most of the cost. How much of a session must be read in Python (see `greenroom.scan`) shows only
when it is opened, and is counted then, see `Copy.commit`.
"""

from greenroom import wire
from greenroom_cluster.shard.state.log import OPENED, RECORD_BYTES, Log
from greenroom_cluster.shard.state.namespaces import bare
from greenroom_cluster.shard.state.records import Evict
from greenroom_cluster.shard.state.table import SessionTable

# No unions, which would be created again at each check.
_WRITES = (wire.Update, wire.Create)
_CHANGES = (wire.Patch, wire.Rotate)


def affordable(log: Log, table: SessionTable, after: int, through: int, room: int) -> tuple[int, int]:
    """Return up to which record after `after` to apply now, and the room left.

    The room is for what commands bring and open; a single one may exceed it. The log must hold them all.
    """
    if room <= 0:
        return after, room
    if log.encoded_from <= through:
        ahead, cost = log.read_ahead(after, room)
        not_all, through = ahead < through, min(ahead, through)
        if not_all and cost and log.costly_at <= after and log.opening_at <= after:
            return through, room - cost
    if log.costly_at <= after:
        count = through - after
        cost = log.held_bytes // OPENED + count * RECORD_BYTES
        if log.opening_at > after:
            cost = log.held_bytes + count * (RECORD_BYTES + table.stored_bytes_max)
        if cost <= room:
            # Nearly always there is room, even if each command opened the largest session.
            return through, room - cost
    sessions = table.sessions
    # The sizes of sessions after the commands before.
    sizes: dict[bytes, int] = {}
    reached = after
    for record in log.records(after, through):
        command = bare(record.command)
        cost = RECORD_BYTES
        if isinstance(command, _WRITES):
            # The data was read when it came and is stored as it is; patches will open it.
            size = sizes[command.digest] = len(command.data)
            cost += size // OPENED
        elif isinstance(command, _CHANGES):
            size = sizes.get(command.digest, -1)
            if size < 0:
                size = len(sessions.get(command.digest, b""))
            size += sum([len(value) for _, value in command.set])
            sizes[command.digest if isinstance(command, wire.Patch) else command.new_digest] = size
            cost += size
        elif isinstance(command, Evict):
            cost += RECORD_BYTES * len(command.digests)
        if reached > after and cost > room:
            return reached, 0
        room -= cost
        reached = record.sequence
        if room <= 0:
            break
    return reached, room
