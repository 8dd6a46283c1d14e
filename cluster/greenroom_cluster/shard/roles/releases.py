"""Peers of a release that knows no namespaces: they hold what belongs to `default`, and nothing else.

Such a peer cannot decode a record `Within` a namespace, nor a key that is longer than a digest, and would end
the link again and again. Its hello says so (`wire.FEATURE_NAMESPACES`). So while one is sent the log of a
shard, nothing is logged there for other namespaces; and it gets no copy of a shard in which there is anything
of them. The same holds for evictions (`Evict`), which came with that release.
"""

from greenroom_cluster.planning.placement import node_of
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.joining.transfer import Transfer
from greenroom_cluster.shard.limits.paging import Paging
from greenroom_cluster.shard.pairs.outgoing import Recipient
from greenroom_cluster.shard.pairs.replication import Replication
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.state.namespaces import is_named
from greenroom_cluster.shard.state.records import Evict


class Releases:
    """What one primary may log and send, as far as it depends on the releases of its recipients."""

    __slots__ = ("_context", "_paging", "_replication", "_step")

    def __init__(self, replication: Replication, resources: Resources, paging: Paging) -> None:
        self._replication = replication
        self._context: Context = resources.context
        self._step = resources.step
        self._paging = paging

    def objection(self) -> str:
        """Return why nothing can be logged now for another namespace than `default`, "" if it can.

        A joiner that nobody has reached yet does not count: it gets a copy only once its release is known.
        """
        recipient = self._unread_by()
        if recipient is None:
            return ""
        if recipient.pair.knows_namespaces is None:
            return f"the release of actor {self._context.slot_of(recipient.pair.peer)} is not known yet"
        return self._told(recipient, "writes of apps in other namespaces than default are refused")

    def may_evict(self) -> bool | None:
        """Whether an eviction can be logged now; None if the release of a recipient is not known yet."""
        recipient = self._unread_by()
        if recipient is None:
            return True
        if recipient.pair.knows_namespaces is None:
            return None
        self._told(recipient, "memory or a quota is full, and no session is evicted")
        return False

    def _unread_by(self) -> Recipient | None:
        """Return who could not read all that may be logged, or may not be able to, if anybody."""
        for recipient in self._replication.recipients:
            known = recipient.pair.knows_namespaces
            if not known and (known is False or recipient.counted):
                return recipient
        return None

    def _told(self, recipient: Recipient, what: str) -> str:
        """Return why a recipient is unfit, after a warning now and then of what comes of it."""
        reason = self._unfit(recipient)
        self._context.warn_now_and_then(self._step.now_ns, f"{what}: {reason}", f"{what}: {reason}")
        return reason

    def objection_to(self, joiner: Recipient, transfer: Transfer) -> str:
        """Return why a joiner gets no copy, "" if it may, or if its release is not known yet."""
        if joiner.pair.knows_namespaces is not False or not self._is_unreadable(joiner, transfer):
            return ""
        return self._unfit(joiner)

    def _is_unreadable(self, joiner: Recipient, transfer: Transfer) -> bool:
        """Whether it would get an eviction, or anything of another namespace than `default`, now or later."""
        copy = self._replication.copy
        if copy.table.usage.sessions or self._paging.under_way or transfer.named:
            return True
        records = copy.log.records(max(joiner.acknowledged, copy.log.first - 1), copy.log.appended)
        return any(isinstance(record.command, Evict) or is_named(record.command) for record in records)

    def _unfit(self, recipient: Recipient) -> str:
        slot = self._context.slot_of(recipient.pair.peer)
        return f"actor {slot} is of a former release: upgrade node {node_of(slot)}"
