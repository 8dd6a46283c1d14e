"""What an operator is told about shards, from the map and the words of the actors."""

import msgspec
import pytest
import trio

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry
from greenroom.framing import encode_frames, encode_greeting
from greenroom.known_coordinators import KnownCoordinators
from greenroom.near_use import NearUse
from greenroom_cluster.cli.tables import print_status
from greenroom_cluster.cluster_status import summarize
from greenroom_cluster.coordinator_status import CoordinatorStatus, Undecided
from greenroom_cluster.inspection import inspect_actors
from greenroom_cluster.links.handshake import NOT_ALLOWED
from greenroom_cluster.shard_states import ALONE, FULL, JOINING, SAME_NODE, SAME_ZONE, UNAVAILABLE
from greenroom_cluster.shortages import LackedCopy, lacked_copies

A, B = b"a" * 16, b"b" * 16


def cluster_map(*backups: bytes, primary: bytes = A) -> ClusterMap:
    """One shard at epoch 3, two nodes of one actor."""
    return ClusterMap(
        cluster="test",
        lineage=1,
        version=9,
        replicas=2,
        nodes={name: NodeEntry(name, f"{name}:1", "up") for name in ("n1", "n2")},
        actors={
            incarnation: ActorEntry(incarnation, node, f"{node}/0", f"{node}:2", "up", "host", 1, 1)
            for incarnation, node in ((A, "n1"), (B, "n2"))
        },
        shards=(ShardEntry(3, primary, backups, b"", ("n1/0", "n2/0")),),
    )


def replica(role: str, *, epoch: int = 3, serving: bool = True, joining: tuple[bytes, ...] = ()):
    return wire.ReplicaState(0, epoch, role, serving, 5, 500, 7, 7, joining)


def words(**states: wire.ReplicaState) -> dict[bytes, wire.Inspection]:
    names = {"a": A, "b": B}
    return {names[name]: wire.Inspection(1, names[name], (state,)) for name, state in states.items()}


@pytest.mark.parametrize(
    ("the_map", "said", "state"),
    [
        (cluster_map(B), words(a=replica("primary"), b=replica("backup", serving=False)), FULL),
        # The backup does not answer, or is behind: it may be gone, so this is not full.
        (cluster_map(B), words(a=replica("primary")), JOINING),
        (cluster_map(B), words(a=replica("primary"), b=replica("backup", epoch=2)), JOINING),
        (cluster_map(), words(a=replica("primary", joining=(B,))), JOINING),
        (cluster_map(), words(a=replica("primary")), ALONE),
        (cluster_map(B), words(a=replica("primary", serving=False), b=replica("backup")), UNAVAILABLE),
        (cluster_map(B), words(b=replica("backup")), UNAVAILABLE),
        (cluster_map(primary=b""), {}, UNAVAILABLE),
        # The map is a moment older than what the actors say.
        (cluster_map(B), words(a=replica("primary", epoch=4), b=replica("backup", epoch=4)), FULL),
    ],
)
def test_state_of_a_shard(the_map: ClusterMap, said: dict[bytes, wire.Inspection], state: str) -> None:
    status = summarize(the_map, said)
    assert status.shards[0].state == state
    assert status.healthy == (state == FULL)
    assert status.states()[state] == 1


def test_summary_names_slots_and_counts_sessions_at_primaries() -> None:
    status = summarize(cluster_map(B), words(a=replica("primary"), b=replica("backup")))
    shard = status.shards[0]
    assert (shard.primary, shard.backups, shard.sessions, shard.epoch) == ("n1/0", ("n2/0",), 5, 3)
    first, second = status.actors
    assert (first.slot, first.primaries, first.backups, first.sessions) == ("n1/0", 1, 0, 5)
    assert (second.slot, second.primaries, second.backups, second.sessions) == ("n2/0", 0, 1, 0)
    assert [node.actors for node in status.nodes] == [1, 1]


def test_replicas_on_one_node_are_not_taken_for_whole() -> None:
    """Whoever waits for `healthy` before the next node is stopped must not lose what only one node holds."""
    the_map = cluster_map(B)
    the_map.actors[B] = msgspec.structs.replace(the_map.actors[B], node="n1", slot="n1/1")
    status = summarize(the_map, words(a=replica("primary"), b=replica("backup")))
    assert status.shards[0].state == SAME_NODE
    assert not status.healthy
    assert status.warnings() == [
        "1 shard has all replicas on node n1: if that is lost, so are their sessions; start another node"
    ]
    # With one replica there is nothing to keep apart.
    status = summarize(msgspec.structs.replace(cluster_map(), replicas=1), words(a=replica("primary")))
    assert status.healthy


