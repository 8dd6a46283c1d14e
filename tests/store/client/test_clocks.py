"""A host whose clock is wrong: its sessions live as long as it meant, and it is told."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from greenroom import ClusterStore, SessionData, drivers, new_session_id, wire
from greenroom.dialog.clocks import TOLERANCE_US, ClusterClock
from tests.store.client.fake_cluster import running_cluster
from tests.store.client.harness import ADDRESS, SECOND, SEEDS, A, B, Script, cluster_map

HOUR_US = 3_600_000_000
NOW_US = 1_700_000_000_000_000


def clock_of(own_us: int, **actors_us: int) -> tuple[ClusterClock, list[str]]:
    notices: list[str] = []
    clock = ClusterClock(notices)
    clock.own(0, own_us, 0)
    for name, clock_us in actors_us.items():
        clock.heard(name.encode(), clock_us, 0)
    return clock, notices


@pytest.mark.parametrize(
    ("actors", "offset"),
    [
        ({}, 0),
        ({"a": NOW_US + TOLERANCE_US}, 0),
        ({"a": NOW_US + HOUR_US}, HOUR_US),
        ({"a": NOW_US - HOUR_US}, -HOUR_US),
        ({"a": NOW_US - HOUR_US, "b": NOW_US + 1}, 0),
        ({"a": NOW_US + HOUR_US, "b": NOW_US + HOUR_US // 2}, HOUR_US // 2),
        ({"a": 0}, 0),
    ],
)
def test_the_nearest_actor_counts(actors: dict[str, int], offset: int) -> None:
    clock, notices = clock_of(NOW_US, **actors)
    assert clock.offset_us == offset
    assert len(notices) >= bool(offset)


def test_the_offset_follows_a_clock_that_is_set_right() -> None:
    clock, notices = clock_of(NOW_US, a=NOW_US + HOUR_US)
    clock.own(SECOND, NOW_US + HOUR_US + 1_000_000, SECOND)
    assert clock.offset_us == 0
    assert ["behind" in notices[0], "agrees" in notices[1]] == [True, True]


def test_a_host_that_was_suspended_has_no_wrong_clock() -> None:
    """Its own time stood still, and its clock did not."""
    clock, notices = clock_of(NOW_US, a=NOW_US)
    clock.own(SECOND, NOW_US + HOUR_US, 3600 * SECOND)
    assert clock.offset_us == 0
    clock.heard(b"b", NOW_US + HOUR_US, SECOND)
    assert clock.offset_us == 0
    assert not notices


def test_where_nothing_counts_such_a_time_a_jump_makes_all_be_forgotten() -> None:
    clock, _ = clock_of(NOW_US, a=NOW_US)
    clock.own(SECOND, NOW_US + HOUR_US, None)
    assert clock.offset_us == 0


def test_what_was_known_holds_until_the_next_actor_speaks() -> None:
    clock, _ = clock_of(NOW_US, a=NOW_US + HOUR_US)
    clock.lost(b"a")
    clock.own(SECOND, NOW_US + 1_000_000, SECOND)
    assert clock.offset_us == HOUR_US
    clock.heard(b"b", NOW_US + 1_000_000, SECOND)
    assert clock.offset_us == 0


# --- in a dialog -----------------------------------------------------------------------------------------


def connected(clock_us: int) -> tuple[Script, dict[bytes, int]]:
    """A script whose actors' clocks are that much ahead; a create waits for the first of them."""
    script = Script()
    script.dialog.clock.own(script.now, NOW_US, script.now)
    script.submit("create", 0, token="early")
    for address in SEEDS:
        script.send(script.accept(address), wire.MapFull(cluster_map()))
    script.submit("get", 1, token="other")
    links = {}
    for actor in (A, B):
        links[actor] = script.establish(ADDRESS[actor])
        hello = wire.Hello(wire.PROTOCOL_VERSION, 1, "greenroom", "actor", actor, b"", b"", NOW_US + clock_us)
        script.send(links[actor], hello)
    return script, links


def test_times_go_by_the_clock_of_the_cluster_and_come_by_ours() -> None:
    script, links = connected(HOUR_US)
    [early] = script.requests(links[A])
    assert (early.created_us, early.expires_us, early.absolute_us) == (HOUR_US, HOUR_US + 1, None)
    for name, field in (("update", HOUR_US + 1), ("patch", None), ("rotate", None)):
        number = script.submit(name, 0)
        [request] = [each for each in script.requests(links[A]) if each.request_id == number]
        assert request.expires_us == field
    state = wire.SessionState(1, HOUR_US + 9, HOUR_US + 3, HOUR_US + 12, None, "", 0, b"\x80")
    seen = script.dialog.clock.received(wire.Session(1, state))
    assert isinstance(seen, wire.Session)
    assert (seen.state.expires_us, seen.state.created_us, seen.state.absolute_us) == (9, 3, 12)
    handle = wire.SessionHandle(0, bytes(32), 1, HOUR_US + 3, HOUR_US + 9, "")
    listing = script.dialog.clock.received(wire.Listing(1, (0,), (handle,)))
    assert isinstance(listing, wire.Listing)
    assert (listing.sessions[0].created_us, listing.sessions[0].expires_us) == (3, 9)
    assert script.dialog.clock.received(wire.Written(1, 2)) == wire.Written(1, 2)


