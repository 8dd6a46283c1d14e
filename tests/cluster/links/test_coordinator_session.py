"""A session with the coordinator: what it says on each connection, which map it follows, what it repeats."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from greenroom import wire
from greenroom.cluster_map import (
    ActorEntry,
    ClusterMap,
    MapDelta,
    NodeEntry,
    ShardEntry,
    delta_between,
)
from greenroom.testimony import Addition, Testimony
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.coordination.messages import (
    SHOW_DIRECTORY,
    Accepted,
    Decided,
    Decision,
    Heartbeat,
    KnownShard,
    Proposal,
    Propose,
    Rejected,
    RemoveNode,
    ShowDirectory,
)
from greenroom_cluster.links import coordinator_session
from greenroom_cluster.links.coordinator_session import (
    PROPOSALS_PER_MESSAGE,
    Answered,
    Beat,
    Call,
    Connected,
    CoordinatorSession,
    Decisions,
    Flush,
    FlushSoon,
    ForeignMap,
    GiveUp,
    Lost,
    MapSeen,
    Offer,
    OlderMap,
    Overdue,
    ProposalsRejected,
    Received,
    Refused,
    Remembered,
    Remind,
    SessionDown,
    SessionUp,
    Transmit,
)

ME = b"m" * 16
IDENTITY = b"i" * 16
FIRST = first_map("test", 2, 2, IDENTITY)


def with_node(former: ClusterMap, name: str) -> ClusterMap:
    nodes = {**former.nodes, name: NodeEntry(name, "n:1", "up")}
    return replace(former, version=former.version + 1, nodes=nodes)


SECOND = with_node(FIRST, "one")
THIRD = with_node(SECOND, "two")
FOREIGN = first_map("test", 2, 2, b"o" * 16)
GONE_BACK = replace(THIRD, version=THIRD.version + 5)
AHEAD = replace(SECOND, shards=(replace(SECOND.shards[0], epoch=7), SECOND.shards[1]))


def proposal(number: int) -> Proposal:
    return Proposal(0, 0, number.to_bytes(8, "big"), "start", ME, ())


def sent(effects: Sequence[Any]) -> list[wire.Frame]:
    return [message for effect in effects if isinstance(effect, Transmit) for message in effect.messages]


def session(*, knows: ClusterMap | None = None, up: bool = True) -> CoordinatorSession:
    """One that knows this map, and is up if it may be."""
    one = CoordinatorSession(ME)
    if knows is not None:
        one.step(Connected())
        one.step(Received([wire.MapFull(knows)]))
        if not up:
            one.step(Lost())
    return one


@pytest.mark.parametrize(
    ("knows", "subscription"),
    [
        (None, wire.Subscribe(0, 0)),
        (SECOND, wire.Subscribe(SECOND.lineage, SECOND.version, SECOND.epochs, IDENTITY)),
    ],
)
def test_it_subscribes_first_naming_the_map_it_knows(
    knows: ClusterMap | None, subscription: wire.Subscribe
) -> None:
    assert sent(session(knows=knows, up=False).step(Connected())) == [subscription]


@pytest.mark.parametrize(
    ("knows", "comes", "follows"),
    [
        (None, FIRST, [MapSeen(FIRST), SessionUp()]),
        (FIRST, SECOND, [MapSeen(SECOND), SessionUp()]),
        (FIRST, FIRST, [SessionUp()]),
        (SECOND, FIRST, [OlderMap((1, 2), (1, 1))]),
        (AHEAD, GONE_BACK, [OlderMap((1, 2), (1, 8))]),
        (FIRST, FOREIGN, [ForeignMap()]),
        (FIRST, replace(FOREIGN, lineage=2), [ForeignMap()]),
    ],
)
def test_the_whole_map_brings_it_up_unless_it_is_not_to_be_followed(
    knows: ClusterMap | None, comes: ClusterMap, follows: list[Any]
) -> None:
    one = session(knows=knows, up=False)
    one.step(Connected())
    assert not one.up
    assert one.step(Received([wire.MapFull(comes)])) == follows
    assert one.up == (SessionUp() in follows)
    assert one.map == (comes if one.up else knows)


REMEMBERED = Remembered(SECOND.lineage, SECOND.version, AHEAD.epochs)


def test_until_a_map_has_come_it_names_what_its_directory_remembers() -> None:
    one = CoordinatorSession(ME, REMEMBERED)
    told = Testimony((0,))
    assert sent(one.step(Connected())) == [
        wire.Subscribe(SECOND.lineage, SECOND.version, AHEAD.epochs, b"", told)
    ]


SHOWN = ShowDirectory("a/0", b"d" * 16, 3, (ME,), IDENTITY, 2, ())


def test_what_its_directory_knows_is_shown_only_when_asked() -> None:
    one = CoordinatorSession(ME, replace(REMEMBERED, shown=(SHOWN,)))
    (subscribe,) = sent(one.step(Connected()))
    for code, shown in ((SHOW_DIRECTORY, [SHOWN]), ("adopting", []), (SHOW_DIRECTORY, [SHOWN])):
        one.step(Received([wire.Goodbye(code, "")]))
        one.step(Lost())
        assert sent(one.step(Connected())) == [*shown, subscribe]


def test_a_supervisor_says_whose_it_is_only_when_asked() -> None:
    one = CoordinatorSession(ME, keeper_of="a")
    (subscribe,) = sent(one.step(Connected()))
    for code, beats in ((SHOW_DIRECTORY, [Heartbeat("a", 0, 0)]), ("adopting", [])):
        one.step(Received([wire.Goodbye(code, "")]))
        one.step(Lost())
        assert sent(one.step(Connected())) == [*beats, subscribe]
    one.step(Received([wire.Goodbye(SHOW_DIRECTORY, "")]))
    one.step(Lost())
    one.step(Connected())
    one.step(Received([wire.MapFull(FIRST)]))
    one.step(Lost())
    assert not any(isinstance(each, Heartbeat) for each in sent(one.step(Connected())))


X, Y = b"x" * 16, b"y" * 16
PRIMARY = replace(
    SECOND,
    actors={X: ActorEntry(X, "x", "x/0", "x:1", "up", "host", 1, 1)},
    shards=(ShardEntry(7, ME, (), b"n" * 8, ()), SECOND.shards[1]),
)


def said(one: CoordinatorSession) -> Testimony | None:
    """What it tells when it connects again."""
    one.step(Lost())
    (subscribe,) = sent(one.step(Connected()))
    assert isinstance(subscribe, wire.Subscribe)
    return subscribe.testimony


def proposes(one: CoordinatorSession, kind: str, *backups: bytes, number: int = 1) -> Proposal:
    made = Proposal(0, 7, number.to_bytes(8, "big"), kind, ME, backups)
    one.step(Offer([made]))
    one.step(Flush())
    return made


@pytest.mark.parametrize("applied", [True, False])
def test_it_tells_whom_it_would_add_while_the_map_shows_no_later_epoch(*, applied: bool) -> None:
    one = session(knows=PRIMARY)
    made = proposes(one, "add", X)
    added = Testimony((), (Addition(0, X, "x/0"),))
    assert said(one) == added
    one.step(Received([wire.MapFull(PRIMARY), Decided(1, (Decision(0, made.nonce, applied, ""),))]))
    assert said(one) == added


def test_a_change_at_an_epoch_that_is_over_adds_nobody() -> None:
    one = session(knows=PRIMARY)
    proposes(one, "add", X)
    after = replace(PRIMARY, version=9, shards=(replace(PRIMARY.shards[0], epoch=8), PRIMARY.shards[1]))
    one.step(Received([wire.MapFull(after)]))
    assert said(one) is None


def test_other_changes_add_nobody_and_what_was_not_sent_does_not_count() -> None:
    one = session(knows=PRIMARY)
    proposes(one, "reaffirm")
    one.step(Offer([Proposal(0, 7, b"2" * 8, "add", ME, (X,))]))
    assert said(one) is None


@pytest.mark.parametrize(("epoch", "told"), [(6, True), (7, True), (8, False)])
def test_it_tells_whom_its_directory_would_have_added(epoch: int, *, told: bool) -> None:
    """Also when it follows a map, for that may be an older one."""
    knows = KnownShard(0, 1, 2, 7, b"n" * 8, ((ME, "a/0"),), ((Y, "y/0"),))
    one = CoordinatorSession(ME, replace(REMEMBERED, shown=(replace(SHOWN, known=(knows,)),)))
    addition = Addition(0, Y, "y/0")
    assert said(one) == Testimony((0,), (addition,))
    shards = (replace(AHEAD.shards[0], epoch=epoch), AHEAD.shards[1])
    one.step(Received([wire.MapFull(replace(AHEAD, version=9, shards=shards))]))
    assert said(one) == Testimony((0,), (addition,) if told else ())


def test_who_has_proposed_more_than_can_be_told_speaks_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator_session, "ADDITIONS_MAX", 1)
    knows = KnownShard(0, 1, 2, 7, b"n" * 8, ((ME, "a/0"),), ((X, "x/0"), (Y, "y/0")))
    one = CoordinatorSession(ME, replace(REMEMBERED, shown=(replace(SHOWN, known=(knows,)),)))
    assert said(one) == Testimony((), (Addition(0, Y, "y/0"),))


def test_whoever_follows_a_map_does_not_show_what_was_before() -> None:
    one = CoordinatorSession(ME, Remembered(0, 0, (), shown=(SHOWN,)))
    one.step(Connected())
    one.step(Received([wire.MapFull(FIRST)]))
    one.step(Received([wire.Goodbye(SHOW_DIRECTORY, "")]))
    one.step(Lost())
    assert SHOWN not in sent(one.step(Connected()))


@pytest.mark.parametrize(
    ("comes", "followed"),
    [
        (AHEAD, True),
        (replace(THIRD, lineage=2), True),
        (THIRD, False),
        (FIRST, False),
    ],
)
def test_a_map_that_lacks_what_is_remembered_is_not_followed(comes: ClusterMap, *, followed: bool) -> None:
    one = CoordinatorSession(ME, REMEMBERED)
    one.step(Connected())
    effects = one.step(Received([wire.MapFull(comes)]))
    assert (MapSeen(comes) in effects) == followed
    assert any(isinstance(effect, OlderMap) for effect in effects) != followed


def test_a_directory_of_another_cluster_follows_no_map() -> None:
    """Lineage, version and epochs of its map say nothing about this one: it would give up what it keeps."""
    one = CoordinatorSession(ME, Remembered(1, 1, (0,), b"other" * 3))
    assert sent(one.step(Connected())) == [wire.Subscribe(1, 1, (0,), b"other" * 3)]
    assert one.step(Received([wire.MapFull(AHEAD)])) == [ForeignMap()]
    assert one.map is None


def test_a_map_with_fewer_shards_than_are_remembered_is_not_followed() -> None:
    assert Remembered(1, 1, (0, 0, 1)).is_later_than(FIRST)
    assert not Remembered(1, 1, (0, 0, 0)).is_later_than(FIRST)


ASKS_ANEW = Transmit((wire.Subscribe(0, 0, (), IDENTITY),))


@pytest.mark.parametrize(
    ("knows", "delta", "follows"),
    [
        (FIRST, delta_between(FIRST, SECOND), [MapSeen(SECOND)]),
        (SECOND, delta_between(FIRST, SECOND), []),
        (FIRST, delta_between(SECOND, THIRD), [ASKS_ANEW]),
        (
            AHEAD,
            replace(delta_between(AHEAD, THIRD), version=AHEAD.version + 1),
            [OlderMap((1, 2), (1, 3))],
        ),
    ],
)
def test_a_change_is_applied_asked_about_or_not_followed(
    knows: ClusterMap, delta: MapDelta, follows: list[Any]
) -> None:
    assert session(knows=knows).step(Received([wire.MapChange(delta)])) == follows


def test_nothing_is_read_behind_what_ends_the_connection() -> None:
    goodbye = wire.Goodbye("older-map", "a later map is in use")
    one = session(knows=FIRST)
    assert one.step(Received([goodbye, wire.MapFull(SECOND)])) == [
        Refused("older-map", "a later map is in use")
    ]
    assert one.map == FIRST


def test_proposals_wait_for_the_map_of_this_connection() -> None:
    """What is offered earlier is dropped: its maker offers it again when the session is up."""
    one = session(knows=FIRST, up=False)
    for event in (Offer([proposal(1)]), Connected(), Offer([proposal(2)])):
        assert not any(isinstance(effect, FlushSoon) for effect in one.step(event))
    one.step(Received([wire.MapFull(FIRST)]))
    assert one.step(Flush()) == []
    assert one.step(Offer([proposal(3)])) == [FlushSoon()]
    assert [message.proposals for message in sent(one.step(Flush())) if isinstance(message, Propose)] == [
        (proposal(3),)
    ]


def test_what_is_offered_at_one_moment_goes_out_together_and_once() -> None:
    one = session(knows=FIRST)
    assert one.step(Offer([proposal(1), proposal(2)])) == [FlushSoon()]
    assert one.step(Offer([proposal(2), proposal(3)])) == []
    assert sent(one.step(Flush())) == [Propose(1, ME, tuple(map(proposal, (1, 2, 3))))]
    assert one.step(Flush()) == []


def test_proposals_are_cut_into_messages() -> None:
    one = session(knows=FIRST)
    one.step(Offer([proposal(number) for number in range(PROPOSALS_PER_MESSAGE + 1)]))
    sizes = [len(message.proposals) for message in sent(one.step(Flush())) if isinstance(message, Propose)]
    assert sizes == [PROPOSALS_PER_MESSAGE, 1]


@pytest.mark.parametrize(("knows", "follows"), [(FIRST, [SessionDown()]), (None, [])])
def test_it_goes_down_only_if_it_was_up(knows: ClusterMap | None, follows: list[Any]) -> None:
    one = session(knows=knows)
    assert one.step(Lost()) == follows
    assert not one.up


def test_proposals_are_lost_with_the_connection() -> None:
    one = session(knows=FIRST)
    one.step(Offer([proposal(1)]))
    one.step(Lost())
    one.step(Connected())
    one.step(Received([wire.MapFull(FIRST)]))
    assert one.step(Flush()) == []


def test_a_call_is_sent_on_every_connection_until_it_is_answered() -> None:
    one = session()
    assert one.step(Call("call", lambda number: RemoveNode(number, "one"), 3.0)) == [Remind("call", 3.0)]
    asked = RemoveNode(1, "one")
    assert asked in sent(one.step(Connected()))
    one.step(Lost())
    assert asked in sent(one.step(Connected()))
    assert one.step(Received([Accepted(1)])) == [Answered("call", Accepted(1))]
    assert one.step(Overdue("call")) == []
    one.step(Lost())
    assert asked not in sent(one.step(Connected()))


def test_a_call_without_an_answer_ends_when_it_is_overdue() -> None:
    one = session()
    one.step(Call("call", lambda number: RemoveNode(number, "one")))
    one.step(Call("another", lambda number: RemoveNode(number, "two")))
    assert one.step(Overdue("call")) == [Answered("call", None)]
    assert sent(one.step(Connected()))[1:] == [RemoveNode(2, "two")]
    assert one.step(Received([Accepted(1)])) == []


def test_a_call_that_was_given_up_is_sent_no_more() -> None:
    one = session()
    one.step(Connected())
    assert sent(one.step(Call("call", lambda number: RemoveNode(number, "one")))) == [RemoveNode(1, "one")]
    one.step(GiveUp("call"))
    assert one.step(Received([Accepted(1)])) == []
    one.step(Lost())
    assert sent(one.step(Connected())) == [wire.Subscribe(0, 0)]


def test_decisions_and_rejected_proposals_are_handed_on() -> None:
    decisions = (Decision(0, b"n" * 8, True, ""),)
    messages = [Decided(1, decisions), Rejected(2, "not subscribed")]
    assert session(knows=FIRST).step(Received(messages)) == [
        Decisions(decisions),
        ProposalsRejected("not subscribed"),
    ]


def test_a_heartbeat_names_the_map_and_needs_a_connection() -> None:
    one = session(knows=FIRST)
    beat = Heartbeat("one", FIRST.lineage, FIRST.version, (), IDENTITY)
    assert sent(one.step(Beat("one"))) == [beat]
    one.step(Lost())
    assert one.step(Beat("one")) == []
