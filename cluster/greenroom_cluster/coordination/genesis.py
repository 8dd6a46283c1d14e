"""The map that a coordinator starts with: a first one, the one on disk, or a new lineage of that."""

import re

import msgspec

from greenroom.cluster_map import SHARDS_MAX, ClusterMap, ShardEntry
from greenroom.errors import UsageError
from greenroom_cluster.coordination.rules import begin_lineage

SHARDS_DEFAULT = 64
REPLICAS_DEFAULT = 2
REPLICAS_MAX = 3

_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class ClusterOptions(msgspec.Struct, frozen=True):
    """What an operator asks of the cluster; None: as it is, or the default at first."""

    cluster: str
    shards: int | None = None
    replicas: int | None = None
    new_lineage: bool = False


def starting_map(stored: ClusterMap | None, options: ClusterOptions) -> ClusterMap:
    """Return the map to start with; the caller saves it before anything else if it is not `stored`.

    Raises UsageError if the options are invalid or differ from the cluster that is stored.
    """
    if stored is None:
        fresh = first_map(
            options.cluster,
            SHARDS_DEFAULT if options.shards is None else options.shards,
            REPLICAS_DEFAULT if options.replicas is None else options.replicas,
        )
        return begin_lineage(fresh) if options.new_lineage else fresh
    for option, asked, kept in (
        ("--cluster (GREENROOM_CLUSTER)", options.cluster, stored.cluster),
        ("--shards (GREENROOM_SHARDS)", options.shards, stored.shard_count),
        ("--replicas (GREENROOM_REPLICAS)", options.replicas, stored.replicas),
    ):
        if asked is not None and asked != kept:
            raise UsageError(
                f"{option} is {asked!r}, but the cluster in this directory was created with {kept!r}, which "
                "is fixed: start with that value, or choose another --data-dir (GREENROOM_DATA_DIR)"
            )
    return begin_lineage(stored) if options.new_lineage else stored


def first_map(cluster: str, shard_count: int, replicas: int) -> ClusterMap:
    """Return the map of a cluster without nodes, whose shards are not yet started. Raises UsageError."""
    if not _CLUSTER_NAME.fullmatch(cluster):
        raise UsageError(
            f"{cluster!r} is no cluster name: --cluster (GREENROOM_CLUSTER) takes 1 to 63 letters, digits, "
            "dots, dashes and underscores"
        )
    if not 1 <= shard_count <= SHARDS_MAX or shard_count & (shard_count - 1):
        raise UsageError(
            f"{shard_count} shards: --shards (GREENROOM_SHARDS) takes a power of two up to {SHARDS_MAX}"
        )
    if not 1 <= replicas <= REPLICAS_MAX:
        raise UsageError(
            f"{replicas} replicas: --replicas (GREENROOM_REPLICAS) takes 1 to {REPLICAS_MAX}; 2 survives the "
            "loss of any one node"
        )
    blank = ShardEntry(epoch=0, primary=b"", backups=(), nonce=b"", wanted=())
    return ClusterMap(
        cluster=cluster,
        lineage=1,
        version=1,
        replicas=replicas,
        nodes={},
        actors={},
        shards=(blank,) * shard_count,
    )
