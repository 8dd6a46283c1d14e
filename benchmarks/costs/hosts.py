"""Two hosts in one process that serve 64 shards together, each with its real driver and connections.

What lies between them is bytes in a list: a connection's socket is a `Wire`. Their clock is a number, so no
lease ends because the machine is busy. The map is decided by the real coordinator and controller.
"""

import random
import socket
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any, cast

import msgspec
import trio
from structlog.testing import capture_logs

from benchmarks.costs.figures import Meter
from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry
from greenroom.framing import messages_decoder
from greenroom_cluster.coordination import coordinator as coordination
from greenroom_cluster.coordination.messages import (
    Decided,
    Heartbeat,
    Proposal,
    Propose,
    RegisterActor,
    RegisterNode,
)
from greenroom_cluster.planning.controller import Controller, ControllerSettings
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.driver import Driver
from greenroom_cluster.shard.effects import HostEffect
from greenroom_cluster.shard.host import Host
from greenroom_cluster.shard.inputs import Decisions, HostInput, MapChanged, PeerMessages, Synced, Tick
from greenroom_cluster.shard.messages import PEER_FRAME_BYTES_MAX, PeerReply, PeerRequest
from greenroom_cluster.shard.roles.role import Role
from greenroom_cluster.shard.settings import HostSettings

SHARDS = 64
CLIENT_NUMBER = 1
START_NS = 1_000_000_000_000
WALL_START_US = 1_800_000_000_000_000
_PASS_NS = 10_000_000
_PASSES_MAX = 6000

_request_decoder = messages_decoder(PeerRequest)
_reply_decoder = messages_decoder(PeerReply | wire.Goodbye)


class Wire:
    """Stands for a socket: `sent` is what was sent on it, `coming` what the next read brings."""

    def __init__(self, coming: bytes = b"") -> None:
        self.sent: list[bytes | bytearray] = []
        self.coming = coming

    def settimeout(self, _seconds: float) -> None:
        """Nothing here blocks."""

    def setsockopt(self, *_option: object) -> None:
        """There are no options."""

    def getpeername(self) -> tuple[str, int]:
        """Return a made-up address."""
        return "127.0.0.1", 0

    def send(self, data: bytes | bytearray) -> int:
        """Take everything."""
        self.sent.append(data)
        return len(data)

    def recv_into(self, buffer: memoryview, _size: int) -> int:
        """Bring everything that was coming."""
        count = len(self.coming)
        buffer[:count] = self.coming
        return count

    def take(self) -> bytes:
        """Return what was sent, and forget it."""
        data = b"".join(self.sent)
        self.sent.clear()
        return data


class MeteredConnection(FramedConnection):
    """A connection on a wire; what `send` takes (to encode, and to queue) is metered under `stage`."""

    def __init__(self, meter: Meter, stage: str) -> None:
        self.wire = Wire()
        super().__init__(cast("socket.socket", self.wire), cast("trio.Nursery", None))
        self._meter = meter
        self._stage = stage

    def send(self, messages: Any, *, urgent: bool = False) -> None:
        """Send."""
        began = perf_counter_ns()
        super().send(messages, urgent=urgent)
        self._meter.ns[self._stage] += perf_counter_ns() - began


