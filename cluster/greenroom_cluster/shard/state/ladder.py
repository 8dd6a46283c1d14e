"""The ladder of a log: for each epoch the number of its last record, newest last.

One primary stamps all records of an epoch, in order. So if two logs both have records of an epoch, they are
the same up to the end of the shorter of these two rungs.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from greenroom_cluster.shard.state.records import Record

Rung: TypeAlias = tuple[int, int]
"""An epoch and the number of its last record."""

RUNGS_MAX = 64


class Ladder:
    """Notes where each epoch begins in a log."""

    __slots__ = ("_starts", "newest")

    def __init__(self, last: Rung = (0, 0)) -> None:
        # Epochs, and the number of the first record that may be of it; that of the oldest is not known. Nor
        # is its epoch, 0, if an earlier release sent the snapshot.
        self._starts: list[Rung] = [(last[0], 0)] if last[0] else []
        self.newest = last[0]

    def begin(self, epoch: int, first: int) -> None:
        """Note that records from this number on are of that epoch."""
        starts = self._starts
        if starts and starts[-1][0] == epoch:
            return
        self.newest = epoch
        if starts and starts[-1][1] == first:
            del starts[-1]  # nothing was logged in it
        starts.append((epoch, first))
        if len(starts) > RUNGS_MAX:
            del starts[0]

    def extend(self, records: Iterable[Record]) -> None:
        """Note records that were logged."""
        for record in records:
            if record.epoch != self.newest:
                self.begin(record.epoch, record.sequence)

    def resume(self, rungs: Iterable[Rung], after: int) -> None:
        """Note the rungs of what was logged after a record."""
        for epoch, last in rungs:
            if last > after:
                self.begin(epoch, after + 1)
                after = last

    def cut(self, after: int) -> None:
        """Forget the epochs that begin after a record."""
        while self._starts and self._starts[-1][1] > after:
            del self._starts[-1]
        self.newest = self._starts[-1][0] if self._starts else 0

    def rungs(self, appended: int) -> tuple[Rung, ...]:
        """Return the rungs of a log that ends with record `appended`."""
        ends = [first - 1 for _, first in self._starts[1:]]
        return tuple(
            (epoch, last)
            for (epoch, first), last in zip(self._starts, [*ends, appended], strict=False)
            if first <= last
        )


def common_end(ours: Sequence[Rung], theirs: Sequence[Rung]) -> int:
    """Return up to which record two logs are known to be the same; 0 if that is not known of any."""
    ends = dict(theirs)
    for epoch, last in reversed(ours):
        if epoch in ends:
            return min(last, ends[epoch])
    return 0
