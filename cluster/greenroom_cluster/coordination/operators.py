"""What an operator says of a node, which nobody else can know, and what becomes of its shards then.

`forget-node`: it is gone for good, with what its processes held and its directories. `declare-dead`: none of
its processes runs, but its directories may come back. Both are taken of a silent node only, and not while it
is being started: its name may still be that of the supervisor before. Of one that is heard, `forget-node`
means what ran before on it and is never heard again, or whose directory is lost. A directory in whose slot
nobody has registered yet need not be lost: its actor may be reading it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from greenroom.cluster_map import ActorEntry, ShardEntry
from greenroom_cluster.coordination.draft import Draft
from greenroom_cluster.coordination.hearing import Hearing
from greenroom_cluster.coordination.messages import DeclareDead, ForgetNode
from greenroom_cluster.coordination.owners import Owners
from greenroom_cluster.coordination.recovery import (
    Last,
    Recoveries,
    best_claimant,
    durable_members,
    is_known_dead,
)

TOLD_MAX = 20
"""So many shards are told of one by one."""

_NAMED = 5

EMPTY = "starts empty"
WAITS = "waits"
GOES_ON = "goes on"
_COUNTED = {EMPTY: "start empty", WAITS: "wait for directories", GOES_ON: "go on from a directory"}


class Operators:
    """Carries out operators' words. A node is silent if it was not heard for `down_ns`."""

    def __init__(self, owners: Owners, hearing: Hearing, recoveries: Recoveries, down_ns: int) -> None:
        self._owners = owners
        self._hearing = hearing
        self._recoveries = recoveries
        self._down_ns = down_ns

    def carry_out(
        self, now_ns: int, draft: Draft, message: ForgetNode | DeclareDead
    ) -> tuple[str, tuple[str, ...]]:
        """Return why it is not done, or "", and what becomes of the node's shards."""
        name = message.name
        if name not in draft.nodes:
            return self._forget_unknown(draft, message), ()
        gone = tuple(key for key, actor in draft.actors.items() if actor.node == name)
        named = [shard for shard, entry in enumerate(draft.shards) if not set(gone).isdisjoint(entry.members)]
        do = self._declare_dead if isinstance(message, DeclareDead) else self._forget
        complaint = do(now_ns, draft, name, gone)
        return complaint, () if complaint else prospects(draft, named, self._claims_on)

    def _claims_on(
        self, shard: int, entry: ShardEntry, actors: Mapping[bytes, ActorEntry]
    ) -> Mapping[bytes, Last]:
        return self._recoveries.standing(shard, entry, actors)

    def _declare_dead(self, now_ns: int, draft: Draft, name: str, gone: tuple[bytes, ...]) -> str:
        silent_ns = self._owners.silence_ns(now_ns, name)
        if silent_ns < self._down_ns:
            return self._heard(name, silent_ns)
        if self._owners.is_sought(now_ns, name):
            return _is_coming(name)
        draft.bury(gone)
        draft.warnings.append(f"node {name} was declared dead by an operator, with {len(gone)} actors")
        return ""

    def _forget(self, now_ns: int, draft: Draft, name: str, gone: tuple[bytes, ...]) -> str:
        silent_ns = self._owners.silence_ns(now_ns, name)
        if silent_ns >= self._down_ns and self._owners.is_sought(now_ns, name):
            return _is_coming(name)
        if silent_ns >= self._down_ns:
            self._hearing.give_up(name, gone, draft.actors)
            draft.forget_node(name)
            return ""
        if self._owners.is_free(name):
            return self._heard(name, silent_ns)  # it may be about to come, with its directories
        abandoned = draft.abandoned()
        former = tuple(
            key
            for key in gone
            if draft.actors[key].state != "up" and (self._hearing.awaits(key) or key in abandoned)
        )
        if not former:
            return self._heard(name, silent_ns)
        if opening := _opening(draft, abandoned.intersection(former)):
            return _may_open(name, opening)
        # The node is back, so the operator means its former actors: they will never be heard, or nobody
        # runs in their directories.
        self._hearing.give_up(name, former, draft.actors)
        draft.give_up(former)
        draft.warnings.append(f"{len(former)} former actors of node {name} were forgotten by an operator")
        return ""

    def _forget_unknown(self, draft: Draft, message: ForgetNode | DeclareDead) -> str:
        """Give up what an older map does not name, but a change that was proposed later."""
        name = message.name
        if isinstance(message, DeclareDead) or not self._hearing.awaits_node(name, draft.actors):
            return draft.unknown(name)
        self._hearing.give_up(name, (), draft.actors)
        draft.warnings.append(f"node {name}, which the map does not name, was forgotten by an operator")
        return ""

    def _heard(self, name: str, silent_ns: int) -> str:
        return (
            f"node {name} was heard from {silent_ns / 1e9:.1f} s ago: stop it first, or, if the "
            f"coordinator has just started, try again in {self._down_ns / 1e9:.0f} s"
        )


