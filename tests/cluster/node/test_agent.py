"""What a node's supervisor decides, as tables: what happens, and what it wants done then."""

from typing import TypeAlias

import pytest
from msgspec.structs import replace

from greenroom.cluster_map import ActorEntry, NodeEntry, ShardEntry, SuspectRecord
from greenroom.errors import UsageError
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.node import effects as fx
from greenroom_cluster.node import inputs as ins
from greenroom_cluster.node.agent import (
    FAREWELL_SECONDS,
    HEARTBEAT_SECONDS,
    MARKS_SECONDS,
    PREDECESSOR_SECONDS,
    REFUSED_SECONDS,
    RETRY_SECONDS,
    TELL_SECONDS,
    Agent,
    AgentSettings,
    NameTakenError,
)
from greenroom_cluster.node.drain import ALONE_SECONDS
from greenroom_cluster.suspect_records import EXIT_CORE_FAILED, HANG_SECONDS, InHand

NODE = NodeEntry("a", "a:1", "up")
ZONED = replace(NODE, zone="x")
LEAVING = replace(NODE, state="leaving")
OTHER = NodeEntry("b", "b:1", "up")
DRAIN_SECONDS = 10.0
BLANK = first_map("cluster", 2, 2, b"i" * 16)

Row: TypeAlias = tuple[float, ins.AgentInput, list[fx.AgentEffect]]
"""So many seconds later this happens, and this is to be done; what is logged or published is left out."""


def actor(name: str, slot: str = "a/0", *, state: str = "up", host: str = "host") -> ActorEntry:
    node = slot.partition("/")[0]
    return ActorEntry(name.encode().ljust(16, b"."), node, slot, "a:2", state, host, 7, 70)


def seen(*entries: NodeEntry | ActorEntry, members: tuple[ActorEntry, ...] = ()) -> ins.MapSeen:
    """A map with these entries, whose first shard has these members."""
    nodes = {entry.name: entry for entry in entries if isinstance(entry, NodeEntry)}
    actors = {entry.incarnation: entry for entry in entries if isinstance(entry, ActorEntry)}
    keys = tuple(member.incarnation for member in members)
    first = ShardEntry(1, keys[0], keys[1:], b"nonce", ()) if keys else BLANK.shards[0]
    return ins.MapSeen(replace(BLANK, nodes=nodes, actors=actors, shards=(first, BLANK.shards[1])))


def accepted(call: int) -> ins.Answered:
    return ins.Answered(call, m.Accepted(0))


def rejected(call: int, code: str = "") -> ins.Answered:
    return ins.Answered(call, m.Rejected(0, "because", code))


def silent(call: int) -> ins.Answered:
    return ins.Answered(call, None)


def beat(*suspicions: m.Suspicion) -> fx.Heartbeat:
    return fx.Heartbeat("a", suspicions)


def register(call: int, entry: NodeEntry | ActorEntry) -> fx.Call:
    request = m.RegisterNode(0, entry) if isinstance(entry, NodeEntry) else m.RegisterActor(0, entry)
    return fx.Call(call, request)


def report(call: int, *actors: ActorEntry, suspicions: tuple[m.Suspicion, ...] = ()) -> fx.Call:
    return fx.Call(call, m.ReportDead(0, tuple(each.incarnation for each in actors), suspicions))


def mark(entry: ActorEntry, in_hand: InHand | None = None, busy: float | None = 0.0) -> ins.RecordMark:
    return ins.RecordMark(entry.slot, entry.incarnation, entry.pid, in_hand, busy)


def ready(entry: ActorEntry) -> ins.ChildReady:
    kept = (entry.durability, entry.directory, entry.mark)
    return ins.ChildReady(entry.slot, entry.incarnation, entry.address, entry.pid, entry.started_ticks, *kept)


def ended(entry: ActorEntry) -> ins.ChildEnded:
    return ins.ChildEnded(mark(entry), -9)


ONE, TWO, FORMER = actor("one"), actor("two", "a/1"), actor("former")
ALIEN, REBOOTED, BURIED = actor("x", "b/0"), actor("y", host="boot before"), actor("z", state="dead")
EMPTY, WITH_NODE, WITH_ONE = seen(), seen(NODE), seen(NODE, ONE)
POISON = m.Suspicion(3, SuspectRecord(ONE.incarnation, 4, 5))
TICK = ins.Tick()

JOINED: list[Row] = [
    (0.0, EMPTY, []),
    (0.0, ins.CoordinatorUp(), [register(1, NODE)]),
    (0.0, WITH_NODE, []),
    (0.0, accepted(1), []),
    (HEARTBEAT_SECONDS, TICK, [beat()]),
]
"""It has its name; the next call is 2."""

