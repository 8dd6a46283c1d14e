"""How the dialog sends requests, follows the map and lives with connections that break."""

from itertools import pairwise

import pytest

from greenroom import wire
from greenroom.cluster_map import ClusterMap, MapDelta, NodeEntry
from greenroom.dialog import operations
from greenroom.errors import UnavailableError, UsageError
from greenroom.framing import encode_frames
from tests.store.client.harness import (
    ADDRESS,
    MS,
    SECOND,
    SEEDS,
    A,
    B,
    Script,
    cluster_map,
    connected,
    point,
)


def test_first_request_finds_its_way() -> None:
    script = Script()
    number = script.submit("update", shard=1)
    assert sorted(script.opening.values()) == sorted(SEEDS)
    script.send(script.accept(SEEDS[0]), wire.MapFull(cluster_map()))
    assert set(script.opening.values()) == {SEEDS[1], ADDRESS[B]}
    link = script.establish(ADDRESS[B])
    assert script.sent[link][0].target == B
    assert not script.requests(link), "nothing is sent before the server's hello"
    script.send(link, wire.Hello(wire.PROTOCOL_VERSION, 1, "greenroom", "actor", B))
    [request] = script.requests(link)
    assert (request.request_id, request.age_ms, request.point) == (number, 0, point(1))
    script.send(link, wire.Written(number, 7))
    assert script.outcome(number) == wire.Written(number, 7)


def test_requests_of_one_tick_are_one_write() -> None:
    script, link, _ = connected()
    dialog = script.dialog
    for _ in range(3):
        number = dialog.next_id()
        dialog.submit(script.now, wire.Get(number, point(0), bytes(32)), operations.GET, number)
    script.settle()
    assert script.writes == [link]
    assert len(script.requests(link)) == 3


def test_low_is_the_lowest_id_still_waited_for() -> None:
    script, link, _ = connected()
    first, second = script.submit("update"), script.submit("update")
    assert [each.low for each in script.requests(link)] == [first, first]
    script.send(link, wire.Written(second, 1))
    assert script.dialog.low == first
    script.send(link, wire.Written(first, 1))
    assert script.dialog.low == second + 1


def test_an_id_that_was_never_submitted_does_not_hold_low_back() -> None:
    script, link, _ = connected()
    script.dialog.next_id()
    number = script.submit("update")
    script.send(link, wire.Written(number, 1))
    assert script.dialog.low == number + 1


def test_replies_may_come_in_any_order_and_in_any_pieces() -> None:
    script, link, _ = connected()
    numbers = [script.submit("get") for _ in range(5)]
    data = bytes(encode_frames([wire.Missing(number) for number in reversed(numbers)]))
    for index in range(len(data)):
        script.send(link, data[index : index + 1])
    assert [script.outcome(number) for number in numbers] == [wire.Missing(number) for number in numbers]


# --- following the map -----------------------------------------------------------------------------------


def test_moved_shard_takes_its_mutations_along_after_a_reset() -> None:
    """The old connection goes first; what other shards had on it is repeated on a new one, under its ids."""
    script, old, other = connected("AAAB")
    moved, staying, read = script.submit("update", 0), script.submit("create", 1), script.submit("get", 2)
    script.now += 30 * MS
    script.move("BAAB")
    assert script.aborted == [old]
    [repeated] = script.requests(other)
    assert (repeated.request_id, repeated.age_ms) == (moved, 30)
    fresh = script.accept(ADDRESS[A])
    assert fresh != old
    assert [each.request_id for each in script.requests(fresh)] == [staying, read]
    assert script.requests(fresh)[0].age_ms == 30
    script.send(old, wire.Written(moved, 1))
    assert moved not in script.outcomes, "a reset connection is not listened to"
    script.send(other, wire.Written(moved, 2))
    assert script.outcome(moved).version == 2


def test_moved_read_needs_no_reset() -> None:
    script, old, other = connected("AAAB")
    number = script.submit("get", 0)
    script.move("BAAB")
    assert not script.aborted
    assert [each.request_id for each in script.requests(other)] == [number]
    script.send(old, wire.Missing(number))
    assert number not in script.outcomes, "the former primary's answer no longer counts"
    script.send(other, wire.Missing(number))
    assert script.outcome(number) == wire.Missing(number)


def test_redirected_mutation_needs_no_reset() -> None:
    script, old, other = connected("AAAB")
    number = script.submit("update", 0)
    script.send(old, wire.Redirect(number, map_version=2))
    script.move("BAAB")
    assert not script.aborted
    [request] = script.requests(other)
    assert (request.request_id, request.age_ms) == (number, 0), "a refused attempt does not count"


