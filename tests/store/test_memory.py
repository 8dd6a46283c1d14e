"""What MemoryStore does beyond the contract."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from greenroom import MemoryStore, SessionData, SessionNotFoundError, UsageError, new_session_id
from greenroom.codec import encode_data
from greenroom.fields import DATA_BYTES_MAX
from greenroom.testing import ManualClock

MAX = 1 << 20
OVER = f"over the limit of {MAX}"


def session(clock: ManualClock, seconds: float = 60, **fields: Any) -> SessionData:
    return SessionData(
        session_id=new_session_id(), created=clock(), expires=clock() + timedelta(seconds=seconds), **fields
    )


def run(scenario: Callable[[MemoryStore, ManualClock], Awaitable[None]]) -> None:
    clock = ManualClock()

    async def main() -> None:
        await scenario(MemoryStore(clock=clock), clock)

    asyncio.run(main())


def test_clock_that_goes_back_revives_nothing() -> None:
    async def scenario(store: MemoryStore, clock: ManualClock) -> None:
        first, second = session(clock), session(clock)
        await store.create(first)
        await store.create(second)
        clock.advance(61)
        assert await store.get(first.session_id) is None
        clock.advance(-61)
        assert await store.get(first.session_id) is None
        assert await store.get(second.session_id) is None

    run(scenario)


def test_session_lives_to_the_last_microsecond() -> None:
    async def scenario(store: MemoryStore, clock: ManualClock) -> None:
        short = session(clock, 60)
        await store.create(short)
        clock.advance(59.999999)
        assert await store.get(short.session_id) is not None
        clock.advance(0.000001)
        assert await store.get(short.session_id) is None

    run(scenario)


def test_data_over_the_limit_is_refused_everywhere() -> None:
    async def scenario(store: MemoryStore, clock: ManualClock) -> None:
        small = session(clock, data={"blob": b"x" * (MAX - 20)})
        await store.create(small)
        with pytest.raises(UsageError, match=OVER):
            await store.create(session(clock, data={"blob": b"x" * (MAX + 1)}))
        with pytest.raises(UsageError, match=OVER):
            await store.patch(small.session_id, set={"more": b"x" * 20})
        with pytest.raises(UsageError, match=OVER):
            await store.rotate(small.session_id, set={"more": b"x" * 20})
        with pytest.raises(UsageError, match=OVER):
            await store.modify(small.session_id, lambda found: found.data.update(more=b"x" * 20))
        found = await store.get(small.session_id)
        assert found is not None
        assert found.data == small.data

    run(scenario)


def test_nothing_is_left_of_sessions_that_are_gone() -> None:
    async def scenario(store: MemoryStore, clock: ManualClock) -> None:
        sessions = [session(clock, user_id=f"user-{number % 3}") for number in range(30)]
        for each in sessions:
            await store.create(each)
        for each in sessions[:10]:
            await store.patch(each.session_id, user_id=None)
            await store.delete(each.session_id)
        clock.advance(60)
        assert await store.clean() == 20
        assert store._table.sessions == {}
        assert store._table.users == {}

    run(scenario)


def test_creates_collect_what_has_expired() -> None:
    async def scenario(store: MemoryStore, clock: ManualClock) -> None:
        for number in range(1000):
            await store.create(session(clock, user_id=f"user-{number}"))
        clock.advance(60)
        for _ in range(250):
            await store.create(session(clock))
        assert len(store._table.sessions) == 250
        assert store._table.users == {}

    run(scenario)


def test_a_store_in_use_stays_as_large_as_its_live_sessions() -> None:
    """No page calls clean: visitors come once a second, and each session lives for a minute."""

    async def scenario(store: MemoryStore, clock: ManualClock) -> None:
        kept = session(clock, 1e6, user_id="alice")
        await store.create(kept)
        largest = 0
        for _ in range(2000):
            clock.advance(1)
            visitor = session(clock)
            await store.create(visitor)
            await store.patch(visitor.session_id, set={"n": 1}, user_id="bob")
            largest = max(largest, len(store._table.sessions))
        assert 60 <= largest <= 61 * 4 / 3 + 4
        assert await store.get(kept.session_id) is not None
        assert len(store._table.users["bob"]) == len(store._table.sessions) - 1
        assert await store.list_by_user("alice")

    run(scenario)


def test_a_session_that_is_in_use_is_not_collected() -> None:
    async def scenario(store: MemoryStore, clock: ManualClock) -> None:
        used = session(clock)
        await store.create(used)
        for _ in range(100):
            clock.advance(30)
            await store.patch(used.session_id, expires=clock() + timedelta(seconds=60))
            await store.create(session(clock))
        assert await store.get(used.session_id) is not None
        rotated = await store.rotate(used.session_id)
        await store.create(session(clock))
        assert await store.get(rotated.session_id) is not None

    run(scenario)


def test_ids_are_not_kept() -> None:
    async def scenario(store: MemoryStore, clock: ManualClock) -> None:
        only = session(clock, data={"n": 1})
        await store.create(only)
        assert only.session_id not in repr(store._table.sessions)
        assert only.session_id not in repr(store)

    run(scenario)


def test_clock_must_return_aware_times() -> None:
    with pytest.raises(UsageError, match=r"clock is .* has no time zone"):
        MemoryStore(clock=lambda: datetime(2030, 1, 1))  # noqa: DTZ001  naive on purpose

    async def scenario(_store: MemoryStore, clock: ManualClock) -> None:
        times = iter([clock(), datetime(2030, 1, 1)])  # noqa: DTZ001  naive on purpose, and later on
        with pytest.raises(UsageError, match="clock"):
            await MemoryStore(clock=lambda: next(times)).clean()

    run(scenario)


def test_stored_data_is_replaced_where_nobody_has_changed_it() -> None:
    async def main() -> None:
        store = MemoryStore()
        session = SessionData(
            session_id=new_session_id(), user_id="u", expires=datetime.now(UTC) + timedelta(hours=1)
        )
        await store.create(session)
        record = await store.get_stored(session.session_id)
        assert record is not None
        data = encode_data({"a": 1})
        later = record.expires_us + 1_000_000
        changed = await store.replace_stored(record, data, expires_us=later)
        assert changed is not None
        assert changed == await store.get_stored(session.session_id)
        assert (changed.data, changed.expires_us, changed.user_id) == (data, later, "u")
        assert changed.version > record.version
        assert await store.replace_stored(record, encode_data({"b": 2})) is None, "it is another by now"
        assert (await store.get(session.session_id) or session).data == {"a": 1}
        with pytest.raises(UsageError, match="over the limit"):
            await MemoryStore.replace_stored(store, changed, bytes(DATA_BYTES_MAX + 1))
        await store.delete(session.session_id)
        with pytest.raises(SessionNotFoundError):
            await store.replace_stored(changed, data)

    asyncio.run(main())
