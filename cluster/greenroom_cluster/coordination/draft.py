"""The next map in the making: what registering, dying, leaving and proposing change, one batch at a time.

Every method returns "" when done, or why not and what to do. None raises on what a peer may send.

Who may speak for a node is decided before (`owners`): what registers here replaces what had its name.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry
from greenroom_cluster.coordination.messages import Decision, Proposal
from greenroom_cluster.coordination.rules import INCARNATION_BYTES, Situation, decide, malformed

_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SLOT_INDEX = re.compile(r"[0-9]{1,4}")
ADDRESS_LENGTH_MAX = 256
EMPTIED_NAMED = 4


class Draft:
    """A mutable copy of a map; `finish` returns the next map, or the same one if nothing changed."""

    def __init__(self, base: ClusterMap) -> None:
        self._base = base
        self.nodes = dict(base.nodes)
        self.actors = dict(base.actors)
        self.shards = list(base.shards)
        self.warnings: list[str] = []
        self._emptied: dict[int, str] = {}

    # --- nodes -------------------------------------------------------------------------------------------

    def register_node(self, node: NodeEntry) -> str:
        """Enter or change a node."""
        if not _NODE_NAME.fullmatch(node.name):
            return (
                "a node name has 1 to 63 letters, digits, dots, dashes and underscores; choose another --name"
            )
        if node.state not in ("up", "leaving"):
            return 'a node registers as "up" or "leaving"'
        if not 0 < len(node.address) <= ADDRESS_LENGTH_MAX:
            return f"a node's address has 1 to {ADDRESS_LENGTH_MAX} characters; set --advertise"
        self.nodes[node.name] = node
        return ""

    def set_node_state(self, name: str, state: str) -> None:
        """Change the state of a known node."""
        self.nodes[name] = msgspec.structs.replace(self.nodes[name], state=state)

    def remove_node(self, name: str) -> str:
        """Take out a node that stopped for good; a node that is not there is fine."""
        held = self._shards_naming(name)
        if held:
            return (
                f"{held} shards still name actors of node {name}: wait until they have moved, or, if it is "
                f"gone for ever and their sessions may be lost, run `greenroom forget-node {name}`"
            )
        self.nodes.pop(name, None)
        self.actors = {key: actor for key, actor in self.actors.items() if actor.node != name}
        return ""

    def forget_node(self, name: str) -> str:
        """Take an operator's word that this node and its actors are gone for ever."""
        if name not in self.nodes:
            known = ", ".join(sorted(self.nodes)) or "none"
            return f"there is no node {name!r}; the nodes are: {known}"
        del self.nodes[name]
        gone = [actor.incarnation for actor in self.actors.values() if actor.node == name]
        self.warnings.append(f"node {name} was forgotten by an operator, with {len(gone)} actors")
        self.report_dead(gone)
        return ""

    def _shards_naming(self, node: str) -> int:
        names = {actor.incarnation for actor in self.actors.values() if actor.node == node}
        return sum(1 for entry in self.shards if not names.isdisjoint(entry.members))

    # --- actors ------------------------------------------------------------------------------------------

    def register_actor(self, actor: ActorEntry) -> str:
        """Enter a new incarnation; the former one of its slot becomes "replaced", which is not dead."""
        if len(actor.incarnation) != INCARNATION_BYTES:
            return f"an incarnation has {INCARNATION_BYTES} bytes"
        if actor.node not in self.nodes:
            return f"node {actor.node!r} is not registered; register it first"
        node, _, index = actor.slot.rpartition("/")
        if node != actor.node or not _SLOT_INDEX.fullmatch(index):
            return f"a slot of node {actor.node} is {actor.node}/0, {actor.node}/1 and so on"
        if actor.state != "up":
            return 'an actor registers as "up"'
        if not 0 < len(actor.address) <= ADDRESS_LENGTH_MAX:
            return f"an actor's address has 1 to {ADDRESS_LENGTH_MAX} characters"
        known = self.actors.get(actor.incarnation)
        if known is not None and known.state != "up":
            return f"this incarnation is {known.state}, which is final; start the actor again"
        for other in list(self.actors.values()):
            if other.slot == actor.slot and other.state == "up" and other.incarnation != actor.incarnation:
                self.actors[other.incarnation] = msgspec.structs.replace(other, state="replaced")
        self.actors[actor.incarnation] = actor
        return ""

    def report_dead(self, incarnations: Iterable[bytes]) -> None:
        """Mark these incarnations dead; unknown ones are fine."""
        for incarnation in incarnations:
            actor = self.actors.get(incarnation)
            if actor is not None and actor.state != "dead":
                self.actors[incarnation] = msgspec.structs.replace(actor, state="dead")

    # --- shards ------------------------------------------------------------------------------------------

    def propose(self, proposer: bytes, proposal: Proposal) -> Decision:
        """Decide one proposal, on its own, after those before it."""
        complaint = malformed(proposal, len(self.shards))
        if complaint:
            return Decision(proposal.shard, proposal.nonce, applied=False, reason=complaint)
        before = self.shards[proposal.shard]
        verdict = decide(Situation(before, proposer, proposal, self.actors))
        if verdict.entry is not None:
            self.shards[proposal.shard] = verdict.entry
        if verdict.lost:
            gone = ", ".join(self._describe(member) for member in verdict.lost)
            self._emptied[proposal.shard] = (
                f"shard {proposal.shard} epoch {before.epoch + 1}: every member is dead ({gone}), it was "
                f"started empty on {self._describe(proposer)}; the sessions that only they held are lost"
            )
        return Decision(proposal.shard, proposal.nonce, verdict.applied, verdict.reason)

    def could_apply_later(self, proposal: Proposal) -> bool:
        """Whether a proposal that did not apply might, if it came again: its epoch is not over."""
        if malformed(proposal, len(self.shards)):
            return False
        return proposal.epoch >= self.shards[proposal.shard].epoch

    def _describe(self, incarnation: bytes) -> str:
        actor = self.actors.get(incarnation)
        return f"{actor.slot if actor is not None else 'unknown'}:{incarnation.hex()[:8]}"

    def want(self, plan: Mapping[int, tuple[str, ...]]) -> None:
        """Write what the controller wants; configurations stay as they are."""
        for shard, wanted in plan.items():
            self.shards[shard] = msgspec.structs.replace(self.shards[shard], wanted=wanted)

    def emptied(self) -> list[str]:
        """Return what there is to tell of shards that started empty: one line, however many they are."""
        if len(self._emptied) <= 1:
            return list(self._emptied.values())
        shards = sorted(self._emptied)
        named = ", ".join(str(shard) for shard in shards[:EMPTIED_NAMED])
        more = f" and {len(shards) - EMPTIED_NAMED} more" if len(shards) > EMPTIED_NAMED else ""
        told = (
            f"{len(shards)} shards ({named}{more}) were started empty, for every member of them is dead; the "
            "sessions that only they held are lost"
        )
        return [told]

    # --- the next map ------------------------------------------------------------------------------------

    def finish(self) -> ClusterMap:
        """Drop actors that are over and named by no shard, and return the next map."""
        over = [key for key, actor in self.actors.items() if actor.state != "up"]
        if over:
            named = {member for entry in self.shards for member in entry.members}
            for key in over:
                if key not in named:
                    del self.actors[key]
        base = self._base
        shards: tuple[ShardEntry, ...] = tuple(self.shards)
        if (self.nodes, self.actors, shards) == (base.nodes, base.actors, base.shards):
            return base
        return msgspec.structs.replace(
            base, version=base.version + 1, nodes=self.nodes, actors=self.actors, shards=shards
        )
