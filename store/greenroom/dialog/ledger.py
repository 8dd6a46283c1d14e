"""Unfinished operations by request id, and the low-watermark of their ids.

Ids rise in the order of submission, and all operations have the same time limit, so the first of `pending` is
also the first to reach its deadline.
"""

from greenroom.dialog.operations import AnyOperation, Gathering


class Ledger:
    """Unfinished operations. `low` is the lowest unfinished id, or the next one if there is none."""

    __slots__ = ("gatherings", "last_id", "low", "pending")

    def __init__(self) -> None:
        self.last_id = 0
        self.low = 1
        self.pending: dict[int, AnyOperation] = {}
        self.gatherings: dict[int, Gathering] = {}

    def next_id(self) -> int:
        """Return a fresh id. One that is never put into `pending` counts as done."""
        self.last_id += 1
        return self.last_id

    def oldest(self) -> AnyOperation | None:
        """Return the operation with the earliest deadline."""
        return next(iter(self.pending.values()), None)

    def remove(self, request_id: int) -> None:
        """Remove a finished operation."""
        del self.pending[request_id]
        self.gatherings.pop(request_id, None)
        if self.low not in self.pending:
            self.raise_low()

    def raise_low(self) -> None:
        """Move the low-watermark up to the next unfinished id."""
        low, pending, last = self.low, self.pending, self.last_id
        while low <= last and low not in pending:
            low += 1
        self.low = low
