"""What clients are told of endings: of each that they watch for, and of no session that lives.

The truth is what is committed. It is applied once more here, in its order, to know which record ended which
session.
"""

from greenroom_cluster.shard.state.table import SessionTable
from greenroom_cluster.suspect_records import InHand
from simulations.checks.oracles import Oracles, ShardTruth
from simulations.cluster.marks import PoisonBook


class Ends:
    """The ends of sessions in one shard, by what is committed so far. `position` is the last record."""

    def __init__(self, shard: int, truth: ShardTruth, book: PoisonBook) -> None:
        self.truth = truth
        self.position = 0
        self._shard = shard
        self._book = book
        self._table = SessionTable()
        self._newest: dict[bytes, int] = {}

    def go_on(self) -> None:
        """Apply what was committed since."""
        committed, table = self.truth.committed, self._table
        while (record := committed.get(self.position + 1)) is not None:
            self.position += 1
            if InHand(self._shard, record.epoch, record.sequence) in self._book.dropped:
                continue
            gone: list[bytes] = []
            table.gone = gone
            table.apply(record)
            for key in gone:
                self._newest[key] = self.position

    def is_there(self, key: bytes) -> bool:
        """Whether there is such a session."""
        return key in self._table.sessions

    def has_ended_since(self, key: bytes, position: int) -> bool:
        """Whether such a session was removed by a later record."""
        return self._newest.get(key, 0) > position


class EndingOracle:
    """Knows which sessions have ended, in all shards of one world."""

    def __init__(self, oracles: Oracles, book: PoisonBook) -> None:
        self._oracles = oracles
        self._book = book
        self._ends: dict[int, Ends] = {}

    def of(self, shard: int) -> Ends:
        """Return the ends in a shard, up to now."""
        truth = self._oracles.shards[shard]
        ends = self._ends.get(shard)
        if ends is None or ends.truth is not truth:
            ends = self._ends[shard] = Ends(shard, truth, self._book)
        ends.go_on()
        return ends

    def is_known(self, shard: int) -> bool:
        """Whether all that was ever committed in a shard counts: none of it was lost."""
        return shard not in self._oracles.lost
