"""Claims of peers to know a later map than the coordinator's, and what follows from them.

Anyone can make a claim, so it proves nothing: the nodes of the map are asked for theirs, and only a map is
evidence. A peer claims a later lineage or version, or a later epoch of a shard. If it names no epochs and got
no map from this run, then a version that this run has reached since its start is a claim too: another
coordinator may have made other decisions under that version.
"""

from collections.abc import Iterable

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.bounds import LINEAGE_MAX, VERSION_MAX, map_objection

ASK_SECONDS = 1.0
TELL_SECONDS = 60.0
HOLD_SECONDS = 10.0
ASKED_MAX = 64

VERSIONS_SKIPPED_MAX = 1 << 32

_SENDERS_MAX = 1 << 14


class Claims:
    """The claims made to one run of a coordinator, which started with lineage and version `since`."""

    def __init__(self, since: tuple[int, int]) -> None:
        self._since = since
        self._served: dict[bytes, None] = {}
        self._claimants: dict[bytes, None] = {}
        self._ask_due_ns = 0
        self._tell_due_ns = 0
        self._counted = 0
        self._ahead = False
        self.latest: tuple[int, int] | None = None
        self.made_ns = 0

    def note(
        self, now_ns: int, sender: bytes, known: tuple[int, int], epochs: tuple[int, ...], ours: ClusterMap
    ) -> bool:
        """Note which map a peer says it knows; return whether it claims a later one than ours."""
        if not (0 <= known[0] <= LINEAGE_MAX and 0 <= known[1] <= VERSION_MAX):
            return False
        # A peer of an earlier release is believed to know no more only if it got its map from this run.
        latest = (ours.lineage, ours.version) if epochs or sender in self._served else self._since
        ahead = known[0] == ours.lineage and any(
            theirs > mine.epoch for theirs, mine in zip(epochs, ours.shards, strict=False)
        )
        if known <= latest and not ahead:
            remember(self._served, sender, _SENDERS_MAX)
            self._claimants.pop(sender, None)
            return False
        remember(self._claimants, sender, _SENDERS_MAX)
        self.latest, self.made_ns = known, now_ns
        self._ahead = self._ahead or ahead
        if known[0] == ours.lineage and 0 < len(epochs) <= ours.shard_count and not ahead:
            self._counted = max(self._counted, known[1] if can_skip_to(known[1], ours) else 0)
        return True

    def note_foreign(self, now_ns: int, known: tuple[int, int]) -> None:
        """Note a map of another cluster, while nothing was decided in ours."""
        self.latest, self.made_ns = known, now_ns

    def is_claimant(self, sender: bytes) -> bool:
        """Whether this peer's latest message was such a claim."""
        return sender in self._claimants

    def ask_due(self, now_ns: int) -> bool:
        """Whether to ask the nodes for their maps now; if so, it counts as done."""
        if self.latest is None or now_ns < self._ask_due_ns:
            return False
        self._ask_due_ns = now_ns + round(ASK_SECONDS * 1e9)
        return True

    def newest(self, ours: ClusterMap, shown: Iterable[ClusterMap]) -> int:
        """Return the latest version that nodes show or peers name without a decision beyond ours; 0: none."""
        versions = [each.version for each in shown if each.lineage == ours.lineage]
        if versions:  # else no node was heard, and each may have a later map
            versions.append(self._counted)
        return max((each for each in versions if can_skip_to(each, ours)), default=0)

    def refute(self, now_ns: int, version: int) -> tuple[str, ...]:
        """Note that we know all decisions up to this version, so that it is no longer a claim.

        Return a warning about it, at most once a minute.
        """
        self.latest, self._counted = None, 0
        self._since = max(self._since, (self._since[0], version))
        return self._told(
            now_ns,
            f"map version {version} is in use, and no shard is ahead in it: this map goes on after it",
        )

    def dismiss(self, now_ns: int, answered: int) -> tuple[str, ...]:
        """Note that no node gave a later map; return a warning about the claim, at most once a minute."""
        claimed, self.latest, self._counted = self.latest, None, 0
        ahead, self._ahead = self._ahead, False
        if claimed is None:
            return ()
        if ahead:
            return self._told(
                now_ns,
                f"an actor knows later decisions than this map, and none of the {answered} nodes that "
                "answered has a map with them, so it is turned away. If this map is an older copy, put the "
                "newest directory of the coordinator back; if it is gone, stop all nodes and have the map "
                "made anew from what directories know (--new-lineage --adopt-from-directories)",
            )
        return self._told(
            now_ns,
            f"a peer claims to know a later map (lineage {claimed[0]}, version {claimed[1]}) than ours: "
            f"none of the {answered} nodes that answered has one, so the claim is ignored",
        )

    def _told(self, now_ns: int, warning: str) -> tuple[str, ...]:
        if now_ns < self._tell_due_ns:
            return ()
        self._tell_due_ns = now_ns + round(TELL_SECONDS * 1e9)
        return (warning,)


def can_skip_to(version: int, ours: ClusterMap) -> bool:
    """Whether our versions may continue after this one."""
    return ours.version < version <= ours.version + VERSIONS_SKIPPED_MAX


def is_of_this_cluster(ours: ClusterMap, shown: ClusterMap) -> bool:
    """Whether a node's map can be compared with ours at all."""
    if map_objection(shown) or shown.is_foreign_to(ours):
        return False
    return (shown.cluster, shown.shard_count) == (ours.cluster, ours.shard_count)


def is_later(ours: ClusterMap, shown: ClusterMap) -> bool:
    """Whether a map holds decisions that ours lacks: a later lineage, or a later epoch of a shard."""
    if shown.lineage != ours.lineage:
        return shown.lineage > ours.lineage
    return any(theirs.epoch > mine.epoch for theirs, mine in zip(shown.shards, ours.shards, strict=True))


def why_older(ours: ClusterMap, lineage: int, version: int) -> str:
    """Return that our map is older than one in use, and what to do."""
    addresses = ",".join(node.address for node in ours.nodes.values()) or "HOST:PORT"
    return (
        f"the coordinator's map (lineage {ours.lineage}, version {ours.version}) is older than "
        f"one already in use (lineage {lineage}, version {version}): its directory, or etcd, was emptied or "
        "restored from a copy, or --store names another prefix. Name the right one, put the newest map back, "
        "or stop this coordinator and start it once "
        f"with --new-lineage --adopt-from {addresses} added, naming nodes that run (with --store: in an "
        "empty directory instead, then `greenroom move-map`); or, if a new cluster is to begin here, stop "
        "the nodes of the former one"
    )


def remember(known: dict[bytes, None], key: bytes, limit: int) -> None:
    """Keep the newest keys, at most `limit` of them."""
    known.pop(key, None)
    known[key] = None
    if len(known) > limit:
        del known[next(iter(known))]
