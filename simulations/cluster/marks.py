"""The mark of the record in hand, and the book of poisoned records, which end the actors that apply them."""

from collections.abc import Callable

from greenroom_cluster.shard.step import MARK_SEQUENCE, MARK_SHARD
from greenroom_cluster.suspect_records import InHand


class PoisonedError(Exception):
    """The record about to be applied ends this actor."""


class PoisonBook:
    """The poisoned `records` of one world, and the records and requests that an operator dropped."""

    def __init__(self) -> None:
        self.records: dict[InHand, tuple[str, float]] = {}
        self.dropped: set[InHand] = set()
        self.dropped_requests: set[tuple[bytes, int]] = set()


class ActorMark:
    """An actor's mark. `last` is the newest record that it named during the current step."""

    __slots__ = ("_fields", "last", "on_record")

    def __init__(self) -> None:
        self._fields = [0, 0, 0]
        self.last: InHand | None = None
        self.on_record: Callable[[InHand], None] | None = None

    def __setitem__(self, field: int, value: int) -> None:
        self._fields[field] = value
        if field == MARK_SEQUENCE and value:
            self.last = InHand(*self._fields)
            if self.on_record is not None:
                self.on_record(self.last)
        elif field == MARK_SHARD:
            self.last = None
