"""Limits on what nodes and actors say of themselves, and on the size of the cluster map.

The whole map is sent in one frame, so a registration that could ever make it too long is refused: room for
the most that each shard may need is reserved from the start, and no later decision makes the map longer than
that.
"""

import re

import msgspec

from greenroom.cluster_map import (
    CLUSTER_IDENTITY_BYTES,
    SHARDS_MAX,
    ActorEntry,
    ClusterMap,
    NodeEntry,
    ShardEntry,
)
from greenroom.framing import FRAME_BYTES_MAX
from greenroom.wire import TIME_US_MAX
from greenroom_cluster.coordination.rules import (
    EPOCH_LIMIT,
    INCARNATION_BYTES,
    MARK_MAX,
    NONCE_BYTES_MAX,
)

MAP_BYTES_MAX = FRAME_BYTES_MAX - (1 << 16)
"""Encoded size of a whole map. The rest of a frame is for a change of the map, which numbers its shards."""

NODES_MAX = 1024
NAME_LENGTH_MAX = 63
ADDRESS_LENGTH_MAX = 256
HOST_LENGTH_MAX = 128
PID_MAX = 1 << 31
TICKS_MAX = 1 << 62
LINEAGE_MAX = 1 << 31
VERSION_MAX = 1 << 62
DIRECTORY_BYTES = 16
SECONDS_MAX = 1e9

_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SLOT_INDEX = re.compile(r"0|[1-9][0-9]{0,3}")
_ADDRESS = re.compile(
    r"([A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_.])?"
    r"|\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,32})?\]):([0-9]{1,5})"
)
_HOST = re.compile(r"[!-~]{0,128}")
_NODE_STATES = ("up", "leaving", "down")
_ACTOR_STATES = ("up", "replaced", "dead")
_DURABILITIES = ("interval", "fsync")
_PORT_MAX = 65_535
_HEADER_BYTES = 5
_NUMBER_BYTES = 9
_TEXT_BYTES = 2
"""Header of a short text or bytes."""
_STATE_BYTES = 9
_MEMBER_BYTES = INCARNATION_BYTES + _TEXT_BYTES
_DIRECTORY_BYTES = DIRECTORY_BYTES + _TEXT_BYTES + _NUMBER_BYTES
"""Of a directory and its mark."""
_SHARD_BYTES = 9 + _NUMBER_BYTES
"""Of a shard's entry: epoch, headers of its lists, the absent suspect, and a time."""
_SUSPECT_BYTES = 1 + _MEMBER_BYTES + 2 * _NUMBER_BYTES

SUSPECTS_MAX = 256
"""How many shards of one map may have a suspect."""

_encode = msgspec.msgpack.Encoder().encode


def is_address(text: str) -> bool:
    """Whether this is `host:port` as in the map: a host name, an IPv4 address, or an IPv6 one in brackets."""
    if len(text) > ADDRESS_LENGTH_MAX:
        return False
    found = _ADDRESS.fullmatch(text)
    return found is not None and 0 < int(found[2]) <= _PORT_MAX


def node_objection(node: NodeEntry) -> str:
    """Return what is wrong with a node's entry and what to do, or ""."""
    if not _NODE_NAME.fullmatch(node.name):
        return (
            f"a node name has 1 to {NAME_LENGTH_MAX} letters, digits, dots, dashes and underscores, the "
            "first a letter or digit; choose another --name"
        )
    if node.state not in ("up", "leaving"):
        return 'a node registers as "up" or "leaving"'
    if node.zone and not _NODE_NAME.fullmatch(node.zone):
        return (
            f"a zone has 1 to {NAME_LENGTH_MAX} letters, digits, dots, dashes and underscores, the first a "
            "letter or digit; choose another --zone"
        )
    if not is_address(node.address):
        return (
            f"a node's address is host:port, IPv6 as [host]:port, at most {ADDRESS_LENGTH_MAX} characters; "
            "set --advertise"
        )
    return ""


def actor_objection(actor: ActorEntry) -> str:
    """Return what is wrong with an actor's entry and what to do, or ""."""
    if len(actor.incarnation) != INCARNATION_BYTES:
        return f"an incarnation has {INCARNATION_BYTES} bytes"
    node, _, index = actor.slot.rpartition("/")
    if node != actor.node or not _SLOT_INDEX.fullmatch(index):
        return f"a slot of node {actor.node!a:.80} is its name, a slash and a number from 0 to 9999"
    if actor.state != "up":
        return 'an actor registers as "up"'
    if not is_address(actor.address):
        return (
            f"an actor's address is host:port, IPv6 as [host]:port, of at most {ADDRESS_LENGTH_MAX} "
            "characters; set --advertise"
        )
    if not _HOST.fullmatch(actor.host):
        return f"what identifies a host has at most {HOST_LENGTH_MAX} printable characters, no spaces"
    if not (0 <= actor.pid <= PID_MAX and 0 <= actor.started_ticks <= TICKS_MAX):
        return "an actor's process id or start time is out of range"
    return _directory_objection(actor)


def _directory_objection(actor: ActorEntry) -> str:
    if not actor.durability and not actor.directory and not actor.mark:
        return ""
    if actor.durability not in _DURABILITIES:
        return 'the durability of an actor with a directory is "interval" or "fsync"'
    if len(actor.directory) != DIRECTORY_BYTES:
        return f"the directory of an actor that keeps what it holds has an id of {DIRECTORY_BYTES} bytes"
    if not 0 <= actor.mark <= MARK_MAX:
        return "the mark of an actor's directory is out of range"
    return ""


