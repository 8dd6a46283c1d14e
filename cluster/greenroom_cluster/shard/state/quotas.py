"""The quotas that an actor's primaries keep, by namespace ("" is `default`), and who was refused for them.

None of this is part of the replicated state: like memory, it decides what is logged, never what a logged
record does. So nodes may have different quotas for a while, and the one of a shard's primary counts.
"""

from greenroom.identities import held_as
from greenroom_cluster.quotas import OTHERS, Quota
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.settings import ns
from greenroom_cluster.shard.state.memory import SESSION_BYTES

_REFUSED_NS = ns(60.0)
"""How long it is shown that a namespace was refused."""


class Quotas:
    """The quotas of one actor; false if there are none."""

    __slots__ = ("_context", "_of_cluster", "_parts", "_refused")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._of_cluster = {held_as(each.namespace): each for each in context.settings.quotas}
        self._parts: dict[str, Quota] = {}
        self._refused: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._of_cluster)

    @property
    def named(self) -> tuple[str, ...]:
        """The namespaces that have a quota of their own."""
        return tuple(each for each in self._of_cluster if each != OTHERS)

    def of(self, namespace: str) -> Quota | None:
        """Return the quota of a namespace in the whole cluster, None if it has none."""
        return self._of_cluster.get(namespace) or self._of_cluster.get(OTHERS)

    def part(self, namespace: str) -> Quota | None:
        """Return what a namespace may have in a shard, None for any number. There must be a map."""
        parts = self._parts
        if not parts and self._of_cluster:
            assert self._context.map is not None
            shards = self._context.map.shard_count  # which is fixed when a cluster is created
            parts.update({name: each.part(shards) for name, each in self._of_cluster.items()})
        return parts.get(namespace) or parts.get(OTHERS)

    def weight(self, namespace: str) -> int:
        """Return what the memory of a namespace is measured against: its quota, else the largest there is."""
        part = self.part(namespace)
        if part is not None:
            return _weight(part)
        return max(map(_weight, self._parts.values()), default=1)

    def refuse(self, namespace: str, now_ns: int) -> None:
        """Note that a namespace was refused."""
        self._refused[namespace] = now_ns

    def refuses(self, namespace: str, now_ns: int) -> bool:
        """Whether a namespace was refused within the last minute."""
        at_ns = self._refused.get(namespace)
        return at_ns is not None and now_ns - at_ns < _REFUSED_NS


def _weight(part: Quota) -> int:
    return memory_of(part.sessions, part.stored_bytes)


def memory_of(sessions: int, stored_bytes: int) -> int:
    """Return about how much memory sessions take."""
    return stored_bytes + SESSION_BYTES * sessions
