"""The index of a user's sessions: in order whatever happens, and never gone through as a whole."""

import random
from itertools import islice

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom import wire
from greenroom.errors import InvariantError
from greenroom.ids import listed_as
from greenroom_cluster.shard.state.table import SessionTable
from greenroom_cluster.shard.state.users import PAGE_MAX, UserIndex
from tests.cluster.shard.probe import FAR_US, WALL_US, Probe, create, record


class Clock:
    """Tells when sessions were created, and counts how often it is asked."""

    def __init__(self) -> None:
        self.times: dict[bytes, int] = {}
        self.asked = 0

    def __call__(self, digest: bytes) -> int:
        self.asked += 1
        return self.times[digest]


def digest_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5), st.sampled_from("uv")), max_size=80),
)
@settings(max_examples=100)
def test_the_newest_come_first_whatever_was_added_and_removed(
    changes: list[tuple[int, int, str]],
) -> None:
    clock = Clock()
    index = UserIndex(clock)
    model: dict[bytes, tuple[int, str]] = {}
    for number, time_us, user in changes:
        digest = digest_of(number)
        if digest in model:
            index.remove(model.pop(digest)[1], digest)
        else:
            clock.times[digest] = time_us
            model[digest] = (time_us, user)
            index.add(user, digest)
        for each in "uv":
            wanted = sorted((t, d) for d, (t, owner) in model.items() if owner == each)
            assert list(index.newest(each)) == [d for _, d in reversed(wanted)]
            assert list(index.oldest(each)) == [d for _, d in wanted]
            assert index.count(each) == len(wanted)


@pytest.mark.parametrize("order", ["rising", "falling", "any", "equal"])
def test_a_user_with_many_sessions_costs_a_search_a_change(order: str) -> None:
    count = 20_000
    clock = Clock()
    index = UserIndex(clock)
    chance = random.Random(5)
    times = {
        "rising": lambda number: number,
        "falling": lambda number: -number,
        "any": lambda number: chance.randrange(1000),
        "equal": lambda number: 7,
    }[order]
    for number in range(count):
        clock.times[digest_of(number)] = times(number)
        index.add("u", digest_of(number))
    assert clock.asked < 40 * count
    clock.asked = 0
    wanted = sorted(((t, d) for d, t in clock.times.items()), reverse=True)
    assert list(islice(index.newest("u"), 1000)) == [d for _, d in wanted[:1000]]
    assert clock.asked == 0
    numbers = list(range(count))
    chance.shuffle(numbers)
    for number in numbers[10:]:
        index.remove("u", digest_of(number))
    assert clock.asked < 40 * count
    left = {digest_of(number) for number in numbers[:10]}
    assert list(index.newest("u")) == [d for _, d in wanted if d in left]
    assert count > 10 * PAGE_MAX


def test_what_is_not_there_is_not_removed() -> None:
    clock = Clock()
    index = UserIndex(clock)
    clock.times = {digest_of(number): number for number in range(3)}
    index.add("u", digest_of(0))
    for user, number in (("u", 1), ("v", 0)):
        with pytest.raises(InvariantError):
            index.remove(user, digest_of(number))
    index.add("u", digest_of(1))
    with pytest.raises(InvariantError):
        index.remove("u", digest_of(2))


def test_a_session_created_again_at_another_time_moves() -> None:
    table = SessionTable()
    for number in range(3):
        command = msgspec.structs.replace(
            create(number + 1, digest_of(number)),
            user_id="u",
            created_us=WALL_US + number,
            expires_us=WALL_US + 5 if number == 0 else FAR_US,
        )
        table.apply(record(number + 1, command))
    again = msgspec.structs.replace(create(9, digest_of(0)), user_id="u", created_us=WALL_US + 90)
    assert isinstance(table.apply(record(9, again)), wire.Written)
    live, over = table.newest_of("u", 9, WALL_US + 10, 9)
    assert [handle.listed for handle in live] == [listed_as(digest_of(each)) for each in (0, 2, 1)]
    assert over == []


def test_a_listing_looks_at_no_more_sessions_than_it_shows() -> None:
    probe = Probe()
    probe.start_alone()
    table = probe.replica.table
    for number in range(5000):
        state = wire.SessionState(1, FAR_US, WALL_US + number, None, "u", "", 0, b"\x80")
        table._store(digest_of(number), state, WALL_US)
    # Were it to look at this one, it would fail: it cannot be decoded.
    table.sessions[digest_of(100)] = b"\xc1"
    (listing,) = probe.ask(wire.ListByUser(1, "u", 2000, (0,)))
    assert [each.listed for each in listing.sessions] == [listed_as(digest_of(4999 - n)) for n in range(2000)]
    assert probe.host._step.listed == 2000


def test_ended_sessions_are_decided_only_where_they_are_in_the_way() -> None:
    probe = Probe()
    probe.start_alone()
    for number in range(20):
        over = number in (2, 18)
        command = msgspec.structs.replace(
            create(number + 1, digest_of(number)),
            user_id="u",
            created_us=WALL_US + number,
            expires_us=WALL_US + 5 if over else FAR_US,
        )
        probe.ask(command)
    probe.wall_us += 10
    (listing,) = probe.ask(wire.ListByUser(90, "u", 3, (0,)))
    assert [each.listed for each in listing.sessions] == [listed_as(digest_of(n)) for n in (19, 17, 16)]
    assert digest_of(18) not in probe.replica.table.sessions
    assert digest_of(2) in probe.replica.table.sessions