SERVING: list[Row] = [
    *JOINED,
    (0.0, ins.ChildStarting("a/0", ONE.incarnation), []),
    (0.0, ready(ONE), [register(2, ONE)]),
    (0.0, WITH_ONE, []),
    (0.0, accepted(2), []),
]
"""It has an actor; the next call is 3."""

HELD = seen(NODE, OTHER, ONE, ALIEN, members=(ONE, ALIEN))
HELD_LEAVING = seen(LEAVING, OTHER, ONE, ALIEN, members=(ONE, ALIEN))
ALONE = seen(LEAVING, replace(OTHER, state="down"), ONE, members=(ONE,))
MOVED = seen(LEAVING, OTHER, ONE, ALIEN, members=(ALIEN,))
GONE = seen(LEAVING, OTHER, replace(ONE, state="dead"), ALIEN, members=(ALIEN,))

DRAINING: list[Row] = [
    *SERVING,
    (0.0, HELD, []),
    (0.0, ins.DrainAsked(), [register(3, LEAVING)]),
    (0.0, HELD_LEAVING, []),
    (0.0, accepted(3), []),
]
"""Its shard is to move away; the next call is 4."""

STOPPED: list[Row] = [
    *DRAINING,
    (0.0, MOVED, [fx.StopChildren()]),
    (0.0, ended(ONE), [report(4, ONE)]),
    (0.0, GONE, []),
    (0.0, accepted(4), []),
]
"""All has moved, and its actor has ended; the next call is 5."""


def read(entry: ActorEntry, directory_mark: int) -> ins.MarksRead:
    return ins.MarksRead((replace(mark(entry), directory_mark=directory_mark),))


def beat_with(*marks: tuple[bytes, int]) -> fx.Heartbeat:
    return fx.Heartbeat("a", (), marks)


