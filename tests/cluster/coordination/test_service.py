"""In which order a coordinator writes, publishes and answers, as tables."""

from typing import TypeAlias

import pytest

from greenroom import wire
from greenroom.cluster_map import ClusterMap, NodeEntry
from greenroom.errors import InvariantError
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination import service as fx
from greenroom_cluster.coordination.coordinator import CoordinatorSettings
from greenroom_cluster.coordination.messages import Handled
from greenroom_cluster.coordination.service import WAITING_MAX, CoordinationService
from greenroom_cluster.planning.controller import ControllerSettings
from tests.cluster.coordination.builders import SECOND, actor, cluster, durable, inc, shard

START_NS = 10**12
WALL_US = 1_700_000_000_000_000
FIRST = cluster((shard(), shard()))
A, B = NodeEntry("a", "a:1", "up"), NodeEntry("b", "b:1", "up")
PLANNED = cluster((shard(inc("x"), epoch=3, wanted=("a/0",)),), [actor(inc("x"), "a/0")])
SUBSCRIBE = wire.Subscribe(0, 0)

Row: TypeAlias = tuple[str, tuple[Handled, ...] | None, str]
"""On which connection which messages come (None: it closes), or "disk": the write ended; what follows."""


def register(request_id: int, node: NodeEntry) -> m.RegisterNode:
    return m.RegisterNode(request_id, node)


def told(effects: list[fx.ServiceEffect]) -> str:
    """Return effects as words."""
    words = []
    for effect in effects:
        match effect:
            case fx.Persist(map=decided):
                words.append(f"persist {'+'.join(sorted(decided.nodes))}")
            case fx.Publish(map=decided):
                words.append(f"publish {'+'.join(sorted(decided.nodes)) or 'nothing'}")
            case fx.Reply(connection=connection, messages=messages, last=last):
                kinds = " ".join(type(message).__name__.lower() for message in messages)
                words.append(f"{connection}: {kinds}{' and end' if last else ''}")
            case fx.Subscribe(connection=connection):
                words.append(f"{connection}: map")
            case _:
                words.append(type(effect).__name__.lower())
    return ", ".join(words)


STORIES: dict[str, list[Row]] = {
    "a map is written, then published, then answered": [
        ("1", (register(1, A),), "publish nothing, persist a"),
        ("disk", None, "publish a, 1: accepted"),
    ],
    "what comes while a map is written is decided at once afterwards": [
        ("1", (register(1, A),), "publish nothing, persist a"),
        ("2", (register(1, B),), ""),
        ("3", (SUBSCRIBE,), ""),
        ("disk", None, "publish a, 1: accepted, persist a+b"),
        ("disk", None, "publish a+b, 3: map, 2: accepted"),
    ],
    "what changes nothing is answered without the disk": [
        ("1", (SUBSCRIBE,), "publish nothing, 1: map"),
    ],
    "the map is sent once for all that came at once, after what was asked before": [
        ("1", (register(1, A), SUBSCRIBE, SUBSCRIBE, register(2, A)), "publish nothing, persist a"),
        ("disk", None, "publish a, 1: accepted, 1: map, 1: accepted"),
    ],
    "a connection that ended is no reason to write": [
        ("1", (SUBSCRIBE,), "publish nothing, 1: map"),
        ("1", None, ""),
    ],
}


@pytest.mark.parametrize("story", STORIES)
def test_a_coordinator_does_what_the_table_says(story: str) -> None:
    service = begin(FIRST)
    for number, (source, messages, expected) in enumerate(STORIES[story]):
        now_ns = START_NS + number
        if source == "disk":
            effects = service.written(now_ns, WALL_US)
        else:
            connection, sender = int(source), inc(source)
            if messages is None:
                service.close(connection, sender)
            else:
                service.receive(connection, sender, wire.ROLE_PEER, messages)
            effects = service.step(now_ns, WALL_US)
        assert told(effects) == expected, f"row {number}"


def begin(first: ClusterMap, *, proven: bool = True) -> CoordinationService:
    return CoordinationService(
        first, CoordinatorSettings(), ControllerSettings(0.0, 0.0), START_NS, 77, proven=proven
    )


def test_a_map_that_may_be_old_gets_a_version_of_its_own_before_all_else() -> None:
    service = begin(PLANNED, proven=False)
    (persist,) = service.step(START_NS, WALL_US)
    assert isinstance(persist, fx.Persist)
    assert persist.map.version == 77
    assert not persist.vouched
    service.receive(1, inc("x"), wire.ROLE_PEER, (SUBSCRIBE,))
    assert service.step(START_NS, WALL_US) == []
    assert told(service.written(START_NS, WALL_US)) == "publish a, 1: map"


