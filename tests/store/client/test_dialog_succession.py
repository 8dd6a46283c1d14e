"""A store whose cluster was started anew: when it goes over to the new one, and when not."""

from typing import Any

import pytest

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, MapDelta, NodeEntry, ShardEntry
from greenroom.dialog.succession import SILENCE_NS
from greenroom.errors import UnavailableError, UsageError
from tests.store.client.harness import ADDRESS, SECOND, SEEDS, A, B, Script, cluster_map

OLD, NEW = b"o" * 16, b"n" * 16
C = b"C" * 16
THERE = "10.0.0.1:1"


class Place:
    """What listens at each address: the old cluster, the new one, one of another name, or nobody."""

    def __init__(self) -> None:
        self.script = script = Script()
        script.map = old_map()
        script.submit("check", token="first")
        self.at = dict.fromkeys((*SEEDS, *ADDRESS.values()), "old")
        self.new = new_map()
        script.reaction = self.react
        for address in SEEDS:
            self.react(address)
        for address in ADDRESS.values():
            self.react(address)
        for link in list(script.open):
            for request in script.requests(link):
                if isinstance(request, wire.ListByUser):
                    script.send(link, wire.Listing(request.request_id, request.shards, ()))
        assert isinstance(script.outcome("first"), wire.Listing)

    @property
    def held(self) -> ClusterMap:
        router = self.script.dialog._follower.router
        assert router is not None
        return router.map

    def react(self, address: str) -> None:
        script, who = self.script, self.at[address]
        if address not in script.opening.values():
            return
        if who == "nobody":
            script.lose(script.number_of(address))
        elif who == "silent":
            pass
        elif who == "other name":
            script.send(script.establish(address), wire.Goodbye("wrong-cluster", "another cluster"))
        elif address in SEEDS:
            shown = {"old": script.map, "new": self.new, "unknown": cluster_map(version=7)}[who]
            script.send(script.accept(address), wire.MapFull(shown))
        else:
            number = script.establish(address)
            target = script.sent[number][0].target
            if target in ({A, B} if who == "old" else {C}):
                script.send(number, wire.Hello(wire.PROTOCOL_VERSION, 1, "greenroom", "actor", target))
            else:
                script.send(number, wire.Goodbye("wrong-target", "another process answers here now"))

    def end(self, *addresses: str, then: str = "nobody") -> None:
        """Whoever listens at these addresses ends, and his connections with him."""
        for address in addresses:
            self.at[address] = then
            for number in [n for n, at in self.script.open.items() if at == address]:
                self.script.lose(number, "it closed the connection")

    def end_all(self, then: str = "nobody") -> None:
        self.end(*self.at, then=then)


def old_map(**changes: Any) -> ClusterMap:
    return cluster_map("ABAB", version=40, identity=OLD, **changes)


def new_map(version: int = 3, shards: int = 4, **changes: Any) -> ClusterMap:
    return ClusterMap(
        "greenroom",
        1,
        version,
        2,
        {"n0": NodeEntry("n0", SEEDS[0], "up"), "n1": NodeEntry("n1", SEEDS[1], "up")},
        {C: ActorEntry(C, "n0", "n0/0", THERE, "up", "h", 2, 2)},
        (ShardEntry(1, C, (), b"", ()),) * shards,
        **{"identity": NEW, **changes},
    )


@pytest.mark.parametrize("version", [3, 40, 41, 900])
@pytest.mark.parametrize("shards", [1, 2, 4, 8, 64])
def test_a_cluster_started_anew_is_gone_over_to(version: int, shards: int) -> None:
    place = Place()
    place.new = new_map(version, shards)
    place.end_all()
    place.script.pass_time(SECOND)
    place.end_all(then="new")
    place.script.pass_time(4 * SECOND)
    assert place.held == place.new
    number = place.script.submit("get", 3)
    place.react(THERE)
    [request] = place.script.requests(place.script.number_of(THERE))[-1:]
    place.script.send(place.script.number_of(THERE), wire.Missing(request.request_id))
    assert place.script.outcome(number) == wire.Missing(number)
    [told] = place.script.dialog.notices
    assert "started anew" in told


def test_what_waits_is_answered_by_the_new_cluster() -> None:
    place = Place()
    place.end_all(then="new")
    read, write, count = (place.script.submit(name) for name in ("get", "create", "delete_by_user"))
    place.script.pass_time(4 * SECOND)
    link = place.script.number_of(THERE)
    asked = {each.request_id: each for each in place.script.requests(link)}
    assert set(asked) == {read, write, count}
    place.script.send(
        link,
        wire.Missing(read),
        wire.Written(write, 1),
        wire.Counted(count, tuple((shard, 1) for shard in asked[count].shards)),
    )
    assert place.script.outcome(write) == wire.Written(write, 1)
    assert place.script.outcome(count).counts == ((0, 4),)


