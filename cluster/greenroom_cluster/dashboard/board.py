"""What the dashboard shows now, in named parts, and what was seen in the last minutes.

A part is sent only when it has changed, so what changes at its own pace is a part of its own: each shard is.
No part holds a session's id, a user's id or data, because no look at the cluster does.
"""

from collections import Counter, deque
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from greenroom_cluster.comparison import Rates, lost_slots, rates, transitions
from greenroom_cluster.dashboard.advice import advice
from greenroom_cluster.dashboard.skew import skew
from greenroom_cluster.dashboard.traffic import Told, Traffic, actors_in, traffic
from greenroom_cluster.shard_states import STATE_NAMES

if TYPE_CHECKING:
    from greenroom_cluster.cluster_status import ClusterStatus, ShardStatus

KEPT_SECONDS = 300.0
TRANSITIONS_KEPT = 100
LATELY_SECONDS = 30.0
"""For so long a lost actor is the reason of what its shards do."""
GAP_SECONDS = 10.0
"""Looks further apart have no rate: nobody watched between them."""


class Look(msgspec.Struct, frozen=True):
    """A look at the cluster with the metrics of one process's actors, at a time of a steady clock."""

    found: "ClusterStatus"
    told: Told
    seconds: float
    at: datetime


class Board:
    """What was seen of a cluster, from one process."""

    def __init__(self) -> None:
        self._look: Look | None = None
        self._rates: Rates | None = None
        self._traffic: Traffic | None = None
        self._transitions: deque[dict[str, str]] = deque(maxlen=TRANSITIONS_KEPT)
        self._lost: dict[str, float] = {}
        self._points: deque[tuple[float, dict[str, Any]]] = deque()

    def note(self, look: Look) -> None:
        """Take in another look."""
        before, self._look = self._look, look
        if before is None:
            return
        self._lost = {slot: at for slot, at in self._lost.items() if look.seconds - at < LATELY_SECONDS}
        lost = lost_slots(before.found, look.found)
        happened = transitions(before.found, look.found, self._lost)
        self._lost |= dict.fromkeys(sorted(lost), look.seconds)
        time = look.at.isoformat(timespec="seconds")
        # The newest look comes first, and what it saw in its own order.
        self._transitions.extendleft({"at": time, **msgspec.to_builtins(each)} for each in reversed(happened))
        seconds = look.seconds - before.seconds
        if seconds > GAP_SECONDS:
            self._rates = self._traffic = None
            return
        self._rates = rates(before.found, look.found, seconds)
        self._traffic = traffic(before.told, look.told, seconds)
        self._keep_point(look, time)

    def _keep_point(self, look: Look, time: str) -> None:
        while self._points and look.seconds - self._points[0][0] > KEPT_SECONDS:
            self._points.popleft()
        self._points.append((look.seconds, {"at": time, **self._pace()}))

    def _pace(self) -> dict[str, Any]:
        pace = self._rates
        return {
            "records": None if pace is None else round(pace.records_per_second, 1),
            "sessions": None if pace is None else round(pace.sessions_per_second, 1),
            "traffic": None if self._traffic is None else msgspec.to_builtins(self._traffic),
        }

    def points(self, after: float) -> list[dict[str, Any]]:
        """Return how fast the cluster was in the last minutes, of looks later than that time."""
        return [point for seconds, point in self._points if seconds > after]

    def parts(self) -> dict[str, Any]:
        """Return what is shown, by the names of the parts; nothing before the first look."""
        if self._look is None:
            return {}
        found = self._look.found
        return {
            "cluster": _cluster(found),
            "advice": advice(found),
            "nodes": _nodes(found),
            "actors": self._actors(found),
            "joins": list(_joins(found)),
            "skew": _skews(found),
            "pace": {**self._pace(), "of": actors_in(self._look.told)},
            "transitions": list(self._transitions),
            **{f"shard {shard.shard}": _shard(shard) for shard in found.shards},
        }

    def _actors(self, found: "ClusterStatus") -> list[dict[str, Any]]:
        by_slot = {} if self._rates is None else self._rates.by_slot
        return [
            {
                "slot": actor.slot,
                "state": actor.state if actor.reachable or actor.state != "up" else "no answer",
                "pid": actor.pid,
                "primaries": actor.primaries,
                "backups": actor.backups,
                "sessions": actor.sessions,
                "records": None if self._rates is None else round(by_slot.get(actor.slot, 0.0), 1),
                "used_bytes": actor.used_bytes,
                "memory_bytes_max": actor.memory_bytes_max,
            }
            for actor in found.actors
        ]


def _cluster(found: "ClusterStatus") -> dict[str, Any]:
    return {
        "name": found.cluster,
        "map": f"{found.lineage}.{found.version}",
        "replicas": found.replicas,
        "shards": len(found.shards),
        "healthy": found.healthy,
        "counts": found.counts(),
        "states": {STATE_NAMES[state]: count for state, count in found.states().items()},
        "sessions": sum(shard.sessions for shard in found.shards),
        "stored_bytes": sum(shard.stored_bytes for shard in found.shards),
        "nodes_up": found.nodes_up,
        "coordinator": {
            "state": found.coordinator.state,
            "address": found.coordinator.address,
            "leads": found.coordinator.leads(),
        },
    }


def _nodes(found: "ClusterStatus") -> list[dict[str, Any]]:
    sessions = _sessions_of_nodes(found)
    return [{**msgspec.to_builtins(node), "sessions": sessions[node.name]} for node in found.nodes]


def _sessions_of_nodes(found: "ClusterStatus") -> Counter[str]:
    counts: Counter[str] = Counter()
    for actor in found.actors:
        counts[actor.slot.rpartition("/")[0]] += actor.sessions
    return counts


def _shard(shard: "ShardStatus") -> dict[str, Any]:
    return {
        "shard": shard.shard,
        "state": STATE_NAMES[shard.state],
        "epoch": shard.epoch,
        "primary": shard.primary,
        "backups": list(shard.backups),
        "sessions": shard.sessions,
    }


def _joins(found: "ClusterStatus") -> Iterator[dict[str, Any]]:
    for shard in found.shards:
        if shard.joiner or shard.join_refusal:
            sent, of = shard.join_progress
            yield {
                "shard": shard.shard,
                "from": shard.primary,
                "to": shard.joiner or shard.join_refused_by,
                "sent": sent,
                "of": of,
                "refusal": shard.join_refusal,
            }


def _skews(found: "ClusterStatus") -> list[dict[str, Any]]:
    up = [actor for actor in found.actors if actor.state == "up"]
    nodes = _sessions_of_nodes(found)
    counts = (
        ("node", {node.name: nodes[node.name] for node in found.nodes if node.state == "up"}),
        ("actor", {actor.slot: actor.sessions for actor in up}),
        ("shard", {str(shard.shard): shard.sessions for shard in found.shards}),
    )
    return [msgspec.to_builtins(skew(of, by_name)) for of, by_name in counts if by_name]
