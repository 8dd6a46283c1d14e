"""Session data survives as it was; what would not is refused by its path, and hostile bytes are refused."""

import collections
import math
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from greenroom import RemoteProtocolError, UsageError
from greenroom.codec import DEPTH_MAX, decode_data, decode_value, encode_data, encode_value

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23))
zones = st.none() | st.timezones() | offsets.map(timezone)
keys = text | st.integers(-(2**63), 2**64 - 1)
hashables = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | text
    | st.binary(max_size=8)
    | st.datetimes(timezones=zones, allow_imaginary=False)
    | st.dates()
    | st.times(timezones=zones)
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False),
    lambda inner: st.frozensets(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)


def without_tuples(value: Any) -> bool:
    return type(value) is not tuple


values = st.recursive(
    hashables.filter(without_tuples) | st.sets(hashables, max_size=3) | st.just(Decimal("NaN")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


def image(value: Any) -> Any:
    """What tells two values apart: types, zones, folds and NaNs, but not the order in sets and dicts."""
    if type(value) is dict:
        return dict, frozenset((type(key), key, image(item)) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value), tuple(map(image, value))
    if type(value) in (set, frozenset):
        return type(value), frozenset(collections.Counter(map(image, value)).items())
    if type(value) in (datetime, time):
        offset = value.utcoffset()
        zone = getattr(value.tzinfo, "key", None)
        return type(value), value.replace(tzinfo=None), value.fold, offset, zone
    return type(value), repr(value)


@given(st.dictionaries(keys, values, max_size=5))
def test_data_survives_with_its_types(data: dict[Any, Any]) -> None:
    assert image(decode_data(encode_data(data))) == image(data)


@given(values)
@example(-0.0)
@example(math.nan)
@example(2**63)
@example(2**64)
@example(-(2**63) - 1)
@example(datetime.max)  # noqa: DTZ901  naive on purpose
@example(datetime.min.replace(tzinfo=timezone(timedelta(hours=14))))
@example(datetime(2021, 10, 31, 2, 30, fold=1, tzinfo=ZoneInfo("UTC")))
@example({(1, (2, frozenset({3}))), ()})
@example(Decimal("-0E+5"))
@example(timedelta.min)
def test_single_values_survive(value: Any) -> None:
    assert image(decode_value(encode_value(value))) == image(value)


@given(values)
def test_encoding_is_deterministic(value: Any) -> None:
    encoded = encode_value(value)
    assert encode_value(decode_value(encoded)) == encoded


def test_equal_sets_have_equal_bytes() -> None:
    names = [f"name-{number}" for number in range(100)]
    assert encode_value(set(names)) == encode_value({*names[50:], *names[:50]})


def test_tuples_return_as_lists_except_in_sets() -> None:
    assert decode_data(encode_data({"a": (1, (2,))})) == {"a": [1, [2]]}
    assert decode_data(encode_data({"a": {(1, (2,))}})) == {"a": {(1, (2,))}}


def test_zones_return_by_key_or_as_offsets() -> None:
    class Odd(tzinfo):
        def utcoffset(self, _: datetime | None) -> timedelta:
            return timedelta(hours=3)

    summer = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("UTC"))
    odd = datetime(2026, 7, 1, 12, tzinfo=Odd())
    found = decode_value(encode_value([summer, odd, summer.astimezone(UTC)]))
    assert found == [summer, odd, summer]
    assert found[0].tzinfo is ZoneInfo("UTC")
    assert found[1].tzinfo == timezone(timedelta(hours=3))
    assert found[2].tzinfo == UTC


def test_zone_that_the_reader_lacks_becomes_its_offset() -> None:
    payload = msgspec.msgpack.encode(["2026-07-01T12:00:00", 0, [7_200_000_000, "Atlantis/Capital"]])
    found = decode_value(msgspec.msgpack.encode(Ext(2, payload)))
    assert found == datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))