def test_counts_of_the_former_cluster_are_not_added() -> None:
    place = Place()
    number = place.script.submit("delete_by_user")
    link = place.script.number_of(ADDRESS[A])
    [request] = [each for each in place.script.requests(link) if isinstance(each, wire.DeleteByUser)]
    place.script.send(link, wire.Counted(number, tuple((shard, 9) for shard in request.shards)))
    place.end_all(then="new")
    place.script.pass_time(4 * SECOND)
    link = place.script.number_of(THERE)
    [request] = [each for each in place.script.requests(link) if isinstance(each, wire.DeleteByUser)]
    assert sorted(request.shards) == [0, 1, 2, 3]
    place.script.send(link, wire.Counted(number, tuple((shard, 1) for shard in request.shards)))
    assert place.script.outcome(number).counts == ((0, 4),)


@pytest.mark.parametrize("alive", [SEEDS[0], ADDRESS[A], ADDRESS[B]])
def test_while_anybody_of_the_cluster_answers_its_map_is_kept(alive: str) -> None:
    place = Place()
    place.end(*(address for address in place.at if address != alive), then="new")
    place.script.pass_time(30 * SECOND)
    assert place.held.identity == OLD
    place.end(alive, then="new")
    place.script.pass_time(SILENCE_NS - SECOND // 2)
    assert place.held.identity == OLD, "it has answered until just now"
    place.script.pass_time(3 * SECOND)
    assert place.held.identity == NEW


@pytest.mark.parametrize("late", [SEEDS[1], ADDRESS[A]])
def test_one_that_was_not_connected_is_tried_first(late: str) -> None:
    """Nothing was sent to the second seed's node or to an actor of late: that is no silence."""
    place = Place()
    place.end(*place.at, then="new")
    place.at[late] = "old"
    place.script.pass_time(30 * SECOND)
    assert place.held.identity == OLD


def test_an_address_that_is_silent_counts_only_once_it_was_tried_in_vain() -> None:
    place = Place()
    place.end_all(then="silent")
    place.end(SEEDS[0], then="new")
    place.script.pass_time(SILENCE_NS // 2)
    assert place.held.identity == OLD
    place.script.pass_time(10 * SECOND)
    assert place.held.identity == NEW


def test_a_short_restart_of_the_same_cluster_changes_nothing() -> None:
    place = Place()
    place.end_all()
    place.script.pass_time(10 * SECOND)
    place.end_all(then="old")
    place.script.map = old_map()
    place.script.pass_time(3 * SECOND)
    assert place.held.identity == OLD
    assert not place.script.dialog.notices


def test_a_change_of_another_clusters_map_is_never_applied() -> None:
    """Its base may be the very version that is held."""
    place = Place()
    place.new = new_map(version=40)
    place.end(SEEDS[0], then="new")
    number = place.script.number_of(SEEDS[1])
    place.script.pass_time(2 * SECOND)
    held = place.held
    change = wire.MapChange(MapDelta(1, 40, 41, shards=((0, ShardEntry(2, C, (), b"", ())),)))
    for link in [n for n in place.script.sent if n != number]:
        place.script.send(link, change)
    assert place.held is held


def test_a_map_without_identity_is_compared_by_lineage_and_version() -> None:
    """A node of a former release passes the map on without it."""
    place = Place()
    place.script.send(place.script.number_of(SEEDS[0]), wire.MapFull(cluster_map("BBBB", version=41)))
    assert place.held.version == 41
    place.script.send(place.script.number_of(SEEDS[1]), wire.MapFull(old_map()))
    assert place.held.version == 41


def test_another_clusters_name_is_a_mistake_once_ours_is_silent() -> None:
    """A `UsageError` comes only when no process of our own cluster answers."""
    place = Place()
    place.end_all(then="other name")
    early = place.script.submit("get")
    place.script.pass_time(SILENCE_NS - SECOND // 2)
    assert early not in place.script.outcomes
    place.script.pass_time(2 * SECOND)
    assert isinstance(place.script.outcome(early), UsageError)
    late = place.script.submit("get")
    assert isinstance(place.script.outcome(late), UsageError)
    assert "cluster='greenroom'" in str(place.script.outcome(late))
    place.end_all(then="new")
    place.script.pass_time(2 * SECOND)
    assert place.held.identity == NEW


def test_one_node_of_another_name_is_no_mistake_while_others_are_only_away() -> None:
    place = Place()
    place.end_all()
    place.end(SEEDS[0], then="other name")
    number = place.script.submit("get")
    place.script.pass_time(20 * SECOND)
    assert isinstance(place.script.outcome(number), UnavailableError)


def test_a_node_that_brings_no_map_does_not_keep_others_from_being_tried() -> None:
    script = (place := Place()).script
    place.end_all()
    script.reaction = None
    script.pass_time(SECOND)
    link = script.accept(SEEDS[0])
    script.pass_time(2 * SECOND)
    assert link in script.aborted
