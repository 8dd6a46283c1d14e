"""One host alone, fed by hand: for tests of single inputs and of orders that a world seldom produces."""

import random
from collections.abc import Mapping
from types import MappingProxyType

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry, SuspectRecord
from greenroom_cluster.coordination.messages import Decision, Proposal
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.disk_log import Stable
from greenroom_cluster.shard.host import Host
from greenroom_cluster.shard.messages import (
    Beacon,
    BeaconOk,
    PeerReply,
    PeerRequest,
    Prepare,
    PrepareOk,
    ShardRecords,
    SnapshotChunk,
    SnapshotOk,
)
from greenroom_cluster.shard.pairs.outgoing import Outgoing, Recipient
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.settings import HostSettings, ns
from greenroom_cluster.shard.state.records import Command, Record
from greenroom_cluster.shard.state.stored import as_received
from greenroom_cluster.shard.step import Mark

WALL_US = 1_800_000_000_000_000
FAR_US = WALL_US + 3_600_000_000
ALICE = b"a" * 32
CLIENT = b"c" * 16
NONCE = b"n" * 12


def incarnation(name: str) -> bytes:
    """The incarnation of the actor with that one-letter name, whose slot is `n<name>/0`."""
    return name.encode() * 16


ME, B, C, D = (incarnation(name) for name in "abcd")
POISON = SuspectRecord(B, 2, 12)


def create(request_id: int, digest: bytes = ALICE, data: bytes = b"\x80", low: int = 1) -> wire.Create:
    """A `Create` of that digest in the only shard."""
    return wire.Create(request_id, low, 0, 0, digest, None, WALL_US, FAR_US, None, "", data)


RUNNING_SECONDS_MAX = 5.0
PAUSE_SECONDS = 0.5


