"""Finds what never happened in a run of many seeds, although it can: that is untested.

Every message about a shard can reach a replica in every role, and an actor without one ("none"): clients and
peers act on maps that are older than the replica's, and what they send may be long under way.
"""

from collections.abc import Mapping

from simulations.faults.injection import KINDS
from simulations.plans.durable import OF_DISKS

ROLES = ("primary", "backup", "joining", "fenced", "none")
MESSAGES = (
    "Get",
    "Create",
    "Update",
    "Patch",
    "Delete",
    "DeleteByHandle",
    "Rotate",
    "Prepare",
    "Beacon",
    "SnapshotChunk",
    "SnapshotOk",
    "SnapshotRefused",
)


def never_reached(messages: Mapping[str, int]) -> list[str]:
    """Return the pairs of a role and a message that did not occur, as "role message"."""
    pairs = [f"{role} {message}" for message in MESSAGES for role in ROLES]
    return [pair for pair in pairs if not messages.get(pair)]


def never_struck(faults: Mapping[str, int], profile: str = "") -> list[str]:
    """Return the kinds of faults that did not strike; those of disks only count where there are some."""
    with_disks = profile in ("durable", "mixed", "near-mixed")
    return [kind for kind in KINDS if not faults.get(kind) and (with_disks or kind not in OF_DISKS)]