class MeteredCore:
    """A host under the pair's clock; its steps are metered under `stage`."""

    def __init__(self, host: Host, clock: "Clock", meter: Meter) -> None:
        self.host = host
        self.stage = ""
        self._clock = clock
        self._meter = meter

    def step(self, now_ns: int, wall_us: int, event: HostInput) -> list[HostEffect]:
        """Step at the time of the pair's clock."""
        clock = self._clock
        clock.now_ns += 1000
        now = clock.now_ns
        began = perf_counter_ns()
        effects = self.host.step(now, WALL_START_US + now // 1000, event)
        self._meter.ns[self.stage] += perf_counter_ns() - began
        return effects

    def hear(self, synced: Synced) -> None:
        """Take this in."""
        self.host.hear(synced)

    @property
    def awaits_disk(self) -> bool:
        """Whether anything waits for a sync."""
        return self.host.awaits_disk

    def next_deadline(self) -> int:
        """Return when a Tick is due."""
        began = perf_counter_ns()
        deadline = self.host.next_deadline()
        self._meter.ns[self.stage] += perf_counter_ns() - began
        return deadline

    def clock_us(self, now_ns: int, wall_us: int) -> int:
        """Return what its clock shows."""
        return self.host.clock_us(now_ns, wall_us)

    def spent(self, now_ns: int, spent_ns: int) -> Sequence[str]:
        """Take in how long a step took."""
        return self.host.spent(now_ns, spent_ns)


class Clock:
    """The time of both hosts."""

    def __init__(self) -> None:
        self.now_ns = START_NS


class Side:
    """One host with its driver, the connection of a client, and the links to the other side."""

    def __init__(self, name: str, clock: Clock, meter: Meter) -> None:
        self.slot = f"{name}/0"
        self.incarnation = name.encode() * 8
        generator = random.Random(name)
        host = Host(self.incarnation, self.slot, HostSettings(), generator)
        self.core = MeteredCore(host, clock, meter)
        self.driver = Driver(self.core, leave=_raise_failed)
        self.client = MeteredConnection(meter, "encode replies")
        self.driver.add_client(CLIENT_NUMBER, self.client)
        # By whether it is the one for snapshots: opened here, and accepted here.
        self.links = {bulk: MeteredConnection(meter, "encode Prepare") for bulk in (False, True)}
        self.accepted = {bulk: MeteredConnection(meter, "PrepareOk on the wire") for bulk in (False, True)}
        self.wanted: dict[bool, bytes] = {}
        self.up: set[bool] = set()
        self.proposals: list[Proposal] = []
        self.driver.connect_with(self, self.proposals.extend)

    def open(self, peer: bytes, address: str, *, bulk: bool) -> None:
        """Have a link opened."""
        self.wanted[bulk] = peer

    def close(self, peer: bytes, *, bulk: bool) -> None:
        """End a link."""
        self.wanted.pop(bulk, None)
        self.up.discard(bulk)


class Pair:
    """Both sides, connected and serving: every shard has its primary on one and its backup on the other."""

    def __init__(self, meter: Meter) -> None:
        self._clock = Clock()
        self._connections: dict[bytes, int] = {}
        self.sides = tuple(Side(name, self._clock, meter) for name in ("n1", "n2"))
        for side, other in (self.sides, reversed(self.sides)):
            for number, bulk in enumerate((False, True)):
                side.driver.note_peer(other.incarnation, number, side.accepted[bulk], bulk=bulk)
        unstarted = tuple(ShardEntry(0, b"", (), b"", ()) for _ in range(SHARDS))
        empty = ClusterMap("costs", 1, 1, 2, {}, {}, unstarted)
        now_ns = self._clock.now_ns
        self._coordinator = coordination.Coordinator(empty, coordination.CoordinatorSettings(), now_ns)
        self._controller = Controller(ControllerSettings())
        with capture_logs():
            self._start()

    def _start(self) -> None:
        for name, side in zip(("n1", "n2"), self.sides, strict=True):
            actor = ActorEntry(side.incarnation, name, side.slot, f"{name}:2", "up", "host", 1, 1)
            self._ask(b"supervisor of " + name.encode(), RegisterNode(1, NodeEntry(name, f"{name}:1", "up")))
            self._ask(b"supervisor of " + name.encode(), RegisterActor(1, actor))
            self._ask(side.incarnation, wire.Subscribe(0, 0))
        self._run_until(self._is_whole)

    def other(self, side: Side) -> Side:
        """Return the opposite side."""
        return self.sides[1] if side is self.sides[0] else self.sides[0]

    def primary_of(self, point: int) -> Side:
        """Return the side that serves a point."""
        entry = self._coordinator.map.shards[point * SHARDS >> 16]
        return self.sides[0] if entry.primary == self.sides[0].incarnation else self.sides[1]

    def renew(self) -> None:
        """Let time pass for a moment, so that beacons renew the leases."""
        with capture_logs():
            for _ in range(50):
                self._pass()

    # --- the cluster around them -------------------------------------------------------------------------

    def _is_whole(self) -> bool:
        for shard, entry in enumerate(self._coordinator.map.shards):
            if len(entry.members) != len(self.sides):
                return False
            replicas = [side.core.host.replicas[shard] for side in self.sides]
            if {replica.role for replica in replicas if replica is not None} != {Role.PRIMARY, Role.BACKUP}:
                return False
            primaries = [replica.primary for replica in replicas if replica is not None and replica.primary]
            if not all(each.leased(self._clock.now_ns) and each.opened is None for each in primaries):
                return False
        # Both lead some: a map that is being balanced is not what is to be measured.
        plans = {entry.wanted[0] for entry in self._coordinator.map.shards}
        primaries = {entry.primary for entry in self._coordinator.map.shards}
        return len(plans) == len(primaries) == len(self.sides)

    def _run_until(self, done: Callable[[], bool]) -> None:
        for _ in range(_PASSES_MAX):
            self._pass()
            if done():
                return
        raise RuntimeError("the two hosts did not come to serve every shard")

    def _pass(self) -> None:
        self._clock.now_ns += _PASS_NS
        for name in ("n1", "n2"):
            self._ask(b"supervisor of " + name.encode(), Heartbeat(name, 0, 0))
        plan = self._controller.step(self._clock.now_ns, self._coordinator.map)
        if plan:
            self._publish(self._coordinator.want(plan))
        for side in self.sides:
            if side.core.next_deadline() <= self._clock.now_ns:
                side.driver.step(Tick())
        moved = True
        while moved:
            moved = False
            for side in self.sides:
                moved = self._carry(side) or moved

    def _carry(self, side: Side) -> bool:
        """Bring what a side has to say where it belongs; whether there was anything."""
        other = self.other(side)
        moved = False
        for bulk in side.wanted.keys() - side.up:
            moved = True
            side.up.add(bulk)
            side.driver.link_up(other.incarnation, side.links[bulk], bulk=bulk)
        for bulk in (False, True):
            for out, decoder in (
                (side.links[bulk], _request_decoder),
                (side.accepted[bulk], _reply_decoder),
            ):
                data = out.wire.take()
                if data:
                    moved = True
                    other.driver.step(PeerMessages(side.incarnation, messages_in(data, decoder)))
        if side.proposals:
            moved = True
            proposals = tuple(side.proposals)
            side.proposals.clear()
            self._ask(side.incarnation, Propose(1, side.incarnation, proposals))
        return moved

    def _ask(self, sender: bytes, message: Any) -> None:
        connection = self._connections.setdefault(sender, len(self._connections))
        incoming = coordination.Incoming(connection, sender, message)
        outcome = self._coordinator.decide(self._clock.now_ns, [incoming])
        self._publish(outcome)
        for response in outcome.responses:
            if isinstance(response.message, Decided):
                side = next(side for side in self.sides if side.incarnation == sender)
                side.driver.step(Decisions(response.message.decisions))

    def _publish(self, outcome: coordination.Outcome) -> None:
        if outcome.persist is not None:
            for side in self.sides:
                side.driver.step(MapChanged(outcome.persist))


def reading(data: bytes, decoder: "msgspec.msgpack.Decoder[Any]") -> FramedConnection:
    """Return a connection whose next read brings these bytes."""
    connection = FramedConnection(cast("socket.socket", Wire(data)), cast("trio.Nursery", None))
    connection.speak(decoder, PEER_FRAME_BYTES_MAX, len(data))
    return connection


def received(connection: FramedConnection) -> list[Any]:
    """Return what has come, which must be whole messages."""
    messages = connection.receive_nowait()
    if not messages:
        raise RuntimeError("the connection waits although its bytes have come")
    return messages


def messages_in(data: bytes, decoder: "msgspec.msgpack.Decoder[Any]") -> list[Any]:
    """Return the messages in these bytes."""
    return received(reading(data, decoder))


def _raise_failed(_status: int) -> None:
    raise RuntimeError("a host failed")
