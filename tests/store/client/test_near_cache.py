"""What a dialog keeps and shows without asking, by its connections, leases and own requests."""

from typing import Any

import pytest

from greenroom import wire
from greenroom.dialog import operations
from greenroom.dialog.near import NearCache
from greenroom.near_messages import (
    CLOCK_DRIFT,
    GetNear,
    Held,
    Invalidate,
    NearAck,
    NearBeacon,
    NearLease,
    Unhold,
)
from tests.store.client.harness import ADDRESS, MS, SECOND, A, connected, point

DIGEST = bytes(32)
NEAR_US = 300_000


def state(version: int = 1) -> wire.SessionState:
    return wire.SessionState(version, 10**15, 0, None, None, "", 0, b"\x80")


class Stage:
    """A dialog with a near cache, connected to both actors; its clock stands still unless told."""

    def __init__(self, entries: int = 10, *, eager: bool = True, former: bool = False) -> None:
        self.now_ns = 5 * SECOND
        self.near = NearCache(entries, lambda: self.now_ns, eager=eager)
        self.script, self.link, self.other = connected(near=self.near)
        self.now_ns += SECOND
        if former:
            self.script.features = ()
            self.reconnect()

    def reconnect(self) -> None:
        self.script.lose(self.link, "reset")
        self.script.submit("get")
        self.script.pass_time(SECOND)
        self.link = self.script.accept(ADDRESS[A])
        self.answer(wire.Missing)
        self.script.sent[self.link].clear()

    def hit(self, digest: bytes = DIGEST, shard: int = 0) -> int | None:
        """The version that is shown without asking."""
        found = self.script.dialog.hit(point(shard), digest)
        self.script.settle()
        return None if found is None else found.state.version

    def take(self) -> list[Any]:
        """What was sent to the first actor since this was last asked."""
        sent = self.script.requests(self.link)
        self.script.sent[self.link] = []
        return sent

    def answer(self, kind: Any, *rest: Any) -> None:
        """Answer the newest request of the first actor."""
        number = max(
            each.request_id for each in self.script.requests(self.link) if hasattr(each, "request_id")
        )
        self.script.send(self.link, kind(number, *rest))

    def fill(self, version: int = 1, left_us: int = 10**9) -> None:
        """Read, have the session held, and get a lease."""
        self.script.submit("get")
        self.answer(Held, state(version), left_us)
        self.lease()

    def lease(self, rem_us: int = NEAR_US) -> None:
        """Answer the newest beacon."""
        (*_, beacon) = [each for each in self.script.requests(self.link) if isinstance(each, NearBeacon)]
        self.script.send(self.link, NearLease(beacon.sent_ns, rem_us))


def test_a_session_that_is_held_is_shown_while_the_lease_runs() -> None:
    stage = Stage()
    stage.fill()
    assert stage.hit() == 1
    stage.now_ns += NEAR_US * 1000 - 1
    assert stage.hit() == 1
    stage.now_ns += 1
    assert stage.hit() is None
    assert stage.near.counts.hits == 2
    assert stage.near.counts.lapsed == 1


def test_a_lease_counts_from_when_it_was_asked_for() -> None:
    stage = Stage()
    stage.script.submit("get")
    stage.answer(Held, state(), 10**9)
    stage.now_ns += NEAR_US * 1000 - 1
    stage.lease()
    assert stage.hit() == 1
    stage.now_ns += 1
    assert stage.hit() is None


def test_the_next_lease_revives_what_has_lapsed() -> None:
    stage = Stage()
    stage.fill()
    stage.now_ns += SECOND
    assert stage.hit() is None
    stage.script.submit("get")
    stage.lease()
    assert stage.hit() == 1, "before the answer has come"


def test_a_hit_asks_for_the_lease_when_half_of_it_is_over() -> None:
    stage = Stage()
    stage.fill()
    stage.take()
    assert stage.hit() == 1
    assert stage.take() == []
    stage.now_ns += NEAR_US * 600
    assert stage.hit() == 1
    assert stage.hit() == 1
    assert [type(each) for each in stage.take()] == [NearBeacon], "one, until that is answered"


def test_a_session_is_kept_from_its_second_read_on() -> None:
    stage = Stage(eager=False)
    stage.take()
    stage.script.submit("get")
    assert [type(each) for each in stage.take()] == [wire.Get]
    stage.script.send(stage.link, wire.Session(stage.script.dialog.next_id() - 1, state(7)))
    stage.script.submit("get")
    asked, beacon = stage.take()
    assert isinstance(beacon, NearBeacon)
    assert isinstance(asked, GetNear)
    assert asked.seen == 7


def test_what_a_writer_has_made_counts_as_read() -> None:
    stage = Stage(eager=False)
    number = stage.script.submit("update")
    stage.script.send(stage.link, wire.Written(number, 9))
    stage.take()
    stage.script.submit("get")
    assert [each.seen for each in stage.take() if isinstance(each, GetNear)] == [9]


