"""What may be believed of batches found after a crash, for every way in which they can be cut or changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_cluster.disk.batches import Batch, DamagedError, believable, decode_batch, encode_batch, sealed

SYNCED = 6
"""Batches 1 to 8 are written; each knows those before it but one as synced, so 6 are known to be."""


def written() -> list[tuple[int, bytes]]:
    return [(n, encode_batch(Batch(n, max(n - 2, 0), bytes([n]) * n))) for n in range(1, 9)]


@given(st.integers(1, 1 << 63), st.integers(0, 1 << 63), st.binary(max_size=100))
def test_a_batch_is_read_as_it_was_written(number: int, synced: int, body: bytes) -> None:
    batch = Batch(number, synced, body)
    assert decode_batch(encode_batch(batch)) == batch


@given(st.binary(max_size=60), st.data())
def test_no_changed_bit_and_no_cut_goes_unseen(body: bytes, data: st.DataObject) -> None:
    whole = encode_batch(Batch(7, 6, body))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    assert decode_batch(bytes(flipped)) is None
    assert decode_batch(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None


@pytest.mark.parametrize("cut", range(9))
def test_an_end_that_was_never_synced_may_be_missing(cut: int) -> None:
    found = written()[:cut]
    noted = max(cut - 1, 0)
    assert [batch.number for batch in believable(found, 1, noted)] == list(range(1, cut + 1))


@pytest.mark.parametrize("bad", range(1, 9))
def test_a_bad_batch_is_damage_if_it_was_synced(bad: int) -> None:
    found = [(n, data[:-1] if n == bad else data) for n, data in written()]
    if bad <= SYNCED:
        with pytest.raises(DamagedError, match=f"batch {bad} is missing or damaged"):
            believable(found, 1, 0)
    else:
        assert len(believable(found, 1, 0)) == bad - 1, "what follows it cannot have been synced either"


@pytest.mark.parametrize("missing", range(1, 9))
def test_a_batch_that_is_not_there_is_damage_if_it_was_synced(missing: int) -> None:
    found = [(n, data) for n, data in written() if n != missing]
    if missing <= SYNCED:
        with pytest.raises(DamagedError):
            believable(found, 1, 0)
    else:
        assert len(believable(found, 1, 0)) == missing - 1


def test_an_end_that_is_noted_as_synced_must_be_there() -> None:
    assert len(believable(written()[:7], 1, 7)) == 7
    with pytest.raises(DamagedError, match="batch 8 is missing or damaged, and batches up to 8 were synced"):
        believable(written()[:7], 1, 8)


@pytest.mark.parametrize("last", range(8))
def test_of_a_sealed_segment_each_batch_must_be_there(last: int) -> None:
    found = written()[:last]
    assert [batch.number for batch in sealed(found, 1, last)] == list(range(1, last + 1))
    with pytest.raises(DamagedError, match=f"batch {last + 1} is missing"):
        list(sealed(found, 1, last + 1))
    for number in range(last):
        wrong = [(n, data[:-1] if n == number + 1 else data) for n, data in found]
        read = sealed(wrong, 1, last)
        with pytest.raises(DamagedError, match=f"batch {number + 1} is missing"):
            list(read)
        with pytest.raises(DamagedError, match=f"batch {number + 1} is missing"):
            list(sealed([each for each in found if each[0] != number + 1], 1, last))


def test_a_sealed_segment_has_nothing_more() -> None:
    with pytest.raises(DamagedError):
        list(sealed(written(), 1, 7))


def test_a_batch_in_the_place_of_another_is_not_believed() -> None:
    found = written()
    found[7] = (8, found[6][1])
    assert len(believable(found, 1, 0)) == 7
