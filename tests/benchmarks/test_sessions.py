"""The sessions that are stored."""

import msgspec
import pytest

from benchmarks.sessions import sampled_numbers, session_data, session_id
from greenroom.ids import digest_of, point_of


@pytest.mark.parametrize("size", [100, 300, 4096, 65_536])
def test_data_is_as_large_as_asked(size: int) -> None:
    encoded = len(msgspec.msgpack.encode(session_data(size)))
    assert size - 3 <= encoded <= size  # the length of a string takes one byte more at some lengths


def test_ids_are_like_minted_ones_and_spread_over_every_point() -> None:
    ids = [session_id(number) for number in range(65_536)]
    assert {point_of(each) for each in ids} == set(range(65_536))
    assert point_of(ids[1]) != int.from_bytes(digest_of(ids[1])[:2], "big")
    assert len(ids[0]) == 40


@pytest.mark.parametrize(("total", "sample", "expected"), [(3, 10, [0, 1, 2]), (10, 5, [0, 2, 4, 6, 8])])
def test_sampled_numbers(total: int, sample: int, expected: list[int]) -> None:
    assert sampled_numbers(total, sample) == expected
