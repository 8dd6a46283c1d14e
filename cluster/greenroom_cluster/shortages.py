"""Lines for an operator about a lack of memory or disk: one per kind, whatever the number of shards."""

import re
from collections.abc import Iterable, Sequence

import msgspec

ADD_NODE = "add a node"
_NAMED_MAX = 6
_DIGITS = re.compile(r"\d+")


class LackedCopy(msgspec.Struct, frozen=True):
    """A refused copy of a shard. `actor`: the one that had no memory for `needed_bytes`, if any."""

    shard: int
    reason: str
    actor: str = ""
    needed_bytes: int = 0


def lacked_copies(copies: Iterable[LackedCopy]) -> list[str]:
    """Return how many shards lack a copy, and why."""
    for_memory: list[LackedCopy] = []
    others: dict[str, list[LackedCopy]] = {}
    for copy in copies:
        if copy.actor:
            for_memory.append(copy)
        else:
            # Epochs and sizes may differ although the reason is the same.
            others.setdefault(_DIGITS.sub("0", copy.reason), []).append(copy)
    told = [_short_of_memory(for_memory)] if for_memory else []
    for _, alike in sorted(others.items()):
        first = alike[0]
        example = "" if len({each.reason for each in alike}) == 1 else f", for example shard {first.shard}"
        told.append(f"{_lacking(len(alike))}{example}: {first.reason}")
    return told


def _short_of_memory(copies: Sequence[LackedCopy]) -> str:
    actors = sorted({copy.actor for copy in copies})
    sizes = [copy.needed_bytes for copy in copies]
    least, most = _size(min(sizes)), _size(max(sizes))
    sized = most if least == most else f"{_without_unit(least, most)} to {most}"
    one = len(copies) == 1
    return (
        f"{_lacking(len(copies))}: {_actors(actors)} {'has' if len(actors) == 1 else 'have'} no memory for "
        f"{'it' if one else 'them'} ({sized}{'' if one else ' each'}); raise --memory-max or {ADD_NODE}"
    )


def refused_growth(slots: Sequence[str]) -> list[str]:
    """Return which actors refused writes for lack of memory; nothing if none did."""
    if not slots:
        return []
    told = (
        f"memory: {_actors(slots)} refused writes for lack of memory within the last minute: delete "
        f"sessions, shorten lifetimes, raise --memory-max or {ADD_NODE}"
    )
    return [told]


def over_bound(actors: Iterable[tuple[str, int]]) -> list[str]:
    """Return which actors keep more than they may, because they found it on their disks."""
    told = []
    for slot, excess_bytes in actors:
        told.append(
            f"memory: actor {slot} is {_size(excess_bytes)} over its bound by what it found on its disk: it "
            f"keeps all of it, and takes nothing that grows; raise --memory-max or {ADD_NODE}"
        )
    return told


def short_of_disk(slots: Sequence[str]) -> list[str]:
    """Return which actors have a disk that is nearly full; nothing if none has."""
    if not slots:
        return []
    whose = f"disk of {_actors(slots)} is" if len(slots) == 1 else f"disks of {_actors(slots)} are"
    told = (
        f"disk: the {whose} nearly full: their shards take no writes but those that end sessions; make room "
        "there (disk_nearly_full in the logs names the directories)"
    )
    return [told]


def _lacking(count: int) -> str:
    return f"{count} {'shard lacks' if count == 1 else 'shards lack'} a copy"


def _actors(slots: Sequence[str]) -> str:
    if len(slots) == 1:
        return f"actor {slots[0]}"
    named = list(slots)
    if len(named) > _NAMED_MAX:
        named[_NAMED_MAX - 1 :] = [f"{len(named) - _NAMED_MAX + 1} more"]
    return f"actors {', '.join(named[:-1])} and {named[-1]}"


def _size(size_bytes: int) -> str:
    if size_bytes < 1 << 20:
        return f"{size_bytes / (1 << 10):.1f} KiB"
    return f"{size_bytes / (1 << 20):.1f} MiB"


def _without_unit(size: str, other: str) -> str:
    """Return the first size, without its unit if the other one's is the same."""
    return size.removesuffix(other[-4:])
