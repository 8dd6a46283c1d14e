"""Peers of a release that knows no namespaces: they hold what belongs to `default`, and nothing else.

Such a peer cannot decode a record `Within` a namespace, nor a key that is longer than a digest, and would end
the link again and again. Its hello says so (`wire.FEATURE_NAMESPACES`). So while one is sent the log of a
shard, nothing is logged there for other namespaces; and it gets no copy of a shard in which there is anything
of them.
"""

from greenroom_cluster.planning.placement import node_of
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.joining.transfer import Transfer
from greenroom_cluster.shard.limits.paging import Paging
from greenroom_cluster.shard.pairs.outgoing import Recipient
from greenroom_cluster.shard.pairs.replication import Replication
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.state.namespaces import is_named


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
        for recipient in self._replication.recipients:
            pair = recipient.pair
            if pair.knows_namespaces or (pair.knows_namespaces is None and not recipient.counted):
                continue
            if pair.knows_namespaces is None:
                return f"the release of actor {self._context.slot_of(pair.peer)} is not known yet"
            reason = self._unfit(recipient)
            self._context.warn_now_and_then(
                self._step.now_ns,
                reason,
                f"writes of apps in other namespaces than default are refused: {reason}",
            )
            return reason
        return ""

    def objection_to(self, joiner: Recipient, transfer: Transfer) -> str:
        """Return why a joiner gets no copy, "" if it may, or if its release is not known yet."""
        if joiner.pair.knows_namespaces is not False or not self._are_named(joiner, transfer):
            return ""
        return self._unfit(joiner)

    def _are_named(self, joiner: Recipient, transfer: Transfer) -> bool:
        """Whether there is anything of another namespace than `default`, or will be without being asked."""
        copy = self._replication.copy
        if copy.table.usage.sessions or self._paging.under_way or transfer.named:
            return True
        records = copy.log.records(max(joiner.acknowledged, copy.log.first - 1), copy.log.appended)
        return any(is_named(record.command) for record in records)

    def _unfit(self, recipient: Recipient) -> str:
        slot = self._context.slot_of(recipient.pair.peer)
        return f"actor {slot} is of a release that knows no namespaces: upgrade node {node_of(slot)}"
