"""Whom a coordinator must hear first if it cannot tell whether its map is the newest.

A coordinator restored from an older copy would decide epochs a second time. A backup that was removed after
the copy was made, and never learned of it, knows no later map either: if it were heard first, it would be
made primary beside the primary that removed it. So an unproven coordinator (another boot of its host, or
another directory, than the run before) decides about a shard only once no one is left who could know a later
map (`witnesses`):

- every member that the map does not call dead was heard since the start, or the heir of its directory was,
  with a map no later than ours; and so was everybody whom a change adds that one of these has proposed;
- for a shard that is to go on from disk, the heirs of members that the map calls dead, too;
- for a shard that is to start empty, and in place of whoever died and left no heir that was heard, every node
  was heard, and connected peers have had a moment to speak.

If one of those, or its heir, knows a later configuration from its directory, the shard is not decided at
all. No node need have a map that shows it: all may have been started since.

A member that the map already calls dead cannot have decided anything since; its heir can, but only with
nobody alive, or if members that are away may be passed over: then that heir is awaited always. An operator
who forgets a node gives up what it might have said. Once all were heard, this run is proven for good.
"""

from collections.abc import Container, Iterable, Mapping

import msgspec

from greenroom.cluster_map import ActorEntry, ClusterMap
from greenroom.testimony import Testimony
from greenroom_cluster.coordination.witnesses import Member, node_named, unheard

_HEARD_MAX = 1 << 14


class Heard(msgspec.Struct, frozen=True):
    """An actor that was heard and knows no later map; None: it speaks for itself, so for all shards."""

    kept: frozenset[int] | None

    def has_copy(self, shard: int) -> bool:
        """Whether it has forgotten nothing of what was known of the shard."""
        return self.kept is None or shard in self.kept


_ITSELF = Heard(None)


class Missing(msgspec.Struct, frozen=True):
    """Nodes that were not heard, and those whose actors know later configurations from their directories."""

    silent: tuple[str, ...]
    knowing: tuple[str, ...] = ()


