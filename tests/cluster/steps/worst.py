"""The costliest messages that fit into a frame, and actors that hold what makes them costly.

`python -m tests.cluster.steps.worst` prints the longest step that was found for each kind of message.
"""

import gc
import itertools
import random
import struct
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st

from greenroom import ending_messages, near_messages, wire
from greenroom.cluster_map import SHARDS_MAX
from greenroom.framing import FRAME_BYTES_MAX, MESSAGES_PER_FRAME_MAX, messages_decoder
from greenroom.near_messages import DIGESTS_MAX, IN_ANY_CASE
from greenroom_cluster.access import AT_ACTOR
from greenroom_cluster.runtime.actor import calm_collector
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import (
    PEER_FRAME_BYTES_MAX,
    Beacon,
    BeaconOk,
    PeerReply,
    Prepare,
    PrepareOk,
    ShardRecords,
    SnapshotChunk,
    SnapshotOk,
    SnapshotRefused,
)
from greenroom_cluster.shard.state.records import ClientState, KeptReply, Record, StoredSession
from greenroom_cluster.shard.state.stored import decoded
from tests.cluster.shard.probe import FAR_US, WALL_US, B, Probe

_encode = msgspec.msgpack.Encoder().encode
Draw = Callable[[Any], Any]

MEGABYTE = 1 << 20
CLIENT = b"c" * 16
CROWD = 8000
RECORDS_MAX = 4096
TARGETS = {name: name.encode().ljust(32, b".") for name in ("lists", "maps", "keys", "ints", "deep", "text")}


# --- data ------------------------------------------------------------------------------------------------


def array(count: int, item: bytes) -> bytes:
    return head(count, b"\xdc", b"\xdd") + item * count


def head(count: int, short: bytes, long: bytes) -> bytes:
    """Return the first bytes of an array or a map of at least 16 items, in the shortest form."""
    return short + struct.pack(">H", count) if count < 1 << 16 else long + struct.pack(">I", count)


