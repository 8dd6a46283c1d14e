"""What a client of version 3 may ask, and what it hears."""

import msgspec
import pytest

from greenroom import wire
from greenroom.framing import MESSAGES_PER_FRAME_MAX, encode_message
from greenroom_cluster.access import AT_ACTOR
from greenroom_cluster.links import former

DECODER = former.FormerDecoder(AT_ACTOR[wire.ROLE_CLIENT])
GET = wire.Get(1, 0, b"d" * 32)


def patch(request_id: int, paths: int, keys: int = 1) -> wire.Patch:
    values = tuple(((*("k" for _ in range(keys - 1)), number), b"\x01") for number in range(paths))
    return wire.Patch(request_id, request_id, 0, 0, b"d" * 32, values, (), (), None, None)


def framed(*messages: wire.Frame) -> bytes:
    return msgspec.msgpack.encode([msgspec.Raw(encode_message(message)) for message in messages])


@pytest.mark.parametrize(
    ("message", "taken"),
    [
        (patch(2, wire.PATHS_MAX), True),
        (patch(2, wire.PATHS_MAX + 1), False),
        (patch(2, 1, wire.PATH_KEYS_MAX), True),
        (patch(2, 1, wire.PATH_KEYS_MAX + 1), False),
        (
            wire.Rotate(2, 2, 0, 0, b"d" * 32, b"n" * 32, patch(2, wire.PATHS_MAX + 1).set, (), None, None),
            False,
        ),
    ],
)
def test_a_patch_that_is_too_long_is_refused_alone(message: wire.Frame, taken: bool) -> None:
    """All else in its frame is taken, and its connection goes on."""
    requests, refused = former.split(DECODER.decode(framed(GET, message, GET)))
    if taken:
        assert (requests, refused) == ([GET, message, GET], [])
    else:
        assert requests == [GET, GET]
        [failed] = refused
        assert (failed.request_id, failed.code) == (2, wire.FailureCode.INVALID)


def test_a_frame_holds_no_more_messages_than_others_may() -> None:
    with pytest.raises(msgspec.ValidationError):
        DECODER.decode(framed(*[GET] * (MESSAGES_PER_FRAME_MAX + 1)))


@pytest.mark.parametrize("message", [wire.Inspect(1), wire.Get(1, 0, b"short")])
def test_what_no_such_client_says_ends_its_connection(message: wire.Frame) -> None:
    with pytest.raises(msgspec.ValidationError):
        DECODER.decode(framed(GET, message))


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (wire.Failed(1, wire.FailureCode.FULL, "no memory"), wire.Overloaded(1, "no memory")),
        (wire.Failed(1, wire.FailureCode.CONFLICT, "5"), wire.Failed(1, wire.FailureCode.CONFLICT, "5")),
        (wire.Missing(1), wire.Missing(1)),
    ],
)
def test_a_full_cluster_is_an_overloaded_one_to_it(reply: wire.Frame, told: wire.Frame) -> None:
    assert former.known(reply) == told
