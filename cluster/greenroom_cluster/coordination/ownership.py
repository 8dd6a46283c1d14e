"""What a node may report at the coordinator: itself, and its own actors."""

from collections.abc import Iterable, Iterator

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.messages import (
    Heartbeat,
    Propose,
    Received,
    RegisterActor,
    RegisterNode,
    RemoveNode,
    ReportDead,
    ShowDirectory,
)
from greenroom_cluster.planning.placement import node_of


def trespass(cluster_map: ClusterMap, node: str, message: Received) -> str:
    """Return what a message of this node says of another one; empty if nothing.

    What is not in the map belongs to nobody yet.
    """
    match message:
        case RegisterNode(node=entry):
            named = {entry.name}
        case RegisterActor(actor=actor):
            named = {actor.node}
        case ShowDirectory(slot=slot):
            named = {node_of(slot)}
        case RemoveNode(name=name):
            named = {name}
        case Heartbeat(node=name):
            named = {name} | _nodes_of(cluster_map, _spoken_of(message))
        case ReportDead(incarnations=incarnations):
            named = _nodes_of(cluster_map, (*incarnations, *_spoken_of(message)))
        case Propose(proposer=proposer):
            named = _nodes_of(cluster_map, (proposer,))
        case _:
            return ""
    others = sorted(named - {node})
    return f"a {type(message).__name__} of node {node} speaks for {', '.join(others)}" if others else ""


def _spoken_of(message: Heartbeat | ReportDead) -> Iterator[bytes]:
    """Yield the incarnations of which it says what they had in hand, or how far they had come."""
    for suspicion in message.suspicions:
        yield suspicion.record.actor
    for incarnation, _ in message.marks:
        yield incarnation


def _nodes_of(cluster_map: ClusterMap, incarnations: Iterable[bytes]) -> set[str]:
    actors = cluster_map.actors
    return {actors[each].node for each in incarnations if each in actors}