def with_zones(the_map: ClusterMap, **zones: str) -> ClusterMap:
    """The map with these nodes in zones."""
    nodes = {name: NodeEntry(name, f"{name}:1", "up", zone) for name, zone in zones.items()}
    return msgspec.structs.replace(the_map, nodes=nodes)


def test_replicas_within_one_zone_are_not_taken_for_whole() -> None:
    said = words(a=replica("primary"), b=replica("backup"))
    status = summarize(with_zones(cluster_map(B), n1="x", n2="x", n3="y"), said)
    assert status.shards[0].state == SAME_ZONE
    assert status.crowded() == {"x": [0]}
    assert not status.healthy
    assert [(node.name, node.zone) for node in status.nodes] == [("n1", "x"), ("n2", "x"), ("n3", "y")]
    (warning,) = status.warnings()
    assert warning.startswith(
        "shard 0 has all replicas within zone x: if that is lost, so are their sessions"
    )
    many = msgspec.structs.replace(
        status, shards=tuple(msgspec.structs.replace(status.shards[0], shard=number) for number in range(9))
    )
    assert many.warnings()[0].startswith(
        "9 shards (0, 1, 2, 3, 4 and 4 more) have all replicas within zone x"
    )


@pytest.mark.parametrize(
    "zones", [{"n1": "x", "n2": "y"}, {"n1": "x", "n2": "x"}, {"n1": "", "n2": ""}], ids=str
)
def test_replicas_in_two_zones_or_in_the_only_one_are_whole(zones: dict[str, str]) -> None:
    """If there is but one zone, nothing can be moved; whoever named only one knows."""
    status = summarize(with_zones(cluster_map(B), **zones), words(a=replica("primary"), b=replica("backup")))
    assert status.healthy
    assert status.crowded() == {}
    assert status.warnings() == []


def test_nodes_without_a_zone_among_others_are_named() -> None:
    said = words(a=replica("primary"), b=replica("backup"))
    status = summarize(with_zones(cluster_map(B), n1="x", n2="", n3="y"), said)
    assert status.healthy
    assert status.warnings() == ["node n2 has no --zone, unlike others: it counts as a zone of its own"]


def with_states(the_map: ClusterMap, nodes: dict[str, str], actors: dict[bytes, str]) -> ClusterMap:
    """The map with these nodes and actors in other states."""
    return msgspec.structs.replace(
        the_map,
        nodes={
            name: NodeEntry(name, node.address, nodes.get(name, node.state))
            for name, node in the_map.nodes.items()
        },
        actors={
            key: msgspec.structs.replace(actor, state=actors.get(key, actor.state))
            for key, actor in the_map.actors.items()
        },
    )


@pytest.mark.parametrize(
    ("nodes", "actors", "said", "waits_for"),
    [
        # Both were killed; n1 is back and has seen that its former actors are dead, n2 is not.
        ({"n2": "down"}, {A: "dead"}, {}, ("n2",)),
        ({"n1": "down", "n2": "down"}, {}, {}, ("n1", "n2")),
        # The backup answers, and will take over.
        ({"n1": "down"}, {}, words(b=replica("backup")), ()),
        # All are known to be dead: it begins anew.
        ({}, {A: "dead", B: "dead"}, {}, ()),
        # The node is up, so its actor will answer or be started again.
        ({}, {A: "dead"}, {}, ()),
        # A former process of a node that runs; nobody saw it die.
        ({}, {A: "dead", B: "replaced"}, {}, ("n2",)),
        ({"n2": "leaving"}, {A: "dead"}, {}, ("n2",)),
    ],
)
def test_a_shard_names_the_nodes_that_it_waits_for(
    nodes: dict[str, str],
    actors: dict[bytes, str],
    said: dict[bytes, wire.Inspection],
    waits_for: tuple[str, ...],
) -> None:
    status = summarize(with_states(cluster_map(B), nodes, actors), said)
    assert status.shards[0].state == UNAVAILABLE
    assert status.shards[0].waits_for == waits_for
    assert [each.nodes for each in status.waiting] == ([waits_for] if waits_for else [])