class Broken(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        raise RuntimeError("s3cret")


class Nowhere(tzinfo):
    def utcoffset(self, _: datetime | None) -> None:
        return None


@pytest.mark.parametrize(
    "value",
    [
        object(),
        lambda: None,
        bytearray(b"s3cret"),
        memoryview(b"s3cret"),
        1j,
        range(3),
        collections.deque(["s3cret"]),
        collections.UserDict(a="s3cret"),
        (item for item in ()),
        "s3cret\ud800",
        {"s3cret\ud800"},
        {None: "s3cret"},
        {True: "s3cret"},
        {1.5: "s3cret"},
        {(1, 2): "s3cret"},
        {b"k": "s3cret"},
        {2**64: "s3cret"},
        {"\udc80": "s3cret"},
        [UUID(int=1), {frozenset({object()})}],
        datetime(2026, 1, 1, tzinfo=Broken()),
        datetime(2026, 1, 1, tzinfo=Nowhere()),
        time(1, tzinfo=Nowhere()),
        UTC,
        Ext(1, b"s3cret"),
        msgspec.Raw(b"\x01"),
        StopIteration("s3cret"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_stored_is_named_by_its_path_and_not_shown(value: object) -> None:
    with pytest.raises(UsageError) as caught:
        encode_data({"cart": [0, {"x": value}]})
    assert str(caught.value).startswith("data['cart'][1]['x']")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_path_of_a_value_includes_where_it_is_to_stand() -> None:
    with pytest.raises(UsageError, match=r"^data\['cart'\]\[7\]\['x'\] "):
        encode_value({"x": object()}, ("cart", 7))


@pytest.mark.parametrize("data", [None, [], [("a", 1)], "a", collections.UserDict(), {1: 2}.items()])
def test_data_is_a_dict(data: Any) -> None:
    with pytest.raises(UsageError, match="session data is a dict"):
        encode_data(data)


def test_data_that_contains_itself_is_refused() -> None:
    data: dict[str, Any] = {}
    data["self"] = [data]
    with pytest.raises(UsageError, match=f"deeper than {DEPTH_MAX} levels"):
        encode_data(data)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: (inner,)])
def test_depth_is_bounded(wrap: Any) -> None:
    value: Any = 1
    for _ in range(DEPTH_MAX - 1):
        value = wrap(value)
    decode_data(encode_data({"deep": value}))
    with pytest.raises(UsageError, match="deeper"):
        encode_data({"deep": wrap(value)})
    with pytest.raises(UsageError, match="deeper"):
        encode_value(value, ("a", "b"))


def test_depth_in_sets_is_bounded() -> None:
    value: Any = 1
    for _ in range(DEPTH_MAX):
        value = frozenset({value})
    with pytest.raises(UsageError, match="deeper"):
        encode_data({"deep": value})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81\xa1a",
        b"\x80\x80",
        b"\x90",
        b"\x01",
        b"\x81\x80\x01",
        b"\x91" * 100_000,
        b"\x81\xa1a" * 100_000 + b"\x80",
        b"\x81\xa1a\xa1\xff",
        *(
            msgspec.msgpack.encode({"a": Ext(code, payload)})
            for code in range(11)
            for payload in (b"\xc1", b"\x93\xc0\xc0\xc0", b"\x91\x80", b"nonsense")
            if code not in (1, 8, 9, 10)
        ),
        msgspec.msgpack.encode({"a": Ext(2, msgspec.msgpack.encode(["2026-07-01", 7, None]))}),
        msgspec.msgpack.encode({"a": Ext(2, msgspec.msgpack.encode(["2026-07-01", 0, [2**62, None]]))}),
        *(
            msgspec.msgpack.encode({"a": Ext(code, payload)})
            for code in (8, 9)
            for payload in (b"\xc1", b"\xc0", b"\x91\x80", b"\x91\x90", b"nonsense")
        ),
        msgspec.msgpack.encode({"a": Ext(10, b"\xc0")}),
    ],
)
def test_bytes_of_others_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_data(data)


def test_kind_of_a_later_version_asks_for_an_upgrade() -> None:
    with pytest.raises(RemoteProtocolError, match="upgrade"):
        decode_data(msgspec.msgpack.encode({"a": Ext(99, b"")}))


@given(st.binary(max_size=64))
def test_random_bytes_are_data_or_refused(data: bytes) -> None:
    try:
        found = decode_data(data)
    except RemoteProtocolError:
        return
    assert type(found) is dict