def _is_coming(name: str) -> str:
    return (
        f"node {name} is being started: it has asked to be registered, and its actors may be reading their "
        "directories, which would be lost. Wait until `greenroom status` shows it as up; or, if it is to go "
        "all the same, stop it and try again"
    )


def _opening(draft: Draft, abandoned: Collection[bytes]) -> list[str]:
    """Return the slots that nobody runs in, of those in which these directories were."""
    running = {actor.slot for actor in draft.actors.values() if actor.state == "up"}
    return sorted({draft.actors[each].slot for each in abandoned} - running)


def _may_open(name: str, slots: list[str]) -> str:
    more = f" and {len(slots) - _NAMED} more" if len(slots) > _NAMED else ""
    return (
        f"node {name} is back, and may be reading the directory of {', '.join(slots[:_NAMED])}{more}: "
        "forgetting it now would lose what that holds. Wait until `greenroom status` shows the actor as up "
        "(start the node with as many --actors as before); or, if that cannot be, stop the node and forget "
        "it then"
    )


def prospects(
    draft: Draft,
    shards: Collection[int],
    claims_on: Callable[[int, ShardEntry, Mapping[bytes, ActorEntry]], Mapping[bytes, Last]],
) -> tuple[str, ...]:
    """Return what becomes of those of these shards whose members are all known dead, for an operator."""
    told: dict[str, list[str]] = {EMPTY: [], WAITS: [], GOES_ON: []}
    used = {actor.directory: actor for actor in draft.actors.values() if actor.state == "up"}
    for shard in shards:
        entry = draft.shards[shard]
        if all(is_known_dead(member, draft.actors) for member in entry.members):
            claims = claims_on(shard, entry, draft.actors)
            kind, text = _prospect(entry, draft.actors, claims, used)
            told[kind].append(f"shard {shard} {text}")
    lines = [line for each in told.values() for line in each]
    if len(lines) <= TOLD_MAX:
        return tuple(lines)
    counted = Counter({kind: len(each) for kind, each in told.items()})
    summary = ", ".join(f"{count} {_COUNTED[kind]}" for kind, count in counted.items() if count)
    return (*lines[:TOLD_MAX], f"and so on: of {len(lines)} shards, {summary}")


def _prospect(
    entry: ShardEntry,
    actors: Mapping[bytes, ActorEntry],
    claims: Mapping[bytes, Last],
    used: Mapping[bytes, ActorEntry],
) -> tuple[str, str]:
    kept = list(durable_members(entry, actors))
    if not kept:
        return EMPTY, "starts empty: the sessions that only these members held are lost"
    best = best_claimant(entry, actors, claims)
    reach = "" if best is None else f"{actors[best].slot}, up to record {_named(claims[best])}"
    missing = sorted({member.slot for member in kept if member.directory not in used})
    if missing:
        waits = f"waits for the directory of {' and '.join(missing)}"
        return WAITS, f"{waits}; the best that is there is that of {reach}" if reach else waits
    if reach and len(claims) == len({member.directory for member in kept}):
        return GOES_ON, f"goes on from the directory of {reach}"
    slots = sorted({used[member.directory].slot for member in kept})
    return GOES_ON, f"goes on from the directory of {' or '.join(slots)}"


def _named(last: Last) -> str:
    return f"{last[0]}/{last[1]}"
