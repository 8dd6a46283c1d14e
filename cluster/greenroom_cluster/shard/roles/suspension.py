"""The work of a suspended replica: say that the shard is suspended, and wait for an operator.

A backup that takes over from a primary that died or hung on a record would most likely die or hang too, and
the shard's sessions would be gone. So it applies the records before that one and stops. Nothing is lost while
it waits; an operator decides what becomes of the record.

That record and those after it are not decided: their clients learn that their requests stand in a log. All
others get `Overloaded`, which promises that nothing was applied.
"""

from collections.abc import Sequence

from greenroom import wire
from greenroom.cluster_map import SuspectRecord
from greenroom_cluster.shard.state.kept_replies import ClientTable, is_reply_to
from greenroom_cluster.shard.state.log import record_bytes
from greenroom_cluster.shard.state.namespaces import bare
from greenroom_cluster.shard.state.records import (
    Command,
    Evict,
    Expire,
    ForgetClients,
    KeptReply,
    Record,
    Within,
    asked,
)

DROPPED = "this command ended an actor and was dropped"

_KINDS: dict[type, str] = {
    wire.Create: "create",
    wire.Update: "update",
    wire.Delete: "delete",
    wire.Patch: "patch",
    wire.Rotate: "rotate",
    wire.DeleteByHandle: "delete_by_handle",
    wire.DeleteByUser: "delete_by_user",
    wire.Clean: "clean",
    Expire: "expire",
    ForgetClients: "forget_clients",
    Evict: "evict",
}


def kind_of(command: Command) -> str:
    """Return the kind of a command, which is all of it that operators see."""
    return _KINDS[type(command.command if isinstance(command, Within) else command)]


class Suspension:
    """Why one shard is suspended. `former` is the primary that `record` stopped.

    `undecided` is the log from the first record that is not applied here, `suspect` the record's number.
    """

    __slots__ = ("_following", "_logged", "former", "reason", "record")

    def __init__(self, shard: int, former: bytes, undecided: Sequence[Record], suspect: int) -> None:
        before = suspect - undecided[0].sequence
        self.record = record = undecided[before]
        self.former = former
        self.reason = (
            f"shard {shard} is suspended: a {kind_of(record.command)} of {record_bytes(record.command)} "
            f"bytes ended its primary; drop that record (`greenroom drop-record {shard}`) or wait"
        )
        self._following = len(undecided) - before - 1
        self._logged = frozenset(
            (each.client, each.command.request_id)  # type: ignore[union-attr]  # what has a client has a request id
            for each in undecided
            if each.client
        )

    @property
    def suspect(self) -> SuspectRecord:
        """The name of the record."""
        return SuspectRecord(self.former, self.record.epoch, self.record.sequence)

    def state(self) -> wire.SuspendedRecord:
        """Return the state as operators see it."""
        record = self.record
        return wire.SuspendedRecord(
            record.epoch,
            record.sequence,
            kind_of(record.command),
            record_bytes(record.command),
            self._following,
        )

    def reply_to(
        self, client: bytes, asking: wire.Get | wire.Mutation | Within, clients: ClientTable, map_version: int
    ) -> wire.EncodedReply:
        """Return a request's kept reply, or say that it may yet take effect, or that it was not applied."""
        request_id = asking.request_id
        known = clients.get(client)
        kept = None if known is None else known.replies.get(request_id)
        if kept is not None and not isinstance(asking, wire.Get) and is_reply_to(kept, bare(asking)):
            return kept.reply
        if (client, request_id) in self._logged:
            return wire.Redirect(request_id, map_version, appended=True)
        return wire.Overloaded(request_id, self.reason)

    def refuse_for_good(self, clients: ClientTable) -> None:
        """Keep a refusal as the reply to the record's command, so that no repeat is logged again."""
        record, command = self.record, self.record.command
        if record.client:
            request_id: int = command.request_id  # type: ignore[union-attr]  # what has a client has a request id
            refusal = wire.Failed(request_id, wire.FailureCode.INVALID, DROPPED)
            kept = KeptReply(record.client, request_id, refusal, *asked(bare(command)))
            clients.keep(kept, command.low, record.time_us)  # type: ignore[union-attr]  # as above
