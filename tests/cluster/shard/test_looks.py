"""When sessions that are watched are looked at."""

from hypothesis import given
from hypothesis import strategies as st

from greenroom_cluster.shard.endings.looks import BUCKET_US, Looks

NOW_US = 1_800_000_000_000_000
DAY_US = 86_400_000_000


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


@given(ends=st.lists(st.integers(0, 40 * DAY_US), min_size=1, max_size=30))
def test_every_session_is_found_soon_after_its_end_and_not_before(ends: list[int]) -> None:
    looks = Looks()
    expiry = {key(number): NOW_US + end_us for number, end_us in enumerate(ends)}
    for each, expires_us in expiry.items():
        looks.enter(each, expires_us, NOW_US)
    found: dict[bytes, int] = {}
    steps = 0
    while (at_us := looks.next_us) is not None:
        steps += 1
        for each in looks.due(at_us, expiry.get, 7):
            found[each] = at_us
    assert found.keys() == expiry.keys()
    assert all(expiry[each] <= at_us <= expiry[each] + BUCKET_US for each, at_us in found.items())
    assert steps <= 8 * len(ends), "a session moves a handful of times in its life"


def test_a_session_that_was_extended_is_looked_at_again() -> None:
    looks = Looks()
    looks.enter(key(1), NOW_US, NOW_US)
    later = {key(1): NOW_US + 3 * BUCKET_US}
    assert looks.due(NOW_US + BUCKET_US, later.get, 10) == []
    assert looks.due(NOW_US + 4 * BUCKET_US, later.get, 10) == [key(1)]


def test_a_session_that_is_gone_or_forgotten_is_not_found() -> None:
    looks = Looks()
    looks.enter(key(1), NOW_US, NOW_US)
    looks.enter(key(2), NOW_US, NOW_US)
    looks.leave(key(2))
    looks.leave(key(2))
    assert looks.due(NOW_US + BUCKET_US, {key(2): NOW_US}.get, 10) == []
    assert looks.next_us is None