def test_what_waits_is_told_with_the_ways_out() -> None:
    status = summarize(with_states(cluster_map(B), {"n2": "down"}, {A: "dead"}), {})
    assert status.waiting[0].told() == (
        "1 shard waits for node n2, which may hold its sessions: start it, or, if it is gone for good, run "
        "`greenroom forget-node n2` (loses those sessions)"
    )
    status = summarize(with_states(cluster_map(B), {"n1": "down", "n2": "down"}, {}), {})
    assert "`greenroom forget-node n1` and `greenroom forget-node n2`" in status.waiting[0].told()
    status = summarize(with_states(cluster_map(B), {}, {A: "dead", B: "replaced"}), {})
    assert "stop node n2, run `greenroom forget-node n2`" in status.waiting[0].told()


HEIR = b"h" * 16


def kept_by(*incarnations: bytes, heir: bool = True) -> ClusterMap:
    """Both members are dead; these kept the shard, and an heir of A runs."""
    the_map = with_states(cluster_map(B), {}, {A: "dead", B: "dead"})
    for incarnation in incarnations:
        kept = {"durability": "fsync", "directory": incarnation, "mark": 4}
        the_map.actors[incarnation] = msgspec.structs.replace(the_map.actors[incarnation], **kept)
    if heir:
        the_map.actors[HEIR] = msgspec.structs.replace(the_map.actors[A], incarnation=HEIR, state="up")
    return the_map


def test_a_shard_names_the_directories_that_it_waits_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    claiming = msgspec.structs.replace(replica("none", epoch=2, serving=False), proposes="recover")
    status = summarize(kept_by(A, B), {HEIR: wire.Inspection(1, HEIR, (claiming,))})
    [shard] = status.shards
    assert (shard.state, shard.missing_directories) == (UNAVAILABLE, ("n2/0",))
    assert [(each.slot, each.epoch, each.sequence) for each in shard.kept] == [("n1/0", 2, 7)]
    [told] = status.warnings()
    assert told == (
        "1 shard waits for the directory of n2/0, where its sessions were kept: start node n2 with it, or, "
        "if it is gone for good, run `greenroom forget-node n2` (loses what is only there)"
    )
    print_status(status, shards=True)
    shown = capsys.readouterr().out
    assert "directory of n2/0, n1/0 has up to 2/7" in shown


def test_a_slot_that_runs_with_another_directory_is_not_to_be_started() -> None:
    """The one that a shard waits for was set aside as damaged, or refused as an older copy."""
    the_map = kept_by(A, B)
    other = {"incarnation": b"o" * 16, "state": "up", "directory": b"other directory!", "durability": "fsync"}
    the_map.actors[b"o" * 16] = msgspec.structs.replace(the_map.actors[B], **other)
    [told] = summarize(the_map, {}).warnings()
    assert "the directory of n2/0, where its sessions were kept: that runs with another now" in told
    assert "stop node n2, put it back and start again, or, if it is gone for good, run `greenroom " in told


def test_a_shard_waits_only_for_directories_in_which_nobody_runs() -> None:
    assert summarize(kept_by(A), {}).missing_directories == ()
    assert summarize(kept_by(), {}).missing_directories == ()
    [both] = summarize(kept_by(A, B, heir=False), {}).missing_directories
    assert both.slots == ("n1/0", "n2/0")
    assert "start nodes n1 and n2 with them" in both.told()
    assert "`greenroom forget-node n1` and `greenroom forget-node n2`" in both.told()
    away = with_states(kept_by(A), {"n1": "down"}, {})
    assert [each.slots for each in summarize(away, {}).missing_directories] == [("n1/0",)]
    alive = with_states(kept_by(A, B), {}, {B: "up"})
    assert summarize(alive, {}).missing_directories == ()


@pytest.mark.parametrize(
    ("away", "state", "seconds", "unreached"),
    [
        ({A: 0.0, B: 0.0}, "up", 0.0, ()),
        ({A: 7.04, B: 5.0}, "away", 5.0, ("n1/0", "n2/0")),
        ({A: 0.0, B: 5.0}, "cut_off", 5.0, ("n2/0",)),
        ({A: 5.0}, "away", 5.0, ("n1/0",)),
        # One of a version that does not tell.
        ({A: None, B: 5.0}, "away", 5.0, ("n2/0",)),
        ({A: None, B: None}, "unknown", 0.0, ()),
        ({}, "unknown", 0.0, ()),
    ],
)
def test_coordinator_is_judged_by_all_that_tell(
    away: dict[bytes, float | None], state: str, seconds: float, unreached: tuple[str, ...]
) -> None:
    said = {key: wire.Inspection(1, key, (), value) for key, value in away.items()}
    found = summarize(cluster_map(B), said).coordinator
    assert (found.state, found.away_seconds, found.unreached_by) == (state, seconds, unreached)
    assert bool(found.told()) == (state in {"away", "cut_off"})


