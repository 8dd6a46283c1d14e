"""When the log on disk is written anew: how much of the disk it takes until something can be dropped."""

from collections.abc import Sequence

import pytest

from greenroom_cluster.shard.compaction import is_due

SHARDS = 64
MIB = 1 << 20


def peak(sizes: Sequence[int], written: int, begins: Sequence[int], *, step: int = MIB // 4) -> float:
    """Return the most of the disk that is taken for each byte of state, while all is written again."""
    snapshots = list(zip(begins, sizes, strict=True))
    state, given, most = sum(sizes), max(begins) + state_bytes(sizes), 0
    first = given
    while given < first + written:
        given += step
        while is_due(snapshots, given, known=True):
            number = min(range(len(snapshots)), key=lambda each: snapshots[each][0])
            begin = given
            given += snapshots[number][1]
            most = max(most, given - min(each for each, _ in snapshots))
            snapshots[number] = (begin, snapshots[number][1])
        most = max(most, given - min(each for each, _ in snapshots))
    return most / state


def state_bytes(sizes: Sequence[int]) -> int:
    return sum(sizes)


def test_a_state_written_once_is_rewritten_within_twice_its_size() -> None:
    """All snapshots are at the beginning: nothing can be dropped before all were written anew."""
    assert peak([MIB] * SHARDS, 6 * SHARDS * MIB, [0] * SHARDS) < 2.1


def test_shards_that_lie_apart_are_rewritten_within_twice_their_size() -> None:
    assert peak([MIB] * SHARDS, 6 * SHARDS * MIB, [each * MIB for each in range(SHARDS)]) < 2.05


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 8])
def test_few_shards_are_not_written_again_for_nothing(shards: int) -> None:
    """Right after all were written anew, none is due: else the disk would be busy for ever."""
    begins, size = [100 * MIB + each * 11 * MIB for each in range(shards)], 10 * MIB
    given = 100 * MIB + shards * 11 * MIB
    snapshots = [(begin, size) for begin in begins]
    assert not is_due(snapshots, given, known=True)
    assert is_due(snapshots, given + shards * size, known=True), "it is, once all of it was written again"


def test_one_large_shard_among_small_ones_does_not_keep_the_disk_busy() -> None:
    begins = [100 * MIB, *(160 * MIB + each * MIB for each in range(10))]
    assert not is_due(list(zip(begins, [60 * MIB, *[MIB] * 10], strict=True)), 172 * MIB, known=True)


def test_nothing_is_written_anew_for_what_a_start_has_yet_to_apply() -> None:
    snapshots = [(0, MIB)] * SHARDS
    assert is_due(snapshots, 66 * MIB, known=True)
    assert not is_due(snapshots, 66 * MIB, known=False)