class Probe:
    """The host of actor `a`, in a cluster of the actors a to d. Time stands still unless told."""

    def __init__(
        self,
        settings: HostSettings | None = None,
        shards: int = 1,
        mark: Mark | None = None,
        disk: Stable | None = None,
    ) -> None:
        self.host = Host(ME, "na/0", settings or HostSettings(), random.Random(7), mark, disk)
        self.now_ns = ns(1000)
        self.wall_us = WALL_US
        self.shards = shards
        self.version = 0
        self.effects: list[fx.HostEffect] = []

    # --- in -------------------------------------------------------------------------------------------------

    def step(self, event: ins.HostInput) -> list[fx.HostEffect]:
        self.effects = self.host.step(self.now_ns, self.wall_us, event)
        return self.effects

    def after(self, seconds: float) -> list[fx.HostEffect]:
        """Let up to some seconds pass as they do for a process that runs: tick by tick.

        What is longer passes at once, as for a process that stood still.
        """
        effects: list[fx.HostEffect] = []
        ticks = round(seconds / 0.2) if PAUSE_SECONDS <= seconds <= RUNNING_SECONDS_MAX else 1
        for _ in range(ticks):
            self.now_ns += ns(seconds / ticks)
            self.wall_us += int(seconds / ticks * 1_000_000)
            effects += self.step(ins.Tick())
        self.effects = effects
        return effects

    def ask(self, *requests: wire.Request, connection: int = 1, client: bytes = CLIENT) -> list[wire.Reply]:
        """Send requests and return what was answered at once."""
        effects = self.step(ins.ClientRequests(connection, client, list(requests)))
        return [as_received(effect.message) for effect in effects if isinstance(effect, fx.ReplyToClient)]

    def hear(self, peer: bytes, *messages: PeerRequest | PeerReply) -> list[PeerReply]:
        """Receive messages of a peer and return the answers to it."""
        effects = self.step(ins.PeerMessages(peer, list(messages)))
        return [effect.message for effect in effects if isinstance(effect, fx.ReplyToPeer)]

    def configure(
        self,
        epoch: int,
        members: tuple[bytes, ...] = (),
        *,
        wanted: str = "",
        dead: str = "",
        nonce: bytes = NONCE,
        lineage: int = 1,
        absent: str = "",
        down: str = "",
        suspect: SuspectRecord | None = None,
        directories: Mapping[str, bytes] = MappingProxyType({}),
    ) -> list[fx.HostEffect]:
        """Publish a map. `wanted`, `dead` and `absent` are actors' letters; who is absent is not in it.

        `directories` are by letter too; who has one is durable. The nodes of `down` are not heard, and shards
        on disk may do without them.
        """
        self.version += 1
        actors = {
            incarnation(name): ActorEntry(
                incarnation(name),
                f"n{name}",
                f"n{name}/0",
                f"{name}:1",
                "dead" if name in dead else "up",
                "h",
                1,
                1,
                "fsync" if name in directories else "",
                directories.get(name, b""),
            )
            for name in "abcd"
            if name not in absent
        }
        plan = tuple(f"n{name}/0" for name in wanted)
        entry = ShardEntry(epoch, members[0] if members else b"", members[1:], nonce, plan, suspect)
        nodes = {
            f"n{name}": NodeEntry(f"n{name}", f"{name}:2", "down" if name in down else "up")
            for name in "abcd"
        }
        shards, alone = (entry,) * self.shards, 10.0 if down else 0.0
        found = ClusterMap(
            "test", lineage, self.version, 2, nodes, actors, shards, recover_alone_seconds=alone
        )
        return self.step(ins.MapChanged(found))

    # --- into a role ----------------------------------------------------------------------------------------

    def start_alone(self) -> None:
        """Become the only member, at epoch 1."""
        self.configure(0, wanted="a")
        self.configure(1, (ME,), nonce=self.proposal("start").nonce, wanted="a")

    def become_primary(self, recipient: str = "b") -> None:
        """Become the primary with one backup, at epoch 2, under a fresh lease."""
        self.start_alone()
        peer = incarnation(recipient)
        self.configure(1, (ME,), wanted=f"a{recipient}")
        self.connect(peer)
        join = self.chunks()[-1].join
        self.hear(peer, SnapshotOk(0, 1, join, 0))
        self.configure(2, (ME, peer), nonce=self.proposal("add").nonce, wanted=f"a{recipient}")

    def connect(self, peer: bytes) -> None:
        """Both links to the peer come up and it grants its lease."""
        self.step(ins.LinkUp(peer, bulk=False))
        self.grant(peer)
        self.step(ins.LinkUp(peer, bulk=True))

    def grant(self, peer: bytes, *refused: tuple[int, int], refusal: int = 0) -> None:
        """The peer acknowledges a beacon sent now."""
        self.hear(peer, BeaconOk(self.now_ns, refusal, tuple(refused)))

    def join(self, primary: bytes = B, *, epoch: int = 1, last: bool = True, number: int = 7) -> None:
        """Take in a snapshot that ends at sequence 10."""
        if self.host.map is None:
            self.configure(epoch, (primary,), wanted="ba")
        self.hear(primary, chunk(epoch=epoch, join=number, last=last))

    def become_backup(self, primary: bytes = B, *, epoch: int = 2) -> None:
        """Become the backup of `primary`."""
        self.join(primary, epoch=epoch - 1)
        self.configure(epoch, (primary, ME), wanted="ba")
        self.hear(primary, Beacon(1, 0))

    def fence(self) -> None:
        """As a backup, hear nothing for the whole grace."""
        self.become_backup()
        self.after(1.3)

    def suspend(self, suspect: SuspectRecord = POISON) -> None:
        """Take over from a primary that died on a record, with one before it and one behind it unapplied."""
        self.become_backup()
        self.hear(B, prepare(11, 12, 13))
        self.configure(2, (B, ME), wanted="ba", dead="b", suspect=suspect)
        nonce = self.proposal("takeover").nonce
        self.configure(3, (ME,), nonce=nonce, wanted="ba", dead="b", suspect=suspect)

    def hand_over(self) -> None:
        """As the primary, propose the backup as the next one."""
        self.become_primary()
        self.configure(2, (ME, B), wanted="ba")

    # --- out ------------------------------------------------------------------------------------------------

    @property
    def replica(self) -> Replica | None:
        return self.host.replicas[0] if self.host.replicas else None

    @property
    def recipient(self) -> Recipient:
        """The only recipient."""
        assert self.replica is not None
        assert self.replica.primary is not None
        return self.replica.primary.replication.recipients[0]

    def pair(self, peer: bytes = B) -> Outgoing:
        return self.host._pairs.outgoing[peer]

    def proposals(self) -> list[Proposal]:
        return [effect.proposal for effect in self.effects if isinstance(effect, fx.Propose)]

    def proposal(self, kind: str) -> Proposal:
        """The one proposal of the latest step."""
        (proposal,) = self.proposals()
        assert proposal.kind == kind
        return proposal

    def refuse(self, proposal: Proposal, reason: str = "refused: a test") -> None:
        self.step(ins.Decisions((Decision(proposal.shard, proposal.nonce, applied=False, reason=reason),)))

    def chunks(self) -> list[SnapshotChunk]:
        return [
            effect.message
            for effect in self.effects
            if isinstance(effect, fx.Send) and isinstance(effect.message, SnapshotChunk)
        ]

    def prepares(self) -> list[Prepare]:
        return [
            effect.message
            for effect in self.effects
            if isinstance(effect, fx.Send) and isinstance(effect.message, Prepare)
        ]

    def acknowledge(
        self, prepare: Prepare, peer: bytes = B, refused: tuple[tuple[int, int], ...] = ()
    ) -> None:
        self.hear(peer, PrepareOk(prepare.batch, refused))

    def ignored(self) -> list[str]:
        return [effect.reason for effect in self.effects if isinstance(effect, fx.Ignored)]

    def serves(self) -> bool:
        """Whether a read would be answered now."""
        primary = None if self.replica is None else self.replica.primary
        return primary is not None and not primary.paused and primary.leased(self.now_ns)


def chunk(
    *, epoch: int = 1, join: int = 7, number: int = 0, last: bool = True, sequence: int = 10
) -> SnapshotChunk:
    """A chunk of an empty shard."""
    return SnapshotChunk(0, epoch, join, sequence, WALL_US, number, last, (), (), (), 0, epoch)


def record(sequence: int, command: Command | None = None, *, epoch: int = 2) -> Record:
    """A record of a client's command."""
    return Record(epoch, sequence, WALL_US + sequence, CLIENT, command or create(sequence))


def prepare(*sequences: int, epoch: int = 2, committed: int = 10, batch: int = 1) -> Prepare:
    """A `Prepare` of those records of the only shard."""
    records = tuple(record(sequence, epoch=epoch) for sequence in sequences)
    return Prepare(batch, (ShardRecords(0, epoch, committed, records),))