def data_of(shape: str, size: int) -> bytes:
    """Return a map {"a": ...} of about that many bytes which is costly in one way."""
    size = max(1024, min(size, MEGABYTE - 64))
    match shape:
        case "lists":
            value = array(size, b"\x90")
        case "maps":
            value = array(size, b"\x80")
        case "keys":
            count = min(size // 6, 65536)
            keys = b"".join(b"\xa4" + f"{n:04x}".encode() + b"\xc0" for n in range(count))
            value = head(count, b"\xde", b"\xdf") + keys
        case "ints":
            # The low bits are the same, so all of them begin at one place of a dict.
            count = size // 10
            keys = b"".join(b"\xcf" + struct.pack(">Q", n << 43) + b"\xc0" for n in range(count))
            value = head(count, b"\xde", b"\xdf") + keys
        case "deep":
            row = b"\x91" * 60 + b"\x90"
            count = size // len(row)
            value = array(count, row)
        case _:
            value = head(size, b"\xda", b"\xdb") + b"x" * size
    return b"\x81\xa1a" + value


SHAPES = ("lists", "maps", "keys", "ints", "deep", "text")


def digest_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


# --- actors ----------------------------------------------------------------------------------------------


def primary(*, alone: bool = True, over: bool = False) -> Probe:
    """Return a primary with a crowd of one user's sessions, costly sessions, clients and answers.

    The costly ones are the largest of each shape that a client can have stored.
    """
    probe = Probe()
    probe.start_alone() if alone else probe.become_primary()
    assert probe.replica is not None
    table = probe.replica.table
    table.install(_crowd(over=over), WALL_US)
    table.install(_costly(), WALL_US)
    for number in range(4000):
        table.clients.keep(KeptReply(CLIENT, number + 1_000_000, wire.Written(1, 1)), 1, WALL_US)
    for number in range(2000):
        table.clients.keep(KeptReply(digest_of(number)[16:], 1, wire.Written(1, 1)), 1, WALL_US)
    if over:
        probe.wall_us += 10
    return probe


@cache
def _costly() -> list[StoredSession]:
    """Return the largest session of each shape that a client can have stored."""
    probe = Probe()
    probe.start_alone()
    assert probe.replica is not None
    numbers = itertools.count(1)
    for shape, digest in TARGETS.items():
        for size in (MEGABYTE, 390_000, 100_000, 48_000, 16_000, 8_000, 4_000):
            number = next(numbers)
            create = wire.Create(
                number, number, 0, 0, digest, None, WALL_US, FAR_US, None, "", data_of(shape, size)
            )
            if isinstance(probe.ask(create)[0], wire.Written):
                break
    return [StoredSession(digest, decoded(stored)) for digest, stored in probe.replica.table.sessions.items()]


@cache
def _crowd(*, over: bool = False) -> list[StoredSession]:
    sessions = []
    for number in range(CROWD):
        expires_us = WALL_US + 5 if over and number % 2 else FAR_US
        state = wire.SessionState(1, expires_us, WALL_US + number, None, "crowd", "l" * 64, 0, b"\x80")
        sessions.append(StoredSession(digest_of(number), state))
    return sessions


def backup() -> Probe:
    """Return a backup that holds what such a primary does."""
    probe = Probe()
    probe.become_backup()
    assert probe.replica is not None
    probe.replica.table.install(_crowd(), WALL_US)
    probe.replica.table.install(_costly(), WALL_US)
    return probe


def joiner() -> Probe:
    """Return an actor that takes in a snapshot."""
    probe = Probe()
    probe.join(last=False)
    return probe


# --- messages --------------------------------------------------------------------------------------------

counts = st.sampled_from((1, 4, 32, MESSAGES_PER_FRAME_MAX))
shapes = st.sampled_from(SHAPES)
targets = st.sampled_from(tuple(TARGETS.values()))
sizes = st.sampled_from((1_000, 8_000, 16_000, 48_000, 390_000, MEGABYTE))
everywhere = st.sampled_from(((0,), tuple(range(4096))))


def changes(draw: Draw, room: int) -> tuple[tuple[wire.PathValue, ...], tuple[wire.PathValue, ...]]:
    """Return what a patch sets or expects: many short paths, few long ones, or large values."""
    room = max(room, 64)
    size = min(draw(sizes), room - 48)
    value = data_of(draw(shapes), size)[3:] if size > 1024 and draw(st.booleans()) else b"\x01"
    depth = draw(st.sampled_from((1, 3, 60)))
    size = len(value) + 3 * depth + 16
    count = max(1, min(draw(st.sampled_from((1, 16, wire.PATHS_MAX))), room // size))
    path = ("a",) + ("k",) * (depth - 1)
    same = draw(st.booleans())
    paths = tuple((path if same else (*path, f"{n:x}"), value) for n in range(count))
    return (paths, ()) if draw(st.booleans()) else ((), paths)


def of_client(kind: type, draw: Draw) -> tuple[Probe, list[Any]]:
    """Return an actor and messages of one kind, which need not fit."""
    count = draw(counts)
    room = (FRAME_BYTES_MAX - 64) // count
    numbers = range(1, count + 1)
    crowd = tuple(digest_of(CROWD - number) for number in numbers)
    match kind:
        case wire.Get:
            digest = draw(targets)
            return primary(), [wire.Get(n, 0, digest) for n in numbers]
        case wire.Create:
            data = data_of(draw(shapes), room - 512)
            return primary(), [
                wire.Create(n, 1, 0, 0, b"n" + crowd[n - 1][1:], "crowd", 0, FAR_US, None, "l" * 256, data)
                for n in numbers
            ]
        case wire.Update:
            digest, data = draw(targets), data_of(draw(shapes), room - 512)
            user = draw(st.sampled_from(("crowd", None)))
            return primary(), [wire.Update(n, 1, 0, 0, digest, user, FAR_US, "", data, None) for n in numbers]
        case wire.Delete:
            return primary(), [wire.Delete(n, 1, 0, 0, crowd[n - 1]) for n in numbers]
        case wire.Patch:
            digest = draw(targets)
            put, expect = changes(draw, room - 128)
            return primary(), [
                wire.Patch(n, 1, 0, 0, digest, put, (), expect, ("crowd",), FAR_US) for n in numbers
            ]
        case wire.Rotate:
            digest = draw(targets)
            put, _ = changes(draw, room - 160)
            return primary(), [
                wire.Rotate(n, 1, 0, 0, digest, bytes([n % 256]) * 32, put, (), ("crowd",), FAR_US)
                for n in numbers
            ]
        case wire.DeleteByHandle:
            return primary(), [wire.DeleteByHandle(n, 1, 0, 0, crowd[n - 1], "crowd") for n in numbers]
        case wire.DeleteByUser:
            shards, user = draw(everywhere), draw(st.sampled_from(("crowd", "nobody")))
            return primary(over=draw(st.booleans())), [
                wire.DeleteByUser(n, 1, 0, user, b"", shards) for n in numbers
            ]
        case wire.ListByUser:
            shards, over = draw(everywhere), draw(st.booleans())
            return primary(over=over), [wire.ListByUser(n, "crowd", 2000, shards) for n in numbers]
        case wire.Clean:
            shards = draw(everywhere)
            return primary(over=draw(st.booleans())), [wire.Clean(n, 1, 0, shards) for n in numbers]
        case _ if kind in get_args(near_messages.NearRequest | ending_messages.WatchRequest):
            digest = draw(targets)
            return primary(), [_near(kind, n, digest, crowd) for n in numbers]
        case wire.Inspect:
            return primary(), [wire.Inspect(n) for n in numbers]
        case wire.DropRecord:
            return primary(), [wire.DropRecord(n, 0, 1, n) for n in numbers]
        case _:
            raise AssertionError(f"nobody has said yet what the worst {kind.__name__} is")


def _near(kind: type, number: int, digest: bytes, crowd: tuple[bytes, ...]) -> Any:
    """Return a message of a client that keeps sessions, or watches them."""
    match kind:
        case near_messages.GetNear:
            return near_messages.GetNear(number, 0, digest, IN_ANY_CASE)
        case near_messages.NearBeacon:
            return near_messages.NearBeacon(number)
        case near_messages.NearAck:
            return near_messages.NearAck(number)
        case near_messages.Unhold:
            return near_messages.Unhold((crowd * DIGESTS_MAX)[:DIGESTS_MAX])
        case ending_messages.WatchSession:
            return ending_messages.WatchSession(number, 0, digest)
        case ending_messages.WatchBeacon:
            return ending_messages.WatchBeacon(number)
        case _:
            return ending_messages.Unwatch((crowd * DIGESTS_MAX)[:DIGESTS_MAX])


def of_peer(kind: type, draw: Draw) -> tuple[Probe, list[Any]]:
    """Return an actor and messages of one kind, as a peer sends them."""
    match kind:
        case _ if kind is Prepare:
            return backup(), _prepares(draw)
        case _ if kind is Beacon:
            commits = tuple((0, 2, 10, WALL_US) for _ in range(draw(st.sampled_from((1, SHARDS_MAX)))))
            return backup(), [Beacon(1, 0, commits)]
        case _ if kind is SnapshotChunk:
            return joiner(), [_chunk(draw)]
        case _ if kind is PrepareOk:
            refused = tuple((n % 4096, 2) for n in range(draw(st.sampled_from((0, SHARDS_MAX)))))
            return primary(alone=False), [PrepareOk(1, refused)]
        case _ if kind is BeaconOk:
            refused = tuple((n % 4096, 2) for n in range(draw(st.sampled_from((0, SHARDS_MAX)))))
            return primary(alone=False), [BeaconOk(10**12, 1, refused)]
        case _ if kind is SnapshotOk:
            return primary(alone=False), [SnapshotOk(0, 2, 1, n) for n in range(256)]
        case _ if kind is SnapshotRefused:
            return primary(alone=False), [SnapshotRefused(0, 2, 1, "x" * 10_000) for _ in range(256)]
        case _:
            raise AssertionError(f"nobody has said yet what the worst {kind.__name__} is")


def _prepares(draw: Draw) -> list[Any]:
    """Records that are logged, and applied at once by what the second prepare commits."""
    style = draw(st.sampled_from(("delete", "patch", "create")))
    target = draw(targets)
    put = ((("b",), b"\x01"),)
    count = {"delete": RECORDS_MAX, "patch": 1000, "create": 20}[style]
    commands: list[Any] = []
    for n in range(1, count + 1):
        if style == "delete":
            commands.append(wire.Delete(n, n, 0, 0, digest_of(n)))
        elif style == "patch":
            commands.append(wire.Patch(n, n, 0, 0, target, put, (), (), None, None))
        else:
            data = data_of("lists", 90_000)
            commands.append(wire.Create(n, n, 0, 0, digest_of(n + 90_000), "u", 0, FAR_US, None, "", data))
    records = tuple(Record(2, 10 + n, WALL_US + n, CLIENT, command) for n, command in enumerate(commands, 1))
    return [
        Prepare(1, (ShardRecords(0, 2, 10, records),)),
        Prepare(2, (ShardRecords(0, 2, 10 + count, ()),)),
    ]


def _chunk(draw: Draw) -> SnapshotChunk:
    sessions: list[StoredSession] = []
    clients = [ClientState(CLIENT, 1, 1, 1)]
    replies: list[KeptReply] = []
    match draw(st.sampled_from(("sessions", "large", "clients", "answers"))):
        case "sessions":
            for n in range(2048):
                state = wire.SessionState(1, FAR_US, -n, None, "u", "", 0, b"\x80")
                sessions.append(StoredSession(digest_of(n), state))
        case "large":
            state = wire.SessionState(1, FAR_US, 1, None, "u", "", 0, data_of("lists", MEGABYTE))
            sessions = [StoredSession(digest_of(n), state) for n in range(3)]
        case "clients":
            clients = [ClientState(digest_of(n)[16:], 1, 1, 1) for n in range(16_384)]
        case _:
            replies = [KeptReply(CLIENT, 100_000 - n, wire.Written(100_000 - n, 1)) for n in range(8192)]
    return SnapshotChunk(0, 1, 7, 10, WALL_US, 1, True, tuple(sessions), tuple(clients), tuple(replies))


# --- measuring -------------------------------------------------------------------------------------------

_client_decode = messages_decoder(AT_ACTOR[wire.ROLE_CLIENT]).decode
_admin_decode = messages_decoder(AT_ACTOR[wire.ROLE_ADMIN]).decode
_peer_decode = messages_decoder(AT_ACTOR[wire.ROLE_PEER]).decode
_peer_reply_decode = messages_decoder(PeerReply).decode


def kinds_of(union: Any) -> tuple[type, ...]:
    """Return the members of a union."""
    return get_args(union) or (union,)


CLIENT_KINDS = kinds_of(AT_ACTOR[wire.ROLE_CLIENT])
ADMIN_KINDS = tuple(kind for kind in kinds_of(AT_ACTOR[wire.ROLE_ADMIN]) if kind not in CLIENT_KINDS)
PEER_KINDS = (*kinds_of(AT_ACTOR[wire.ROLE_PEER]), *kinds_of(PeerReply))
KINDS = (*CLIENT_KINDS, *ADMIN_KINDS, *PEER_KINDS)


def worst_step_ms(kind: type, draw: Draw) -> float:
    """Return the processor time of the longest step by which one frame of such messages is served."""
    if kind in PEER_KINDS:
        probe, messages = of_peer(kind, draw)
        frames = [_fitting([message], PEER_FRAME_BYTES_MAX) for message in messages[:2]]
        if kind in kinds_of(PeerReply):
            frames = [_fitting(messages, PEER_FRAME_BYTES_MAX)]
        decode = _peer_reply_decode if kind in kinds_of(PeerReply) else _peer_decode
    else:
        probe, messages = of_client(kind, draw)
        frames = [_fitting(messages, FRAME_BYTES_MAX)]
        decode = _admin_decode if kind in ADMIN_KINDS else _client_decode
    return _measured(probe, frames, decode, peer=kind in PEER_KINDS)


def _fitting(messages: Sequence[Any], bytes_max: int) -> bytes:
    """Return the payload of a frame with as many of these as fit."""
    rest = list(messages)
    while len(payload := _encode(rest)) > bytes_max:
        if len(rest) == 1:
            raise AssertionError(f"a {type(rest[0]).__name__} does not fit into a frame: make it smaller")
        del rest[len(rest) * 3 // 4 :]
    return payload


def _measured(probe: Probe, frames: list[bytes], decode: Any, *, peer: bool) -> float:
    thresholds = gc.get_threshold()
    calm_collector()
    try:
        worst = 0
        for payload in frames:
            began = time.process_time_ns()
            try:
                messages = decode(payload)
            except msgspec.ValidationError:
                # Refused where it is decoded, which takes its time too.
                worst = max(worst, time.process_time_ns() - began)
                continue
            event: ins.HostInput = (
                ins.PeerMessages(B, messages) if peer else ins.ClientRequests(1, CLIENT, messages, "host")
            )
            _send(probe.step(event))
            worst = max(worst, time.process_time_ns() - began)
        for _ in range(60):
            due_ns = max(probe.host.next_deadline(), probe.now_ns + 1)
            if due_ns > probe.now_ns + 300_000_000:
                break
            probe.now_ns = due_ns
            began = time.process_time_ns()
            _send(probe.step(ins.Tick()))
            worst = max(worst, time.process_time_ns() - began)
        return worst / 1e6
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _send(effects: list[fx.HostEffect]) -> None:
    """Encode what a connection encodes at once: until two megabytes are queued."""
    size = 0
    for effect in effects:
        if isinstance(effect, fx.ReplyToClient | fx.Send | fx.ReplyToPeer) and size < 2 * MEGABYTE:
            size += len(_encode(effect.message))


def print_table(tries: int) -> None:
    """Print the longest step of each kind among so many that are drawn."""
    print("| message | longest step, ms | drawn |\n|---|---:|---|")
    for kind in KINDS:
        longest, drawn = 0.0, "nothing"
        for seed in range(tries):
            chance = random.Random(seed)
            names: list[str] = []

            def draw(strategy: Any, chance: random.Random = chance, names: list[str] = names) -> Any:
                value = chance.choice((True, False) if strategy == st.booleans() else strategy.elements)
                names.append(repr(value) if len(repr(value)) < 40 else "...")
                return value

            if (taken := worst_step_ms(kind, draw)) > longest:
                longest, drawn = taken, ", ".join(names)
        print(f"| `{kind.__name__}` | {longest:.1f} | {drawn.replace('|', ' ')} |", flush=True)


if __name__ == "__main__":
    print_table(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
