"""A shard's table and the store in memory decide alike, whatever the two keep beside the sessions."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from greenroom import wire
from greenroom.table import StateTable
from greenroom_cluster.shard.state.records import Record
from greenroom_cluster.shard.state.stored import as_received, decoded
from greenroom_cluster.shard.state.table import SEQUENCE_BITS, SessionTable

START_US = 1_000_000
DIGESTS = tuple(bytes([number]) * 32 for number in range(6))
USERS = (None, "u", "v")
DATA = (b"\x80", b"\x81\xa1a\x01", b"\x82\xa1a\x81\xa1b\x02\xa1c\x93\x01\x02\x03", b"\xc1")
VALUES = (b"\x01", b"\x02", b"\x81\xa1b\x03", b"\x91\x01", b"\xc1")
PATHS: tuple[wire.Path, ...] = (("a",), ("a", "b"), ("c", 0), ("d",))


def commands(chance: Random, time_us: int) -> Iterator[Any]:
    """Yield one command of each kind, about few sessions and with ends that are near."""

    def lifetime() -> int:
        return time_us + chance.choice((-5, 0, 5, 50))

    def paths(most: int) -> tuple[wire.Path, ...]:
        return tuple(chance.sample(PATHS, chance.randrange(most)))

    def values(most: int, *more: bytes) -> tuple[wire.PathValue, ...]:
        return tuple((path, chance.choice((*VALUES, *more))) for path in paths(most))

    digest, other = chance.choice(DIGESTS), chance.choice(DIGESTS)
    user, data = chance.choice(USERS), chance.choice(DATA)
    new_user = chance.choice((None, (None,), ("u",), ("v",)))
    expires = chance.choice((None, lifetime()))
    version = chance.choice((None, chance.randrange(200)))
    absolute = chance.choice((None, lifetime()))
    created = START_US + chance.randrange(3)
    yield wire.Create(0, 1, 0, 7, digest, user, created, lifetime(), absolute, "label", data)
    yield wire.Update(0, 1, 0, 7, digest, user, lifetime(), "new", data, version)
    yield wire.Patch(0, 1, 0, 7, digest, values(3), paths(2), values(2, b""), new_user, expires)
    yield wire.Rotate(0, 1, 0, 7, digest, other, values(3), paths(2), new_user, expires)
    yield wire.Delete(0, 1, 0, 7, digest)
    yield wire.DeleteByHandle(0, 1, 0, 7, digest, user or "u")
    yield wire.DeleteByUser(0, 1, 0, user or "v", chance.choice((b"", digest)), (), chance.choice((None, 3)))
    yield wire.Clean(0, 1, 0, (), chance.choice((None, None, 3)))


@pytest.mark.parametrize("seed", range(20))
def test_a_shard_and_a_store_in_memory_decide_alike(seed: int) -> None:
    chance = Random(seed)
    shard, memory = SessionTable(by_age=chance.random() < 0.5), StateTable()
    time_us = START_US
    answered = set()
    for sequence in range(1, 401):
        time_us += chance.choice((0, 0, 1, 5))
        # Creates and changes more often than what removes.
        command = chance.choices([*commands(chance, time_us)], (6, 6, 6, 3, 1, 1, 0.5, 0.5))[0]
        reply = shard.apply(Record(0, sequence, time_us, b"c" * 16, command))
        assert reply is not None
        expected = memory.deciders()[type(command)](command, time_us, sequence)
        assert as_received(reply) == expected, command
        answered.add((type(command), type(expected)))
        for digest in DIGESTS:
            assert shard.live(digest, time_us) == memory.live(digest, time_us), command
        for user_id in ("u", "v"):
            listed, _ = shard.newest_of(user_id, 9, time_us)
            assert listed == memory.newest_of(user_id, 9, time_us)[0]
    assert len(answered) > 10, "nearly every kind was taken and refused"
    assert all(decoded(stored).version < 1 << SEQUENCE_BITS for stored in shard.sessions.values())
