"""What a node may report at the coordinator: itself, and its own actors."""

from collections.abc import Iterable

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
        case RemoveNode(name=name) | Heartbeat(node=name):
            named = {name}
        case ReportDead(incarnations=incarnations):
            named = _nodes_of(cluster_map, incarnations)
        case Propose(proposer=proposer):
            named = _nodes_of(cluster_map, (proposer,))
        case _:
            return ""
    others = sorted(named - {node})
    return f"a {type(message).__name__} of node {node} speaks for {', '.join(others)}" if others else ""


def _nodes_of(cluster_map: ClusterMap, incarnations: Iterable[bytes]) -> set[str]:
    actors = cluster_map.actors
    return {actors[each].node for each in incarnations if each in actors}
