"""The index by time: what it leaves behind is cleared away in small steps."""

import msgspec

from greenroom import wire
from greenroom_cluster.shard.state.expiry import BUCKET_US
from greenroom_cluster.shard.state.table import STALE_ENTRIES_MAX, SessionTable
from tests.cluster.shard.probe import WALL_US, create, record


def test_an_index_is_rebuilt_in_small_steps() -> None:
    """It finds what comes meanwhile."""
    table = SessionTable()
    long_us = WALL_US + 30 * 86_400_000_000
    count = STALE_ENTRIES_MAX + 1000
    for number in range(1, count + 1):
        command = create(number, number.to_bytes(32, "big"))
        table.apply(record(number, msgspec.structs.replace(command, expires_us=long_us + number)))
    sequence = count
    for number in range(500, count + 1):
        sequence += 1
        table.apply(record(sequence, wire.Delete(sequence, 1, 0, 0, number.to_bytes(32, "big"))))
    steps = 0
    while table.expiry.entries > 2 * len(table.sessions):
        over, looked = table.due(WALL_US, 100)
        assert over == []
        assert looked <= 100
        steps += 1
        if steps == 2:
            sequence += 1
            again = create(sequence, (9999).to_bytes(32, "big"))
            table.apply(record(sequence, msgspec.structs.replace(again, expires_us=long_us)))
            sequence += 1
            shorter = wire.Patch(sequence, 1, 0, 0, (7).to_bytes(32, "big"), (), (), (), None, WALL_US + 60)
            table.apply(record(sequence, shorter))
    assert steps > 4
    assert not table.expiry.renewed
    found: set[bytes] = set()
    for time_us in (WALL_US + 60 + BUCKET_US, long_us + count + BUCKET_US):
        while (part := table.due(time_us, 100))[1]:
            found |= set(part[0])
        assert ((7).to_bytes(32, "big") in found) is True
    assert found == set(table.sessions)