STORIES: dict[str, list[Row]] = {
    "it tells how far directories have come, now and then and with the end": [
        *SERVING,
        (0.0, read(ONE, 7), []),
        (HEARTBEAT_SECONDS, TICK, [beat_with((ONE.incarnation, 7))]),
        (0.0, read(ONE, 8), []),
        (HEARTBEAT_SECONDS, TICK, [beat()]),
        (MARKS_SECONDS, TICK, [beat_with((ONE.incarnation, 8))]),
        (0.0, ins.CoordinatorUp(), [beat_with((ONE.incarnation, 8))]),
        (
            0.0,
            ins.ChildEnded(replace(mark(ONE), directory_mark=9), -9),
            [fx.Call(3, m.ReportDead(0, (ONE.incarnation,), (), ((ONE.incarnation, 9),)))],
        ),
    ],
    # --- zones
    "a zone that the coordinator keeps is told once, and again where it is not kept": [
        (0.0, EMPTY, []),
        (0.0, ins.CoordinatorUp(), [register(1, ZONED)]),
        (0.0, seen(ZONED), []),
        (0.0, accepted(1), []),
        (0.0, seen(ZONED, OTHER), []),
        # Its successor has begun from a map that a former release passed on.
        (0.0, ins.CoordinatorDown(), []),
        (0.0, ins.CoordinatorUp(), [beat()]),
        (0.0, WITH_NODE, [register(2, ZONED)]),
    ],
    "a coordinator that keeps no zones is not told again and again": [
        (0.0, EMPTY, []),
        (0.0, ins.CoordinatorUp(), [register(1, ZONED)]),
        (0.0, WITH_NODE, []),
        (0.0, accepted(1), []),
        (0.0, seen(NODE, OTHER), []),
        (0.0, seen(replace(NODE, state="down")), [register(2, ZONED)]),
        (0.0, accepted(2), []),
        (0.0, WITH_NODE, []),
        # It is replaced by one that does.
        (0.0, ins.CoordinatorDown(), []),
        (0.0, ins.CoordinatorUp(), [register(3, ZONED), beat()]),
    ],
    # --- registering
    "it registers itself, then its actors": [
        *JOINED,
        (0.0, ready(ONE), [register(2, ONE)]),
        (0.0, ready(TWO), []),
        (0.0, accepted(2), [register(3, TWO)]),
        (0.0, accepted(3), []),
        (RETRY_SECONDS, TICK, []),
    ],
    "what a new map lacks is entered again": [
        *SERVING,
        (0.0, WITH_NODE, [register(3, ONE)]),
    ],
    "what is refused, or gets no answer, is asked for again after a pause": [
        *JOINED,
        (0.0, ready(ONE), [register(2, ONE)]),
        (0.0, rejected(2), []),
        (RETRY_SECONDS / 2, TICK, []),
        (RETRY_SECONDS / 2, TICK, [register(3, ONE)]),
        (0.0, silent(3), []),
        (RETRY_SECONDS, TICK, [register(4, ONE), beat()]),
    ],
    "an actor that is refused holds up no other": [
        *JOINED,
        (0.0, ready(ONE), [register(2, ONE)]),
        (0.0, ready(TWO), []),
        (0.0, rejected(2), [register(3, TWO)]),
    ],
    "nothing is asked while the coordinator is away": [
        *JOINED,
        (0.0, ins.CoordinatorDown(), []),
        (0.0, ready(ONE), []),
        (0.0, ins.CoordinatorUp(), [register(2, ONE), beat()]),
    ],
    "an actor that counts as dead makes way for another": [
        *SERVING,
        (0.0, seen(NODE, replace(ONE, state="dead")), [fx.KillChild("a/0")]),
    ],
    "it waits for a predecessor of its name for a while": [
        (0.0, EMPTY, []),
        (0.0, ins.CoordinatorUp(), [register(1, NODE)]),
        (0.0, rejected(1, m.NAME_TAKEN), []),
        (RETRY_SECONDS, TICK, [register(2, NODE)]),
        (REFUSED_SECONDS - RETRY_SECONDS - 0.1, rejected(2, m.NAME_TAKEN), []),
        (RETRY_SECONDS, TICK, [register(3, NODE)]),
        (0.0, rejected(3, m.NAME_TAKEN), [fx.StopChildren()]),
    ],
    "it gives way when its name was taken over": [
        *JOINED,
        (0.0, ready(ONE), [register(2, ONE)]),
        (0.0, rejected(2, m.NAME_TAKEN), [fx.StopChildren()]),
    ],
    "it gives way to another that has its slots": [
        *SERVING,
        (0.0, seen(NODE, replace(ONE, pid=8)), [fx.StopChildren()]),
    ],
    "it ends where another cluster answers at the start": [
        (0.0, ins.CoordinatorRefused("another cluster"), [fx.StopChildren()]),
        (0.0, ins.ChildrenStopped(), [fx.Finished(removed=False, error=UsageError("another cluster"))]),
    ],
    "it does not mind another cluster later": [*JOINED, (0.0, ins.CoordinatorRefused("another cluster"), [])],
    # --- deaths
    "a death is reported until the coordinator has it": [
        *SERVING,
        (0.0, ended(ONE), [report(3, ONE)]),
        (0.0, silent(3), []),
        (RETRY_SECONDS, TICK, [report(4, ONE)]),
        (0.0, ended(TWO), []),
        (0.0, accepted(4), [report(5, TWO)]),
        (0.0, accepted(5), []),
    ],
    "a death before the node has its name is reported afterwards": [
        (0.0, ended(ONE), []),
        (0.0, EMPTY, []),
        (0.0, ins.CoordinatorUp(), [register(1, NODE)]),
        (0.0, accepted(1), [report(2, ONE)]),
    ],
    "a record that an actor hangs on is told at once, and goes with its death": [
        *SERVING,
        (0.0, ins.MarksRead((mark(ONE, InHand(3, 4, 5), 1.0),)), []),
        (0.1, ins.MarksRead((mark(ONE, InHand(3, 4, 5), 1.0 + HANG_SECONDS),)), [beat(POISON)]),
        (0.1, ins.MarksRead((mark(ONE, InHand(3, 4, 5), 2.0),)), []),
        (
            0.0,
            ins.ChildEnded(mark(ONE, InHand(3, 4, 5), 2.0), -9),
            [report(3, ONE, suspicions=(POISON,))],
        ),
    ],
    "a predecessor is buried once its process is gone": [
        *JOINED,
        (0.0, seen(NODE, FORMER), [fx.LookFor((FORMER,))]),
        (0.0, ins.Looked((FORMER.incarnation,), ()), []),
        (PREDECESSOR_SECONDS, TICK, [fx.LookFor((FORMER,))]),
        (0.0, ins.Looked((), (FORMER.incarnation,)), [report(2, FORMER)]),
        (PREDECESSOR_SECONDS, TICK, []),
    ],
    "nobody is looked for on another node, before another boot, or in vain": [
        *SERVING,
        (0.0, seen(NODE, ONE, ALIEN, REBOOTED, BURIED), []),
    ],
    # --- leaving
    "it leaves once its shards have moved": [
        *STOPPED,
        (0.0, ins.ChildrenStopped(), [fx.Call(5, m.RemoveNode(0, "a"))]),
        (HEARTBEAT_SECONDS / 2, TICK, []),
        (0.0, accepted(5), [fx.Finished(removed=True, error=None)]),
        (1.0, TICK, []),
    ],
    "it does not wait long for a farewell": [
        *STOPPED,
        (0.0, ins.ChildrenStopped(), [fx.Call(5, m.RemoveNode(0, "a"))]),
        (FAREWELL_SECONDS, TICK, [fx.Finished(removed=False, error=None)]),
    ],
    "it leaves with a shard that nobody takes, after a while": [
        *DRAINING,
        (DRAIN_SECONDS, TICK, [fx.StopChildren(), beat()]),
    ],
    "a second signal ends the wait": [*DRAINING, (0.0, ins.DrainAsked(), [fx.StopChildren()])],
    "it waits a moment for another node to come back": [
        *DRAINING,
        (0.0, ALONE, []),
        (ALONE_SECONDS - 0.1, TICK, [beat()]),
        (0.0, HELD_LEAVING, []),
        (0.2, ALONE, []),
        (ALONE_SECONDS, TICK, [fx.StopChildren(), beat()]),
    ],
    "a node that was only stopped stays in the map": [
        *SERVING,
        (0.0, ins.StopAsked(), [fx.StopChildren()]),
        (0.0, ended(ONE), [report(3, ONE)]),
        (0.0, ins.ChildrenStopped(), []),
        (0.0, accepted(3), [fx.Finished(removed=False, error=None)]),
    ],
    "a node that never joined has nothing to hand over": [
        (0.0, ins.DrainAsked(), [fx.StopChildren()]),
        (0.0, ins.ChildrenStopped(), [fx.Finished(removed=False, error=None)]),
    ],
}


