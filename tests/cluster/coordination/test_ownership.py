"""What a node may report, and what it may not say of another."""

import pytest

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, SuspectRecord
from greenroom_cluster.coordination.messages import (
    Heartbeat,
    Proposal,
    Propose,
    Received,
    RegisterActor,
    RegisterNode,
    RemoveNode,
    ReportDead,
    ShowDirectory,
    Suspicion,
)
from greenroom_cluster.coordination.ownership import trespass


def incarnation(node: str) -> bytes:
    return node.encode() * 8


def actor(node: str) -> ActorEntry:
    return ActorEntry(incarnation(node), node, f"{node}/0", "127.0.0.1:1", "up", "host", 1, 1)


MAP = ClusterMap("shop", 1, 1, 2, {}, {incarnation(node): actor(node) for node in ("n1", "n2")}, ())
PROPOSAL = Proposal(0, 1, b"n" * 16, "start", incarnation("n1"), ())


def about(node: str) -> list[Received]:
    """One message of each kind that speaks for this node."""
    return [
        RegisterNode(1, NodeEntry(node, "127.0.0.1:1", "up")),
        RegisterActor(1, actor(node)),
        ReportDead(1, (incarnation(node),)),
        RemoveNode(1, node),
        Heartbeat(node, 1, 1),
        Heartbeat("n1", 1, 1, (Suspicion(0, SuspectRecord(incarnation(node), 1, 1)),)),
        Heartbeat("n1", 1, 1, marks=((incarnation(node), 1),)),
        ReportDead(1, (), (Suspicion(0, SuspectRecord(incarnation(node), 1, 1)),)),
        ReportDead(1, (), marks=((incarnation(node), 1),)),
        Propose(1, incarnation(node), (PROPOSAL,)),
        ShowDirectory(f"{node}/0", b"d" * 16, 1, (incarnation(node),), b"", 8, ()),
    ]


@pytest.mark.parametrize("message", about("n1"), ids=lambda message: type(message).__name__)
def test_node_speaks_for_itself(message: Received) -> None:
    assert trespass(MAP, "n1", message) == ""


@pytest.mark.parametrize("message", about("n2"), ids=lambda message: type(message).__name__)
def test_node_does_not_speak_for_another(message: Received) -> None:
    told = trespass(MAP, "n1", message)
    assert told == f"a {type(message).__name__} of node n1 speaks for n2"


def test_one_foreign_actor_among_its_own_is_seen() -> None:
    both = ReportDead(1, (incarnation("n1"), incarnation("n2")))
    assert "n2" in trespass(MAP, "n1", both)


def test_actors_that_are_not_in_the_map_belong_to_nobody() -> None:
    assert trespass(MAP, "n1", ReportDead(1, (incarnation("n9"),))) == ""
    assert trespass(MAP, "n1", Propose(1, incarnation("n9"), (PROPOSAL,))) == ""


def test_whoever_subscribes_speaks_for_nobody() -> None:
    assert trespass(MAP, "n1", wire.Subscribe(0, 0)) == ""
