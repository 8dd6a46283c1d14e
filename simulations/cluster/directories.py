"""The directories of the actor slots of one world, and what a node keeps in them."""

from collections.abc import Iterator
from random import Random

from simulations.kernel.directory import Directory
from simulations.plans.plan import Plan


class Directories:
    """What is on the disks of the nodes. A slot gets its directory when an actor first starts there."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._random = Random(f"{plan.seed}/directories")
        self._by_slot: dict[str, Directory] = {}
        # Those that were replaced by empty ones.
        self.gone: set[bytes] = set()

    def durability(self, node: str) -> str:
        """Return what the actors of a node keep: "none", "interval" or "fsync"."""
        modes = self._plan.durability
        return modes[int(node[1:]) % len(modes)] if modes else "none"

    def of(self, slot: str) -> Directory | None:
        """Return the directory of a slot, None if its node keeps nothing."""
        if self.durability(slot.partition("/")[0]) == "none":
            return None
        found = self._by_slot.get(slot)
        return self.replace(slot) if found is None else found

    def replace(self, slot: str) -> Directory:
        """Put an empty directory in the place of that of a slot."""
        random = Random(self._random.random())
        fresh = Directory(slot, self._random.randbytes(16), random, int(self._plan.sync_ms * 1e6))
        if slot in self._by_slot:
            self.gone.add(self._by_slot[slot].identity)
        self._by_slot[slot] = fresh
        return fresh

    def put(self, directory: Directory) -> None:
        """Put a directory in the place of that of its slot."""
        self._by_slot[directory.slot] = directory

    def of_node(self, node: str) -> list[Directory]:
        """Return the directories of a node."""
        return [each for slot, each in self._by_slot.items() if slot.partition("/")[0] == node]

    def __iter__(self) -> Iterator[Directory]:
        return iter(self._by_slot.values())
