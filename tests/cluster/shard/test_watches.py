"""Who is told by a primary that a session has ended, and when."""

from typing import Any

import pytest

from greenroom import wire
from greenroom.ending_messages import (
    SessionEnded,
    Unwatch,
    Unwatched,
    WatchBeacon,
    WatchEcho,
    Watching,
    WatchSession,
    heard,
)
from greenroom.ids import listed_as
from greenroom.near_messages import IN_ANY_CASE, GetNear, NearAck, NearBeacon
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.endings import watchers
from greenroom_cluster.shard.messages import BeaconOk
from greenroom_cluster.shard.settings import HostSettings, ns
from tests.cluster.shard.primary_stage import PrimaryStage
from tests.cluster.shard.probe import ALICE, FAR_US, ME, WALL_US, B

WATCHER, OTHER, HOLDER = 1, 2, 4
BOB = b"b" * 32
NEAR_NS = ns(0.3)


class Stage(PrimaryStage):
    """It has the session of ALICE, of the user "alice"."""

    def __init__(self, settings: HostSettings | None = None, expires_us: int = FAR_US) -> None:
        super().__init__(settings)
        self.create(ALICE, "alice", expires_us)

    def create(
        self, digest: bytes, user_id: str | None, expires_us: int = FAR_US, namespace: str = ""
    ) -> None:
        number = self.number()
        self.write(
            wire.Create(number, number, 0, 0, digest, user_id, WALL_US, expires_us, None, "", b"\x80"),
            namespace=namespace,
        )

    def watch(self, connection: int = WATCHER, digest: bytes = ALICE, namespace: str = "") -> Any:
        """Watch a session; return what is answered."""
        (answer,) = self.ask(connection, WatchSession(self.number(), 0, digest), namespace=namespace)
        return answer

    def delete(self, *, commit: bool = True, namespace: str = "") -> None:
        number = self.number()
        self.write(wire.Delete(number, number, 0, 0, ALICE), commit=commit, namespace=namespace)

    def wait(self, seconds: float) -> None:
        """Let time pass; the backup acknowledges all."""
        for _ in range(round(seconds / 0.2)):
            self.probe.now_ns += ns(0.2)
            self.probe.wall_us += 200_000
            self.note(
                self.probe.step(ins.PeerMessages(B, [BeaconOk(self.probe.now_ns, 0, (), near_ns=NEAR_NS)]))
            )
            self.note(self.probe.step(ins.Tick()))
            self.commit()

    def told(self, connection: int = WATCHER) -> list[tuple[bytes, str]]:
        """What was told on a connection: of whom, and why."""
        return [
            (each.digest, heard(each).reason)
            for each in self.said.get(connection, [])
            if isinstance(each, SessionEnded)
        ]

    @property
    def watched(self) -> int:
        return self.probe.host._resources.watchers.count


def watched(stage: Stage | None = None) -> Stage:
    """A stage on which WATCHER watches the session of ALICE."""
    stage = stage or Stage()
    assert stage.watch() == Watching(stage.numbers, is_full=False)
    return stage


def test_a_deletion_is_told_once_it_is_committed() -> None:
    stage = watched()
    stage.delete(commit=False)
    assert stage.told() == []
    stage.commit()
    assert stage.told() == [(ALICE, "logout")]
    assert stage.watched == 0


def test_changes_are_not_told() -> None:
    stage = watched()
    number = stage.number()
    stage.write(wire.Update(number, number, 0, 0, ALICE, "alice", FAR_US, "", b"\x81\xa1a\x01", None))
    number = stage.number()
    stage.write(wire.Patch(number, number, 0, 0, ALICE, ((("a",), b"\x02"),), (), (), None, None))
    assert stage.told() == []


def test_a_rotation_is_told_of_the_old_id_alone() -> None:
    stage = watched()
    number = stage.number()
    stage.write(wire.Rotate(number, number, 0, 0, ALICE, BOB, (), (), None, None))
    assert stage.told() == [(ALICE, "rotation")]
    assert stage.watch(digest=BOB) == Watching(stage.numbers, is_full=False)


def test_a_logout_everywhere_is_told_to_all_whose_session_it_was() -> None:
    stage = watched()
    stage.create(BOB, "alice")
    stage.watch(OTHER, BOB)
    number = stage.number()
    stage.write(wire.DeleteByUser(number, number, 0, "alice", BOB, (0,)))
    assert stage.told() == [(ALICE, "logout_everywhere")]
    assert stage.told(OTHER) == []


def test_a_logout_everywhere_in_pages_is_told_as_one() -> None:
    stage = watched(Stage(HostSettings(page_max=2)))
    for digest in range(8):
        stage.create(bytes([digest]) * 32, "alice")
        stage.watch(OTHER, bytes([digest]) * 32)
    number = stage.number()
    stage.write(wire.DeleteByUser(number, number, 0, "alice", b"", (0,)))
    stage.wait(1.0)
    assert stage.told() == [(ALICE, "logout_everywhere")]
    assert {reason for _, reason in stage.told(OTHER)} == {"logout_everywhere"}
    assert len(stage.told(OTHER)) == 8


def test_the_end_of_another_device_is_told() -> None:
    stage = watched()
    number = stage.number()
    stage.write(wire.DeleteByHandle(number, number, 0, 0, listed_as(ALICE), "alice"))
    assert stage.told() == [(ALICE, "logout")]


def test_an_expiry_is_told_though_nobody_asks() -> None:
    stage = watched(Stage(expires_us=WALL_US + 2_000_000))
    stage.wait(1.8)
    assert stage.told() == []
    stage.wait(1.6)
    assert stage.told() == [(ALICE, "expiry")]


