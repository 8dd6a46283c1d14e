"""The state of a cluster as a document, for `greenroom status --json` and the HTTP port."""

from typing import Any

import msgspec

from greenroom_cluster.cluster_status import ClusterStatus


def status_document(found: ClusterStatus) -> dict[str, Any]:
    """Return all that is known of the cluster."""
    return {
        **msgspec.to_builtins(found),
        "healthy": found.healthy,
        "states": found.states(),
        "within_one_zone": found.crowded(),
        **_waiting(found),
        "coordinator": _coordinator(found),
    }


def health_document(found: ClusterStatus, *, healthy: bool) -> dict[str, Any]:
    """Return what decides whether the cluster is `healthy`, and what an operator should know."""
    return {
        "healthy": healthy,
        "nodes_up": found.nodes_up,
        "refusing": found.refusing,
        "within_one_zone": found.crowded(),
        "states": found.states(),
        **_waiting(found),
        "coordinator": _coordinator(found),
    }


def _waiting(found: ClusterStatus) -> dict[str, Any]:
    """Return what shards wait for: nodes, and directories."""
    return {
        key: [{**msgspec.to_builtins(each), "told": each.told()} for each in getattr(found, key)]
        for key in ("waiting", "missing_directories")
    }


def _coordinator(found: ClusterStatus) -> dict[str, Any]:
    return {**msgspec.to_builtins(found.coordinator), "told": found.coordinator.told()}