def test_an_answer_that_is_not_held_is_not_kept() -> None:
    stage = Stage()
    stage.script.submit("get")
    stage.answer(wire.Session, state())
    stage.lease()
    assert stage.hit() is None
    assert stage.near.counts.refused == 1


@pytest.mark.parametrize("name", ["update", "patch", "delete", "rotate", "create"])
def test_a_request_that_may_change_a_session_drops_it(name: str) -> None:
    stage = Stage()
    stage.fill()
    stage.script.submit(name)
    assert stage.hit() is None


def test_a_patch_renews_what_was_kept_if_its_answer_is_held() -> None:
    stage = Stage()
    stage.fill()
    number = stage.script.submit("patch")
    assert stage.hit() is None, "before the answer has come"
    stage.script.send(stage.link, Held(number, state(2), 10**9))
    assert stage.hit() == 2
    assert stage.script.outcome(number) == wire.Session(number, state(2))


def test_a_patch_whose_answer_nobody_holds_renews_nothing() -> None:
    stage = Stage()
    stage.fill()
    number = stage.script.submit("patch")
    stage.script.send(stage.link, wire.Session(number, state(2)))
    assert stage.hit() is None
    assert stage.near.counts.refused == 0


def test_the_answer_to_a_patch_before_another_change_is_not_kept() -> None:
    stage = Stage()
    stage.fill()
    number = stage.script.submit("patch")
    stage.script.submit("update")
    stage.script.send(stage.link, Held(number, state(2), 10**9))
    assert stage.hit() is None


def test_the_answer_to_a_patch_of_what_was_not_kept_is_not() -> None:
    stage = Stage()
    number = stage.script.submit("patch")
    stage.script.send(stage.link, Held(number, state(2), 10**9))
    stage.script.submit("get")
    stage.lease()
    assert stage.hit() is None


def test_a_patch_asks_for_the_lease_that_its_answer_needs() -> None:
    stage = Stage()
    stage.fill()
    stage.now_ns += NEAR_US * 600
    stage.take()
    stage.script.submit("patch")
    assert [type(each) for each in stage.take()] == [wire.Patch, NearBeacon]


def test_an_answer_from_before_a_change_is_not_kept() -> None:
    stage = Stage()
    stage.fill()
    stage.now_ns += SECOND
    number = stage.script.submit("get")
    stage.script.submit("update")
    stage.script.send(stage.link, Held(number, state(), 10**9))
    stage.lease()
    assert stage.hit() is None


def test_the_answer_to_any_get_since_the_last_drop_is_kept() -> None:
    stage = Stage()
    first = stage.script.submit("get")
    second = stage.script.submit("get")
    stage.script.send(stage.link, Held(first, state(1), 10**9))
    stage.lease()
    assert stage.hit() == 1
    stage.script.send(stage.link, Invalidate(1, (DIGEST,), ()))
    assert stage.hit() is None
    stage.script.send(stage.link, Held(second, state(2), 10**9))
    assert stage.hit() == 2
    assert not stage.near.filling


def test_a_patch_renews_what_was_kept_though_it_was_read_meanwhile() -> None:
    stage = Stage()
    stage.fill()
    patch = stage.script.submit("patch")
    read = stage.script.submit("get")
    stage.script.send(stage.link, wire.Session(read, state(1)))
    assert stage.hit() is None
    stage.script.send(stage.link, Held(patch, state(2), 10**9))
    assert stage.hit() == 2
    assert not stage.near.filling


def test_no_answer_from_before_a_change_is_kept_whichever_it_is() -> None:
    stage = Stage()
    before = [stage.script.submit("get") for _ in range(3)]
    stage.script.submit("update")
    after = stage.script.submit("get")
    for number in before:
        stage.script.send(stage.link, Held(number, state(1), 10**9))
    stage.lease()
    assert stage.hit() is None
    stage.script.send(stage.link, Held(after, state(2), 10**9))
    assert stage.hit() == 2


def test_requests_that_are_never_answered_are_forgotten() -> None:
    stage = Stage()
    for _ in range(100):
        number = stage.script.submit("get")
    (filling,) = stage.near.filling.values()
    assert len(filling.queued_ns) == 64
    stage.script.send(stage.link, Held(number, state(2), 10**9))
    stage.lease()
    assert stage.hit() == 2


def test_versions_of_sessions_that_were_held_are_forgotten_too() -> None:
    stage = Stage(entries=2)
    for index in range(10):
        number = stage.script.dialog.next_id()
        get = wire.Get(number, point(0), bytes([index]) * 32)
        stage.script.dialog.submit(stage.script.now, get, operations.GET, number)
        stage.script.send(stage.link, Held(number, state(), 10**9))
    assert len(stage.near._seen) == 4


def test_who_keeps_nothing_is_answered_by_no_session_that_is_held() -> None:
    script, link, _ = connected()
    number = script.submit("get")
    script.send(link, Held(number, state(), 10**9))
    assert link in script.aborted
    again = script.pass_time(SECOND).accept(ADDRESS[A])
    script.send(again, wire.Session(number, state(2)))
    assert script.outcome(number).state.version == 2


