"""Messages between actors: which pairs and replicas get them, and what is replied."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from greenroom import wire
from greenroom_cluster.shard.effects import ReplyToPeer
from greenroom_cluster.shard.inputs import LinkDown, LinkUp, PeerMessages
from greenroom_cluster.shard.messages import (
    Beacon,
    BeaconOk,
    Prepare,
    PrepareOk,
    SnapshotChunk,
    SnapshotOk,
    SnapshotRefused,
)
from greenroom_cluster.shard.pairs.outgoing import Outgoing
from greenroom_cluster.shard.pairs.strangers import Strangers, refuse_stranger
from greenroom_cluster.shard.roles.accepts import deliver
from greenroom_cluster.shard.roles.primary import Primary
from greenroom_cluster.shard.roles.replicas import Replicas
from greenroom_cluster.shard.roles.role import InputKind

_shard_of = attrgetter("shard")


class Peers:
    """Takes in the messages of peers, and news of the connections to them."""

    def __init__(self, replicas: Replicas, strangers: Strangers) -> None:
        self._replicas = replicas
        self._strangers = strangers
        self._context = replicas.resources.context
        self._pairs = replicas.resources.pairs
        self._memory = replicas.resources.memory
        self._on_message: dict[type, Callable[[int, int, bytes, Any], None]] = {
            Prepare: self._prepare,
            PrepareOk: self._prepare_ok,
            Beacon: self._beacon,
            BeaconOk: self._beacon_ok,
            SnapshotChunk: self._snapshot_chunk,
            SnapshotOk: self._snapshot_ok,
            SnapshotRefused: self._snapshot_refused,
        }

    def take_in(self, now_ns: int, wall_us: int, event: PeerMessages) -> None:
        """Take in messages of one peer."""
        if self._strangers.include(event.peer):
            refuse_stranger(self._context, event.peer, event.messages)
            return
        for message in event.messages:
            self._on_message[type(message)](now_ns, wall_us, event.peer, message)

    def _prepare(self, now_ns: int, wall_us: int, peer: bytes, message: Prepare) -> None:
        entries = message.entries
        left = deliver(
            self._replicas,
            map(_shard_of, entries),
            now_ns,
            wall_us,
            peer,
            InputKind.RECORDS,
            entries,
        )
        refused: tuple[tuple[int, int], ...] = ()
        if left:
            refused = tuple([(entry.shard, entry.shard_epoch) for entry in entries if entry.shard in left])
        self._context.effects.append(ReplyToPeer(peer, PrepareOk(message.batch, refused)))

    def _prepare_ok(self, now_ns: int, wall_us: int, peer: bytes, message: PrepareOk) -> None:
        pair = self._pairs.outgoing.get(peer)
        if pair is None:
            self._context.ignore("PrepareOk", "no such pair")
            return
        shards = pair.on_prepare_ok(message, now_ns)
        deliver(self._replicas, shards, now_ns, wall_us, peer, InputKind.ACKNOWLEDGEMENT)
        pair.flush()

    def _beacon(self, now_ns: int, wall_us: int, peer: bytes, message: Beacon) -> None:
        incoming = self._pairs.hear_of(peer, now_ns)
        self._memory.count_all()
        disk = self._replicas.resources.disk
        reply = incoming.on_beacon(message, now_ns, self._memory, disk_short=disk is not None and disk.short)
        self._context.effects.append(ReplyToPeer(peer, reply))
        commits = message.commits
        shards = [commit[0] for commit in commits]
        deliver(self._replicas, shards, now_ns, wall_us, peer, InputKind.COMMIT, commits)

    def _beacon_ok(self, now_ns: int, wall_us: int, peer: bytes, message: BeaconOk) -> None:
        pair = self._pairs.outgoing.get(peer)
        if pair is None:
            self._context.ignore("BeaconOk", "no such pair")
            return
        deliver(self._replicas, pair.on_beacon_ok(message), now_ns, wall_us, peer, InputKind.REFUSAL)
        deliver(self._replicas, tuple(pair.recipients), now_ns, wall_us, peer, InputKind.LEASE)

    def _snapshot_chunk(self, now_ns: int, wall_us: int, peer: bytes, message: SnapshotChunk) -> None:
        replicas, shard = self._replicas, message.shard
        if deliver(replicas, (shard,), now_ns, wall_us, peer, InputKind.CHUNK, (message,)):
            reason = f"the joiner is {replicas.role_of(shard).value} already"
            refusal = SnapshotRefused(shard, message.epoch, message.join, reason)
            self._context.effects.append(ReplyToPeer(peer, refusal))

    def _snapshot_ok(self, now_ns: int, wall_us: int, peer: bytes, message: SnapshotOk) -> None:
        kind = InputKind.CHUNK_ACKNOWLEDGEMENT
        deliver(self._replicas, (message.shard,), now_ns, wall_us, peer, kind, (message,))

    def _snapshot_refused(self, now_ns: int, wall_us: int, peer: bytes, message: SnapshotRefused) -> None:
        kind = InputKind.CHUNK_REFUSAL
        deliver(self._replicas, (message.shard,), now_ns, wall_us, peer, kind, (message,))

    # --- connections ----------------------------------------------------------------------------------------

    def link_up(self, now_ns: int, _wall_us: int, event: LinkUp) -> None:
        """Send what waits for the connection."""
        pair = self._pairs.outgoing.get(event.peer)
        if pair is None:
            self._context.ignore("LinkUp", "no such pair")
            return
        pair.knows_namespaces = wire.FEATURE_NAMESPACES in event.features
        for primary in () if pair.knows_namespaces else self._primaries(pair):
            primary.membership.on_release(now_ns)
        if event.bulk:
            pair.bulk_up = True
            for primary in self._primaries(pair):
                primary.membership.on_bulk_up(now_ns, event.peer)
        else:
            pair.link_up(now_ns)

    def link_down(self, now_ns: int, _wall_us: int, event: LinkDown) -> None:
        """Stop sending what would be lost, and give up joins that lost a chunk."""
        pair = self._pairs.outgoing.get(event.peer)
        if pair is None:
            self._context.ignore("LinkDown", "no such pair")
        elif event.bulk:
            pair.bulk_up = False
            for primary in self._primaries(pair):
                primary.membership.on_bulk_down(now_ns, event.peer)
        else:
            pair.link_down()

    def _primaries(self, pair: Outgoing) -> list[Primary]:
        """Return the primaries here that send to the pair's peer."""
        replicas = [self._replicas.by_shard[shard] for shard in pair.recipients]
        return [each.primary for each in replicas if each is not None and each.primary is not None]
