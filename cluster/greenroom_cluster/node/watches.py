"""The watches over the records that a node's actors are applying, by slot.

A new incarnation in a slot ends the watch over the former one.
"""

from collections.abc import Iterable

from greenroom_cluster.coordination.messages import Suspicion
from greenroom_cluster.node.effects import Log
from greenroom_cluster.node.inputs import RecordMark
from greenroom_cluster.suspect_records import InHand, Watch, bounded


class Watches:
    """One watch for each running incarnation."""

    def __init__(self) -> None:
        self._watches: dict[str, tuple[bytes, Watch]] = {}

    def begin(self, slot: str, incarnation: bytes) -> None:
        """Begin to watch an incarnation that is about to start."""
        self._watches[slot] = (incarnation, Watch())

    def look(self, marks: Iterable[RecordMark]) -> list[Log]:
        """Take marks; return log effects for suspects that changed."""
        told = []
        for mark in marks:
            watch = self._watch_of(mark)
            if watch is not None and watch.look(mark.in_hand, mark.busy_seconds):
                told.append(_news(mark, watch.suspect))
        return told

    def end(self, mark: RecordMark, *, crashed: bool) -> tuple[tuple[Suspicion, ...], list[Log]]:
        """End the watch over an actor that ended; return what that says of its records."""
        watch = self._watch_of(mark)
        if watch is None:
            return (), []
        del self._watches[mark.slot]
        watch.ended(mark.in_hand, mark.busy_seconds, crashed=crashed)
        told = [] if watch.suspect is None else [_news(mark, watch.suspect)]
        return watch.suspicions(mark.incarnation), told

    @property
    def suspicions(self) -> tuple[Suspicion, ...]:
        """The records on which actors hang, or hung; at most as many as one message holds."""
        return bounded(
            each for incarnation, watch in self._watches.values() for each in watch.suspicions(incarnation)
        )

    def _watch_of(self, mark: RecordMark) -> Watch | None:
        incarnation, watch = self._watches.get(mark.slot, (b"", None))
        return watch if incarnation == mark.incarnation else None


def _news(mark: RecordMark, suspect: InHand | None) -> Log:
    if suspect is None:
        return Log("warning", "record_passed", {"process": mark.slot, "pid": mark.pid})
    return Log(
        "warning",
        "record_suspected",
        {
            "process": mark.slot,
            "pid": mark.pid,
            "shard": suspect.shard,
            "epoch": suspect.epoch,
            "sequence": suspect.sequence,
        },
    )
