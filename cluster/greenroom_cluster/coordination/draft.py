"""The next map, as one batch of registrations, deaths, departures and proposals makes it.

Every method returns "" on success, or why not and what to do. None raises on anything a peer may send.

Whether the sender may speak for a node is decided before (`owners`); a registration replaces the former entry
of its name.
"""

from collections.abc import Collection, Iterable, Mapping

import msgspec

from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry, SuspectRecord
from greenroom_cluster.coordination.absence import EVERYBODY, Awaiting
from greenroom_cluster.coordination.bounds import (
    MAP_BYTES_MAX,
    NODES_MAX,
    SUSPECTS_MAX,
    Room,
    actor_objection,
    node_objection,
)
from greenroom_cluster.coordination.messages import Decision, Proposal, Suspicion
from greenroom_cluster.coordination.recovery import Last
from greenroom_cluster.coordination.rules import Situation, decide, malformed

EMPTIED_NAMED = 4
NODES_NAMED = 20
NO_MARKS: Mapping[bytes, int] = {}
NO_CLAIMS: Mapping[bytes, Last] = {}


class Draft:
    """A mutable copy of a map; `finish` returns the next map, or the same one if nothing changed.

    `marks` says how far directories have come beyond their floors. `buried` are those that a registration
    proved dead, or an operator called so. `wall_us` is the wall clock, 0 if it is not known.
    """

    def __init__(self, base: ClusterMap, marks: Mapping[bytes, int] = NO_MARKS, wall_us: int = 0) -> None:
        self._base = base
        self._wall_us = wall_us
        self._marks = marks
        self.nodes = dict(base.nodes)
        self.actors = dict(base.actors)
        self.shards = list(base.shards)
        self.floors = dict(base.floors)
        self.warnings: list[str] = []
        self.buried: list[bytes] = []
        self._emptied: dict[int, str] = {}
        self._reckoned: Room | None = None

    # --- nodes -------------------------------------------------------------------------------------------

    def register_node(self, node: NodeEntry) -> str:
        """Add or change a node."""
        complaint = node_objection(node)
        if complaint:
            return complaint
        if self.nodes.get(node.name) == node:
            return ""
        if node.name not in self.nodes and len(self.nodes) >= NODES_MAX:
            return f"a cluster has at most {NODES_MAX} nodes"
        if not self._room.take_node(node):
            return self._no_room()
        self.nodes[node.name] = node
        return ""

    def set_node_state(self, name: str, state: str) -> None:
        """Change the state of a known node."""
        self.nodes[name] = msgspec.structs.replace(self.nodes[name], state=state)

    def remove_node(self, name: str) -> str:
        """Remove a node that stopped for good; a node that is not there is fine."""
        held = self._shards_naming(name)
        if held:
            return (
                f"{held} shards still name actors of node {name}: wait until they have moved, or, if it is "
                f"gone for good and their sessions may be lost, run `greenroom forget-node {name}`"
            )
        self.nodes.pop(name, None)
        self.actors = {key: actor for key, actor in self.actors.items() if actor.node != name}
        return ""

    def unknown(self, name: str) -> str:
        """Return that there is no such node, and which there are."""
        known = sorted(self.nodes)
        more = f" and {len(known) - NODES_NAMED} more" if len(known) > NODES_NAMED else ""
        named = ", ".join(known[:NODES_NAMED]) or "none"
        return f"there is no node {name!r:.80}; the nodes are: {named}{more}"

    def forget_node(self, name: str) -> None:
        """Remove a known node that, by an operator's word, is gone for good with its actors."""
        del self.nodes[name]
        gone = [actor.incarnation for actor in self.actors.values() if actor.node == name]
        self.warnings.append(f"node {name} was forgotten by an operator, with {len(gone)} actors")
        self.give_up(gone)

    def give_up(self, incarnations: Iterable[bytes]) -> None:
        """Bury these by an operator's word, and count their directories as lost, if no one runs in them."""
        incarnations = tuple(incarnations)
        self.bury(incarnations)
        for incarnation in self.abandoned() & set(incarnations):
            actor = self.actors[incarnation]
            self.actors[incarnation] = msgspec.structs.replace(actor, durability="", directory=b"", mark=0)

    def abandoned(self) -> set[bytes]:
        """Return those in whose directories nobody runs."""
        in_use = {actor.directory for actor in self.actors.values() if actor.state == "up"}
        return {
            key for key, actor in self.actors.items() if actor.directory and actor.directory not in in_use
        }

    def _shards_naming(self, node: str) -> int:
        names = {actor.incarnation for actor in self.actors.values() if actor.node == node}
        return sum(1 for entry in self.shards if not names.isdisjoint(entry.members))

    # --- actors ------------------------------------------------------------------------------------------

    def register_actor(self, actor: ActorEntry) -> str:
        """Add a new incarnation; the former one of its slot becomes "replaced", which is not dead."""
        if actor.node not in self.nodes:
            return f"node {actor.node!a:.80} is not registered; register it first"
        complaint = actor_objection(actor)
        if complaint:
            return complaint
        known = self.actors.get(actor.incarnation)
        if known is not None and known.slot != actor.slot:
            return f"this incarnation is that of {known.slot}; start the actor again"
        if known is not None and known.state != "up":
            return f"this incarnation is {known.state}, which is final; start the actor again"
        if known == actor:
            return ""
        if known is not None and (known.directory, known.mark) != (actor.directory, actor.mark):
            return "an actor keeps the directory that it opened; start the actor again"
        if known is None and self.is_older_copy(actor):
            return self._older_copy(actor)
        if not self._room.take_actor(actor):
            return self._no_room()
        self._succeed(actor)
        self.actors[actor.incarnation] = actor
        self._raise_floor(actor, actor.mark)
        return ""

    def _succeed(self, actor: ActorEntry) -> None:
        """Note that the former ones of this slot are replaced, and those of this directory dead.

        Who opened the directory holds its lock, in the place where those before it did: none of them runs.
        """
        for other in list(self.actors.values()):
            if other.incarnation == actor.incarnation:
                continue
            if actor.directory and other.directory == actor.directory:
                self.bury([other.incarnation])
            elif other.slot == actor.slot and other.state == "up":
                self.actors[other.incarnation] = msgspec.structs.replace(other, state="replaced")

    def is_older_copy(self, actor: ActorEntry) -> bool:
        """Whether its directory has come less far than was seen of it before."""
        return actor.mark < self._floor(actor.directory)

    def _floor(self, directory: bytes) -> int:
        return max(self.floors.get(directory, 0), self._marks.get(directory, 0))

    def _older_copy(self, actor: ActorEntry) -> str:
        return (
            f"the directory of {actor.slot} ({actor.directory.hex()[:8]}) is an older copy: it has come to "
            f"mark {actor.mark}, and {self._floor(actor.directory)} was seen of it. Stop the node and put "
            "the newest copy back; or, if that is gone, set this one aside, give the actor an empty "
            f"directory, and run `greenroom forget-node {actor.node}` if shards wait for it. It is never "
            "made to count, but what it holds can be restored like a backup: see the page on durability"
        )

    def _raise_floor(self, actor: ActorEntry, mark: int) -> None:
        if actor.directory:
            self.floors[actor.directory] = max(mark, self.floors.get(actor.directory, 0))

    def raise_floors(self, marks: Iterable[tuple[bytes, int]], allowed: Collection[bytes]) -> None:
        """Note how far the directories of these incarnations had come, if they are allowed ones."""
        for incarnation, mark in marks:
            actor = self.actors.get(incarnation)
            if actor is not None and incarnation in allowed:
                self._raise_floor(actor, mark)

    def bury(self, incarnations: Collection[bytes]) -> None:
        """Mark dead who has not been seen to end."""
        self.buried += incarnations
        self.report_dead(incarnations)

    def report_dead(self, incarnations: Iterable[bytes]) -> None:
        """Mark these incarnations dead; unknown ones are fine."""
        for incarnation in incarnations:
            actor = self.actors.get(incarnation)
            if actor is not None and actor.state != "dead":
                self.actors[incarnation] = msgspec.structs.replace(actor, state="dead")

    @property
    def _room(self) -> Room:
        """What the map has room for; computed on first use, because most batches register nothing."""
        if self._reckoned is None:
            self._reckoned = Room(self._base)
        return self._reckoned

    def _no_room(self) -> str:
        return (
            f"the map of {len(self.shards)} shards, {len(self.nodes)} nodes and {len(self.actors)} actors "
            f"has no room for another: those who follow it take {MAP_BYTES_MAX} bytes at most. Start fewer "
            "actors (--actors) or nodes, under shorter names (--name)"
        )

    def suspect(self, actors: Collection[bytes], suspicions: Iterable[Suspicion]) -> None:
        """Note the records on which these actors died or hang, or withdraw such notes.

        A record is noted only if the actor is a member of its shard. A note stays with a shard that is taken
        over.
        """
        for suspicion in suspicions:
            shard, record = suspicion.shard, suspicion.record
            if not 0 <= shard < len(self.shards) or record.actor not in actors:
                continue
            entry = self.shards[shard]
            if suspicion.passed:
                if entry.suspect == record:
                    self.shards[shard] = msgspec.structs.replace(entry, suspect=None)
                    self.warnings.append(f"shard {shard}: {self._named(record)} was passed after all")
            elif record.actor in entry.members and entry.suspect != record:
                self._suspect(shard, record)

    def _suspect(self, shard: int, record: SuspectRecord) -> None:
        if sum(entry.suspect is not None for entry in self.shards) >= SUSPECTS_MAX:
            self.warnings.append(f"shard {shard}: more than {SUSPECTS_MAX} records are suspected at once")
            return
        self.shards[shard] = msgspec.structs.replace(self.shards[shard], suspect=record)
        self.warnings.append(
            f"shard {shard}: {self._named(record)} ended or hangs that actor; a backup that takes over stops "
            "before it"
        )

    def _named(self, record: SuspectRecord) -> str:
        return f"record {record.epoch}/{record.sequence} at {self._describe(record.actor)}"

    # --- shards ------------------------------------------------------------------------------------------

    def propose(
        self,
        proposer: bytes,
        proposal: Proposal,
        claims: Mapping[bytes, Last] = NO_CLAIMS,
        awaiting: Awaiting = EVERYBODY,
    ) -> Decision | None:
        """Decide one proposal, in the state that the ones before it left; None: there is no reply yet.

        `claims` are those that stand on its shard; a "recover" is one more. `awaiting` says which members it
        need not wait for.
        """
        complaint = malformed(proposal, len(self.shards))
        if complaint:
            return Decision(proposal.shard, proposal.nonce, applied=False, reason=complaint)
        before = self.shards[proposal.shard]
        if proposal.kind == "recover":
            claims = {**claims, proposer: proposal.last}
        verdict = decide(Situation(before, proposer, proposal, self.actors, claims, self._wall_us, *awaiting))
        if verdict.waits:
            return None
        if verdict.entry is not None and not self._room_for(before, verdict.entry):
            reason = "refused: the cluster map has no room for another member"
            return Decision(proposal.shard, proposal.nonce, applied=False, reason=reason)
        if verdict.entry is not None:
            self.shards[proposal.shard] = verdict.entry
            self._count(proposer, proposal)
        if verdict.lost:
            gone = ", ".join(self._describe(member) for member in verdict.lost)
            self._emptied[proposal.shard] = (
                f"shard {proposal.shard} epoch {before.epoch + 1}: every member is dead ({gone}), it was "
                f"started empty on {self._describe(proposer)}; the sessions that only they held are lost"
            )
        return Decision(proposal.shard, proposal.nonce, verdict.applied, verdict.reason)

    def is_claim(self, claimant: bytes, proposal: Proposal, awaiting: Awaiting = EVERYBODY) -> bool:
        """Whether a proposal to recover a shard would apply if others were not awaited."""
        if proposal.kind != "recover" or malformed(proposal, len(self.shards)):
            return False
        claims = {claimant: proposal.last}
        verdict = decide(
            Situation(self.shards[proposal.shard], claimant, proposal, self.actors, claims, 0, *awaiting)
        )
        return verdict.waits or verdict.entry is not None

    def _count(self, proposer: bytes, proposal: Proposal) -> None:
        """Raise the floors of the directories that count from now on."""
        self.raise_floors(proposal.marks, {proposer, proposal.primary, *proposal.backups})

    def _room_for(self, before: ShardEntry, after: ShardEntry) -> bool:
        return len(after.backups) <= self._base.replicas or self._room.take_members(before, after)

    def could_apply_later(self, proposal: Proposal) -> bool:
        """Whether a proposal that did not apply might do so when repeated: its epoch is not over."""
        if malformed(proposal, len(self.shards)):
            return False
        return proposal.epoch >= self.shards[proposal.shard].epoch

    def _describe(self, incarnation: bytes) -> str:
        actor = self.actors.get(incarnation)
        return f"{actor.slot if actor is not None else 'unknown'}:{incarnation.hex()[:8]}"

    def want(self, plan: Mapping[int, tuple[str, ...]]) -> None:
        """Write the placement that the controller wants; configurations stay as they are."""
        for shard, wanted in plan.items():
            self.shards[shard] = msgspec.structs.replace(self.shards[shard], wanted=wanted)

    def emptied(self) -> list[str]:
        """Return a warning about shards that started empty: one line, whatever their number."""
        if len(self._emptied) <= 1:
            return list(self._emptied.values())
        shards = sorted(self._emptied)
        named = ", ".join(str(shard) for shard in shards[:EMPTIED_NAMED])
        more = f" and {len(shards) - EMPTIED_NAMED} more" if len(shards) > EMPTIED_NAMED else ""
        told = (
            f"{len(shards)} shards ({named}{more}) were started empty, because every member of them is dead; "
            "the sessions that only they held are lost"
        )
        return [told]

    # --- the next map ------------------------------------------------------------------------------------

    def finish(self) -> ClusterMap:
        """Drop actors that have ended and are named by no shard, and return the next map."""
        over = [key for key, actor in self.actors.items() if actor.state != "up"]
        if over:
            named = {member for entry in self.shards for member in entry.members}
            for key in over:
                if key not in named:
                    del self.actors[key]
        if self.floors:
            kept = {actor.directory for actor in self.actors.values()}
            self.floors = {key: mark for key, mark in self.floors.items() if key in kept}
        base = self._base
        shards: tuple[ShardEntry, ...] = tuple(self.shards)
        if (self.nodes, self.actors, shards, self.floors) == (
            base.nodes,
            base.actors,
            base.shards,
            base.floors,
        ):
            return base
        return msgspec.structs.replace(
            base,
            version=base.version + 1,
            nodes=self.nodes,
            actors=self.actors,
            shards=shards,
            floors=self.floors,
        )