def test_what_is_invalidated_is_dropped_and_acknowledged() -> None:
    stage = Stage()
    stage.fill()
    stage.take()
    stage.script.send(stage.link, Invalidate(4, (DIGEST,), ()))
    assert stage.hit() is None
    assert stage.take() == [NearAck(4)]
    assert stage.near.counts.invalidations == 1


def test_an_answer_after_an_invalidation_is_kept() -> None:
    stage = Stage()
    stage.script.submit("get")
    stage.script.send(stage.link, Invalidate(1, (DIGEST,), ()))
    stage.answer(Held, state(2), 10**9)
    stage.lease()
    assert stage.hit() == 2


def test_a_shard_that_is_revoked_is_dropped_and_no_other() -> None:
    stage = Stage()
    stage.fill()
    stage.script.send(stage.link, Invalidate(1, (), (2,)))
    assert stage.hit() == 1
    stage.script.send(stage.link, Invalidate(2, (), (0,)))
    assert stage.hit() is None
    assert stage.near.counts.revoked == 1


def test_a_new_connection_revives_nothing() -> None:
    stage = Stage()
    stage.fill()
    stage.script.lose(stage.link, "reset")
    assert stage.hit() is None
    stage.script.submit("get")
    stage.script.pass_time(SECOND)
    stage.link = stage.script.accept(ADDRESS[A])
    stage.lease()
    assert stage.hit() is None
    stage.answer(Held, state(2), 10**9)
    assert stage.hit() == 2


def test_a_shard_that_moved_is_asked_for() -> None:
    stage = Stage()
    stage.fill()
    stage.script.move("BBAB")
    assert stage.hit() is None


def test_a_session_is_not_shown_beyond_its_end_by_any_clock() -> None:
    stage = Stage()
    stage.fill(left_us=100_000)
    stage.now_ns += int(100_000_000 / (1 + CLOCK_DRIFT)) - 1
    assert stage.hit() == 1
    stage.now_ns += 1
    assert stage.hit() is None


def test_the_longest_unused_makes_room_and_is_let_go() -> None:
    stage = Stage(entries=1)
    stage.fill()
    stage.take()
    other = b"o" * 32
    number = stage.script.dialog.next_id()
    stage.script.dialog.submit(stage.script.now, wire.Get(number, point(0), other), operations.GET, number)
    stage.script.send(stage.link, Held(number, state(5), 10**9))
    assert stage.hit(other) == 5
    assert stage.hit() is None
    assert Unhold((DIGEST,)) in stage.take()
    assert stage.near.counts.evicted == 1


def test_an_answer_to_what_was_asked_before_it_made_room_is_not_kept() -> None:
    stage = Stage(entries=1)
    stage.fill()
    stage.now_ns += SECOND
    again = stage.script.submit("get")
    number = stage.script.dialog.next_id()
    other = b"o" * 32
    stage.script.dialog.submit(stage.script.now, wire.Get(number, point(0), other), operations.GET, number)
    stage.script.send(stage.link, Held(number, state(5), 10**9))
    stage.script.send(stage.link, Held(again, state(1), 10**9))
    stage.lease()
    assert stage.hit() is None


def test_a_server_without_the_feature_is_asked_plainly() -> None:
    stage = Stage(former=True)
    stage.script.submit("get")
    assert [type(each) for each in stage.take()] == [wire.Get]
    assert stage.hit() is None


def test_a_held_session_ends_the_get_that_asked() -> None:
    stage = Stage()
    number = stage.script.submit("get")
    stage.script.send(stage.link, Held(number, state(3), 10**9))
    assert stage.script.outcome(number) == wire.Session(number, state(3))


def test_a_lease_nobody_asked_for_breaks_nothing() -> None:
    stage = Stage()
    stage.fill()
    stage.script.send(stage.link, NearLease(1, 10**9))
    stage.now_ns += NEAR_US * 1000
    assert stage.hit() is None


def test_beacons_keep_a_pause() -> None:
    stage = Stage()
    stage.script.submit("get")
    stage.answer(Held, state(), 10**9)
    stage.lease(0)
    stage.take()
    assert stage.hit() is None
    stage.script.submit("get")
    assert NearBeacon not in [type(each) for each in stage.take()]
    stage.now_ns += 100 * MS
    stage.script.submit("get")
    assert NearBeacon in [type(each) for each in stage.take()]


def test_a_beacon_tells_how_often_something_was_shown_since_the_last() -> None:
    stage = Stage()
    stage.fill()
    stage.take()
    for _ in range(3):
        assert stage.hit() == 1
    stage.now_ns += NEAR_US * 600
    assert stage.hit() == 1
    (asked,) = stage.take()
    assert asked.hits == 4
    stage.script.send(stage.link, NearLease(asked.sent_ns, NEAR_US))
    stage.now_ns += NEAR_US * 600
    assert stage.hit() == 1
    assert [each.hits for each in stage.take()] == [1]