def test_a_repeat_is_not_moved_twice() -> None:
    script, links = connected(HOUR_US)
    first = script.requests(links[A])[0]
    script.lose(links[A], "reset")
    script.pass_time(SECOND // 2)
    link = script.establish(ADDRESS[A])
    hello = wire.Hello(
        wire.PROTOCOL_VERSION, 1, "greenroom", "actor", A, b"", b"", NOW_US + HOUR_US + 500_000
    )
    script.send(link, hello)
    [again] = script.requests(link)
    assert (again.request_id, again.expires_us) == (first.request_id, first.expires_us)
    assert again.age_ms > 0


def test_times_at_the_end_of_the_calendar_stay_in_it() -> None:
    script, _ = connected(HOUR_US)
    last = 253_402_300_799_999_999
    number = script.dialog.next_id()
    request = wire.Update(number, script.dialog.low, 0, 0, bytes(32), None, last, "", b"\x80", None)
    moved: Any = script.dialog.clock.sent(request)
    assert moved.expires_us == last


# --- a store ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_session_of_a_host_with_a_wrong_clock_lives_as_long_as_it_says(
    hours: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = drivers.wall_us
    monkeypatch.setattr(drivers, "wall_us", lambda: right() + hours * HOUR_US)
    shown = datetime.now(UTC) + timedelta(hours=hours)
    session = SessionData(
        session_id=new_session_id(), user_id="u", created=shown, expires=shown + timedelta(minutes=30)
    )
    with running_cluster() as cluster:

        async def main() -> None:
            async with ClusterStore(cluster.address) as store:
                await store.create(session)
                found = await store.get(session.session_id)
                assert found is not None
                await store.update(session.session_id, found)
                for _ in range(2):
                    await store.modify(session.session_id, lambda each: each.data.update(n=1))
                found = await store.get(session.session_id)
                assert found is not None
                assert abs(found.expires - session.expires) < timedelta(seconds=1)
                assert abs(found.created - session.created) < timedelta(seconds=1)
                [listed] = await store.list_by_user("u")
                assert abs(listed.expires - session.expires) < timedelta(seconds=1)

        with caplog.at_level(logging.WARNING, "greenroom"):
            asyncio.run(main())
        [stored] = cluster.state.sessions.values()
        lifetime = stored.expires_us - right()
        assert abs(lifetime - 1800 * 1_000_000) < 10_000_000
    assert [("behind" if hours < 0 else "ahead of") in each.message for each in caplog.records] == [True]


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("together", [1, 8])
def test_a_clock_that_was_just_set_changes_no_lifetime(
    hours: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next look at the clock, half a second later, was too late for what was created until then."""
    right = drivers.wall_us
    ahead_us = 0
    monkeypatch.setattr(drivers, "wall_us", lambda: right() + ahead_us)
    with running_cluster() as cluster:

        async def create(store: ClusterStore, shown: datetime) -> str:
            session = SessionData(
                session_id=new_session_id(), created=shown, expires=shown + timedelta(minutes=30)
            )
            await store.create(session)
            found = await store.get(session.session_id)
            assert found is not None
            assert abs(found.expires - session.expires) < timedelta(seconds=1)
            return session.session_id

        async def main() -> None:
            nonlocal ahead_us
            async with ClusterStore(cluster.address) as store:
                await create(store, datetime.now(UTC))
                ahead_us = hours * HOUR_US
                shown = datetime.now(UTC) + timedelta(hours=hours)
                await asyncio.gather(*(create(store, shown) for _ in range(together)))
                ahead_us = 0
                await create(store, datetime.now(UTC))

        asyncio.run(main())
        for stored in cluster.state.sessions.values():
            assert abs(stored.expires_us - right() - 1800 * 1_000_000) < 10_000_000


def test_a_step_of_the_clock_is_seen_and_its_drift_is_not() -> None:
    clock, _ = clock_of(NOW_US)
    assert not clock.was_set(SECOND, NOW_US + 1_100_000)
    assert clock.was_set(SECOND, NOW_US + HOUR_US)
    assert clock.was_set(SECOND, NOW_US - HOUR_US)
    clock.own(SECOND, NOW_US + HOUR_US, SECOND)
    assert not clock.was_set(2 * SECOND, NOW_US + HOUR_US + 1_000_000)
