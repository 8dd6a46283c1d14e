"""Sessions as lines of JSON: nothing is lost on the way there and back, and nothing odd comes in."""

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom import wire
from greenroom.codec import decode_data, encode_data
from greenroom.errors import UsageError
from greenroom.scan.bounds import EXT_DATE, EXT_DATETIME, EXT_DECIMAL, EXT_INT
from greenroom.scan.checks import check_data
from greenroom_cluster.backups.portable import decode_line, encode_line
from greenroom_cluster.shard.state.records import StoredSession

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PLAIN = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text() | st.floats()
RICH = (
    PLAIN
    | st.binary()
    | st.integers()
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.just(ZoneInfo("Europe/Vienna")))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.decimals()
    | st.frozensets(st.integers() | st.text() | st.binary())
)
KEYS = st.text() | st.integers(-(1 << 63), (1 << 64) - 1) | st.just("$type") | st.just("$")
VALUES = st.recursive(
    RICH, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


def stored(data: dict[Any, Any], **changes: Any) -> StoredSession:
    state = wire.SessionState(
        version=0,
        expires_us=1_800_000_000_000_001,
        created_us=-5,
        absolute_us=None,
        user_id="alice",
        label="phone",
        point=65_535,
        data=encode_data(data),
    )
    return StoredSession(b"\x01" * 32, msgspec.structs.replace(state, **changes))


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_nothing_is_lost_on_the_way_there_and_back(data: dict[Any, Any]) -> None:
    session = stored(data)
    line = encode_line(session)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_line(line, 1) == session


def test_what_json_has_is_as_people_write_it() -> None:
    line = json.loads(encode_line(stored({"cart": {"mug": 2}, "tags": ["a", None, True], "sum": 1.5})))
    assert line == {
        "digest": "01" * 32,
        "point": 65_535,
        "user_id": "alice",
        "label": "phone",
        "created": "1969-12-31T23:59:59.999995Z",
        "expires": "2027-01-15T08:00:00.000001Z",
        "absolute_expires": None,
        "data": {"cart": {"mug": 2}, "tags": ["a", None, True], "sum": 1.5},
    }


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (datetime(2026, 5, 1, 12, tzinfo=UTC), "datetime", "2026-05-01 12:00:00+00:00"),
        (date(2026, 5, 1), "date", "2026-05-01"),
        (time(12, 30), "time", "12:30:00"),
        (timedelta(hours=1), "timedelta", "1:00:00"),
        (UUID(int=1), "UUID", "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.10"), "Decimal", "1.10"),
        (b"\x00\xff", "bytes", "00ff"),
        (float("inf"), "float", "inf"),
        (1 << 70, "int", str(1 << 70)),
    ],
)
def test_what_json_lacks_can_be_read_by_people_too(value: object, kind: str, text: str) -> None:
    shown = json.loads(encode_line(stored({"x": value})))["data"]["x"]
    assert (shown["$type"], shown["text"]) == (kind, text)


def test_keys_that_json_lacks_are_kept() -> None:
    line = encode_line(stored({1: "a", "1": "b"}))
    assert decode_data(decode_line(line, 1).state.data) == {1: "a", "1": "b"}


@pytest.mark.parametrize("code", [EXT_DATE, EXT_DATETIME, EXT_DECIMAL, EXT_INT])
def test_what_cannot_be_read_is_kept_all_the_same(code: int) -> None:
    """A cluster keeps it, so one such session must not stand in the way of all others."""
    data = msgspec.msgpack.encode({"x": msgspec.msgpack.Ext(code, b"\x93")})
    check_data(data)
    empty = stored({})
    session = StoredSession(empty.digest, msgspec.structs.replace(empty.state, data=data))
    assert decode_line(encode_line(session), 1) == session


def test_moments_beyond_the_calendar_are_its_last_and_first() -> None:
    far = stored({}, expires_us=1 << 62, created_us=-(1 << 62))
    state = decode_line(encode_line(far), 1).state
    assert EPOCH + timedelta(microseconds=state.expires_us) == datetime.max.replace(tzinfo=UTC)
    assert EPOCH + timedelta(microseconds=state.created_us) == datetime.min.replace(tzinfo=UTC)


GOOD = json.loads(encode_line(stored({"x": b"1"})))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        json.dumps(GOOD).encode().replace(b'"data": {', b'"data": {"y": ' + b"[" * 400 + b"]" * 400 + b", "),
        b"[" * 100_000,
        *(
            json.dumps({**GOOD, **bad}).encode()
            for bad in (
                {"digest": "01"},
                {"digest": "zz" * 32},
                {"point": -1},
                {"point": 65_536},
                {"point": "1"},
                {"created": "2026-05-01"},
                {"created": "2026-05-01T00:00:00"},
                {"expires": None},
                {"label": None},
                {"label": "x" * 300},
                {"user_id": 5},
                {"extra": 1},
                {"data": None},
                {"data": []},
                {"data": {"x": {"$type": "bytes"}}},
                {"data": {"x": {"$type": "bytes", "msgpack": "!"}}},
                {"data": {"x": {"$type": "bytes", "msgpack": "wQ=="}}},
                {"data": {"x": {"$type": "dict", "items": [[[1], 2]]}}},
                {"data": {"x": {"$type": "dict", "items": [[1]]}}},
            )
        ),
    ],
)
def test_a_line_that_is_no_session_is_refused_without_its_values(line: bytes) -> None:
    with pytest.raises(UsageError, match="line 7 is not a session") as raised:
        decode_line(line, 7)
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"label": None}, "label"),
        ({"created": "2026-05-01T00:00:00"}, "created"),
        ({"the secret": "of somebody"}, "a field too many"),
        ({"digest": "of somebody"}, "a field has a value"),
    ],
)
def test_what_is_wrong_with_a_line_is_told(bad: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as raised:
        decode_line(json.dumps({**GOOD, **bad}).encode(), 7)
    assert "secret" not in str(raised.value)
    assert "somebody" not in str(raised.value)


def test_a_field_that_is_missing_is_named() -> None:
    without = {name: value for name, value in GOOD.items() if name != "absolute_expires"}
    with pytest.raises(UsageError, match="absolute_expires"):
        decode_line(json.dumps(without).encode(), 7)
