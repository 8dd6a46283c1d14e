"""The map made anew from what directories know, after that of the coordinator was lost with all processes.

Of each shard the newest configuration that any directory knows is taken, but only once nobody is left who
could know a later one: a change is decided on the proposal of a member (or of the heir of one), who has it
on disk before it is sent. So every member of that configuration, and everybody whom a change proposed at it
would have made a member, must be heard by a directory, or be given up by an operator; what they know may name
others, and so on (`witnesses`). A shard that no directory knows is not begun: it may be in one that has yet
to come. Nobody is given up whose node runs: it may be reading its directory.

Then the map begins a new lineage with the members of each shard, all known dead, and their directories. Who
goes on with a shard is decided by their heirs' claims, as after any power cut (`recovery`).
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry
from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination.bounds import actor_objection
from greenroom_cluster.coordination.exchange import ConnectionClosed, Incoming
from greenroom_cluster.coordination.foreigners import refusal
from greenroom_cluster.coordination.genesis import ClusterOptions, blank_map
from greenroom_cluster.coordination.messages import (
    SHOW_DIRECTORY,
    Accepted,
    CoordinatorReply,
    DeclareDead,
    ForgetNode,
    Heartbeat,
    KnownShard,
    Rejected,
    ShowDirectory,
)
from greenroom_cluster.coordination.owners import NOWHERE
from greenroom_cluster.coordination.rules import EPOCH_LIMIT, LINEAGE_EPOCHS
from greenroom_cluster.coordination.witnesses import Member, node_named, unheard
from greenroom_cluster.planning.placement import node_of

ADOPTING = "adopting"
"""The code of the `Goodbye` to who has said what its directory knows, or has none."""

SETTLE_SECONDS = 2.0
"""For so long no directory must have come that tells anything new."""

AWAY_SECONDS = 3.0
"""A node whose supervisor has not asked for a map for so long does not run; else it asks twice a second."""

_NAMED = 20
_DIRECTORIES_MAX = 1 << 14


class Shown(msgspec.Struct, frozen=True):
    """What one directory knows, in parts, the one that came last at the end; of what shards it has copies."""

    parts: tuple[ShowDirectory, ...]
    holds: frozenset[int]

    @classmethod
    def of(cls, parts: tuple[ShowDirectory, ...]) -> "Shown":
        """Return what these parts amount to."""
        known = {known.shard for part in parts for known in part.known}
        return cls(parts, frozenset(known.union(parts[-1].held)))

    @property
    def newest(self) -> ShowDirectory:
        """The part that came last; what does not concern shards is in each."""
        return self.parts[-1]

    @property
    def known(self) -> Iterator[KnownShard]:
        """What it knows of each shard."""
        return (each for part in self.parts for each in part.known)

    def has_copy(self, shard: int) -> bool:
        """Whether it has a copy of the shard; who gave that up knew a later configuration then."""
        return shard in self.holds


class Wanting(msgspec.Struct, frozen=True):
    """What lacks for a map: nodes, with the shards that wait for each, and `unknown` shards.

    Those that are `emptied` have come, but gave up their copies of these shards. Of nodes that run, `opening`
    are the slots from which nobody has come yet, though what was there is awaited.
    """

    absent: Mapping[str, set[int]] = {}
    emptied: Mapping[str, set[int]] = {}
    opening: Mapping[str, set[str]] = {}
    unknown: tuple[int, ...] = ()

    @property
    def awaited(self) -> tuple[str, ...]:
        """All nodes that are waited for."""
        return tuple({**self.absent, **self.emptied})


def rank(known: KnownShard) -> tuple[int, int, int]:
    """Return what tells which of two configurations of a shard was decided later."""
    return known.lineage, known.epoch, known.version


def newest_of(shown: Mapping[bytes, Shown]) -> dict[int, KnownShard]:
    """Return the newest configuration of each shard that any of these directories knows."""
    newest: dict[int, KnownShard] = {}
    for directory in shown.values():
        for known in directory.known:
            found = newest.get(known.shard)
            if found is None or rank(known) > rank(found):
                newest[known.shard] = known
    return newest


def concerned(shown: Mapping[bytes, Shown], newest: Mapping[int, KnownShard]) -> dict[int, set[Member]]:
    """Return who may know a later configuration than the newest one, by shard."""
    members: dict[int, set[Member]] = {shard: set() for shard in newest}
    for directory in shown.values():
        for known in directory.known:
            if rank(known)[:2] == rank(newest[known.shard])[:2]:
                members[known.shard].update(known.members, known.proposed)
    return members


class Adoption:
    """Gathers what directories know, for a cluster with these options."""

    def __init__(self, options: ClusterOptions, now_ns: int) -> None:
        self._options = options
        self._shown: dict[bytes, Shown] = {}
        # Parts of which the last has not come, by connection.
        self._begun: dict[int, tuple[ShowDirectory, ...]] = {}
        self._senders: dict[bytes, None] = {}
        self._given_up: set[str] = set()
        # By node, when its supervisor was heard last.
        self._heard_ns: dict[str, int] = {}
        self._changed, self._settled = True, False
        self._changed_ns = now_ns
        self._told = ""
        self._wanting: Wanting | None = None
        self._text = ""

    # --- what comes --------------------------------------------------------------------------------------

    def take(self, connection: int, sender: bytes, part: ShowDirectory) -> None:
        """Take a part of what the directory of this sender knows."""
        begun = (*self._begun.pop(connection, ()), part)
        if part.more:
            self._begun[connection] = begun
            return
        self._senders[sender] = None
        found = self._shown.get(part.directory)
        if found is not None and found.newest.mark > part.mark:
            return  # an older copy of it
        if len(self._shown) < _DIRECTORIES_MAX and _is_sound(part):
            self._shown[part.directory] = Shown.of(begun)
            if found is None or found.parts != begun:
                self._change()

    def _change(self) -> None:
        self._changed = True
        self._look_again()

    def _look_again(self) -> None:
        self._wanting, self._text = None, ""

    def answer(self, now_ns: int, incoming: Incoming) -> CoordinatorReply | None:
        """Return the reply to anything else: nothing is decided before there is a map."""
        message = incoming.message
        if isinstance(message, Heartbeat):
            self._hear(now_ns, message.node)
            return None  # its `Subscribe` is answered
        if isinstance(message, ConnectionClosed):
            self._begun.pop(incoming.connection, None)
            return None
        if isinstance(message, ForgetNode | DeclareDead) and incoming.role == wire.ROLE_OPERATOR:
            return self._give_up(message)
        if isinstance(message, wire.Subscribe) and incoming.role == wire.ROLE_OPERATOR:
            return None  # a goodbye would overtake the answer to what it orders
        asked = incoming.role == wire.ROLE_PEER and incoming.sender not in self._senders
        return refusal(message, SHOW_DIRECTORY if asked else ADOPTING, self.told())

    def _hear(self, now_ns: int, node: str) -> None:
        """Note that a node runs. If it was given up, that was said before it came back."""
        if node not in self._heard_ns:
            if len(self._heard_ns) >= _DIRECTORIES_MAX:
                return
            self._look_again()
        self._heard_ns[node] = now_ns

    def _forget_silent(self, now_ns: int) -> None:
        away_ns = round(AWAY_SECONDS * 1e9)
        for node in [each for each, heard_ns in self._heard_ns.items() if now_ns - heard_ns >= away_ns]:
            del self._heard_ns[node]
            self._look_again()

    def _give_up(self, message: ForgetNode | DeclareDead) -> CoordinatorReply:
        if isinstance(message, DeclareDead):
            return Rejected(message.request_id, f"nobody counts as alive yet: {self.told()}")
        wanting = self.wanting()
        awaited = wanting.awaited
        if opening := sorted(wanting.opening.get(message.name, ())):
            return Rejected(message.request_id, _may_open(message.name, opening))
        if message.name not in awaited:
            named = ", ".join(awaited[:_NAMED]) or "none"
            return Rejected(
                message.request_id, f"node {message.name!r:.80} is not awaited; awaited are: {named}"
            )
        self._given_up.add(message.name)
        self._change()
        return Accepted(message.request_id, (self.told(),))

    # --- what follows ------------------------------------------------------------------------------------

    @property
    def directories(self) -> int:
        """How many directories have come."""
        return len(self._shown)

    def wanting(self) -> Wanting:
        """Return what lacks."""
        if self._wanting is None:
            self._wanting = self._look()
        return self._wanting

    def _look(self) -> Wanting:
        newest = newest_of(self._shown)
        absent: dict[str, set[int]] = {}
        emptied: dict[str, set[int]] = {}
        opening: dict[str, set[str]] = {}
        slots, openers = self._slots(), self._openers
        came = {each.newest.slot for each in self._shown.values()}
        for shard, members in sorted(concerned(self._shown, newest).items()):
            for member in unheard(shard, members, openers.get):
                slot = member[1] or slots.get(member[0], "")
                node = node_named(member, slot)
                has_come = member[0] in openers
                if not has_come and node in self._heard_ns and slot not in came:
                    opening.setdefault(node, set()).add(slot)
                elif node in self._given_up:
                    continue
                found = emptied if has_come else absent
                found.setdefault(node, set()).add(shard)
        unknown = tuple(shard for shard in range(self._shards) if shard not in newest)
        return Wanting(absent, emptied, opening, unknown)

    def _slots(self) -> dict[bytes, str]:
        """Return the slots of all incarnations of which one is known."""
        slots: dict[bytes, str] = {}
        for directory in self._shown.values():
            for known in directory.known:
                slots.update((one, slot) for one, slot in (*known.members, *known.proposed) if slot)
        return slots

    @property
    def _openers(self) -> dict[bytes, Shown]:
        return {
            opener: directory for directory in self._shown.values() for opener in directory.newest.openers
        }

    @property
    def _shards(self) -> int:
        """How many shards the cluster has, as the options or directories say."""
        asked = self._options.shards
        told = (each.newest.shards for each in self._shown.values())
        return max(told, default=0) if asked is None else asked

    def contradiction(self) -> str:
        """Return why no map can be made of these directories, however many others come, or ""."""
        directories = [each.newest for each in self._shown.values()]
        if len({each.identity for each in directories if each.identity}) > 1:
            return (
                "there are directories of two clusters of this name: stop the nodes of the one that is not "
                "to go on, or give them empty directories, and start the coordinator again"
            )
        counts = {each.shards for each in directories if each.shards}
        if self._options.shards is not None:
            counts.add(self._options.shards)
        if len(counts) > 1:
            named = " and ".join(map(str, sorted(counts)))
            return f"the cluster has one number of shards, and {named} are named: check --shards"
        if self._shown and not counts:
            return "no directory knows how many shards the cluster has: say it with --shards"
        if any(known.shard >= self._shards for each in self._shown.values() for known in each.known):
            return f"directories know shards beyond {self._shards}: check --shards (GREENROOM_SHARDS)"
        newest = newest_of(self._shown).values()
        lineage = _next_lineage(newest)
        if any(_raised(known, lineage) >= EPOCH_LIMIT for known in newest):
            return "the cluster has used up its epochs: create a new cluster"
        return ""

    def told(self) -> str:
        """Return, for an operator, what the new map waits for."""
        if not self._text:
            self._text = self._tell()
        return self._text

    def _tell(self) -> str:
        if not self._shown:
            return "the map is made anew from what directories know, and none has come yet: start the nodes"
        begun = f"the map is made anew from what {self.directories} directories know"
        if complaint := self.contradiction():
            return f"{begun}, but {complaint}"
        lines = _told_of(self.wanting(), give_up=self._options.give_up_newer)
        return f"{begun}: {'; '.join(lines)}" if lines else begun

    def news(self) -> list[str]:
        """Return `told`, once nothing has changed for a while, if it was not returned before."""
        if not self._settled:
            return []
        told, former = self.told(), self._told
        self._told = told
        return [told] if told != former else []

    def conclude(self, now_ns: int, wall_ms: int) -> ClusterMap | None:
        """Return the first map, once nobody is left who could know more; None before that."""
        self._forget_silent(now_ns)
        if self._changed:
            self._changed, self._changed_ns = False, now_ns
        self._settled = now_ns - self._changed_ns >= round(SETTLE_SECONDS * 1e9)
        if not self._settled or not self._shown or self._begun or self.contradiction():
            return None
        wanting = self.wanting()
        if wanting.awaited or (wanting.unknown and not self._options.give_up_newer):
            return None
        return self._map(wall_ms)

    def next_deadline(self) -> int:
        """Return when `conclude` may have more to say though nothing has come."""
        away_ns = min(self._heard_ns.values(), default=NEVER_NS - round(AWAY_SECONDS * 1e9))
        silent_ns = away_ns + round(AWAY_SECONDS * 1e9)
        return silent_ns if self._settled else min(silent_ns, self._changed_ns + round(SETTLE_SECONDS * 1e9))

    # --- the map -----------------------------------------------------------------------------------------

    def _map(self, wall_ms: int) -> ClusterMap:
        directories = [each.newest for each in self._shown.values()]
        identity = next((each.identity for each in directories if each.identity), b"")
        newest = newest_of(self._shown)
        lineage = _next_lineage(newest.values())
        version = 1 + max((known.version for known in newest.values()), default=0)
        blank = blank_map(self._options, self._shards, identity)
        entries = list(blank.shards)
        openers = self._openers
        for shard, known in newest.items():
            # Nobody claims without a copy.
            named = tuple(member for member, _ in known.members)
            members = (
                tuple(each for each in named if each not in openers or openers[each].has_copy(shard)) or named
            )
            entries[shard] = ShardEntry(_raised(known, lineage), members[0], members[1:], known.nonce, ())
        actors = {
            member: _entry(member, openers[member].newest)
            for entry in entries
            for member in entry.members
            if member in openers
        }
        nodes = {actor.node: NodeEntry(actor.node, NOWHERE, "down") for actor in actors.values()}
        return msgspec.structs.replace(
            blank,
            lineage=lineage,
            # Should a map have been made anew before, and be lost as well, it had another version.
            version=max(version, wall_ms),
            nodes=nodes,
            actors=actors,
            shards=tuple(entries),
            floors={actor.directory: actor.mark for actor in actors.values()},
        )


def _next_lineage(newest: Iterable[KnownShard]) -> int:
    return 1 + max((known.lineage for known in newest), default=0)


def _raised(known: KnownShard, lineage: int) -> int:
    return known.epoch + LINEAGE_EPOCHS * (lineage - known.lineage)


def _entry(member: bytes, directory: ShowDirectory) -> ActorEntry:
    """Return the entry of a former incarnation, which nobody runs any more.

    How it wrote is not known; so nobody may go on alone with what it has.
    """
    slot, node = directory.slot, node_of(directory.slot)
    return ActorEntry(
        member, node, slot, NOWHERE, "dead", "", 0, 0, "interval", directory.directory, directory.mark
    )


def _is_sound(directory: ShowDirectory) -> bool:
    return not actor_objection(msgspec.structs.replace(_entry(bytes(16), directory), state="up"))


def _told_of(wanting: Wanting, *, give_up: bool) -> list[str]:
    lines = []
    if absent := wanting.absent:
        lines.append(
            f"{_waiting(absent)} for directories of node {_named(absent)}, which may know later "
            "configurations: start it with its directories, or if they are gone for good run "
            f"`greenroom forget-node {next(iter(absent))}`"
        )
    if emptied := wanting.emptied:
        lines.append(
            f"{_waiting(emptied)} for what node {_named(emptied)} knew, which has come, but gave up its copy "
            "when there was a later configuration: start all other nodes that have directories, or if "
            f"none is left to come run `greenroom forget-node {next(iter(emptied))}`"
        )
    if wanting.unknown and not give_up:
        named, count = ", ".join(map(str, wanting.unknown[:_NAMED])), len(wanting.unknown)
        lines.append(
            f"no directory knows {count} {'shard' if count == 1 else 'shards'} ({named}): start all nodes; "
            "if the directories that knew them are gone for good, start the coordinator again with "
            "--give-up-newer (GREENROOM_GIVE_UP_NEWER) besides, and these shards begin empty"
        )
    return lines


def _may_open(name: str, slots: list[str]) -> str:
    more = f" and {len(slots) - _NAMED} more" if len(slots) > _NAMED else ""
    return (
        f"node {name} is back, and may be reading the directory of {', '.join(slots[:_NAMED])}{more}: "
        "forgetting it now would lose what that holds. Wait until it is not named any more (start the node "
        "with as many --actors as before); or, if that cannot be, stop the node and forget it "
        f"{AWAY_SECONDS:g} s later"
    )


def _waiting(nodes: Mapping[str, set[int]]) -> str:
    count = len(set[int]().union(*nodes.values()))
    return f"{count} {'shard waits' if count == 1 else 'shards wait'}"


def _named(nodes: Iterable[str]) -> str:
    return ", ".join([*nodes][:_NAMED])
