"""What passes through one actor's core: counted once a step, or where that cannot be, once a message. Pure.

Requests are counted by kind, and replies by outcome, each on its own: to know both of one operation, it would
have to be remembered until it is answered. But a reply's type says what was asked: `session` answers reads
and patches, `written` other writes, `listing` and `counted` what concerns all sessions of a user.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from greenroom import ending_messages, near_messages, wire
from greenroom_cluster.metrics.readings import NS, Readings, Spread
from greenroom_cluster.shard.clients import operations
from greenroom_cluster.shard.messages import Prepare, PrepareOk
from greenroom_cluster.shard.state.records import Within

KINDS: Mapping[type, str] = {
    wire.Get: "get",
    wire.Create: "create",
    wire.Update: "update",
    wire.Delete: "delete",
    wire.Patch: "patch",
    wire.Rotate: "rotate",
    wire.DeleteByHandle: "delete_by_handle",
    wire.DeleteByUser: "delete_by_user",
    wire.ListByUser: "list_by_user",
    wire.Clean: "clean",
    wire.Inspect: "inspect",
    wire.DropRecord: "drop_record",
    # What an operator asks of a user in a namespace has become that.
    Within: "of_user",
    operations.CopyShard: "copy_shard",
    operations.Freeze: "freeze",
    near_messages.GetNear: "get_near",
    near_messages.NearBeacon: "near_beacon",
    near_messages.NearAck: "near_ack",
    near_messages.Unhold: "unhold",
    ending_messages.WatchSession: "watch",
    ending_messages.WatchBeacon: "watch_beacon",
    ending_messages.Unwatch: "unwatch",
}
OUTCOMES: Mapping[type, str] = {
    wire.EncodedSession: "session",
    near_messages.EncodedHeld: "session_held",
    ending_messages.Watching: "watching",
    wire.Missing: "missing",
    wire.Written: "written",
    wire.Listing: "listing",
    wire.Counted: "counted",
    wire.Redirect: "redirected",
    wire.Overloaded: "overloaded",
    wire.Unknowable: "unknowable",
}
FAILURES: Mapping[int, str] = {
    wire.FailureCode.EXISTS: "exists",
    wire.FailureCode.NOT_FOUND: "not_found",
    wire.FailureCode.CONFLICT: "conflict",
    wire.FailureCode.TOO_LARGE: "too_large",
    wire.FailureCode.INVALID: "invalid",
    wire.FailureCode.FULL: "full",
}
_UNANSWERED_MAX = 4096


class Traffic:
    """Counts for one core. `steps` holds the times of its steps in nanoseconds."""

    def __init__(self) -> None:
        self.steps = Spread()
        self._requests: defaultdict[type, int] = defaultdict(int)
        self._replies: defaultdict[type, int] = defaultdict(int)
        self._failures: defaultdict[int, int] = defaultdict(int)
        self._rounds = Spread()
        self._batches = Spread()
        # When each batch that is not acknowledged was sent, by its number.
        self._sent_ns: dict[int, int] = {}

    def asked(self, requests: Sequence[Any]) -> None:
        """Count what clients ask."""
        _count(self._requests, requests)

    def replied(self, replies: Sequence[Any]) -> None:
        """Count what clients are answered."""
        counts = self._replies
        failed = counts[wire.Failed]
        _count(counts, replies)
        if counts[wire.Failed] != failed:
            for reply in replies:
                if type(reply) is wire.Failed:
                    self._failures[reply.code] += 1

    def sent(self, messages: Sequence[Any], now_ns: Callable[[], int]) -> None:
        """Note which batches of records go out to a peer, at the time that it is then."""
        for message in messages:
            if type(message) is Prepare:
                if len(self._sent_ns) >= _UNANSWERED_MAX:
                    self._sent_ns.clear()  # links broke before these were answered
                self._sent_ns[message.batch] = now_ns()
                self._batches.note(sum([len(entry.records) for entry in message.entries]))

    def heard(self, messages: Sequence[Any], now_ns: int) -> None:
        """Note which batches a peer acknowledges."""
        for message in messages:
            if type(message) is PrepareOk:
                sent_ns = self._sent_ns.pop(message.batch, None)
                if sent_ns is not None:
                    self._rounds.note(max(0, now_ns - sent_ns))

    def tell(self, readings: Readings) -> None:
        """Add what was counted so far."""
        # All of them from the start, so that a rate is known from the first one on.
        requests = dict.fromkeys(KINDS.values(), 0)
        for kind, count in self._requests.items():
            if kind in KINDS:
                requests[KINDS[kind]] += count
        readings.tell_each("greenroom_requests_total", requests)
        outcomes = dict.fromkeys((*OUTCOMES.values(), *FAILURES.values()), 0)
        for kind, count in self._replies.items():
            if kind in OUTCOMES:
                outcomes[OUTCOMES[kind]] = count
        for code, count in self._failures.items():
            outcomes[FAILURES.get(code, "invalid")] += count
        readings.tell_each("greenroom_replies_total", outcomes)
        readings.tell_spread("greenroom_step_seconds", self.steps, NS)
        readings.tell_spread("greenroom_replication_seconds", self._rounds, NS)
        readings.tell_spread("greenroom_replication_batch_records", self._batches)


def _count(counts: defaultdict[type, int], messages: Sequence[Any]) -> None:
    """Count messages by type. Most often all that came together are of one, which takes half the time."""
    kinds = list(map(type, messages))
    if not kinds:
        return
    first = kinds[0]
    if len(kinds) == 1 or kinds.count(first) == len(kinds):
        counts[first] += len(kinds)
        return
    for kind in kinds:
        counts[kind] += 1