def run(rows: list[Row], zone: str = "") -> tuple[Agent, int]:
    """Play a story, comparing at each row what is wanted with what is expected; return when it ended."""
    now_ns = 10**12
    agent = Agent(AgentSettings("a", "a:1", "host", DRAIN_SECONDS, zone=zone), now_ns)
    for number, (seconds, event, expected) in enumerate(rows):
        now_ns += round(seconds * 1e9)
        aside = (fx.Log, fx.ReadMarks)
        wanted = [each for each in agent.step(now_ns, event) if not isinstance(each, aside)]
        if isinstance(event, ins.MapSeen):
            assert wanted.pop(0) == fx.Publish(event.map)
        # Texts, because errors have no other equality.
        assert [str(each) for each in wanted] == [str(each) for each in expected], f"row {number}: {event}"
        assert agent.next_deadline() > now_ns, f"row {number}: due again at once"
    return agent, now_ns


@pytest.mark.parametrize("story", STORIES)
def test_a_supervisor_does_what_the_table_says(story: str) -> None:
    run(STORIES[story], "x" if "zone" in story else "")


def test_a_coordinator_that_keeps_no_zones_is_told_of_in_the_log_once() -> None:
    first: list[Row] = [
        (0.0, EMPTY, []),
        (0.0, ins.CoordinatorUp(), [register(1, ZONED)]),
        (0.0, WITH_NODE, []),
        (0.0, accepted(1), []),
    ]
    agent, now_ns = run(first, "x")
    for expected in (1, 0):
        effects = agent.step(now_ns, seen(NODE, OTHER))
        told = [each for each in effects if isinstance(each, fx.Log) and each.event == "zone_not_kept"]
        assert len(told) == expected


def test_a_name_that_was_taken_over_is_told_to_whoever_started_the_node() -> None:
    agent, now_ns = run([*SERVING, (0.0, ended(ONE), [report(3, ONE)])])
    agent.step(now_ns, rejected(3, m.NAME_TAKEN))
    agent.step(now_ns, ins.ChildrenStopped())
    effects = agent.step(now_ns + round(FAREWELL_SECONDS * 1e9), TICK)
    (finished,) = (each for each in effects if isinstance(each, fx.Finished))
    assert isinstance(finished.error, NameTakenError)
    assert not finished.removed


@pytest.mark.parametrize(
    ("rows", "seconds", "event", "told"),
    [
        (DRAINING, 1.0, ins.StopAsked(), "a second signal ended the wait"),
        (DRAINING, DRAIN_SECONDS, TICK, "a longer --drain-seconds may help"),
        ([*DRAINING, (0.0, ALONE, [])], 1.0, ins.StopAsked(), "no other node is up"),
    ],
)
def test_an_operator_is_told_why_shards_stay_behind(
    rows: list[Row], seconds: float, event: ins.AgentInput, told: str
) -> None:
    agent, now_ns = run(rows)
    effects = agent.step(now_ns + round(seconds * 1e9), event)
    (log,) = (each for each in effects if isinstance(each, fx.Log))
    assert (log.event, log.fields["shards"]) == ("not_all_handed_over", 1)
    assert told in log.fields["hint"]


