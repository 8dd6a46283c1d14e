"""What two sides agree on by their hellos."""

import msgspec
import pytest

from greenroom import wire
from greenroom.framing import encode_greeting
from greenroom.negotiation import Agreement, agree, hello, versions_text

OURS = hello("test", wire.ROLE_CLIENT, b"c" * 16)


def speaking(low: int, high: int, *features: str) -> wire.Hello:
    return msgspec.structs.replace(OURS, protocol=low, protocol_max=high, features=features)


@pytest.mark.parametrize(
    ("one", "other", "version"),
    [
        ((3, 4), (3, 4), 4),
        ((3, 4), (3, 0), 3),
        ((3, 4), (4, 0), 4),
        ((3, 4), (4, 7), 4),
        ((3, 4), (1, 3), 3),
        ((3, 4), (5, 7), None),
        ((3, 4), (2, 0), None),
        ((3, 0), (3, 0), 3),
    ],
)
def test_the_highest_common_version_is_spoken(
    one: tuple[int, int], other: tuple[int, int], version: int | None
) -> None:
    expected = None if version is None else Agreement(version)
    assert agree(speaking(*one), speaking(*other)) == expected
    assert agree(speaking(*other), speaking(*one)) == expected


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (("a", "b"), ("b", "c"), {"b"}),
        (("a",), ("b",), set()),
        (("a",), (), set()),
    ],
)
def test_a_feature_is_used_where_both_have_it(
    one: tuple[str, ...], other: tuple[str, ...], both: set[str]
) -> None:
    for mine, theirs in ((one, other), (other, one)):
        assert agree(speaking(3, 4, *mine), speaking(3, 4, *theirs)) == Agreement(4, frozenset(both))


def test_this_release_names_its_versions_and_features_in_order() -> None:
    assert (OURS.protocol, OURS.protocol_max) == (wire.PROTOCOL_VERSION_MIN, wire.PROTOCOL_VERSION)
    assert list(wire.FEATURES) == sorted({*wire.FEATURES})
    assert OURS.features == wire.FEATURES
    decoded = msgspec.msgpack.decode(encode_greeting(OURS)[4:], type=wire.Hello)
    assert decoded == OURS


class FormerHello(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """The hello of version 3, as its releases decode it."""

    protocol: int
    routing: int
    cluster: str
    role: str
    sender: bytes
    target: bytes = b""
    auth: bytes = b""


def test_a_release_that_negotiates_nothing_reads_its_version() -> None:
    decoded = msgspec.msgpack.decode(encode_greeting(OURS)[4:], type=FormerHello)
    assert (decoded.protocol, decoded.cluster) == (3, "test")


def test_the_hello_of_a_former_release_says_one_version() -> None:
    former = FormerHello(3, 1, "test", wire.ROLE_CLIENT, b"c" * 16)
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(former), type=wire.Hello)
    assert agree(OURS, decoded) == Agreement(3)
    assert versions_text(decoded) == "3"
    assert versions_text(OURS) == "3 to 4"


@pytest.mark.parametrize(
    "features",
    [
        tuple(f"f{number:02}" for number in range(wire.FEATURES_MAX + 1)),
        ("f" * (wire.FEATURE_CHARS_MAX + 1),),
        ("",),
    ],
)
def test_features_are_bounded(features: tuple[str, ...]) -> None:
    payload = msgspec.msgpack.encode(speaking(3, 4, *features))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(payload, type=wire.Hello)


def test_a_hello_with_all_features_fits_its_frame() -> None:
    full = tuple(f"{number:02}".ljust(wire.FEATURE_CHARS_MAX, "f") for number in range(wire.FEATURES_MAX))
    assert len(encode_greeting(speaking(3, 4, *full))) < 1024
