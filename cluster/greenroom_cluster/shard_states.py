"""The states of a shard as operators see them. What each means stands at `inspection.ShardStatus`. Pure."""

FULL = "full"
SAME_NODE = "same_node"
SAME_ZONE = "same_zone"
JOINING = "joining"
ALONE = "alone"
UNAVAILABLE = "unavailable"
SUSPENDED = "suspended"

STATES = (FULL, SAME_NODE, SAME_ZONE, JOINING, ALONE, UNAVAILABLE, SUSPENDED)

# A full shard has all its replicas. To people "full" sounds like a shard without room.
STATE_NAMES = {
    FULL: "whole",
    SAME_NODE: SAME_NODE,
    SAME_ZONE: SAME_ZONE,
    JOINING: JOINING,
    ALONE: ALONE,
    UNAVAILABLE: UNAVAILABLE,
    SUSPENDED: SUSPENDED,
}