class Hearing:
    """Who was heard since the start of a coordinator with this map; a `proven` one waits for no one.

    `settled_ns`: when connected peers have had their moment, by the coordinator's clock.
    """

    def __init__(self, cluster_map: ClusterMap, settled_ns: int, *, proven: bool) -> None:
        self._settled_ns = settled_ns
        self._proven = proven
        # Counts what was heard and given up; and how much of it was looked at, in search of a proof.
        self._changes, self._looked = 0, -1
        self._awaited: tuple[frozenset[Member], ...] = ()
        self._dead: tuple[frozenset[Member], ...] = ()
        self._directories: dict[bytes, bytes] = {}
        self._heard: dict[bytes, Heard] = {}
        self._heirs: dict[bytes, Heard] = {}
        # Whom they have proposed to add, by shard and who has.
        self._additions: dict[int, dict[bytes, set[Member]]] = {}
        # Who knows a later configuration, by shard.
        self._later: dict[int, set[bytes]] = {}
        self._given_up: set[bytes] = set()
        self._unheard_nodes: dict[str, None] = {}
        self._nodes: set[str] = set()
        if not proven:
            self._begin(cluster_map)

    def _begin(self, cluster_map: ClusterMap) -> None:
        actors, dead_too = cluster_map.actors, cluster_map.recover_alone_seconds > 0
        awaited, dead = [], []
        for entry in cluster_map.shards:
            living, over = set[Member](), set[Member]()
            for one in entry.members:
                actor = actors.get(one)
                if actor is None:
                    continue  # it was forgotten
                if actor.state != "dead" or (dead_too and actor.directory):
                    living.add((one, actor.slot))
                elif actor.directory:
                    over.add((one, actor.slot))
            awaited.append(frozenset(living))
            dead.append(frozenset(over))
        self._awaited, self._dead = tuple(awaited), tuple(dead)
        self._directories = {key: actor.directory for key, actor in actors.items() if actor.directory}
        self._unheard_nodes = dict.fromkeys(cluster_map.nodes)

    # --- what is heard -----------------------------------------------------------------------------------

    def heard(
        self,
        incarnation: bytes,
        epochs: tuple[int, ...],
        testimony: Testimony | None,
        ours: tuple[int, ...],
    ) -> None:
        """Note an actor that knows no later map, but these epochs; `ours` are those of the map now.

        What it tells first counts: what it knows later it may have from us.
        """
        if self._proven or incarnation in self._heard or len(self._heard) >= _HEARD_MAX:
            return
        told = Testimony() if testimony is None else testimony
        self._heard[incarnation] = Heard(frozenset(told.kept))
        for each in told.additions:
            # At an earlier epoch nothing else can have been decided than our map has.
            if each.shard < min(len(epochs), len(ours)) and epochs[each.shard] >= ours[each.shard]:
                by_proposer = self._additions.setdefault(each.shard, {})
                by_proposer.setdefault(incarnation, set()).add((each.member, each.slot))
        self._changes += 1
        self.opened(incarnation, self._directories.get(incarnation, b""))

    def denied(self, incarnation: bytes, epochs: tuple[int, ...], ours: tuple[int, ...]) -> None:
        """Note an actor that knows a later configuration of some shards."""
        if self._proven:
            return
        for shard, (theirs, mine) in enumerate(zip(epochs, ours, strict=False)):
            if theirs > mine and len(known := self._later.setdefault(shard, set())) < _HEARD_MAX:
                known.add(incarnation)

    def opened(self, incarnation: bytes, directory: bytes) -> None:
        """Note the directory of an actor that is registered, as the newest that it was opened by."""
        if self._proven or not directory:
            return
        self._directories[incarnation] = directory
        if incarnation in self._heard:
            self._heirs[directory] = self._heard[incarnation]
            self._changes += 1

    def heard_node(self, name: str) -> None:
        """Note a node's supervisor that was heard and knows no later map."""
        if not self._proven:
            self._unheard_nodes.pop(name, None)
            self._nodes.add(name)

    def give_up(self, name: str, incarnations: Iterable[bytes], known: Container[bytes]) -> None:
        """Stop waiting for a node and these actors: an operator says that they are gone.

        So are those that it had and that are not `known` to the map.
        """
        self._unheard_nodes.pop(name, None)
        self._given_up.update(incarnations)
        self._given_up.update(
            member[0] for member in self._added() if member[0] not in known and node_named(member) == name
        )
        self._changes += 1

    def keep_nodes(self, nodes: Mapping[str, object]) -> None:
        """Stop waiting for a node that has left for good."""
        for name in [name for name in self._unheard_nodes if name not in nodes]:
            del self._unheard_nodes[name]

    # --- who is missing ----------------------------------------------------------------------------------

    def _added(self) -> Iterable[Member]:
        return (one for by in self._additions.values() for added in by.values() for one in added)

    def _witness(self, member: bytes) -> Heard | None:
        if member in self._heard or member in self._given_up:
            return _ITSELF
        directory = self._directories.get(member)
        return None if directory is None else self._heirs.get(directory)

    def _concerned(self, shard: int) -> set[Member]:
        """Return the members, and whom those or their heirs would have added."""
        members = self._awaited[shard] | self._dead[shard]
        concerned = set(self._awaited[shard])
        proposed = self._additions.get(shard)
        if proposed:
            owners = {self._directories.get(one) for one, _ in members} - {None}
            named = {one for one, _ in members}
            for proposer, added in proposed.items():
                if proposer in named or self._directories.get(proposer) in owners:
                    concerned |= added
        return concerned

    def _unheard(self, shard: int) -> list[Member]:
        return unheard(shard, self._concerned(shard), self._witness)

    def _may_live(self, member: Member, actors: Mapping[bytes, ActorEntry]) -> bool:
        """Whether an actor is not known dead; of one that the map does not name its supervisor would tell."""
        actor = actors.get(member[0])
        if actor is not None:
            return actor.state != "dead"
        added = any(member[0] == one for one, _ in self._added())
        return added and node_named(member) not in self._nodes

    def _knowing(
        self, shard: int, members: Iterable[Member], actors: Mapping[bytes, ActorEntry]
    ) -> list[bytes]:
        """Return those of these, and those in their directories or slots, who know a later configuration."""
        known = self._later.get(shard, set()) - self._given_up
        named = {one for one, _ in members} if known else set()
        owners = {self._directories.get(one) for one in named} - {None}
        slots = {slot for _, slot in members if slot}
        return [
            one
            for one in sorted(known)
            if one in named
            or self._directories.get(one) in owners
            or ((actor := actors.get(one)) is not None and actor.slot in slots)
        ]

    def awaits(self, incarnation: bytes) -> bool:
        """Whether this actor must still be heard."""
        return any(
            incarnation == member for shard in range(len(self._awaited)) for member, _ in self._unheard(shard)
        )

    def awaits_node(self, name: str, known: Container[bytes]) -> bool:
        """Whether an actor must still be heard that is not known to the map, and ran on that node."""
        return any(
            member[0] not in known and self._witness(member[0]) is None and node_named(member) == name
            for member in self._added()
        )

    def proven(self, now_ns: int) -> bool:
        """Whether all were heard, so that this run is as safe as a coordinator that never stopped."""
        if not self._proven and self._all_came(now_ns) and self._looked != self._changes:
            self._looked = self._changes
            self._proven = not any(self._unheard(shard) for shard in range(len(self._awaited)))
            if self._proven:
                self._awaited = self._dead = ()
                self._additions = {}
        return self._proven

    def progress(self, now_ns: int) -> tuple[int, int, bool]:
        """Return what changes whenever a proposal that was held back may no longer be."""
        return self._changes, len(self._unheard_nodes), now_ns >= self._settled_ns

    def holds_back(self, now_ns: int, shard: int, kind: str, actors: Mapping[bytes, ActorEntry]) -> bool:
        """Whether a proposal of that kind must wait; `actors` are those of the present map."""
        if self._proven:
            return False
        awaited = self._unheard(shard)
        if any(self._may_live(member, actors) for member in awaited):
            return True
        if kind == "recover":
            awaited += unheard(shard, self._dead[shard], self._witness)
        if awaited and self._knowing(shard, awaited, actors):
            return True
        return (bool(awaited) or kind == "start") and not self._all_came(now_ns)

    def missing(self, shards: Iterable[int], actors: Mapping[bytes, ActorEntry]) -> Missing:
        """Return why these shards wait."""
        silent: dict[str, None] = {}
        knowing: dict[str, None] = {}
        for shard in shards if not self._proven else ():
            awaited = self._unheard(shard)
            for member in awaited:
                if self._may_live(member, actors):
                    silent[node_named(member)] = None
            for one in self._knowing(shard, awaited, actors):
                slot = actors[one].slot if one in actors else dict(awaited).get(one, "")
                knowing[node_named((one, slot))] = None
        return Missing(tuple(sorted(silent or self._unheard_nodes)), tuple(sorted(knowing)))

    def _all_came(self, now_ns: int) -> bool:
        return not self._unheard_nodes and now_ns >= self._settled_ns
