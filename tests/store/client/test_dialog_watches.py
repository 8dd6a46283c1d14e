"""How a dialog has the ends of sessions told to it, whatever becomes of connections and primaries."""

from typing import Any

import pytest

from greenroom import TooManyWatchesError, UnavailableError, UsageError, wire
from greenroom.dialog import watches
from greenroom.dialog.near import Filling, NearCache
from greenroom.ending_messages import (
    REASONS,
    SessionEnded,
    Unwatch,
    Unwatched,
    WatchBeacon,
    WatchEcho,
    Watching,
    WatchSession,
)
from greenroom.endings import UNKNOWN, Ended
from tests.store.client.harness import ADDRESS, MS, SECOND, SEEDS, A, B, Script, connected, point

LOGOUT = REASONS.index("logout")


def digest(number: int = 0) -> bytes:
    return number.to_bytes(32, "big")


class Stage:
    """A dialog that is connected to both actors; shards 0 and 2 are at the first."""

    def __init__(self, primaries: str = "ABAB", **settings: Any) -> None:
        features = settings.pop("features", wire.FEATURES)
        self.script, self.a, self.b = connected(primaries, features=features, **settings)

    @property
    def dialog(self) -> Any:
        return self.script.dialog

    def watch(self, number: int = 0, shard: int = 0, waiter: str = "caller") -> None:
        """Watch a session; the registration leaves."""
        self.dialog.watch(self.script.now, point(shard), digest(number), waiter)
        self.script.pass_time(0)

    def take(self, link: int, kind: Any = WatchSession) -> list[Any]:
        """What of one kind was sent on a connection since this was last asked."""
        sent = [each for each in self.script.requests(link) if isinstance(each, kind)]
        self.script.sent[link] = [
            each for each in self.script.sent.get(link, []) if not isinstance(each, kind)
        ]
        return sent

    def register(self, link: int, *, is_full: bool = False) -> list[bytes]:
        """Answer all registrations on a connection; return whose they were."""
        asked = self.take(link)
        self.script.send(link, *(Watching(each.request_id, is_full) for each in asked))
        self.script.pass_time(0)
        return [each.digest for each in asked]

    def echo(self, link: int, version: int | None = None, *, is_sure: bool = True) -> None:
        """Answer the newest beacon."""
        (*_, beacon) = self.take(link, WatchBeacon)
        known = self.script.map.version if version is None else version
        self.script.send(link, WatchEcho(beacon.number, known, is_sure))
        self.script.pass_time(0)

    def told(self) -> list[tuple[Any, Any]]:
        """Who was told what since this was last asked."""
        told, self.dialog.watches.told = self.dialog.watches.told, []
        return told

    def reconnect(self, incarnation: bytes) -> int:
        """The actor accepts the connection that is opened to it."""
        self.script.pass_time(SECOND)
        return self.script.accept(ADDRESS[incarnation])


def watched(**settings: Any) -> Stage:
    """A stage with one session that is registered at the first actor."""
    stage = Stage(**settings)
    stage.watch()
    assert stage.register(stage.a) == [digest()]
    return stage


def test_an_end_is_told_once() -> None:
    stage = watched()
    assert stage.told() == []
    stage.script.send(stage.a, SessionEnded(digest(), LOGOUT), SessionEnded(digest(), LOGOUT))
    assert stage.told() == [("caller", Ended("logout"))]
    assert len(stage.dialog.watches) == 0


def test_a_reason_of_a_later_release_is_unknown() -> None:
    stage = watched()
    stage.script.send(stage.a, SessionEnded(digest(), 99))
    assert stage.told() == [("caller", UNKNOWN)]


def test_a_session_that_is_gone_is_told_of_at_once() -> None:
    stage = Stage()
    stage.watch()
    (asked,) = stage.take(stage.a)
    stage.script.send(stage.a, wire.Missing(asked.request_id))
    assert stage.told() == [("caller", UNKNOWN)]


def test_one_registration_serves_all_callers() -> None:
    stage = watched()
    stage.watch(waiter="other")
    assert stage.take(stage.a) == []
    stage.script.send(stage.a, SessionEnded(digest(), LOGOUT))
    assert stage.told() == [("caller", Ended("logout")), ("other", Ended("logout"))]


def test_the_last_caller_withdraws_the_registration() -> None:
    stage = watched()
    stage.watch(waiter="other")
    stage.dialog.watches.remove(digest(), "caller")
    assert stage.script.settle().requests(stage.a) == []
    stage.dialog.watches.remove(digest(), "other")
    stage.dialog.watches.remove(digest(), "other")
    assert stage.script.settle().requests(stage.a) == [Unwatch((digest(),))]
    stage.script.send(stage.a, SessionEnded(digest(), LOGOUT))
    assert stage.told() == []


