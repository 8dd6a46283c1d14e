"""What waits in a coordinator, told in its log once when it begins to, and once when it no longer does."""

from collections.abc import Collection

from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination.draft import NODES_NAMED
from greenroom_cluster.coordination.hearing import Missing
from greenroom_cluster.planning.waiting import (
    MissingDirectories,
    Waiting,
    awaited,
    directories_in_use,
    missing_directories,
    on_nodes_that_are_down,
    shards_without_directories,
    waiting_shards,
)

QUIET_SECONDS = 5.0
"""For so long after the start of a coordinator, nodes and directories come back as they always do."""


class News:
    """What one run of a coordinator, which began at `now_ns`, has told of."""

    def __init__(self, now_ns: int) -> None:
        self._quiet_until_ns = now_ns + round(QUIET_SECONDS * 1e9)
        self._quiet = True
        self._waiting: tuple[Waiting, ...] = ()
        self._missing: tuple[MissingDirectories, ...] = ()
        self._unheard = Missing(())

    def of_waiting(self, after: ClusterMap) -> list[str]:
        """Return news about shards that wait for nodes; nothing for a while after the start."""
        if self._quiet:
            return []
        away = on_nodes_that_are_down(after)
        before, self._waiting = self._waiting, ()
        if away:
            nodes = (awaited(after, shard, away) for shard in range(after.shard_count))
            self._waiting = waiting_shards(after, nodes)
        if before and not self._waiting:
            return ["no shard waits for a node any longer"]
        return [waiting.told() for waiting in self._waiting if waiting not in before]

    def next_deadline(self, known: ClusterMap) -> int:
        """Return when there may be news though nothing has changed."""
        waits = self._quiet and (_left_a_directory(known) or on_nodes_that_are_down(known))
        return self._quiet_until_ns if waits else NEVER_NS

    def after_the_start(self, now_ns: int, known: ClusterMap) -> list[str]:
        """Return what was not told yet because a start takes its time."""
        if not self._quiet or now_ns < self._quiet_until_ns:
            return []
        self._quiet = False
        return self.of_waiting(known) + self.of_directories(known)

    def of_directories(self, after: ClusterMap) -> list[str]:
        """Return news about shards that wait for directories; nothing for a while after the start."""
        if self._quiet:
            return []
        before, self._missing = self._missing, ()
        if _left_a_directory(after):
            used = directories_in_use(after)
            slots = (missing_directories(after, shard, used) for shard in range(after.shard_count))
            self._missing = shards_without_directories(after, slots)
        if before and not self._missing:
            return ["no shard waits for a directory any longer"]
        return [missing.told() for missing in self._missing if missing not in before]

    def of_unheard(self, shards: Collection[int], missing: Missing) -> list[str]:
        """Return news about decisions on these shards, which wait until their members were heard."""
        before, self._unheard = self._unheard, missing
        told = []
        if missing.silent and missing.silent != before.silent:
            count, named = len(shards), ", ".join(missing.silent[:NODES_NAMED])
            told.append(
                f"decisions of {count} {'shard waits' if count == 1 else 'shards wait'} until their members "
                "were heard, for this coordinator cannot tell that its map is the newest (another boot of "
                "its host, or another directory, than before): nothing was heard of the actors that node "
                f"{named} had. Start them, or if they are gone for good run "
                f"`greenroom forget-node {missing.silent[0]}`"
            )
        if missing.knowing and missing.knowing != before.knowing:
            named = ", ".join(missing.knowing[:NODES_NAMED])
            told.append(
                f"directories of node {named} know later decisions than the coordinator's map, which is an "
                "older copy: nothing is decided about their shards. Put the newest directory of the "
                "coordinator back; if it is gone, stop all nodes and have the map made anew from what "
                "directories know (--new-lineage --adopt-from-directories)"
            )
        return told

    def of_proof(self) -> list[str]:
        """Return the news that no decision waits for members to be heard any longer."""
        told, self._unheard = self._unheard, Missing(())
        waited = told != Missing(())
        return ["all members have been heard: no decision waits for that any longer"] if waited else []


def _left_a_directory(known: ClusterMap) -> bool:
    return any(actor.directory and actor.state == "dead" for actor in known.actors.values())
