"""Every metric by its name: what it tells, of which kind it is, and its labels. Pure.

All have the label `process` first: the slot of an actor, the name of a node, or `coordinator`. The values of
the others are words of this code, so that their number is bounded whatever apps do. Nothing of a session, a
user or an app is among them.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["gauge", "counter", "histogram"]
PROCESS = "process"


class Metric(msgspec.Struct, frozen=True):
    """One metric. `bits`: the bounds of a histogram's buckets are these powers of two, times its unit.

    `condition` says when it is there at all; empty: always.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bits: tuple[int, ...] = ()
    condition: str = ""


_TIMES = tuple(range(13, 34))
"""From 8 µs to 8.6 s, in nanoseconds."""
_DISK = "with --durability"

OF_PROCESSES = (
    Metric("greenroom_build_info", "gauge", "1, with the version of the process that answers", ("version",)),
    Metric("greenroom_ready", "gauge", "whether this node or coordinator serves, as /readyz says"),
    Metric("greenroom_restarts_total", "counter", "how often a process was started again"),
    Metric("greenroom_resident_memory_bytes", "gauge", "memory that a process has in use"),
    Metric("greenroom_cpu_seconds_total", "counter", "processor time that a process has used"),
    Metric(
        "greenroom_certificate_end_timestamp_seconds",
        "gauge",
        "when the certificate of this process ends, in seconds since 1970",
        condition="with TLS",
    ),
    Metric("greenroom_connections", "gauge", "open connections by the role of their hello", ("role",)),
    Metric(
        "greenroom_connections_refused_total",
        "counter",
        "connections refused or ended because of who was there, or of too many",
        ("reason",),
        condition="once one was refused",
    ),
)
"""Of nodes, actors and coordinators alike."""

OF_NODES = (
    Metric("greenroom_map_version", "gauge", "version of the cluster map that this process has"),
    Metric("greenroom_map_shards", "gauge", "how many shards the cluster has, by that map"),
    Metric("greenroom_coordinator_reachable", "gauge", "whether this node reaches the coordinator"),
    Metric("greenroom_coordinator_away_seconds", "gauge", "for how long it has not; 0 while it does"),
    Metric("greenroom_actor_up", "gauge", "whether an actor answered its supervisor in time, serving or not"),
    Metric("greenroom_actor_ready", "gauge", "whether an actor has said that it serves"),
)
OF_ACTORS = (
    Metric("greenroom_requests_total", "counter", "requests of clients by kind", ("kind",)),
    Metric("greenroom_replies_total", "counter", "replies to clients by outcome", ("outcome",)),
    Metric(
        "greenroom_step_seconds",
        "histogram",
        "time of a step of the core, which takes in all that one read brought and sends what follows",
        bits=_TIMES,
    ),
    Metric(
        "greenroom_replication_seconds",
        "histogram",
        "time until a backup has acknowledged a batch of records",
        bits=_TIMES,
    ),
    Metric(
        "greenroom_replication_batch_records",
        "histogram",
        "records that were sent to a backup together",
        bits=tuple(range(1, 13)),
    ),
    Metric("greenroom_replication_in_flight", "gauge", "batches that backups have yet to acknowledge"),
    Metric("greenroom_log_memory_bytes", "gauge", "records in memory that backups may yet need"),
    Metric("greenroom_held_requests", "gauge", "requests that wait while their shards change hands"),
    Metric("greenroom_shards", "gauge", "shards of which this actor is primary, by state", ("state",)),
    Metric("greenroom_replicas", "gauge", "replicas of this actor by role", ("role",)),
    Metric("greenroom_role_changes_total", "counter", "replicas that changed role or members", ("role",)),
    Metric("greenroom_sessions", "gauge", "stored sessions, in primaries and in other replicas", ("role",)),
    Metric("greenroom_stored_bytes", "gauge", "what they take as they are stored", ("role",)),
    Metric("greenroom_sessions_expired_total", "counter", "sessions that primaries here ended by time"),
    Metric("greenroom_sessions_evicted_total", "counter", "sessions that they ended to make room"),
    Metric("greenroom_joins_started_total", "counter", "copies that this actor began to send"),
    Metric("greenroom_joins_in_progress", "gauge", "copies that it sends now"),
    Metric("greenroom_join_sent_ratio", "gauge", "how much of these copies is sent, 1 if there are none"),
    Metric(
        "greenroom_lease_margin_seconds",
        "gauge",
        "for how long primaries may answer without a word from the slowest backup; below 0: they do not",
        condition="while a primary has a backup",
    ),
    Metric("greenroom_memory_used_bytes", "gauge", "memory that sessions and logs are charged"),
    Metric("greenroom_memory_free_bytes", "gauge", "memory that they may still take"),
    Metric("greenroom_memory_limit_bytes", "gauge", "what --memory-max leaves for them"),
    Metric("greenroom_memory_refusing", "gauge", "whether growth was refused here within the last minute"),
    Metric("greenroom_disk_sync_seconds", "histogram", "time of a sync of the log", (), _TIMES, _DISK),
    Metric("greenroom_disk_log_bytes", "gauge", "size of the log on disk", condition=_DISK),
    Metric("greenroom_disk_free_bytes", "gauge", "room on the disk of the log", condition=_DISK),
    Metric("greenroom_near_held", "gauge", "sessions held for near caches, once for each connection"),
    Metric("greenroom_near_granted_total", "counter", "sessions given out to be kept"),
    Metric("greenroom_near_refused_total", "counter", "sessions that were to be kept, and may not be"),
    Metric("greenroom_near_invalidations_total", "counter", "words to near caches to drop sessions"),
    Metric("greenroom_near_waits_total", "counter", "changes that waited for near caches"),
    Metric("greenroom_near_waits_lapsed_total", "counter", "of these, changes that waited for a lease's end"),
    Metric("greenroom_watched_sessions", "gauge", "sessions whose end clients wait for"),
    Metric("greenroom_watch_endings_total", "counter", "ends that clients were told"),
    Metric("greenroom_watch_refusals_total", "counter", "wishes to watch one session more than may be"),
    Metric("greenroom_near_wait_seconds_total", "counter", "for how long changes waited for near caches"),
)
OF_COORDINATORS = (
    Metric("greenroom_coordinator_up", "gauge", "whether the coordinator answered its supervisor in time"),
    Metric("greenroom_coordinator_leads", "gauge", "whether this coordinator decides; 0: it stands by"),
    Metric("greenroom_nodes", "gauge", "nodes of the cluster map by state", ("state",)),
    Metric("greenroom_actors", "gauge", "actors of the cluster map by state", ("state",)),
    Metric("greenroom_shards_without_primary", "gauge", "shards whose primary is dead or was never started"),
    Metric("greenroom_epoch_changes_total", "counter", "changes of shards that were decided", ("reason",)),
    Metric("greenroom_proposals_refused_total", "counter", "proposed changes that were refused", ("reason",)),
    Metric("greenroom_map_write_seconds", "histogram", "time to write a version of the map", bits=_TIMES),
)

SECTIONS: Mapping[str, tuple[Metric, ...]] = {
    "Processes": OF_PROCESSES,
    "Nodes": OF_NODES,
    "Actors": OF_ACTORS,
    "Coordinators": OF_COORDINATORS,
}
METRICS: Mapping[str, Metric] = {metric.name: metric for metrics in SECTIONS.values() for metric in metrics}