def test_redirect_waits_for_the_map_that_it_names() -> None:
    script, link, _ = connected()
    number = script.submit("update", 0)
    script.send(link, wire.Redirect(number, map_version=2))
    assert len(script.requests(link)) == 1
    script.publish(cluster_map("ABAB", version=2))
    assert len(script.requests(link)) == 2, "the map reached that version and names the same actor"


def test_redirect_under_the_map_held_is_repeated_with_rising_pauses() -> None:
    script, link, _ = connected()
    number = script.submit("update", 0)
    times = []
    while script.now < 4 * SECOND:
        if len(script.requests(link)) > len(times):
            times.append(script.now)
            script.send(link, wire.Redirect(number, map_version=1))
        script.pass_time(MS)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert 1 * MS <= pauses[0] <= 4 * MS
    assert 49 * MS <= pauses[-1] <= 102 * MS


def test_redirect_after_the_map_moved_is_followed_at_once() -> None:
    script, old, other = connected("AAAB")
    read = script.submit("get", 0)
    script.send(old, wire.Redirect(read, map_version=1))
    script.move("BAAB")
    assert [each.request_id for each in script.requests(other)] == [read]


def test_older_map_is_ignored() -> None:
    script, link, other = connected()
    sub = script.number_of(SEEDS[0])
    script.publish(cluster_map("ABAB", version=5))
    script.send(sub, wire.MapFull(cluster_map("BBBB", version=4)))
    script.submit("get", 0)
    assert script.requests(link)
    assert not script.requests(other)


def test_map_of_a_later_lineage_replaces_any_version() -> None:
    script, _, other = connected()
    script.publish(cluster_map("ABAB", version=9))
    script.send(script.number_of(SEEDS[0]), wire.MapFull(cluster_map("BBBB", version=1, lineage=2)))
    script.submit("get", 0)
    assert script.requests(other)


def test_change_that_does_not_continue_asks_for_the_whole_map() -> None:
    script, _, _ = connected()
    sub = script.number_of(SEEDS[0])
    script.sent[sub].clear()
    script.send(sub, wire.MapChange(MapDelta(1, base=7, version=8)))
    assert script.requests(sub) == [wire.Subscribe(0, 0)]
    script.send(sub, wire.MapChange(MapDelta(1, base=8, version=9)))
    assert script.requests(sub) == [wire.Subscribe(0, 0)], "asked once, not for every change"
    assert sub in script.open


@pytest.mark.parametrize(
    "message",
    [
        wire.MapChange(MapDelta(1, 1, 2, shards=((99, cluster_map().shards[0]),))),
        wire.MapChange(MapDelta(1, 1, 2, shards=((-1, cluster_map().shards[0]),))),
        wire.MapFull(cluster_map("ABA", version=9)),
        wire.MapFull(cluster_map("", version=9)),
        wire.MapFull(cluster_map(version=9, cluster="other")),
        wire.Missing(1),
        wire.Hello(wire.PROTOCOL_VERSION, 1, "greenroom", "node", b"x"),
        b"\x00\x00\x00\x01\xc1",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
    ],
)
def test_nonsense_on_a_subscription_ends_only_that(message: object) -> None:
    script, link, _ = connected()
    sub = script.number_of(SEEDS[0])
    script.send(sub, message)
    assert script.aborted == [sub]
    assert script.number_of(SEEDS[1]) in script.open
    number = script.submit("get", 0)
    script.send(link, wire.Missing(number))
    assert script.outcome(number) == wire.Missing(number)


def test_two_subscriptions_and_a_replacement_for_a_lost_one() -> None:
    script, _, _ = connected()
    nodes = {name: NodeEntry(name, f"{name}:1", state) for name, state in (("x", "up"), ("y", "down"))}
    nodes |= cluster_map().nodes
    script.publish(cluster_map(version=2, nodes=nodes))
    assert not script.opening
    script.lose(script.number_of(SEEDS[0]))
    assert list(script.opening.values()) == ["x:1"]
    sub = script.accept("x:1")
    assert script.requests(sub) == [wire.Subscribe(1, 2)]


def test_seeds_stay_fallbacks() -> None:
    script, _, _ = connected()
    script.publish(cluster_map(version=2, nodes={"x": NodeEntry("x", "x:1", "up")}))
    for seed in SEEDS:
        script.lose(script.number_of(seed))
    script.lose(script.number_of("x:1"))
    script.pass_time(100 * MS)
    assert set(script.opening.values()) & set(SEEDS)


