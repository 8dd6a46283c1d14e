"""What is left of a former cluster of the same name never takes part in the one that was created anew."""

from collections.abc import Callable

import msgspec
import pytest

from greenroom import wire
from greenroom.errors import UsageError
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.claims import HOLD_SECONDS
from greenroom_cluster.coordination.exchange import Incoming
from greenroom_cluster.coordination.genesis import ClusterOptions, first_map, identified, starting_map
from tests.cluster.coordination.builders import Desk, actor, cluster, inc, node, nonce, shard

OURS, THEIRS = b"n" * 16, b"o" * 16
A, B = inc("a"), inc("b")
RUNNING = msgspec.structs.replace(
    cluster((shard(A, (), epoch=1, wanted=("a/0",)),), (actor(A, "a/0"), actor(B, "b/0"))), identity=OURS
)
OLD = wire.Subscribe(1, 40, (9,), THEIRS)

REQUESTS: list[Callable[[], object]] = [
    lambda: m.Propose(7, A, (m.Proposal(0, 1, nonce(1), "reaffirm", A, ()),)),
    lambda: m.Propose(7, B, (m.Proposal(0, 1, nonce(1), "takeover", B, ()),)),
    lambda: m.RegisterNode(7, node("c")),
    lambda: m.RegisterActor(7, actor(inc("d"), "a/0")),
    lambda: m.ReportDead(7, (A,)),
    lambda: m.RemoveNode(7, "b"),
]


@pytest.mark.parametrize("make", REQUESTS)
def test_nothing_that_a_peer_of_another_cluster_asks_is_done(make: Callable[[], object]) -> None:
    desk = Desk(RUNNING)
    sender = getattr(make(), "proposer", b"supervisor")
    assert desk.ask(OLD, sender) == wire.Goodbye("other-cluster", _told(desk.ask(OLD, sender)))
    answer = desk.ask(make(), sender)
    assert isinstance(answer, m.Rejected)
    assert desk.map is RUNNING


@pytest.mark.parametrize("make", REQUESTS)
def test_nor_what_came_together_with_its_subscription(make: Callable[[], object]) -> None:
    desk = Desk(RUNNING)
    sender = getattr(make(), "proposer", b"supervisor")
    outcome = desk.decide(Incoming(5, sender, OLD), Incoming(5, sender, make()))
    assert [type(each.message) for each in outcome.responses] == [wire.Goodbye, m.Rejected]
    assert desk.map is RUNNING


def test_a_heartbeat_of_another_cluster_keeps_no_node_up() -> None:
    desk = Desk(RUNNING)
    for _ in range(12):
        desk.now_ns += 250_000_000
        answer = desk.ask(m.Heartbeat("a", 1, 40, (), THEIRS))
        assert isinstance(answer, wire.Goodbye)
    assert desk.map.nodes["a"].state == "down"


def test_it_is_told_once_a_minute() -> None:
    desk = Desk(RUNNING)
    for connection in range(5):
        desk.ask(OLD, A, connection)
    assert len(desk.warnings) == 1
    assert "another cluster" in desk.warnings[0]


def test_a_former_connection_does_not_taint_a_peer_of_this_cluster() -> None:
    desk = Desk(RUNNING)
    desk.ask(OLD, A, connection=5)
    desk.close(A, 5)
    assert desk.ask(wire.Subscribe(1, 1, (1,), OURS), A, connection=5) == wire.MapFull(RUNNING)


@pytest.mark.parametrize("identity", [b"", OURS])
def test_peers_of_a_former_release_and_new_ones_take_part(identity: bytes) -> None:
    """Neither says of which cluster it is; one of ours says that it is ours."""
    desk = Desk(RUNNING)
    assert desk.ask(wire.Subscribe(1, 1, (1,), identity), A) == wire.MapFull(RUNNING)
    assert desk.node("c") == m.Accepted(1)


def test_a_member_of_another_cluster_was_not_heard() -> None:
    desk = Desk(RUNNING, proven=False)
    desk.ask(wire.Subscribe(1, 1, (1,), THEIRS), A)
    desk.ask(m.Heartbeat("a", 1, 1, (), THEIRS), b"one")
    desk.ask(m.Heartbeat("b", 1, 1, (), OURS), b"two")
    desk.pass_seconds(3, "b")
    assert not desk.coordinator.proven(desk.now_ns)


def test_an_emptied_directory_waits_for_an_operators_word() -> None:
    """Its nodes still run and hold sessions: whoever begins anew beside them must mean it."""
    desk = Desk(first_map("test", 4, 2, OURS))
    answer = desk.ask(wire.Subscribe(1, 1, (1,) * 4, THEIRS), A)
    assert "--new-lineage --adopt-from" in _told(answer)
    assert "stop the nodes of the former one" in _told(answer)
    assert isinstance(desk.ask(m.RegisterNode(1, node("c")), b"two", 77), m.Rejected)
    desk.pass_seconds(HOLD_SECONDS + 1)
    assert desk.ask(m.RegisterNode(1, node("c")), b"two", 77) == m.Accepted(1)


def _told(answer: object) -> str:
    assert isinstance(answer, wire.Goodbye)
    return answer.message


# --- where a cluster has its identity from ---------------------------------------------------------------


def test_a_cluster_has_the_identity_of_its_creation_for_good() -> None:
    options = ClusterOptions("shop", 4, 2)
    fresh = starting_map(None, options, identity=OURS)
    assert fresh.identity == OURS
    assert starting_map(fresh, options, identity=THEIRS) is fresh
    lineage = ClusterOptions("shop", new_lineage=True, give_up_newer=True)
    assert starting_map(fresh, lineage, identity=THEIRS).identity == OURS
    desk = Desk(RUNNING)
    desk.node("c")
    assert desk.map.identity == OURS


def test_what_is_adopted_keeps_its_identity() -> None:
    options = ClusterOptions("test", new_lineage=True)
    assert starting_map(None, options, (RUNNING,), identity=THEIRS).identity == OURS
    emptied = first_map("test", 1, 2, THEIRS)
    assert starting_map(emptied, options, (RUNNING,), identity=THEIRS).identity == OURS
    relayed = msgspec.structs.replace(RUNNING, version=90, identity=b"")
    assert starting_map(RUNNING, options, (relayed,), identity=THEIRS).identity == OURS


def test_maps_of_two_clusters_are_not_merged() -> None:
    other = msgspec.structs.replace(RUNNING, identity=THEIRS)
    options = ClusterOptions("test", new_lineage=True)
    for stored, adopted in ((RUNNING, (other,)), (None, (RUNNING, other))):
        with pytest.raises(UsageError, match=r"--adopt-from .* another cluster of this name"):
            starting_map(stored, options, adopted)


def test_every_copy_of_a_map_of_a_former_release_gets_the_same_identity() -> None:
    former = msgspec.structs.replace(RUNNING, identity=b"")
    later = msgspec.structs.replace(former, version=9)
    assert identified(former).identity == identified(later).identity
    assert identified(former).newer_than(former)
    assert identified(RUNNING) is RUNNING
    other = first_map("test", 2, 2)
    assert identified(other).identity != identified(former).identity
