"""The index of expiries finds every session that is over, and looks at few others."""

import gc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greenroom import wire
from greenroom.errors import InvariantError
from greenroom_cluster.shard.state.expiry import BUCKET_US, ExpiryIndex
from greenroom_cluster.shard.state.table import STALE_ENTRIES_MAX, SessionTable
from tests.cluster.shard.probe import ALICE, WALL_US, create, record

SECOND_US = 1_000_000
MONTH_US = 30 * 86_400 * SECOND_US
SOME_TIME = st.one_of(st.integers(0, 60 * SECOND_US), st.integers(0, 10 * MONTH_US))


@given(st.lists(SOME_TIME, max_size=40), st.integers(0, MONTH_US))
def test_many_are_entered_as_one_by_one(ends: list[int], time_us: int) -> None:
    single, bulk = ExpiryIndex(), ExpiryIndex()
    digests = [bytes([number]) * 32 for number in range(len(ends))]
    for digest, expires_us in zip(digests, ends, strict=True):
        single.enter(digest, expires_us, time_us)
    bulk.enter_all(digests, ends, time_us)
    assert (bulk.entries, bulk._buckets) == (single.entries, single._buckets)


# The first and the last are looked at together, from buckets of different widths; not so the one between.
@example(6399 * SECOND_US, [0, 2 * SECOND_US, 61 * SECOND_US], 6390 * SECOND_US, False)
@given(SOME_TIME, st.lists(st.integers(0, 90 * SECOND_US), min_size=1, max_size=9), SOME_TIME, st.booleans())
def test_what_ends_together_is_entered_as_one_by_one(
    first_us: int, ahead: list[int], time_us: int, named: bool
) -> None:
    single, bulk = ExpiryIndex(), ExpiryIndex()
    digests = [bytes([number]) * 32 for number in range(len(ahead))]
    if named:
        digests[-1] += b"tenant"
    ends = [first_us + each for each in ahead]
    for digest, expires_us in zip(digests, ends, strict=True):
        single.enter(digest, expires_us, time_us)
    bulk.enter_all(digests, ends, time_us)
    assert (bulk.entries, bulk._buckets, bulk._named) == (single.entries, single._buckets, single._named)


@given(
    st.lists(st.tuples(st.integers(0, 20), SOME_TIME), max_size=30),
    st.lists(SOME_TIME, max_size=6),
    st.integers(1, 4),
)
def test_the_index_finds_every_session_that_is_over_and_no_other(
    entered: list[tuple[int, int]], looks_at: list[int], looks: int
) -> None:
    index = ExpiryIndex()
    ends: dict[bytes, int] = {}
    for number, expires_us in entered:
        digest = bytes([number]) * 32
        # As the table does: an entry for what is new or ends earlier; a longer life costs none.
        if digest not in ends or expires_us < ends[digest]:
            index.enter(digest, expires_us, 0)
        ends[digest] = expires_us
    now = 0
    for look_us in [*sorted(looks_at), 11 * MONTH_US]:
        now = max(now, look_us)
        looked = looks
        while looked == looks:
            found, looked = index.due(now, ends.get, looks)
            assert len(found) <= looked <= looks
            for digest in found:
                if digest in ends:
                    assert ends.pop(digest) <= now
        assert all(expires_us > now - BUCKET_US for expires_us in ends.values())
    assert not ends
    assert index.entries == 0


def test_sessions_that_end_weeks_from_now_share_few_buckets() -> None:
    """Else each would cost a list of its own, and each sweep a look at all of them."""
    index = ExpiryIndex()
    for number in range(20_000):
        index.enter(number.to_bytes(32, "big"), number * 60 * SECOND_US, 0)
    assert len(index._buckets) < 80


def test_the_garbage_collector_does_not_look_at_what_is_indexed() -> None:
    """It would hold everybody up: 50 ms for a million entries."""
    index = ExpiryIndex()
    for number in range(10_000):
        index.enter(number.to_bytes(32, "big"), number % 3 * MONTH_US, 0)
    looked_at = {id(index): index}
    waiting = [index]
    while waiting:
        for found in gc.get_referents(waiting.pop()):
            if not isinstance(found, type) and id(found) not in looked_at:
                looked_at[id(found)] = found
                waiting.append(found)
    assert len(looked_at) < 20


def test_an_index_of_digests_takes_nothing_else() -> None:
    with pytest.raises(InvariantError, match="32 bytes, not 3"):
        ExpiryIndex().enter(b"abc", 0, 0)


def test_a_session_is_looked_at_a_handful_of_times_in_a_long_life() -> None:
    index = ExpiryIndex()
    end_us = 400 * 86_400 * SECOND_US + 5
    index.enter(ALICE, end_us, 0)
    seen = []
    while index.entries:
        (now,) = index._buckets
        found, looked = index.due(now, lambda _: end_us, 9)
        seen.append(looked)
    assert found == [ALICE]
    assert end_us < now <= end_us + BUCKET_US
    assert len(seen) <= 6


def test_deleted_sessions_do_not_pile_up_in_the_index() -> None:
    """They were deleted long before they expire."""
    table = SessionTable()
    for number in range(1, STALE_ENTRIES_MAX + 10):
        table.apply(record(2 * number - 1, create(number, number.to_bytes(32, "big"))))
        table.apply(record(2 * number, wire.Delete(number, 1, 0, 0, number.to_bytes(32, "big"))))
    table.due(WALL_US, 1)
    assert table.expiry.entries == 0


def test_a_session_that_lives_longer_moves_on_when_its_bucket_comes() -> None:
    index = ExpiryIndex()
    index.enter(ALICE, BUCKET_US, 0)
    assert index.due(2 * BUCKET_US, lambda _: 9 * BUCKET_US, 9) == ([], 1)
    assert index.due(10 * BUCKET_US, lambda _: 9 * BUCKET_US, 9) == ([ALICE], 1)