def test_what_is_withdrawn_too_early_is_withdrawn_once_answered() -> None:
    stage = Stage()
    stage.watch()
    stage.dialog.watches.remove(digest(), "caller")
    assert stage.script.settle().requests(stage.a)[1:] == []
    stage.register(stage.a)
    assert stage.take(stage.a, Unwatch) == [Unwatch((digest(),))]
    assert len(stage.dialog.watches) == 0


def test_a_caller_who_comes_back_meanwhile_is_told() -> None:
    stage = Stage()
    stage.watch()
    stage.dialog.watches.remove(digest(), "caller")
    stage.watch(waiter="other")
    stage.register(stage.a)
    assert stage.take(stage.a, Unwatch) == []
    stage.script.send(stage.a, SessionEnded(digest(), LOGOUT))
    assert stage.told() == [("other", Ended("logout"))]


def test_what_was_said_of_a_former_watch_is_not_told() -> None:
    stage = watched()
    stage.dialog.watches.remove(digest(), "caller")
    stage.watch(waiter="other")
    stage.script.send(stage.a, SessionEnded(digest(), LOGOUT))
    assert stage.told() == [], "it was said before the new registration was answered"
    stage.register(stage.a)
    stage.script.send(stage.b, SessionEnded(digest(), LOGOUT))
    assert stage.told() == [], "it came on another connection"


def test_a_lost_connection_has_everything_registered_anew() -> None:
    stage = watched()
    stage.script.lose(stage.a, "reset")
    again = stage.reconnect(A)
    stage.script.pass_time(0)
    assert stage.register(again) == [digest()]
    stage.script.send(again, SessionEnded(digest(), LOGOUT))
    assert stage.told() == [("caller", Ended("logout"))]


def test_an_end_that_was_missed_meanwhile_is_told() -> None:
    stage = watched()
    stage.script.lose(stage.a, "reset")
    again = stage.reconnect(A)
    stage.script.pass_time(0)
    (asked,) = stage.take(again)
    stage.script.send(again, wire.Missing(asked.request_id))
    assert stage.told() == [("caller", UNKNOWN)]


def test_a_shard_that_moves_has_its_sessions_registered_there() -> None:
    stage = watched()
    stage.watch(2, shard=2)
    stage.register(stage.a)
    stage.script.move("BBAB")
    stage.script.pass_time(0)
    assert stage.take(stage.a) == [], "the other shard has stayed"
    assert stage.register(stage.b) == [digest()]
    stage.script.send(stage.a, SessionEnded(digest(), LOGOUT))
    assert stage.told() == [], "it does not count there any more"
    stage.script.send(stage.b, SessionEnded(digest(), LOGOUT))
    assert stage.told() == [("caller", Ended("logout"))]


def test_an_actor_that_watches_no_longer_is_asked_again() -> None:
    """A shard may leave an actor and come back before the client hears of either."""
    stage = watched()
    stage.watch(2, shard=2)
    stage.register(stage.a)
    stage.script.send(stage.a, Unwatched((0, 3)))
    stage.script.pass_time(0)
    assert stage.register(stage.a) == [digest()]


def test_a_redirect_is_followed() -> None:
    stage = Stage()
    stage.watch()
    (asked,) = stage.take(stage.a)
    stage.script.send(stage.a, wire.Redirect(asked.request_id, 2))
    stage.script.move("BBAB")
    stage.script.pass_time(0)
    assert stage.register(stage.b) == [digest()]


def test_a_registration_that_fails_is_made_again() -> None:
    stage = Stage(deadline_seconds=1.0)
    stage.watch()
    stage.take(stage.a)
    stage.script.pass_time(SECOND)
    assert stage.dialog.pending_count == 0
    stage.script.pass_time(SECOND)
    assert stage.register(stage.a) == [digest()]
    assert stage.told() == []


def test_a_full_actor_is_asked_again_later() -> None:
    stage = Stage()
    stage.watch()
    stage.register(stage.a, is_full=True)
    stage.script.pass_time(4 * SECOND)
    assert stage.take(stage.a) == []
    stage.script.pass_time(2 * SECOND)
    assert stage.register(stage.a) == [digest()]


def test_an_actor_of_a_former_release_is_asked_now_and_then() -> None:
    stage = Stage(features=())
    stage.watch()
    (asked,) = stage.take(stage.a, wire.Get)
    state = wire.SessionState(1, 10**15, 0, None, None, "", 0, b"\x80")
    stage.script.send(stage.a, wire.Session(asked.request_id, state))
    stage.script.pass_time(4 * SECOND)
    assert stage.take(stage.a, wire.Get) == []
    stage.script.pass_time(2 * SECOND)
    (asked,) = stage.take(stage.a, wire.Get)
    stage.script.send(stage.a, wire.Missing(asked.request_id))
    assert stage.told() == [("caller", UNKNOWN)]
    assert stage.script.outcomes.get("caller") is None


def test_what_an_actor_of_a_former_release_cannot_say_breaks_the_protocol() -> None:
    stage = Stage(features=())
    stage.script.send(stage.a, SessionEnded(digest(), LOGOUT))
    assert stage.a in stage.script.aborted