FIRST = KnownCoordinators("c1:7300", ("c2:7300",))
LOST = KnownCoordinators("c1:7300", ("c2:7300",), "etcd-away")


@pytest.mark.parametrize(
    ("known", "address", "others", "etcd_away_seconds", "told"),
    [
        ({A: (FIRST, 0.0), B: (FIRST, 0.0)}, "c1:7300", ("c2:7300",), 0.0, "leads; c2:7300 stands by"),
        # What who is connected says counts.
        (
            {A: (KnownCoordinators("c2:7300", ("c1:7300",)), 0.0), B: (LOST, 5.0)},
            *("c2:7300", ("c1:7300",), 0.0, "c2:7300 leads; c1:7300"),
        ),
        ({A: (LOST, 5.0), B: (FIRST, 7.0)}, "c1:7300", ("c2:7300",), 5.0, "etcd, which keeps the map, did"),
        ({A: (FIRST, 5.0)}, "c1:7300", ("c2:7300",), 0.0, "none of the coordinators (c1:7300, c2:7300)"),
        ({A: (KnownCoordinators("c1:7300"), 0.0), B: (None, 0.0)}, "c1:7300", (), 0.0, ""),
        ({A: (None, 0.0)}, "", (), 0.0, ""),
    ],
)
def test_who_leads_is_what_actors_are_connected_to(
    known: dict[bytes, tuple[KnownCoordinators | None, float]],
    address: str,
    others: tuple[str, ...],
    etcd_away_seconds: float,
    told: str,
) -> None:
    said = {
        key: wire.Inspection(1, key, (), away, coordinators=coordinators)
        for key, (coordinators, away) in known.items()
    }
    found = summarize(cluster_map(B), said).coordinator
    assert (found.address, found.others, found.etcd_away_seconds) == (address, others, etcd_away_seconds)
    assert told in found.told() + found.leads()
    assert bool(found.told() + found.leads()) == bool(told)


def test_what_waits_for_the_coordinator_is_told_once_a_shard() -> None:
    proposing = msgspec.structs.replace(replica("primary"), proposes="remove")
    said = {A: wire.Inspection(1, A, (proposing,), 5.0), B: wire.Inspection(1, B, (proposing,), 5.0)}
    status = summarize(cluster_map(B), said)
    assert [(each.shard, each.kind) for each in status.coordinator.undecided] == [(0, "remove")]
    assert status.warnings()[0] == (
        "the coordinator has been away for 5 s. Shards with all their replicas serve; a lost replica is not "
        "replaced until it is back. Waiting: 1 shard for the removal of a lost backup. Start the "
        "coordinator; if it runs, its log says why it decides nothing"
    )
    # It is asked all the time, so nothing of this is worth a line while it answers.
    assert summarize(cluster_map(B), {A: wire.Inspection(1, A, (proposing,), 0.0)}).warnings() == []


def test_the_most_that_waits_for_the_coordinator_is_told_first() -> None:
    kinds = ["takeover"] * 2 + ["remove"] * 3 + ["new kind"]
    undecided = tuple(Undecided(shard, kind) for shard, kind in enumerate(kinds))
    found = CoordinatorStatus("cut_off", 69.0, ("n1/0", "n2/0"), undecided)
    assert found.told() == (
        "n1/0, n2/0 have not reached the coordinator for 69 s, others do. Waiting: 3 shards for the removal "
        "of a lost backup, 2 for a new primary, 1 for new kind. Look at the network between"
    )
    assert "No shard waits yet. Start" in CoordinatorStatus("away", 69.0, ("n1/0",)).told()


def test_a_shard_that_the_coordinator_must_decide_says_so_in_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    taking = msgspec.structs.replace(replica("backup"), proposes="takeover")
    print_status(summarize(cluster_map(B), {B: wire.Inspection(1, B, (taking,), 5.0)}), shards=True)
    row = next(line for line in capsys.readouterr().out.splitlines() if "coordinator (" in line)
    assert row.split()[-3:] == ["unavailable", "coordinator", "(takeover)"]


def test_whole_shards_are_called_full_for_machines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = summarize(cluster_map(B), words(a=replica("primary"), b=replica("backup")))
    assert status.counts() == "1 whole"
    assert status.states()["full"] == 1
    print_status(status, shards=True)
    shown = capsys.readouterr().out
    assert "1 whole" in shown
    assert "full" not in shown