def _node_bytes(node: NodeEntry) -> int:
    texts = 2 * len(node.name) + len(node.address) + len(node.zone)
    return texts + 5 * _TEXT_BYTES + _STATE_BYTES


def _actor_bytes(actor: ActorEntry) -> int:
    texts = len(actor.node) + len(actor.slot) + len(actor.address) + len(actor.host)
    # The directory and its mark are in the entry, and may be among the floors.
    directory = _TEXT_BYTES + len(actor.durability) + (2 if actor.directory else 1) * _DIRECTORY_BYTES
    return 2 * _MEMBER_BYTES + texts + 5 * _TEXT_BYTES + _STATE_BYTES + 2 * _NUMBER_BYTES + directory


class Room:
    """How long later decisions may make a map, in `bytes`, and what there is still room for.

    Each shard has room reserved for one member beyond its replicas; shards with more are counted.
    """

    def __init__(self, base: ClusterMap) -> None:
        self._shards = base.shard_count
        self._replicas = base.replicas
        self._slot_length = max(
            (
                *(len(slot) for entry in base.shards for slot in entry.wanted),
                *(len(actor.slot) for actor in base.actors.values()),
            ),
            default=0,
        )
        self._excess = sum(self._beyond(entry) for entry in base.shards)
        self._named = (
            len(base.cluster)
            + CLUSTER_IDENTITY_BYTES
            + _TEXT_BYTES
            + 4 * _NUMBER_BYTES
            + 7 * _HEADER_BYTES
            + sum(_node_bytes(node) for node in base.nodes.values())
            + sum(_actor_bytes(actor) for actor in base.actors.values())
        )

    @property
    def bytes(self) -> int:
        """The most bytes that the map may take."""
        return self._bound(self._named, self._slot_length, self._excess)

    def take_node(self, node: NodeEntry) -> bool:
        """Reserve room for a new or changed node; False if there is none."""
        return self._take(_node_bytes(node), 0, 0)

    def take_actor(self, actor: ActorEntry) -> bool:
        """Reserve room for a new actor; False if there is none."""
        return self._take(_actor_bytes(actor), len(actor.slot), 0)

    def take_members(self, before: ShardEntry, after: ShardEntry) -> bool:
        """Reserve room for the members that a shard gets; False if there is none."""
        more = self._beyond(after) - self._beyond(before)
        return more <= 0 or self._take(0, 0, more)

    def _beyond(self, entry: ShardEntry) -> int:
        return max(0, len(entry.backups) - self._replicas)

    def _bound(self, named: int, slot_length: int, excess: int) -> int:
        members = (self._replicas + 1) * _MEMBER_BYTES
        slots = self._replicas * (_TEXT_BYTES + slot_length)
        shard = _SHARD_BYTES + members + _TEXT_BYTES + NONCE_BYTES_MAX + slots
        suspects = min(self._shards, SUSPECTS_MAX) * _SUSPECT_BYTES
        return named + self._shards * shard + excess * _MEMBER_BYTES + suspects

    def _take(self, named: int, slot_length: int, excess: int) -> bool:
        named, excess = self._named + named, self._excess + excess
        slot_length = max(self._slot_length, slot_length)
        if self._bound(named, slot_length, excess) > MAP_BYTES_MAX:
            return False
        self._named, self._slot_length, self._excess = named, slot_length, excess
        return True


def map_objection(cluster_map: ClusterMap) -> str:
    """Return why no coordinator can continue from this map, or ""."""
    if not 1 <= cluster_map.lineage <= LINEAGE_MAX or not 1 <= cluster_map.version <= VERSION_MAX:
        return f"its lineage or version ({cluster_map.lineage}, {cluster_map.version}) is out of range"
    if len(cluster_map.identity) not in (0, CLUSTER_IDENTITY_BYTES):
        return f"its identity has {len(cluster_map.identity)} bytes, not {CLUSTER_IDENTITY_BYTES}"
    count = cluster_map.shard_count
    if not 1 <= count <= SHARDS_MAX or count & (count - 1):
        return f"it has {count} shards, which is not a power of two up to {SHARDS_MAX}"
    if not all(
        0 <= entry.epoch < EPOCH_LIMIT and 0 <= entry.recovered_us <= TIME_US_MAX
        for entry in cluster_map.shards
    ):
        return "the epoch of a shard, or the time of its recovery, is out of range"
    for name, node in cluster_map.nodes.items():
        complaint = node_objection(msgspec.structs.replace(node, state="up"))
        if node.name != name or node.state not in _NODE_STATES:
            complaint = "its name or state"
        if complaint:
            return f"its entry of node {name!a:.80} is malformed: {complaint}"
    for incarnation, actor in cluster_map.actors.items():
        complaint = actor_objection(msgspec.structs.replace(actor, state="up"))
        if actor.incarnation != incarnation or actor.state not in _ACTOR_STATES:
            complaint = "its incarnation or state"
        if complaint:
            return f"its entry of actor {actor.slot!a:.80} is malformed: {complaint}"
    if not 0 <= cluster_map.recover_alone_seconds < SECONDS_MAX:
        return "how long shards wait for directories is out of range"
    return _rest_objection(cluster_map)


def _rest_objection(cluster_map: ClusterMap) -> str:
    for directory, floor in cluster_map.floors.items():
        if len(directory) != DIRECTORY_BYTES or not 0 <= floor <= MARK_MAX:
            return "the mark of a directory is malformed"
    length = len(_encode(cluster_map))
    if length > MAP_BYTES_MAX:
        return f"it is {length} bytes long, and readers of the map take {MAP_BYTES_MAX} at most"
    return ""
