"""What may be believed of batches found after a crash, for every way in which they can be cut or changed."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_cluster.disk.batches import (
    HEADER_BYTES,
    Batch,
    DamagedError,
    believable,
    decode_batch,
    encode_batch,
    found_batches,
    read_tail,
    sealed,
)

MARK = b"12345678"
SYNCED = 6
"""Batches 1 to 8 are written; each knows those before it but one as synced, so 6 are known to be."""


def written() -> list[Batch | None]:
    return [Batch(n, max(n - 2, 0), bytes([n]) * n) for n in range(1, 9)]


def encoded(batches: list[Batch | None]) -> list[bytes]:
    return [encode_batch(batch, MARK) for batch in batches if batch is not None]


def found(data: bytes) -> list[Batch | None]:
    return list(found_batches(data, 0, MARK))


@given(st.integers(1, 1 << 63), st.integers(0, 1 << 63), st.binary(max_size=100))
def test_a_batch_is_read_as_it_was_written(number: int, synced: int, body: bytes) -> None:
    batch = Batch(number, synced, body)
    assert decode_batch(b"?" + encode_batch(batch, MARK) + b"?", 1, MARK) == batch


@given(st.binary(max_size=60), st.data())
def test_no_changed_bit_and_no_cut_goes_unseen(body: bytes, data: st.DataObject) -> None:
    whole = encode_batch(Batch(7, 6, body), MARK)
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    assert decode_batch(bytes(flipped), 0, MARK) is None
    assert decode_batch(whole[: data.draw(st.integers(0, len(whole) - 1))], 0, MARK) is None


@given(st.integers(0, 7), st.data())
def test_what_follows_a_bad_batch_is_found(bad: int, data: st.DataObject) -> None:
    """Whatever is wrong with it, its length included; zeros may stand for what was never written."""
    batches = encoded(written())
    place = data.draw(st.integers(0, len(batches[bad]) - 1))
    flipped = bytearray(batches[bad])
    flipped[place] ^= data.draw(st.integers(1, 255))
    lost = data.draw(st.sampled_from((bytes(flipped), bytes(len(flipped)), b"", bytes(flipped[:place]))))
    batches[bad] = lost
    expected: list[Batch | None] = written()
    expected[bad : bad + 1] = [None] if lost and (bad < 7 or lost.strip(b"\0")) else []
    assert found(b"".join(batches) + bytes(99)) == expected


def test_what_a_session_holds_is_not_taken_for_a_batch() -> None:
    """A batch that somebody made up, stored in one that was torn: its mark is not that of the segment."""
    made_up = encode_batch(Batch(9, 1 << 60, b"x"), b"somebody")
    torn = encode_batch(Batch(3, 2, made_up * 3 + b"y"), MARK)[:-1]
    assert found(torn) == [None]


def test_many_bad_heads_do_not_make_reading_slow() -> None:
    """Of each the head is checked first; with the whole body for each it would take minutes."""
    head = encode_batch(Batch(1, 0, bytes(1000)), MARK)[: HEADER_BYTES - 1] + b"?"
    began = time.process_time()
    assert set(found(head * 100_000)) == {None}
    assert time.process_time() - began < 5


@pytest.mark.parametrize("cut", range(9))
def test_an_end_that_was_never_synced_may_be_missing(cut: int) -> None:
    left = believable(written()[:cut], 1, max(cut - 1, 0))
    assert [batch.number for batch in left] == list(range(1, cut + 1))


@pytest.mark.parametrize("bad", range(1, 9))
def test_a_bad_batch_is_damage_if_it_was_synced(bad: int) -> None:
    batches = written()
    batches[bad - 1] = None
    if bad <= SYNCED:
        with pytest.raises(DamagedError, match=f"batch {bad} is missing or damaged"):
            believable(batches, 1, 0)
    else:
        assert len(believable(batches, 1, 0)) == bad - 1, "what follows it cannot have been synced either"


@pytest.mark.parametrize("missing", range(1, 9))
def test_a_batch_that_is_not_there_is_damage_if_it_was_synced(missing: int) -> None:
    batches = [batch for batch in written() if batch is not None and batch.number != missing]
    if missing <= SYNCED:
        with pytest.raises(DamagedError):
            believable(batches, 1, 0)
    else:
        assert len(believable(batches, 1, 0)) == missing - 1


def test_an_end_that_is_noted_as_synced_must_be_there() -> None:
    assert len(believable(written()[:7], 1, 7)) == 7
    with pytest.raises(DamagedError, match="batch 8 is missing or damaged, and batches up to 8 were synced"):
        believable(written()[:7], 1, 8)


@pytest.mark.parametrize("last", range(8))
def test_of_a_sealed_segment_each_batch_must_be_there(last: int) -> None:
    batches = written()[:last]
    assert list(sealed(batches, 1, last)) == batches
    with pytest.raises(DamagedError, match=f"batch {last + 1} is missing"):
        list(sealed(batches, 1, last + 1))
    for number in range(last):
        wrong = [*batches[:number], None, *batches[number + 1 :]]
        with pytest.raises(DamagedError, match=f"batch {number + 1} is missing"):
            list(sealed(wrong, 1, last))
        with pytest.raises(DamagedError, match=f"batch {number + 1} is missing"):
            list(sealed([*batches[:number], *batches[number + 1 :]], 1, last))


def test_a_sealed_segment_has_nothing_more() -> None:
    for more in (written()[7], None):
        with pytest.raises(DamagedError):
            list(sealed([*written()[:7], more], 1, 7))


def test_a_batch_in_the_place_of_another_is_not_believed() -> None:
    batches = written()
    batches[7] = batches[6]
    assert len(believable(batches, 1, 0)) == 7


FIRSTS = (1, 4, 6, 8)
"""Of segments of three, two, two and one of the batches written; up to 6 they are known to be synced."""


def in_segments(batches: list[Batch | None]) -> list[list[Batch | None]]:
    bounds = [*FIRSTS, 9]
    return [batches[begin - 1 : end - 1] for begin, end in pairwise(bounds)]


def test_a_log_is_read_back_to_the_first_segment_known_to_be_synced() -> None:
    segments, read = in_segments(written()), list[int]()

    def found_in(index: int) -> list[Batch | None]:
        read.append(index)
        return segments[index]

    last, unsettled, batches = read_tail(FIRSTS, found_in, 0)
    assert (last, unsettled, read) == (8, 2, [3, 2]), "batch 6 is known to be synced, so segment 1 is whole"
    assert batches == segments[2:]


@pytest.mark.parametrize("bad", range(7, 9))
def test_what_follows_a_torn_batch_is_void_in_later_segments_too(bad: int) -> None:
    batches = written()
    batches[bad - 1] = None
    last, unsettled, parts = read_tail(FIRSTS, in_segments(batches).__getitem__, 0)
    assert (last, unsettled) == (bad - 1, 2)
    assert [len(part) for part in parts] == [bad - 6, 0]


def test_nothing_of_a_tail_is_settled_before_it_is_written_anew() -> None:
    """Not even what a note calls synced: the segment that holds it may hold more."""
    last, unsettled, parts = read_tail(FIRSTS, in_segments(written()).__getitem__, 8)
    assert (last, unsettled, parts) == (8, 3, [written()[7:]])
    assert read_tail((), in_segments(written()).__getitem__, 0) == (0, 0, [])


def test_a_tail_that_lacks_what_was_synced_is_damage() -> None:
    with pytest.raises(DamagedError, match="batch 9 is missing or damaged"):
        read_tail(FIRSTS, in_segments(written()).__getitem__, 9)