def zoned(*zones: str, version: int = 2) -> ClusterMap:
    """A map of the nodes at the seeds and of two more, in these zones."""
    addresses = [*SEEDS, "node3:1", "node4:1"]
    pairs = enumerate(zip(addresses, zones, strict=True))
    nodes = {f"n{number}": NodeEntry(f"n{number}", at, "up", zone) for number, (at, zone) in pairs}
    return cluster_map(version=version, nodes=nodes)


def test_a_store_in_a_zone_follows_there_and_elsewhere() -> None:
    script, _, _ = connected(zone="x")
    script.publish(zoned("y", "y", "x", "x"))
    assert len(script.closed) == 1, "it makes room for a node of its zone"
    (near,) = script.opening.values()
    assert near in {"node3:1", "node4:1"}
    assert script.requests(script.accept(near)) == [wire.Subscribe(1, 2)]
    script.pass_time(5_000 * MS)
    assert len(script.closed) == 1
    far = next(seed for seed in SEEDS if seed in script.open.values())
    script.lose(script.number_of(far))
    assert script.opening.popitem()[1] in SEEDS, "it has one of its zone already"


def test_a_store_whose_zone_is_followed_by_chance_stays() -> None:
    script, _, _ = connected(zone="x")
    script.publish(zoned("y", "x", "x", "x"))
    assert not script.closed
    assert not script.opening


def test_a_lost_node_of_the_zone_is_replaced_by_another_of_it() -> None:
    script, _, _ = connected(zone="x")
    script.publish(zoned("y", "x", "x", "y"))
    script.lose(script.number_of(SEEDS[1]))
    assert list(script.opening.values()) == ["node3:1"]


def test_a_node_of_the_zone_that_cannot_be_reached_is_left() -> None:
    """It would cost a subscription that works, again and again."""
    script, _, _ = connected(zone="x")
    script.publish(zoned("y", "y", "x", "y"))
    script.lose(script.number_of("node3:1"), "connection refused")
    script.send(script.accept(next(iter(script.opening.values()))), wire.MapFull(script.map))
    closed = len(script.closed)
    script.pass_time(10_000 * MS)
    assert len(script.closed) == closed
    assert not script.opening


def test_a_zone_without_nodes_changes_nothing() -> None:
    script, _, _ = connected(zone="z")
    script.publish(zoned("y", "y", "x", "x"))
    assert not script.closed
    assert not script.opening


def test_two_names_of_one_node_are_one_subscription() -> None:
    script = Script()
    script.submit("get")
    script.send(script.accept(SEEDS[0], sender=b"n" * 16), wire.MapFull(cluster_map()))
    double = script.accept(SEEDS[1], sender=b"n" * 16)
    assert script.closed == [double]
    script.pass_time(900 * MS)
    assert SEEDS[1] not in script.opening.values()


def test_silent_subscriptions_are_dropped_when_requests_go_unanswered() -> None:
    script, link, _ = connected()
    subs = [script.number_of(seed) for seed in SEEDS]
    script.submit("get", 0)
    script.pass_time(1600 * MS)
    assert [script.requests(sub)[-1] for sub in subs] == [wire.Subscribe(0, 0)] * 2
    script.pass_time(1100 * MS)
    assert set(script.aborted) == set(subs)
    assert link in script.open


def test_lane_of_a_removed_actor_is_closed() -> None:
    script, old, _ = connected()
    script.move("BBBB")
    assert script.closed == [old]


# --- connections that break ------------------------------------------------------------------------------


def test_lost_connection_is_opened_again_and_its_requests_repeated() -> None:
    script, link, _ = connected()
    write, read = script.submit("update", 0), script.submit("get", 0)
    script.now += 5 * MS
    script.lose(link, "reset")
    script.pass_time(20 * MS)
    fresh = script.accept(ADDRESS[A])
    repeated = script.requests(fresh)
    assert [each.request_id for each in repeated] == [write, read]
    assert repeated[0].age_ms >= 5


def test_refused_connections_are_tried_again_with_rising_pauses() -> None:
    script, link, _ = connected()
    script.submit("get", 0)
    script.lose(link)
    tries = 0
    for _ in range(40):
        script.pass_time(100 * MS)
        for number in [n for n, at in script.opening.items() if at == ADDRESS[A]]:
            tries += 1
            script.lose(number)
    assert 10 <= tries <= 40


def test_connection_that_never_opens_is_given_up() -> None:
    script, link, _ = connected()
    script.submit("get", 0)
    script.lose(link)
    script.pass_time(20 * MS)
    stuck = script.number_of(ADDRESS[A])
    script.pass_time(1100 * MS)
    assert stuck in script.aborted


