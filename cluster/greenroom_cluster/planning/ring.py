"""A consistent-hash ring with virtual nodes over slots (Karger et al., STOC 1997).

Gives each shard an order of preference over the slots, the same in every process and on every machine. When a
slot is added or removed, the order of the others does not change.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from hashlib import blake2b

VIRTUAL_NODES = 64


class Ring:
    """The ring over slots 0 to n-1, given their names."""

    __slots__ = ("_owners", "_points", "_slot_count")

    def __init__(self, names: Sequence[str]) -> None:
        marks = sorted(
            (_point(f"slot {name} {number}"), slot)
            for slot, name in enumerate(names)
            for number in range(VIRTUAL_NODES)
        )
        self._points = [point for point, _ in marks]
        self._owners = [slot for _, slot in marks]
        self._slot_count = len(names)

    def preference(self, shard: int) -> Iterator[int]:
        """Yield every slot once, in the shard's order of preference."""
        owners = self._owners
        start = bisect_right(self._points, _point(f"shard {shard}"))
        seen: set[int] = set()
        for step in range(len(owners)):
            slot = owners[(start + step) % len(owners)]
            if slot not in seen:
                seen.add(slot)
                yield slot
                if len(seen) == self._slot_count:
                    return


def _point(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