def test_a_map_is_vouched_for_once_all_were_heard() -> None:
    service = begin(PLANNED, proven=False)
    service.step(START_NS, WALL_US)
    service.written(START_NS, WALL_US)
    service.receive(1, inc("x"), wire.ROLE_PEER, (SUBSCRIBE,))
    service.receive(2, inc("s"), wire.ROLE_PEER, (m.Heartbeat("a", 1, 1),))
    assert told(service.step(START_NS, WALL_US)) == "1: map"
    assert told(service.step(START_NS + 3 * SECOND, WALL_US)).startswith("vouch")
    assert "vouch" not in told(service.step(START_NS + 4 * SECOND, WALL_US))


def test_planning_does_not_starve_while_requests_keep_coming() -> None:
    service = begin(FIRST)
    effects = service.step(START_NS, WALL_US)
    service.receive(1, inc("s"), wire.ROLE_PEER, (register(1, A),))
    service.receive(1, inc("s"), wire.ROLE_PEER, (m.RegisterActor(2, actor(inc("x"), "a/0")),))
    effects = service.step(START_NS, WALL_US)
    for number in range(3):
        service.receive(2, inc("t"), wire.ROLE_PEER, (register(number, NodeEntry("b", f"b:{number}", "up")),))
        effects = service.written(START_NS + number, WALL_US)
    (persist,) = (effect for effect in effects if isinstance(effect, fx.Persist))
    assert [entry.wanted for entry in persist.map.shards] == [("a/0",), ("a/0",)]


def test_a_refusal_for_good_ends_the_connection() -> None:
    service = begin(PLANNED)
    service.step(START_NS, WALL_US)
    later = wire.Subscribe(1, 9, (4,))
    service.receive(1, inc("y"), wire.ROLE_PEER, (later,))
    assert told(service.step(START_NS, WALL_US)) == "ask, 1: goodbye and end"


def test_connections_are_read_no_more_when_too_much_waits() -> None:
    service = begin(FIRST)
    heartbeat = m.Heartbeat("a", 1, 1)
    service.receive(1, inc("s"), wire.ROLE_PEER, (heartbeat,) * (WAITING_MAX - 1))
    assert not service.crowded
    service.receive(1, inc("s"), wire.ROLE_PEER, (heartbeat,))
    assert service.crowded
    service.step(START_NS, WALL_US)
    assert not service.crowded


def test_marks_are_written_now_and_then_and_at_the_end() -> None:
    """Each write is a sync, and the map does not change for it."""
    first = cluster((shard(inc("x"), epoch=3),), [durable(inc("x"), "a/0", "dx")])
    service = begin(first)
    written = []
    for seconds in range(25):
        heartbeat = m.Heartbeat("a", 1, 1, marks=((inc("x"), seconds + 2),))
        service.receive(1, inc("s"), wire.ROLE_PEER, (heartbeat,))
        for effect in service.step(START_NS + seconds * SECOND, WALL_US):
            assert not isinstance(effect, fx.Persist)
            if isinstance(effect, fx.KeepMarks):
                written.append((seconds, effect.marks[inc("x")]))
    assert written == [(1, 2), (11, 12), (21, 22)]
    assert service.end() == [fx.KeepMarks({inc("x"): 26})]
    assert service.end() == []


def test_a_disk_that_was_asked_for_nothing_is_not_believed() -> None:
    with pytest.raises(InvariantError):
        begin(FIRST).written(START_NS, WALL_US)


def test_a_node_that_never_answers_does_not_hide_what_others_show() -> None:
    """The claim comes again and again, and so does the question; the verdict must not wait for the last."""
    mine = cluster((shard(inc("x"), epoch=3, wanted=("a/0",)),), [actor(inc("x"), "a/0")], (A, B))
    newer = cluster((shard(inc("x"), epoch=4),), [actor(inc("x"), "a/0")], (A, B), version=9)
    service = begin(mine)
    told_at = []
    for tenths in range(25):
        now_ns = START_NS + tenths * SECOND // 10
        if tenths % 5 == 0:
            service.receive(tenths, inc("y"), wire.ROLE_PEER, (wire.Subscribe(1, 9, (4,)),))
        effects = service.step(now_ns, WALL_US)
        for effect in effects:
            if isinstance(effect, fx.Ask):
                service.show("a:1", newer)
            elif isinstance(effect, fx.Warn) and "older than one already in use" in effect.message:
                told_at.append(tenths)
    assert told_at == [10]
