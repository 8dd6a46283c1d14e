"""Who must be heard before it is certain that nobody knows a later configuration of a shard.

A change is decided only on the proposal of a member, or of the heir of one, who has it on disk before it is
sent. So nobody can know a later configuration than the newest one known, but its members and those whom a
change proposed there would have made members. Each of them is heard itself, or by whoever runs in its
directory now, if that still has the copy of the shard: with the copy it has forgotten what it knew.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from greenroom_cluster.planning.placement import node_of

Member: TypeAlias = tuple[bytes, str]
"""An incarnation and its slot, "" if that is not known."""

_UNKNOWN = "of unknown name"


class Witness(Protocol):
    """Who was heard, and so tells what a member knew."""

    def has_copy(self, shard: int) -> bool:
        """Whether nothing of what it knew of the shard is forgotten."""


def unheard(
    shard: int, concerned: Iterable[Member], witness_of: Callable[[bytes], Witness | None]
) -> list[Member]:
    """Return those of these for whom nobody has spoken yet, in the order of their incarnations."""
    awaited = []
    for member in sorted(concerned):
        witness = witness_of(member[0])
        if witness is None or not witness.has_copy(shard):
            awaited.append(member)
    return awaited


def node_named(member: Member, slot: str = "") -> str:
    """Return the node of a member, for an operator; `slot` is where it ran, as far as others know."""
    return node_of(member[1] or slot) or f"{_UNKNOWN} ({member[0].hex()[:8]})"
