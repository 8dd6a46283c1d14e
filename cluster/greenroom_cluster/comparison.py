"""What differs between two states of a cluster, as an operator sees them one after the other."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import msgspec

from greenroom_cluster import shard_states as states

if TYPE_CHECKING:
    from greenroom_cluster.cluster_status import ClusterStatus, ShardStatus

_NODE_REASONS = {
    "up": "it has joined",
    "down": "the coordinator does not hear from it",
    "leaving": "it was asked to stop",
}


class Rates(msgspec.Struct, frozen=True):
    """How fast a cluster changes: records that its primaries appended, sessions that there are more or less.

    A record is a write, or what has ended by time. `by_slot` has those of each actor.
    """

    records_per_second: float = 0.0
    sessions_per_second: float = 0.0
    by_slot: dict[str, float] = {}


class Transition(msgspec.Struct, frozen=True):
    """What has happened between two looks, for people, and why as far as the looks show it."""

    what: str
    why: str = ""


def rates(before: "ClusterStatus", now: "ClusterStatus", seconds: float) -> Rates:
    """Return how fast the cluster changed between two looks at it, `seconds` apart.

    A shard that changed hands meanwhile, or whose primary did not answer, is left out: records that a former
    primary has appended may be gone.
    """
    if seconds <= 0 or before.lineage != now.lineage:
        return Rates()
    earlier = {shard.shard: shard for shard in before.shards}
    records = 0
    sessions = 0
    by_slot: dict[str, float] = {}
    for shard in now.shards:
        former = earlier.get(shard.shard)
        if former is None or former.epoch != shard.epoch or not (former.appended and shard.appended):
            continue
        more = max(0, shard.appended - former.appended)
        records += more
        sessions += shard.sessions - former.sessions
        by_slot[shard.primary] = by_slot.get(shard.primary, 0.0) + more / seconds
    return Rates(records / seconds, sessions / seconds, by_slot)


def changes(before: "ClusterStatus", now: "ClusterStatus") -> list[str]:
    """Return what has happened between two looks, for people: of nodes, actors and shards."""
    return [each.what for each in transitions(before, now)]


def transitions(
    before: "ClusterStatus", now: "ClusterStatus", lost: Collection[str] = ()
) -> list[Transition]:
    """Return what has happened between two looks, and why.

    `lost` are slots whose actors were lost shortly before these looks.
    """
    lost = {*lost, *lost_slots(before, now)}
    return [
        *_of_nodes(before, now),
        *_of_actors(before, now),
        *_of_coordinator(before, now),
        *_of_shards(before, now, lost),
    ]


def lost_slots(before: "ClusterStatus", now: "ClusterStatus") -> set[str]:
    """Return the slots of actors that were up at the first look and are not any more at the second."""
    was, is_now = (
        {(actor.slot, actor.incarnation) for actor in found.actors if actor.state == "up"}
        for found in (before, now)
    )
    return {slot for slot, _ in was - is_now}


def _of_nodes(before: "ClusterStatus", now: "ClusterStatus") -> list[Transition]:
    told = []
    nodes = {node.name: node.state for node in before.nodes}
    for node in now.nodes:
        former = nodes.pop(node.name, None)
        if former != node.state:
            what = f"node {node.name} is {node.state}" + (f", was {former}" if former else "")
            told.append(Transition(what, _NODE_REASONS.get(node.state, "")))
    return told + [Transition(f"node {name} has left") for name in sorted(nodes)]


def _of_actors(before: "ClusterStatus", now: "ClusterStatus") -> list[Transition]:
    former, later = (
        {actor.slot: actor.incarnation for actor in found.actors if actor.state == "up"}
        for found in (before, now)
    )
    nodes = {node.name: node.state for node in now.nodes}
    told = []
    for slot in sorted(former.keys() | later.keys()):
        node = slot.rpartition("/")[0]
        if slot not in later:
            state = nodes.get(node, "gone")
            why = "its process has ended, or hung" if state == "up" else f"node {node} is {state}"
            told.append(Transition(f"actor {slot} is gone", why))
        elif slot not in former:
            told.append(Transition(f"actor {slot} is up"))
        elif former[slot] != later[slot]:
            told.append(Transition(f"actor {slot} was started again", "its former process is gone"))
    return told


def _of_coordinator(before: "ClusterStatus", now: "ClusterStatus") -> list[Transition]:
    was, is_now = before.coordinator.state, now.coordinator.state
    return [] if was == is_now else [Transition(f"coordinator is {is_now}, was {was}")]


def _of_shards(before: "ClusterStatus", now: "ClusterStatus", lost: Collection[str]) -> list[Transition]:
    told = []
    leaving = {node.name for node in now.nodes if node.state == "leaving"}
    earlier = {shard.shard: shard for shard in before.shards}
    for shard in now.shards:
        was = earlier.get(shard.shard)
        if was is not None and (shard.epoch, shard.state) != (was.epoch, was.state):
            told.append(Transition(_moved(was, shard), _reason(was, shard, lost, leaving)))
    return told


def _reason(
    before: "ShardStatus", now: "ShardStatus", lost: Collection[str], leaving: Collection[str]
) -> str:
    """Return why a shard has changed, as far as two looks show it; empty if they do not."""
    if before.primary != now.primary and before.primary:
        if before.primary in lost:
            return f"{before.primary} was lost"
        return f"{before.primary} handed over{_purpose(before.primary, leaving)}"
    removed = [slot for slot in before.backups if slot not in now.backups]
    if removed:
        if gone := [slot for slot in removed if slot in lost]:
            return f"{', '.join(gone)} was lost"
        return f"{removed[0]} gave way{_purpose(removed[0], leaving)}"
    added = [slot for slot in now.backups if slot not in before.backups]
    if added:
        return f"{', '.join(added)} has its copy"
    if now.epoch != before.epoch and now.primary in lost:
        return f"{now.primary} was started again"
    return _reason_of_state(now)


def _purpose(slot: str, leaving: Collection[str]) -> str:
    return ": its node stops" if slot.rpartition("/")[0] in leaving else ", to spread the load"


def _reason_of_state(now: "ShardStatus") -> str:
    match now.state:
        case states.JOINING if now.joiner:
            return f"{now.joiner} is given a copy"
        case states.ALONE if now.join_refusal:
            return now.join_refusal
        case states.UNAVAILABLE if now.waits_for:
            return f"it waits for {', '.join(now.waits_for)}"
        case states.UNAVAILABLE:
            return "its primary does not serve"
        case states.SUSPENDED:
            return "a record ended its primary"
    return ""


def _moved(before: "ShardStatus", now: "ShardStatus") -> str:
    """Return what has happened to a shard."""
    parts = []
    if before.primary != now.primary:
        parts.append(f"primary {before.primary or '-'} -> {now.primary or '-'}")
    if before.backups != now.backups:
        parts.append(f"backup {', '.join(before.backups) or '-'} -> {', '.join(now.backups) or '-'}")
    if before.state != now.state:
        parts.append(f"{states.STATE_NAMES[before.state]} -> {states.STATE_NAMES[now.state]}")
    return f"shard {now.shard}, epoch {now.epoch}: {'; '.join(parts) or 'another configuration'}"