def test_a_session_that_takes_the_place_of_an_expired_one_ends_that() -> None:
    stage = watched(Stage(expires_us=WALL_US + 200_000))
    stage.probe.now_ns += ns(0.3)
    stage.probe.wall_us += 300_000
    stage.create(ALICE, None)
    assert stage.told() == [(ALICE, "expiry")]


def test_who_asks_for_what_is_gone_is_told_so() -> None:
    stage = Stage()
    stage.delete()
    assert stage.watch() == wire.Missing(stage.numbers)
    assert stage.watched == 0


def test_who_asks_for_what_has_expired_is_told_so_once_that_is_decided() -> None:
    stage = Stage(expires_us=WALL_US + 200_000)
    stage.probe.now_ns += ns(0.3)
    stage.probe.wall_us += 300_000
    assert stage.ask(WATCHER, WatchSession(9, 0, ALICE)) == []
    stage.commit()
    assert stage.said[WATCHER] == [wire.Missing(9)]


def test_a_watch_waits_for_a_lease_like_any_read() -> None:
    stage = Stage()
    stage.probe.after(1.1)
    assert stage.ask(WATCHER, WatchSession(9, 0, ALICE)) == []
    stage.note(stage.probe.step(ins.PeerMessages(B, [BeaconOk(stage.probe.now_ns, 0, ())])))
    assert stage.said[WATCHER] == [Watching(9, is_full=False)]


def test_each_connection_is_told_once() -> None:
    stage = watched()
    stage.watch()
    stage.watch(OTHER)
    assert stage.watched == 2
    stage.delete()
    assert stage.told() == stage.told(OTHER) == [(ALICE, "logout")]


def test_who_watches_no_longer_is_not_told() -> None:
    stage = watched()
    stage.watch(OTHER)
    stage.ask(WATCHER, Unwatch((ALICE, BOB)))
    stage.note(stage.probe.step(ins.ConnectionClosed(OTHER)))
    assert stage.watched == 0
    stage.delete()
    assert stage.told() == stage.told(OTHER) == []


def test_namespaces_are_told_of_their_own() -> None:
    stage = Stage()
    stage.create(ALICE, "alice", namespace="shop")
    stage.watch(WATCHER)
    stage.watch(OTHER, namespace="shop")
    stage.delete(namespace="shop")
    assert stage.told() == []
    assert stage.told(OTHER) == [(ALICE, "logout")], "without the name"
    stage.watch(OTHER, namespace="shop")
    stage.ask(OTHER, Unwatch((ALICE,)), namespace="shop")
    assert stage.watched == 1


def test_who_stops_being_primary_says_that_nothing_is_watched() -> None:
    stage = watched()
    stage.watch(WATCHER, ALICE)
    stage.note(stage.probe.configure(3, (B, ME)))
    assert [each for each in stage.said[WATCHER] if isinstance(each, Unwatched)] == [Unwatched((0,))]
    assert stage.watched == 0
    assert isinstance(stage.watch(), wire.Redirect)


def test_a_beacon_is_answered_with_what_is_sure() -> None:
    stage = watched()
    version = stage.probe.version
    assert stage.ask(WATCHER, WatchBeacon(1)) == [WatchEcho(1, version, is_sure=True)]
    stage.probe.after(1.1)  # the lease is over
    assert stage.ask(WATCHER, WatchBeacon(2)) == [WatchEcho(2, version, is_sure=False)]
    assert stage.ask(OTHER, WatchBeacon(3)) == [WatchEcho(3, version, is_sure=True)], "it watches nothing"


def test_an_actor_watches_no_more_than_it_may() -> None:
    stage = watched(Stage(HostSettings(watches_max=1)))
    assert stage.watch(OTHER) == Watching(stage.numbers, is_full=True)
    warned = [each for each in stage.probe.effects if isinstance(each, fx.Warned)]
    assert "--watches-max" in warned[0].message
    stage.ask(WATCHER, Unwatch((ALICE,)))
    assert stage.watch(OTHER) == Watching(stage.numbers, is_full=False)


def test_a_connection_watches_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "WATCHED_MAX", 1)
    stage = watched()
    stage.create(BOB, None)
    assert stage.watch(digest=BOB) == Watching(stage.numbers, is_full=True)
    assert stage.watch(OTHER, BOB) == Watching(stage.numbers, is_full=False)


class NearStage(Stage):
    """A stage on which HOLDER may show the session of ALICE without asking, and WATCHER watches it."""

    def __init__(self) -> None:
        super().__init__(HostSettings(near_seconds=0.3))
        self.ask(HOLDER, GetNear(self.number(), 0, ALICE, IN_ANY_CASE))
        self.note(self.probe.step(ins.PeerMessages(B, [BeaconOk(self.probe.now_ns, 0, (), near_ns=NEAR_NS)])))
        self.ask(HOLDER, GetNear(self.number(), 0, ALICE, IN_ANY_CASE), NearBeacon(5))
        watched(self)


def test_an_end_is_told_once_nobody_shows_the_session_any_more() -> None:
    stage = NearStage()
    stage.delete()
    assert stage.told() == []
    stage.ask(HOLDER, NearAck(1))
    assert stage.told() == [(ALICE, "logout")]


def test_who_asks_for_a_session_that_others_still_show_waits() -> None:
    stage = NearStage()
    stage.delete()
    assert stage.ask(OTHER, WatchSession(99, 0, ALICE)) == []
    stage.ask(HOLDER, NearAck(1))
    assert stage.said[OTHER] == [wire.Missing(99)]


def test_an_end_that_waits_is_left_to_the_next_primary() -> None:
    stage = NearStage()
    stage.delete()
    stage.note(stage.probe.configure(3, (B, ME)))
    assert stage.told() == []
    assert Unwatched((0,)) in stage.said[WATCHER]