def test_a_cluster_that_refuses_growth_says_so_and_is_healthy() -> None:
    said = words(a=replica("primary"), b=replica("backup"))
    said[A] = msgspec.structs.replace(said[A], refusing=("n1/0", "n2/0", "n9/0"))
    said[B] = msgspec.structs.replace(said[B], refusing=("n2/0",))
    status = summarize(cluster_map(B), said)
    assert status.healthy
    assert [actor.refuses_growth for actor in status.actors] == [True, True]
    assert status.refusing == ("n1/0", "n2/0"), "one that is gone refuses nothing"
    [told] = status.warnings()
    assert told == (
        "memory: actors n1/0 and n2/0 refused writes for lack of memory within the last minute: delete "
        "sessions, shorten lifetimes, raise --memory-max or add a node"
    )


def test_an_actor_whose_disk_is_nearly_full_is_named() -> None:
    said = words(a=replica("primary"), b=replica("backup"))
    said[B] = msgspec.structs.replace(said[B], disk_short=True)
    status = summarize(cluster_map(B), said)
    assert status.healthy
    assert [actor.disk_short for actor in status.actors] == [False, True]
    [told] = status.warnings()
    assert told.startswith("disk: the disk of actor n2/0 is nearly full: ")
    said[A] = msgspec.structs.replace(said[A], disk_short=True)
    [told] = summarize(cluster_map(B), said).warnings()
    assert told.startswith("disk: the disks of actors n1/0 and n2/0 are nearly full: ")


def test_an_actor_over_its_bound_is_named() -> None:
    """It refuses nothing as yet, and is told of before."""
    said = words(a=replica("primary"), b=replica("backup"))
    said[B] = msgspec.structs.replace(said[B], excess_bytes=3 * MIB)
    status = summarize(cluster_map(B), said)
    assert status.healthy
    assert [actor.excess_bytes for actor in status.actors] == [0, 3 * MIB]
    [told] = status.warnings()
    assert told == (
        "memory: actor n2/0 is 3.0 MiB over its bound by what it found on its disk: it keeps all of it, and "
        "takes nothing that grows; raise --memory-max or add a node"
    )


def refused(shard: int, actor: str, size: int, reason: str = "no memory") -> LackedCopy:
    return LackedCopy(shard, f"{reason}: {size} bytes", actor, size)


MIB = 1 << 20
RAISE = "; raise --memory-max or add a node"


