"""What a peer sends is bounded in entries too: a frame of tiny ones would keep an actor busy for long."""

from typing import Any

import msgspec
import pytest

from greenroom import wire
from greenroom.cluster_map import SHARDS_MAX
from greenroom.wire import TIME_US_MAX
from greenroom_cluster.shard.messages import (
    Beacon,
    BeaconOk,
    PeerReply,
    PeerRequest,
    Prepare,
    PrepareOk,
    ShardRecords,
    SnapshotChunk,
)
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.clock import ShardClock
from greenroom_cluster.shard.state.records import ClientState, KeptReply, Record, StoredSession

_decode = msgspec.msgpack.Decoder(PeerRequest | PeerReply).decode
_encode = msgspec.msgpack.Encoder().encode
RECORD = Record(1, 1, 1, b"c" * 16, wire.Delete(1, 1, 0, 0, b"d" * 32))
SESSION = StoredSession(b"d" * 32, wire.SessionState(1, 1, 1, None, None, "", 0, b"\x80"))
STATE = ClientState(b"c" * 16, 1, 1, 1)
KEPT = KeptReply(b"c" * 16, 1, wire.Written(1, 1))


def chunk(sessions: int = 0, clients: int = 0, replies: int = 0) -> SnapshotChunk:
    return SnapshotChunk(0, 1, 1, 1, 1, 0, True, (SESSION,) * sessions, (STATE,) * clients, (KEPT,) * replies)


@pytest.mark.parametrize(
    ("most", "beyond"),
    [
        (Beacon(1, 0, ((0, 1, 1, 1),) * SHARDS_MAX), Beacon(1, 0, ((0, 1, 1, 1),) * (SHARDS_MAX + 1))),
        (BeaconOk(1, 0, ((0, 1),) * SHARDS_MAX), BeaconOk(1, 0, ((0, 1),) * (SHARDS_MAX + 1))),
        (PrepareOk(1, ((0, 1),) * SHARDS_MAX), PrepareOk(1, ((0, 1),) * (SHARDS_MAX + 1))),
        (
            Prepare(1, (ShardRecords(0, 1, 1, (RECORD,)),) * SHARDS_MAX),
            Prepare(1, (ShardRecords(0, 1, 1, ()),) * (SHARDS_MAX + 1)),
        ),
        (
            Prepare(1, (ShardRecords(0, 1, 1, (RECORD,) * 4096),)),
            Prepare(1, (ShardRecords(0, 1, 1, (RECORD,) * 4097),)),
        ),
        (chunk(sessions=2048), chunk(sessions=2049)),
        (chunk(clients=16_384), chunk(clients=16_385)),
        (chunk(replies=8192), chunk(replies=8193)),
    ],
)
def test_more_than_an_actor_ever_sends_is_not_decoded(most: Any, beyond: Any) -> None:
    assert _decode(_encode(most)) == most
    with pytest.raises(msgspec.ValidationError):
        _decode(_encode(beyond))


WILD_US = (-(1 << 63), TIME_US_MAX + 1, (1 << 63) - 1, (1 << 64) - 1)


@pytest.mark.parametrize("time_us", WILD_US)
def test_a_time_that_no_clock_shows_is_not_decoded(time_us: int) -> None:
    """It would become the time of a shard, and the hello of its actor could not be encoded any more."""
    record = msgspec.structs.replace(RECORD, time_us=time_us)
    for forged in (
        Beacon(1, 0, ((0, 1, 1, time_us),)),
        Prepare(1, (ShardRecords(0, 1, 1, (record,)),)),
        msgspec.structs.replace(chunk(), time_us=time_us),
    ):
        with pytest.raises(msgspec.ValidationError):
            _decode(_encode(forged))


@pytest.mark.parametrize("wall_us", [0, TIME_US_MAX, TIME_US_MAX * 2])
def test_a_shards_time_ends_with_the_calendar(wall_us: int) -> None:
    """One that poses as a primary can set it to the last moment; the shard must still be heard."""
    clock = ShardClock()
    clock.heard(TIME_US_MAX, 1)
    for seconds in (1, 10, 1000):
        assert clock.shown(seconds * 10**9, wall_us) == TIME_US_MAX
        assert clock.read(seconds * 10**9, wall_us) == TIME_US_MAX


def test_what_actors_send_stays_below_the_bounds() -> None:
    """By the least that each entry counts with, see `log` and `snapshot`."""
    settings = HostSettings()
    assert settings.prepare_bytes_max // 160 < 4096
    assert settings.chunk_bytes // 128 <= 2048
    assert settings.chunk_bytes // 48 < 8192 * 2
