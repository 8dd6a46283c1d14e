"""From a routing point to the actor that serves it: point -> shard -> primary incarnation -> address.

A `Router` is made once per version of the cluster map, so that a request costs one shift and one list index.
Points have 16 bits and the shard count is a power of two: a shard is the top bits of a point.
"""

from greenroom.cluster_map import SHARDS_MAX, ActorEntry, ClusterMap
from greenroom.errors import RemoteProtocolError, UsageError

POINT_BITS = 16
PORT_MAX = 65535


def parse_address(text: str) -> tuple[str, int]:
    """Return (host, port) of `"host:port"`; an IPv6 host stands in square brackets. Raises UsageError."""
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not (colon and host and port.isascii() and port.isdigit()):
        raise UsageError(f"{text!r} is not an address; write host:port, or [host]:port for IPv6")
    if len(port) > len(str(PORT_MAX)) or not 0 < int(port) <= PORT_MAX:
        raise UsageError(f"the port of {text!r} is out of range in host:port; ports are 1 to {PORT_MAX}")
    return host, int(port)


def parse_addresses(text: str) -> tuple[str, ...]:
    """Return the addresses of a comma-separated list, in order and once each. Raises UsageError."""
    if not isinstance(text, str):
        raise UsageError(
            f'addresses are one str, "host:port,host:port", not {type(text).__name__}; join them with commas'
        )
    addresses = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not addresses:
        raise UsageError("no node address was given; write at least one, as host:port,host:port")
    for address in addresses:
        parse_address(address)
    return addresses


class Router:
    """One version of the cluster map, prepared for look-ups.

    `shift` turns a point into its shard. `primaries` holds each shard's primary, or None if no primary could
    answer (not started yet, or known dead). Raises RemoteProtocolError for a map that no coordinator makes.
    """

    __slots__ = ("map", "primaries", "shift")

    def __init__(self, cluster_map: ClusterMap) -> None:
        count = cluster_map.shard_count
        if not 0 < count <= SHARDS_MAX or count & (count - 1):
            raise RemoteProtocolError(
                f"a cluster map has {count} shards, which is not a power of two up to {SHARDS_MAX}"
            )
        self.map = cluster_map
        self.shift = POINT_BITS - (count.bit_length() - 1)
        actors = cluster_map.actors
        self.primaries: list[ActorEntry | None] = []
        for shard in cluster_map.shards:
            actor = actors.get(shard.primary)
            self.primaries.append(actor if actor is not None and actor.state != "dead" else None)

    def shard_of(self, point: int) -> int:
        """Return the shard that holds a routing point."""
        return point >> self.shift

    def why_no_primary(self, shard: int) -> str:
        """Say why a shard has no actor to ask."""
        entry = self.map.shards[shard]
        if not entry.primary:
            return f"shard {shard} has not been started yet"
        return f"the primary of shard {shard} is gone and no other has taken over yet"
