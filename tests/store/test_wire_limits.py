"""A request beyond the limits is refused where it is decoded."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest

from greenroom import wire
from greenroom.cluster_map import SHARDS_MAX
from greenroom.fields import LIST_LIMIT_MAX, checked_user_id, micros_of
from greenroom.framing import FRAME_BYTES_MAX, encode_frames

_decode = msgspec.msgpack.Decoder(wire.Request).decode
_encode = msgspec.msgpack.Encoder().encode
YEAR_10000_US = 253_402_300_800_000_000

FINE = wire.Create(1, 1, 0, 0, b"d" * 32, "u" * 256, 0, YEAR_10000_US - 1, None, "l" * 256, b"\x80")


def test_what_a_store_may_send_is_decoded() -> None:
    checked_user_id(FINE.user_id)
    least, most = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    for moment in (least, most):
        extreme = msgspec.structs.replace(FINE, created_us=micros_of(moment, "created"))
        assert _decode(_encode(extreme)) == extreme


@pytest.mark.parametrize(
    "beyond",
    [
        {"digest": b""},
        {"digest": b"d" * 31},
        {"digest": b"d" * 33},
        {"user_id": "u" * 257},
        {"label": "l" * 257},
        {"created_us": -(1 << 63)},
        {"expires_us": YEAR_10000_US},
        {"absolute_us": (1 << 64) - 1},
    ],
    ids=str,
)
def test_what_no_store_sends_is_not(beyond: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        _decode(_encode(msgspec.structs.replace(FINE, **beyond)))


@pytest.mark.parametrize(
    "request_of",
    [
        lambda shards: wire.ListByUser(1, "u", 10, shards),
        lambda shards: wire.DeleteByUser(1, 1, 0, "u", b"", shards),
        lambda shards: wire.Clean(1, 1, 0, shards),
    ],
)
def test_a_request_names_no_more_shards_than_a_cluster_can_have(
    request_of: Callable[[tuple[int, ...]], wire.Fanout],
) -> None:
    most = request_of(tuple(range(SHARDS_MAX)))
    assert _decode(_encode(most)) == most
    with pytest.raises(msgspec.ValidationError):
        _decode(_encode(request_of(tuple(range(SHARDS_MAX + 1)))))


def test_the_longest_listing_fits_into_a_frame() -> None:
    entry = wire.SessionHandle(
        0xFFFF, b"d" * 32, (1 << 64) - 1, YEAR_10000_US - 1, YEAR_10000_US - 1, "l" * 256
    )
    shards = tuple(range(SHARDS_MAX))
    listing = wire.Listing((1 << 64) - 1, shards, (entry,) * LIST_LIMIT_MAX)
    assert len(encode_frames([listing])) <= FRAME_BYTES_MAX


@pytest.mark.parametrize("keys", [0, wire.PATH_KEYS_MAX + 1])
@pytest.mark.parametrize("field", ["set", "unset", "expect"])
def test_a_path_has_one_key_a_level_at_most(field: str, keys: int) -> None:
    path = ("k",) * keys
    patch = wire.Patch(1, 1, 0, 0, b"d" * 32, (), (), (), None, None)
    wrong = msgspec.structs.replace(patch, **{field: (path,) if field == "unset" else ((path, b"\xc0"),)})
    with pytest.raises(msgspec.ValidationError):
        _decode(_encode(wrong))
