"""What one browser's session must hold, from what the shop confirmed to it. Pure.

A session is a set of cells: the quantity of each article, and the note. Every write that has begun and is not
decided stays open: it may take effect at any moment, or never. A cell therefore holds every value possible
now, each with the open writes that have not taken effect in it. A confirmation strikes out the possibilities
in which the write has not happened, a refusal those in which it has. A write whose outcome the browser never
learns stays open to the end.

A read must show, cell by cell, a value that was possible at some moment between its beginning and its end.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

Value: TypeAlias = int | str | None
ABSENT_ONLY: frozenset[Value] = frozenset({None})


class Effect(NamedTuple):
    """What a write does to a cell: "add" a number to it, or "set" it (None: empty it)."""

    kind: Literal["add", "set"]
    value: Value

    def on(self, value: Value) -> Value:
        """Return the cell's value after the write."""
        if self.kind == "set":
            return self.value
        assert isinstance(self.value, int)
        assert not isinstance(value, str)
        return (value or 0) + self.value


class Possibility(NamedTuple):
    """A value the cell may have, and the open writes that have not taken effect in it."""

    value: Value
    waiting: frozenset[int]


class Cell:
    """One value of the session: its possibilities now, and the writes that made them."""

    def __init__(self) -> None:
        self._possible = {Possibility(None, frozenset())}
        self._open: dict[int, Effect] = {}
        self._confirmed: list[int] = []
        self._history: dict[int, Effect] = {}

    @property
    def values(self) -> frozenset[Value]:
        """Every value that the cell may have now."""
        return frozenset(possibility.value for possibility in self._possible)

    @property
    def confirmed_writes(self) -> int:
        """How many writes of this cell were confirmed."""
        return len(self._confirmed)

    def begin(self, write: int, effect: Effect) -> None:
        """Open a write: from now on it may have happened."""
        self._open[write] = effect
        self._history[write] = effect
        self._possible = self._closed(
            {Possibility(value, waiting | {write}) for value, waiting in self._possible}
        )

    def confirm(self, write: int) -> None:
        """Close a write: it has happened."""
        del self._open[write]
        self._confirmed.append(write)
        self._possible = {possibility for possibility in self._possible if write not in possibility.waiting}

    def refuse(self, write: int) -> None:
        """Close a write: it has not happened and never will."""
        del self._open[write]
        del self._history[write]
        self._possible = {
            Possibility(value, waiting - {write}) for value, waiting in self._possible if write in waiting
        }

    def observe(self, value: Value) -> None:
        """Keep the possibilities in which the cell has this value now; without any, keep all."""
        seen = {possibility for possibility in self._possible if possibility.value == value}
        if seen:
            self._possible = self._closed(seen)

    def lost_writes(self, value: Value) -> int:
        """Return how many confirmed writes at least are missing, if the cell shows `value`.

        0 if the value is possible, or if no selection of the writes makes it (a write done twice, say): then
        the cell is wrong without any write being lost.
        """
        if value in self.values:
            return 0
        missing: dict[Value, int] = {None: 0}
        confirmed = set(self._confirmed)
        for write, effect in self._history.items():
            following: dict[Value, int] = {}
            for before, count in missing.items():
                for after, cost in ((before, int(write in confirmed)), (effect.on(before), 0)):
                    following[after] = min(following.get(after, len(self._history)), count + cost)
            missing = following
        return missing.get(value, 0)

    def _closed(self, possible: set[Possibility]) -> set[Possibility]:
        """Add what may come of open writes taking effect, in every order."""
        stack = list(possible)
        while stack:
            value, waiting = stack.pop()
            for write in waiting:
                following = Possibility(self._open[write].on(value), waiting - {write})
                if following not in possible:
                    possible.add(following)
                    stack.append(following)
        return possible


class Mismatch(NamedTuple):
    """A cell that shows what it cannot hold."""

    cell: str
    shown: Value
    expected: frozenset[Value]
    lost_writes: int


class Read:
    """A read under way: what each cell may show when it ends, and which cells changed meanwhile."""

    def __init__(self, possible: dict[str, frozenset[Value]]) -> None:
        self.possible = possible
        self.touched: set[str] = set()


class Ledger:
    """What one session must hold."""

    def __init__(self) -> None:
        self._cells: dict[str, Cell] = {}
        self._cell_of: dict[int, str] = {}
        self._reads: list[Read] = []
        self._writes = 0

    @property
    def confirmed_writes(self) -> int:
        """How many writes of this session were confirmed."""
        return sum(cell.confirmed_writes for cell in self._cells.values())

    def begin(self, cell: str, effect: Effect) -> int:
        """Open a write and return the number by which to confirm or refuse it."""
        self._writes += 1
        write = self._writes
        self._cell_of[write] = cell
        entry = self._cells.setdefault(cell, Cell())
        entry.begin(write, effect)
        for read in self._reads:
            read.possible[cell] = read.possible.get(cell, ABSENT_ONLY) | entry.values
            read.touched.add(cell)
        return write

    def confirm(self, write: int) -> None:
        """Close a write that the shop said is done."""
        self._decided(write).confirm(write)

    def refuse(self, write: int) -> None:
        """Close a write that the shop said is not done."""
        self._decided(write).refuse(write)

    def _decided(self, write: int) -> Cell:
        name = self._cell_of.pop(write)
        for read in self._reads:
            read.touched.add(name)
        return self._cells[name]

    def begin_read(self) -> Read:
        """Note what a read that begins now may show."""
        read = Read({name: cell.values for name, cell in self._cells.items()})
        self._reads.append(read)
        return read

    def drop_read(self, read: Read) -> None:
        """Forget a read that failed and showed nothing."""
        self._reads.remove(read)

    def end_read(self, read: Read, shown: Mapping[str, Value]) -> list[Mismatch]:
        """Return the cells that showed what they could not hold at any moment of the read."""
        self._reads.remove(read)
        mismatches = []
        for name in sorted({*read.possible, *shown}):
            expected = read.possible.get(name, ABSENT_ONLY)
            value = shown.get(name)
            cell = self._cells.get(name)
            if value not in expected:
                lost = 0 if cell is None else cell.lost_writes(value)
                mismatches.append(Mismatch(name, value, expected, lost))
            elif cell is not None and name not in read.touched:
                cell.observe(value)
        return mismatches