def test_server_that_never_says_hello_is_given_up() -> None:
    script, link, _ = connected()
    script.submit("get", 0)
    script.lose(link)
    script.pass_time(20 * MS)
    stuck = script.establish(ADDRESS[A])
    script.pass_time(1100 * MS)
    assert stuck in script.aborted
    assert not script.requests(stuck)


@pytest.mark.parametrize(
    "first",
    [
        wire.Goodbye("wrong-target", "follow the map"),
        wire.Hello(wire.PROTOCOL_VERSION + 1, 1, "greenroom", "actor", A),
        wire.Hello(wire.PROTOCOL_VERSION, 1, "other", "actor", A),
        wire.Hello(wire.PROTOCOL_VERSION, 1, "greenroom", "actor", B),
        wire.Missing(3),
        b"\xff" * 8,
    ],
)
def test_refused_hello_applies_nothing(first: object) -> None:
    script, link, _ = connected()
    script.lose(link)
    number = script.submit("create", 0)
    script.pass_time(20 * MS)
    strange = script.establish(ADDRESS[A])
    script.send(strange, first)
    assert not script.requests(strange)
    script.pass_time(6 * SECOND)
    assert isinstance(script.outcome(number), UnavailableError)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00\x00\x00\x02\x92\xc1",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff\xff\xff\xff",
        wire.Written(10_000, 1),
        wire.MapFull(cluster_map("BBBB", version=9)),
        wire.Hello(wire.PROTOCOL_VERSION, 1, "greenroom", "actor", A),
        b"\x00\x00\x10\x00" + b"\x91" * 0x1000,
    ],
)
def test_nonsense_from_an_actor_ends_only_its_connection(nonsense: object) -> None:
    script, link, other = connected()
    number = script.submit("get", 0)
    script.send(link, nonsense)
    assert script.aborted == [link]
    assert other in script.open
    script.pass_time(20 * MS)
    fresh = script.accept(ADDRESS[A])
    script.send(fresh, wire.Missing(number))
    assert script.outcome(number) == wire.Missing(number)


@pytest.mark.parametrize(
    "reply", [wire.Missing, lambda n: wire.Unknowable(n, ""), lambda n: wire.Written(n, 1)]
)
def test_reply_of_the_wrong_sort_is_nonsense(reply: object) -> None:
    script, link, _ = connected()
    number = script.submit("get" if reply is not wire.Missing else "update", 0)
    script.send(link, reply(number))
    assert script.aborted == [link]
    assert number not in script.outcomes
    script.pass_time(6 * SECOND)
    script.outcome(number)


# --- limits ----------------------------------------------------------------------------------------------


def test_too_large_frame_is_refused_before_anything_is_sent() -> None:
    script, link, _ = connected(frame_bytes_max=200)
    number = script.dialog.next_id()
    request = wire.Update(number, number, 0, point(0), bytes(32), None, 1, "", bytes(200), None)
    with pytest.raises(UsageError, match="frame limit"):
        script.dialog.submit(script.now, request, operations.UPDATE, number)
    script.settle()
    assert not script.requests(link)
    small = script.submit("update")
    script.send(link, wire.Written(small, 1))
    assert script.dialog.low == small + 1, "the refused one's id holds nothing back"


def test_too_many_operations_are_refused() -> None:
    script, _, _ = connected(operations_max=3)
    for _ in range(3):
        script.submit("get")
    with pytest.raises(UnavailableError, match="operations_max=3"):
        script.submit("get")
    with pytest.raises(UnavailableError, match="operations_max=3"):
        script.submit("clean")


def test_full_connection_makes_later_requests_wait() -> None:
    script, link, _ = connected(link_bytes_max=120)
    numbers = [script.submit("update") for _ in range(5)]
    assert 1 <= len(script.requests(link)) <= 3
    for answered, number in enumerate(numbers, 1):
        script.send(link, wire.Written(number, 1))
        assert len(script.requests(link)) - answered <= 2
    assert [each.request_id for each in script.requests(link)] == numbers


def test_bytes_that_wait_are_limited() -> None:
    script = Script(waiting_bytes_max=180)
    for _ in range(3):
        script.submit("update")
    with pytest.raises(UnavailableError, match="overloaded"):
        script.submit("update")


def test_idle_dialog_asks_for_nothing() -> None:
    script = Script()
    assert not script.opening
    assert script.dialog.wake_ns > 1 << 60