def test_few_registrations_of_a_shard_are_under_way_at_a_time() -> None:
    stage = Stage()
    for number in range(100):
        stage.dialog.watch(stage.script.now, point(0), digest(number), number)
    stage.dialog.watch(stage.script.now, point(2), digest(100), 100)
    stage.script.pass_time(0)
    seen: list[bytes] = []
    for many in (watches.WINDOW + 1, watches.WINDOW, watches.WINDOW, 100 - 3 * watches.WINDOW):
        those = stage.register(stage.a)
        assert len(those) == many
        seen += those
    assert set(seen) == {digest(number) for number in range(101)}
    assert stage.dialog.watches.registered == 101


def test_sessions_are_watched_before_there_is_a_map() -> None:
    script = Script(features=wire.FEATURES)
    for shard in range(4):
        script.dialog.watch(script.now, point(shard), digest(shard), shard)
    script.pass_time(0)
    for seed in SEEDS:
        script.send(script.accept(seed), wire.MapFull(script.map))
    links = [script.accept(ADDRESS[each]) for each in (A, B)]
    script.pass_time(0)
    asked = [[each.digest for each in script.requests(link)] for link in links]
    assert asked == [[digest(0), digest(2)], [digest(1), digest(3)]]


def test_more_than_it_may_a_dialog_does_not_watch() -> None:
    stage = Stage(watches_max=1)
    stage.watch()
    stage.watch(waiter="other")
    with pytest.raises(TooManyWatchesError, match="watches_max=1"):
        stage.watch(1)
    stage.register(stage.a)
    stage.script.send(stage.a, SessionEnded(digest(), LOGOUT))
    stage.watch(1)


def test_a_beacon_a_second_is_all_that_is_said() -> None:
    stage = watched()
    for number in range(1, 100):
        stage.watch(number)
    while stage.register(stage.a):
        pass
    said = 0
    for _ in range(10):
        stage.script.pass_time(SECOND)
        assert len(stage.script.requests(stage.a)) == 1
        assert stage.script.requests(stage.b) == []
        said += 1
        stage.echo(stage.a)
    assert said == 10


def test_a_silent_connection_is_given_up() -> None:
    stage = watched()
    stage.script.pass_time(7 * SECOND)
    assert stage.a in stage.script.aborted
    again = stage.script.accept(ADDRESS[A])
    stage.script.pass_time(0)
    assert stage.register(again) == [digest()]


@pytest.mark.parametrize(("version", "is_sure"), [(2, True), (1, False)])
def test_who_may_be_no_primary_any_more_makes_it_ask_for_the_map(version: int, *, is_sure: bool) -> None:
    stage = watched()
    subscriptions = [link for link, at in stage.script.open.items() if at in SEEDS]
    before = [len(stage.script.requests(link)) for link in subscriptions]
    stage.script.pass_time(SECOND)
    stage.echo(stage.a)
    assert [len(stage.script.requests(link)) for link in subscriptions] == before
    stage.script.pass_time(SECOND)
    stage.echo(stage.a, version, is_sure=is_sure)
    assert [len(stage.script.requests(link)) for link in subscriptions] != before


def test_the_closed_store_tells_all_callers_so() -> None:
    stage = watched()
    stage.watch(1)
    stage.dialog.close(stage.script.now)
    told = stage.told()
    assert [waiter for waiter, _ in told] == ["caller", "caller"]
    assert all(isinstance(outcome, UnavailableError) for _, outcome in told)
    assert stage.dialog.wake_ns > stage.script.now + 1000 * SECOND


def test_a_caller_who_must_change_something_is_told() -> None:
    """No node of this cluster listens at the addresses."""
    script = Script(features=wire.FEATURES)
    script.dialog.watch(script.now, point(0), digest(), "caller")
    script.pass_time(0)
    for seed in SEEDS:
        script.send(script.establish(seed), wire.Goodbye("wrong-cluster", "another cluster"))
    ((waiter, outcome),) = script.dialog.watches.told
    assert waiter == "caller"
    assert isinstance(outcome, UsageError)


def test_a_watch_leaves_what_is_kept_of_the_session() -> None:
    near = NearCache(10, lambda: 5 * SECOND, eager=True)
    stage = Stage(near=near)
    near.filling[digest()] = Filling(None)  # type: ignore[arg-type]  # of any connection
    stage.watch()
    assert digest() in near.filling


def test_a_crowded_dialog_registers_later() -> None:
    stage = Stage(operations_max=2)
    stage.script.submit("get")
    stage.script.submit("get", 2)
    stage.watch()
    assert stage.take(stage.a) == []
    for request in stage.take(stage.a, wire.Get):
        stage.script.send(stage.a, wire.Missing(request.request_id))
    stage.script.pass_time(600 * MS)
    assert stage.register(stage.a) == [digest()]