@pytest.mark.parametrize(
    ("copies", "told"),
    [
        ([], []),
        (
            [refused(shard, f"a/{shard % 2}", 2 * MIB + shard * MIB // 50) for shard in range(44)],
            [
                "44 shards lack a copy: actors a/0 and a/1 have no memory for them (2.0 to 2.9 MiB each)"
                + RAISE
            ],
        ),
        (
            [refused(3, "a/0", 2 * MIB)],
            ["1 shard lacks a copy: actor a/0 has no memory for it (2.0 MiB)" + RAISE],
        ),
        (
            [refused(shard, f"n{shard}/0", (512 << 10) << (2 * (shard > 0))) for shard in range(9)],
            [
                "9 shards lack a copy: actors n0/0, n1/0, n2/0, n3/0, n4/0 and 4 more have no memory for "
                "them (512.0 KiB to 2.0 MiB each)" + RAISE
            ],
        ),
        (
            [refused(shard, "", 100 + shard, "the joiner is odd") for shard in range(3)]
            + [refused(5, "", 7, "it left")],
            [
                "1 shard lacks a copy: it left: 7 bytes",
                "3 shards lack a copy, for example shard 0: the joiner is odd: 100 bytes",
            ],
        ),
    ],
)
def test_copies_that_are_lacking_are_told_by_kind(copies: list[LackedCopy], told: list[str]) -> None:
    assert lacked_copies(copies) == told


def test_which_copy_was_refused_for_want_of_memory_is_shown() -> None:
    alone = msgspec.structs.replace(
        replica("primary"), join_refusal="no memory: all", join_refused_by="n2/0", join_bytes=3 * MIB
    )
    status = summarize(cluster_map(), words(a=alone))
    assert (status.shards[0].join_refused_by, status.shards[0].join_bytes) == ("n2/0", 3 * MIB)
    assert status.warnings() == [
        "1 shard lacks a copy: actor n2/0 has no memory for it (3.0 MiB); raise --memory-max or add a node"
    ]


def test_status_holds_no_bytes_so_that_it_is_json() -> None:
    status = summarize(cluster_map(B), words(a=replica("primary")))
    document = msgspec.json.decode(msgspec.json.encode(status))
    assert document["actors"][0]["incarnation"] == A.hex()
    assert document["actors"][1]["reachable"] is False


HOSTILE = "\x1b]0;owned\x07[red]\u202e\n"


def test_nothing_that_others_wrote_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    found = cluster_map(B)
    nodes = {name: NodeEntry(name, HOSTILE + name, "up" + HOSTILE) for name in found.nodes}
    actors = {
        key: msgspec.structs.replace(one, address=HOSTILE, slot=HOSTILE) for key, one in found.actors.items()
    }
    hostile = msgspec.structs.replace(found, cluster=HOSTILE, nodes=nodes, actors=actors)
    print_status(summarize(hostile, {}), shards=True)
    shown = capsys.readouterr().out
    assert all(char.isprintable() for char in shown.replace("\n", ""))
    assert "\\x1b]0;owned\\x07[red]\\u202e\\nn1" in shown, "it is there to be seen, and is no markup"


@pytest.mark.trio
async def test_an_actor_with_a_malformed_address_hides_no_other() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        greeting = wire.Hello(wire.PROTOCOL_VERSION, wire.ROUTING_VERSION, "test", wire.ROLE_PEER, B)
        await stream.receive_some()
        await stream.send_all(encode_greeting(greeting))
        await stream.send_all(bytes(encode_frames([wire.Inspection(1, B, ())])))
        while await stream.receive_some():
            pass

    async with trio.open_nursery() as tasks:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        tasks.start_soon(trio.serve_listeners, serve, [listener])
        found = cluster_map(B)
        actors = {
            A: msgspec.structs.replace(found.actors[A], address=HOSTILE),
            B: msgspec.structs.replace(
                found.actors[B], address=f"127.0.0.1:{listener.socket.getsockname()[1]}"
            ),
        }
        inspected = await inspect_actors(msgspec.structs.replace(found, actors=actors), credentials=None)
        assert set(inspected) == {B}
        tasks.cancel_scope.cancel()


@pytest.mark.trio
async def test_actors_that_distrust_who_asks_are_not_taken_for_away() -> None:
    """Whoever showed the certificate of a coordinator read that no shard of a whole cluster served."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(encode_greeting(NOT_ALLOWED))
        while await stream.receive_some():
            pass

    async with trio.open_nursery() as tasks:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        tasks.start_soon(trio.serve_listeners, serve, [listener])
        found = cluster_map(B)
        refusing = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        actors = {
            A: msgspec.structs.replace(found.actors[A], address="127.0.0.1:9"),
            B: msgspec.structs.replace(found.actors[B], address=refusing),
        }
        found = msgspec.structs.replace(found, actors=actors)
        untrusted: dict[bytes, str] = {}
        inspected = await inspect_actors(found, credentials=None, untrusted=untrusted)
        status = summarize(found, inspected, untrusted)
        tasks.cancel_scope.cancel()
    assert [bool(actor.untrusted) for actor in status.actors] == [False, True]
    warning = status.warnings()[0]
    assert warning.startswith("not known, and counted as away: n2/0. Who asks and who answers must trust")
    assert NOT_ALLOWED.message in warning
    assert warning.endswith("--tls-cert), or with a token that all nodes know")


def test_what_clients_keep_is_shown_if_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    primary = msgspec.structs.replace(replica("primary"), held=3)
    use = NearUse(4, 17, 2, 11, 6, 1, 0.75, 0.325, 90)
    said = {A: wire.Inspection(1, A, (primary,), near=use)}
    status = summarize(cluster_map(), said)
    assert status.shards[0].held == 3
    print_status(status, shards=True, near=True)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["n1/0", "4", "17", "2", "90", "11", "6", "1", "0.750", "0.325"] in lines
    [titles] = [line for line in lines if line[:1] == ["shard"]]
    [row] = [line for line in lines if line[:2] == ["0", "3"]]
    assert row[titles.index("held")] == "3"
    print_status(status, shards=True)
    assert "held" not in capsys.readouterr().out


def test_a_copy_under_way_is_told_with_how_far_it_has_come() -> None:
    primary = msgspec.structs.replace(replica("primary", joining=(B,)), join_progress=(30, 100))
    found = summarize(cluster_map(), words(a=primary)).shards[0]
    assert (found.state, found.joiner, found.join_progress) == (JOINING, "n2/0", (30, 100))
    assert summarize(cluster_map(), {}).shards[0].join_progress == (0, 0)
