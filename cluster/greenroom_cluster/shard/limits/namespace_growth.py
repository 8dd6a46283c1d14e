"""Growth of namespaces: a command that adds to one is logged only if its quota in this shard has room.

Like memory, room is reserved for what a command adds at most, from when it is logged until it is applied. So
nothing that is logged exceeds a quota, whoever applies it. Where there is no room for the most, the real
growth is computed: a session that does not get larger can be written all the same, and so can all that ends
sessions.

A namespace at its quota makes room among its own sessions, if `eviction` allows it, never among others'.
"""

from collections import deque

from greenroom import wire
from greenroom_cluster.quotas import QUOTAS_FLAG, Quota, told
from greenroom_cluster.shard.limits.admission import Write
from greenroom_cluster.shard.limits.eviction import Eviction
from greenroom_cluster.shard.limits.growth import GROWING, TRIED_BYTES_MAX, Growth, changed_by
from greenroom_cluster.shard.pairs.replication import Replication
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.state.kept_replies import Client
from greenroom_cluster.shard.state.log import text_bytes, values_bytes
from greenroom_cluster.shard.state.namespaces import namespace_of
from greenroom_cluster.shard.state.stored import decoded

HEADING_BYTES = 64
"""What a stored session takes at most besides its data, its label and the id of its user."""


class _Reserved:
    """What the logged commands of one namespace add at most, until they are applied."""

    __slots__ = ("_entries", "sessions", "stored_bytes")

    def __init__(self) -> None:
        self._entries: deque[tuple[int, int, int]] = deque()
        self.sessions = 0
        self.stored_bytes = 0

    def add(self, sequence: int, sessions: int, size: int) -> None:
        """Reserve for the record with this number."""
        self._entries.append((sequence, sessions, size))
        self.sessions += sessions
        self.stored_bytes += size

    def settle(self, committed: int) -> None:
        """Release what was reserved for records that are applied: the table counts them."""
        entries = self._entries
        while entries and entries[0][0] <= committed:
            _, sessions, size = entries.popleft()
            self.sessions -= sessions
            self.stored_bytes -= size


class NamespaceGrowth(Growth):
    """Decides for one primary whether there is room for its commands, in their namespaces too."""

    __slots__ = ("_quotas", "_reserved")

    def __init__(self, replication: Replication, resources: Resources, eviction: Eviction) -> None:
        super().__init__(replication, resources, eviction)
        self._quotas = resources.quotas
        self._reserved: dict[str, _Reserved] = {}

    def charge(
        self, client: bytes, known: Client | None, command: Write, size: int, opened: int
    ) -> int | wire.EncodedReply:
        """Return what a command is charged, or its refusal, for want of memory or for a quota."""
        if type(command) not in GROWING:
            return super().charge(client, known, command, size, opened)
        namespace = namespace_of(command.digest)  # type: ignore[union-attr]  # all that grow have one
        part = self._quotas.part(namespace)
        if part is None:
            return super().charge(client, known, command, size, opened)
        reserved = self._reserved.get(namespace)
        if reserved is None:
            reserved = self._reserved[namespace] = _Reserved()
        reserved.settle(self._copy.committed)
        sessions, brought = _brought(command)
        if any(self._lacking(part, namespace, reserved, sessions, brought)):
            brought = self._grown(command, brought)
            lacking = self._lacking(part, namespace, reserved, sessions, brought)
            if any(lacking):
                return self._refused(command, namespace, lacking)
        found = super().charge(client, known, command, size, opened)
        if type(found) is int and (sessions or brought):
            # The caller logs it now.
            reserved.add(self._copy.log.appended + 1, sessions, brought)
        return found

    def _lacking(
        self, part: Quota, namespace: str, reserved: _Reserved, sessions: int, size: int
    ) -> tuple[int, int]:
        """Return how many sessions and bytes more a namespace would need than it may have here."""
        used_sessions, used_bytes = self._copy.table.used_by(namespace)
        return (
            max(used_sessions + reserved.sessions + sessions - part.sessions, 0) if sessions else 0,
            max(used_bytes + reserved.stored_bytes + size - part.stored_bytes, 0) if size else 0,
        )

    def _grown(self, command: Write, brought: int) -> int:
        """Return by how many bytes a command lets its session grow, at most the ones that it brings."""
        if type(command) is wire.Create or self._is_pending(command):
            return brought
        stored = self._copy.table.sessions.get(command.digest)  # type: ignore[union-attr]  # all that grow have one
        if stored is None:
            return 0
        if len(stored) > TRIED_BYTES_MAX and type(command) is not wire.Update:
            return brought
        after = changed_by(command, decoded(stored))
        if after is None or after.grown <= 0:
            return 0
        return min(after.grown + HEADING_BYTES, brought)

    def _refused(self, command: Write, namespace: str, lacking: tuple[int, int]) -> wire.EncodedReply:
        """Return the refusal of a command that a quota has no room for, unless others make way."""
        quota = self._quotas.of(namespace)
        assert quota is not None
        key = command.digest  # type: ignore[union-attr]  # all that grow have one
        if self._eviction.make_way(namespace, *lacking, spared=key):
            reason = f"namespace {told(namespace)} is at its quota: its sessions without a user are evicted"
            return wire.Overloaded(command.request_id, reason)
        limit = f"{quota.sessions} sessions" if lacking[0] else f"{quota.stored_bytes} bytes of sessions"
        reason = (
            f"namespace {told(namespace)} is at its quota of {limit}, of which each shard has a part: "
            f"shorten lifetimes or delete sessions of its apps, or raise {QUOTAS_FLAG} at the nodes"
        )
        now_ns = self._step.now_ns
        self._quotas.refuse(namespace, now_ns)
        self._context.warn_now_and_then(now_ns, f"quota of {namespace}", f"writes are refused: {reason}")
        if command.age_ms:
            # An earlier attempt may still be on its way here, so nobody can say that nothing was applied.
            return wire.Overloaded(command.request_id, reason)
        return wire.Failed(command.request_id, wire.FailureCode.FULL, reason)


def growth_of(replication: Replication, resources: Resources, eviction: Eviction) -> Growth:
    """Return what decides for a primary; without quotas no write pays for them."""
    kind = NamespaceGrowth if resources.quotas else Growth
    return kind(replication, resources, eviction)


def _brought(command: Write) -> tuple[int, int]:
    """Return how many sessions and bytes a command adds at most."""
    match command:
        case wire.Create() | wire.Update():
            texts = text_bytes(command.label) + text_bytes(command.user_id)
            return int(type(command) is wire.Create), len(command.data) + texts + HEADING_BYTES
        case wire.Patch() | wire.Rotate():
            user = 0 if command.user is None else text_bytes(command.user[0])
            return 0, values_bytes(command.set) + user
        case _:
            return 0, 0