def test_marks_are_read_while_there_are_actors() -> None:
    agent, now_ns = run(JOINED)
    assert fx.ReadMarks() not in agent.step(now_ns + 10**9, TICK)
    agent, now_ns = run(SERVING)
    reads = 0
    for _ in range(10):
        now_ns = agent.next_deadline()
        reads += agent.step(now_ns, TICK).count(fx.ReadMarks())
    assert reads >= 8, "between heartbeats"
    agent.step(now_ns, ended(ONE))
    assert fx.ReadMarks() not in agent.step(now_ns + 10**9, TICK)


@pytest.mark.parametrize(
    ("status", "suspected"), [(-9, False), (-11, True), (EXIT_CORE_FAILED, True), (0, False)]
)
def test_a_record_is_suspected_of_an_end_by_its_own_doing(*, status: int, suspected: bool) -> None:
    agent, now_ns = run(SERVING)
    effects = agent.step(now_ns, ins.ChildEnded(mark(ONE, InHand(3, 4, 5), 0.0), status))
    assert effects[-1:] == [report(3, ONE, suspicions=(POISON,) if suspected else ())]


def test_an_actor_in_an_older_copy_is_asked_for_again_and_told_of_once() -> None:
    kept = replace(ONE, durability="fsync", directory=b"d" * 16, mark=7)
    agent, now_ns = run(
        [(0.0, seen(), []), (0.0, ins.CoordinatorUp(), [register(1, NODE)]), (0.0, accepted(1), [])]
    )
    told = []
    asked: list[int] = []
    events: list[ins.AgentInput] = [ins.MapSeen(WITH_NODE.map), ready(kept)]
    for _ in range(20):
        effects = [effect for event in events for effect in agent.step(now_ns, event)]
        told += [each for each in effects if isinstance(each, fx.Log) and each.level == "warning"]
        asked += [each.call for each in effects if each == register(asked[-1] + 1 if asked else 2, kept)]
        events = [rejected(asked[-1], m.DIRECTORY_OLDER)] if len(events) != 1 else [ins.Tick()] * 2
        now_ns += int(RETRY_SECONDS * 1e9)
    assert asked == list(range(2, 12))
    fields = {"slot": "a/0", "directory_id": (b"d" * 16).hex(), "reason": "because"}
    assert told == [fx.Log("warning", "directory_rejected", fields)]


def test_what_is_rejected_again_and_again_is_told_once_a_minute() -> None:
    """As of an actor that counts as dead because its directory was copied and opened elsewhere."""
    agent, now_ns = run(
        [
            (0.0, seen(), []),
            (0.0, ins.CoordinatorUp(), [register(1, NODE)]),
            (0.0, accepted(1), []),
            (0.0, seen(NODE), []),
            (0.0, ready(ONE), [register(2, ONE)]),
        ]
    )
    event: ins.AgentInput = rejected(2)
    told = asked = 0
    end_ns = now_ns + int(1.9 * TELL_SECONDS * 1e9)
    while now_ns < end_ns:
        effects = agent.step(now_ns, event)
        told += sum(isinstance(each, fx.Log) and each.event == "request_rejected" for each in effects)
        calls = [each.call for each in effects if isinstance(each, fx.Call)]
        asked += len(calls)
        event = rejected(calls[-1]) if calls else ins.Tick()
        now_ns += int(RETRY_SECONDS * 1e9)
    assert asked > 100
    assert told == 2


def test_a_coordinator_that_knows_no_directories_is_not_trusted_with_any() -> None:
    """It would have a shard start empty that is on disk."""
    kept = replace(ONE, durability="fsync", directory=b"d" * 16, mark=7)
    agent, now_ns = run(
        [
            (0.0, seen(), []),
            (0.0, ins.CoordinatorUp(), [register(1, NODE)]),
            (0.0, accepted(1), []),
            (0.0, seen(NODE), []),
            (0.0, ready(kept), [register(2, kept)]),
            (0.0, accepted(2), []),
            (0.0, seen(NODE, ONE), [fx.StopChildren()]),
        ]
    )
    finished = [each for each in agent.step(now_ns, ins.ChildrenStopped()) if isinstance(each, fx.Finished)]
    assert [type(each.error) for each in finished] == [UsageError]
    assert "--durability" in str(finished[0].error)
