"""Lines for an operator about shards whose replicas may be lost together."""

from collections.abc import Iterable, Mapping, Sequence

ANOTHER_NODE = "start another node"
_NAMED_MAX = 6


def on_one_node(counts: Mapping[str, int]) -> list[str]:
    """Return on which nodes shards have all their replicas, given how many."""
    return [
        f"{count} {'shard has' if count == 1 else 'shards have'} all replicas on node {node}: if "
        f"that is lost, so are their sessions; {ANOTHER_NODE}"
        for node, count in sorted(counts.items())
    ]


def within_one_zone(shards: Mapping[str, Sequence[int]]) -> list[str]:
    """Return in which zones shards have all their replicas, given their numbers."""
    return [
        f"{_shards(numbers)} all replicas within zone {zone}: if that is lost, so are their sessions. "
        "They move once a node elsewhere is up and has the memory. If the other nodes are gone for good, say "
        "so with `greenroom forget-node`"
        for zone, numbers in shards.items()
    ]


def without_zone(zones: Iterable[tuple[str, str]]) -> list[str]:
    """Return which nodes have no zone, given all with theirs, if others have one."""
    pairs = list(zones)
    bare = [node for node, zone in pairs if not zone]
    if not bare or len(bare) == len(pairs):
        return []
    who, each = ("node", "it") if len(bare) == 1 else ("nodes", "each")
    have = "has" if len(bare) == 1 else "have"
    return [f"{who} {_listed(bare)} {have} no --zone, unlike others: {each} counts as a zone of its own"]


def _shards(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"shard {numbers[0]} has"
    return f"{len(numbers)} shards ({_listed(numbers)}) have"


def _listed(what: Sequence[object]) -> str:
    named = [str(each) for each in what]
    if len(named) > _NAMED_MAX:
        named[_NAMED_MAX - 1 :] = [f"{len(named) - _NAMED_MAX + 1} more"]
    *first, last = named
    return f"{', '.join(first)} and {last}" if first else last
