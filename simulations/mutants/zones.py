# ruff: noqa: ANN001, ANN202  mutants reach into what they break, and are not typed code
"""Mutants of zones: who plans without them, and who does not take in that a node has changed its own."""

from msgspec.structs import replace

from greenroom_cluster.coordination.draft import Draft
from greenroom_cluster.planning import controller, placement
from simulations.mutants.patching import Patches, mutant
from simulations.plans.plan import Action, Fault, Plan

MOVED_TO_ANOTHER = Plan(
    seed=0,
    nodes=4,
    shards=8,
    zones=("a", "a", "b", "b"),
    actions=tuple(
        Action(number % 2, 50.0, "create" if number < 6 else "update", number % 6) for number in range(40)
    ),
    faults=(Fault(1000, "change zone", "node n1", 0.3), Fault(2500, "change zone", "node n2", 0.3)),
)
"""Two nodes are started again, each in the zone in which the other was."""


@mutant("keeps replicas on different nodes only", budget=20, plan=MOVED_TO_ANOTHER)
def _(patches: Patches) -> None:
    """The placement takes each node for a zone of its own."""
    patches.set(placement, "zone_of", lambda _, node: ("", node))


@mutant("plans anew for other slots only", budget=20, plan=MOVED_TO_ANOTHER)
def _(patches: Patches) -> None:
    """The controller sees no change if a node comes back in another zone."""
    patches.set(controller, "zone_of", lambda _, node: ("", node))


@mutant("keeps the zone in which a node was first", budget=20, plan=MOVED_TO_ANOTHER)
def _(patches: Patches) -> None:
    """A node that registers again with another zone stays in the former."""
    original = Draft.register_node

    def register_node(self, node):
        known = self.nodes.get(node.name)
        return original(self, node if known is None else replace(node, zone=known.zone))

    patches.set(Draft, "register_node", register_node)
