"""The cluster map as clients and observers get it.

Without what they have no use for, and others could use against a process: on which host and as which process
an actor runs, and the nonces that name proposals.
"""

from msgspec.structs import replace

from greenroom.cluster_map import ActorEntry, ClusterMap, ShardEntry


def public_actor(actor: ActorEntry) -> ActorEntry:
    """Return an actor as they see it."""
    return replace(actor, host="", pid=0, started_ticks=0)


def public_shard(shard: ShardEntry) -> ShardEntry:
    """Return the configuration of a shard as they see it."""
    return replace(shard, nonce=b"") if shard.nonce else shard


class PublicMaps:
    """The public form of successive maps. What has not changed from one to the next is not made again."""

    def __init__(self) -> None:
        self._whole: ClusterMap | None = None
        self._public: ClusterMap | None = None

    def of(self, whole: ClusterMap) -> ClusterMap:
        """Return the public form of this map."""
        last, shown = self._whole, self._public
        if last is None or shown is None or last.shard_count != whole.shard_count:
            shards = tuple(map(public_shard, whole.shards))
            actors = {key: public_actor(actor) for key, actor in whole.actors.items()}
        else:
            shards = tuple(
                former if entry is before else public_shard(entry)
                for entry, before, former in zip(whole.shards, last.shards, shown.shards, strict=True)
            )
            actors = {
                key: shown.actors[key] if last.actors.get(key) is actor else public_actor(actor)
                for key, actor in whole.actors.items()
            }
        self._whole, self._public = whole, replace(whole, actors=actors, shards=shards)
        return self._public
