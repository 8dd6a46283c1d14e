"""What session data may be: one verdict on bytes, at any stack."""

import os
import struct
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from greenroom import RemoteProtocolError, UsageError
from greenroom.codec import decode_data, encode_data, encode_value
from greenroom.patching import encode_changes, patch_data
from greenroom.scan.bounds import (
    MalformedError,
    Tally,
)
from greenroom.scan.checks import check_data, check_value, check_values
from greenroom.scan.plain import NOT_PLAIN, bare_value, plain_value
from greenroom.scan.walk import walked
from greenroom.wire import PATHS_MAX
from tests.store.scan_stage import colliding_ints, encode, verdict
from tests.store.test_codec import values


def below(frames: int, call: Callable[[], Any]) -> Any:
    return call() if frames == 0 else below(frames - 1, call)


def test_duplicate_keys_that_are_expected_often_are_refused_at_once() -> None:
    """8,000 times the same key equals one; 125,000 expectations of that in one patch took half a minute."""
    data = b"\x81\x00\xde" + struct.pack(">H", 8000) + b"\x00\xc0" * 8000
    started = time.process_time()
    with pytest.raises(MalformedError, match="twice"):
        patch_data(data, expect=((((0,), b"\x81\x00\xc0"),) * PATHS_MAX))
    assert time.process_time() - started < 0.1


def test_the_ints_collide() -> None:
    """A dict of them takes some eighty times as long as one of other ints."""

    def seconds(keys: Iterable[int]) -> float:
        started = time.process_time()
        dict.fromkeys(keys)
        return time.process_time() - started

    keys = colliding_ints(5_461)
    assert len(set(map(str, keys))) == len(keys)
    assert max(keys) < 1 << 64
    assert min(seconds(keys) for _ in range(3)) > 20 * min(seconds(range(5_461)) for _ in range(3))


@pytest.mark.parametrize("count", [1_365, 5_461])
def test_maps_of_many_int_keys_are_refused_before_a_dict_of_them_is_built(count: int) -> None:
    data = encode({"k": dict.fromkeys(colliding_ints(count))})
    started = time.process_time()
    with pytest.raises(MalformedError, match=r"int keys|items"):
        check_data(data)
    with pytest.raises(MalformedError):
        patch_data(data, (((("k", 1), b"\x01")),))
    with pytest.raises(RemoteProtocolError):
        decode_data(data)
    assert time.process_time() - started < 0.3
    with pytest.raises(
        UsageError, match=r"data\['k'\].* cannot be stored: a dict has more than 1024 int keys"
    ):
        encode_data({"k": dict.fromkeys(range(1025))})


HIDDEN = {
    "a duplicate": b"\x82\xa1a" + b"\x91" * 960 + b"\xc0\xa1a\x00",
    "a key": b"\x81" + b"\x91" * 960 + b"\xc0\x00",
    "a set": b"\x81\xa1a" + encode(Ext(8, b"\x91" * 960 + b"\xc0")),
    "a value": b"\x81\xa1a" + b"\x91" * 960 + b"\xc0",
}


@pytest.mark.parametrize("where", HIDDEN)
def test_nesting_that_something_hides_is_refused_at_any_stack(where: str) -> None:
    """Decoded, it recursed as deep as it is nested: above one stack that failed, above another not."""
    data, change = HIDDEN[where], (((("paid",), b"\xc3"),))
    reasons = {below(frames, lambda: verdict(patch_data, data, change)) for frames in (0, 60, 300, 600)}
    assert len(reasons) == 1
    assert "" not in reasons
    value = data[3:] if where != "a key" else data
    reasons = {verdict(patch_data, b"\x80", ((("b",), value),)) for frames in (0, 60, 300, 600)}
    assert "" not in reasons


raw = st.deferred(
    lambda: st.one_of(
        st.sampled_from(
            [b"\xc0", b"\xc2", b"\xc3", b"\x00", b"\x01", b"\xff", b"\xe0", b"\xc1", b"\xca\0\0\0\0"]
        ),
        st.sampled_from(
            [b"\xcc\x01", b"\xcc\x80", b"\xd0\x01", b"\xd0\x80", b"\xcd\x00\x01", b"\xcf" + b"\xff" * 8]
        ),
        st.floats().map(encode),
        st.sampled_from([b"\xa0", b"\xa1a", b"\xa1\xff", b"\xd9\x01a", b"\xd9\x20" + b"b" * 32, b"\xc4\x00"]),
        st.integers(-(2**63), 2**64 - 1).map(encode),
        st.builds(
            lambda code, content: encode(Ext(code, content)),
            st.integers(-2, 12),
            st.binary(max_size=17) | st.lists(raw, max_size=3).map(array),
        ),
        st.lists(raw, max_size=3).map(array),
        st.lists(st.tuples(raw | st.sampled_from([b"\xa1a", b"\xa1b", b"\x01"]), raw), max_size=3).map(table),
    )
)


def array(items: list[bytes]) -> bytes:
    return bytes((0x90 + len(items),)) + b"".join(items)


def table(items: list[tuple[bytes, bytes]]) -> bytes:
    return bytes((0x80 + len(items),)) + b"".join(key + value for key, value in items)


def damaged(pair: tuple[bytes, list[tuple[int, int]]]) -> bytes:
    data = bytearray(pair[0])
    for place, byte in pair[1]:
        if data:
            data[place % len(data)] = byte
    return bytes(data)


anything = st.one_of(
    raw,
    st.binary(max_size=40),
    values.map(encode_value),
    st.tuples(
        values.map(encode_value), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=2)
    ).map(damaged),
)

EXAMPLES = int(os.environ.get("GREENROOM_SCAN_EXAMPLES", "300"))


def closed(value: Any) -> Any:
    """What the walk returns, so that its repr shows all of it."""
    if type(value) is dict:
        return {key: closed(item) for key, item in value.items()}
    if type(value) is Ext:
        return value.code, value.data
    return [closed(item) for item in value] if type(value) is list else value


def by_code(value: Any) -> Any:
    """Int keys as the walk returns them."""
    if type(value) is dict:
        return {key if type(key) is str else encode(key): by_code(item) for key, item in value.items()}
    if type(value) is Ext:
        return value.code, value.data
    return [by_code(item) for item in value] if type(value) is list else value


@settings(max_examples=EXAMPLES, deadline=None)
@given(anything, st.sampled_from([0, 1, 58, 63, 64]))
@example(b"\x81\xa1a\xcb\x7f\xf8\x00\x00\x00\x00\x00\x01", 0)
def test_what_is_read_in_c_the_walk_accepts_and_reads_alike(data: bytes, depth: int) -> None:
    fast = plain_value(data, depth)
    if fast is NOT_PLAIN:
        return
    assert repr(closed(walked(data, depth, Tally()))) == repr(by_code(fast))
    bare = bare_value(data)
    assert bare is NOT_PLAIN or repr(bare) == repr(fast)


@settings(max_examples=EXAMPLES, deadline=None)
@given(anything)
def test_what_is_accepted_is_canonical_and_can_be_decoded_by_anybody(data: bytes) -> None:
    if verdict(check_value, data, ()):
        return
    assert encode(msgspec.msgpack.decode(data)) == data
    assert below(300, lambda: verdict(check_value, data, ())) == ""
    for cut in range(len(data)):
        assert verdict(check_value, data[:cut], ())
    assert verdict(check_value, data + b"\xc0", ())


@given(values)
def test_what_the_facade_encodes_is_accepted_everywhere(value: Any) -> None:
    data = encode_data({"a": value})
    check_data(data)
    check_values(((("a",), encode_value(value, ("a",))),))
    walked(data, 0, Tally())
    changes = encode_changes({"b": value}, ["c"], {"a": value})
    assert patch_data(data, *changes) == encode_data({"a": value, "b": value})


REFUSED = {
    "a key twice": b"\x82\xa1a\x01\xa1a\x02",
    "an int key twice": b"\x82\x01\x01\x01\x02",
    "an int key in another form": b"\x82\x01\x01\xcc\x01\x02",
    "a long form": b"\x81\xa1a\xcd\x00\x01",
    "a long str": b"\x81\xd9\x01a\x01",
    "a long list": b"\x81\xa1a\xdc\x00\x01\x01",
    "a long map": b"\xde\x00\x01\xa1a\x01",
    "a float of 32 bits": b"\x81\xa1a\xca\x00\x00\x00\x00",
    "a key None": b"\x81\xc0\x01",
    "a key True": b"\x81\xc3\x01",
    "a key of bytes": b"\x81\xc4\x01a\x01",
    "a key that is a float": b"\x81" + encode(1.0) + b"\x01",
    "a key that is a list": b"\x81\x91\x01\x01",
    "a key that is a map": b"\x81\x80\x01",
    "a key that is an extension": b"\x81" + encode(Ext(1, b"a")) + b"\x01",
    "no UTF-8": b"\x81\xa1a\xa1\xff",
    "no UTF-8 in a key": b"\x81\xa1\xff\x01",
    "a surrogate": b"\x81\xa1a\xa3\xed\xa0\x80",
    "trailing": b"\x80\x80",
    "cut": b"\x82\xa1a\x01",
    "a length that is not there": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "a str that is not there": b"\x81\xa1a\xdb\xff\xff\xff\xffa",
    "nothing": b"",
    "no dict": b"\x90",
    "an unused byte": b"\x81\xa1a\xc1",
    "a timestamp": encode({"a": datetime.now(UTC)}),
    "an unknown extension": encode({"a": Ext(11, b"x")}),
    "a tuple": encode({"a": Ext(10, b"\x90")}),
    "a set of no list": encode({"a": Ext(8, b"\x01")}),
    "a set with more behind": encode({"a": Ext(8, b"\x90\x01")}),
    "a set that holds a list": encode({"a": Ext(8, b"\x91\x90")}),
    "a set that holds a map": encode({"a": Ext(8, b"\x91\x80")}),
    "a set that holds a set": encode({"a": Ext(8, b"\x91" + encode(Ext(8, b"\x90")))}),
    "a set that holds a cut tuple": encode({"a": Ext(8, b"\x91" + encode(Ext(10, b"\x92\x01")))}),
    "a UUID of 15 bytes": encode({"a": Ext(6, bytes(15))}),
    "a long Decimal": encode({"a": Ext(7, b"9" * 4097)}),
    "a long int": encode({"a": Ext(1, bytes(4097))}),
    "a long moment": encode({"a": Ext(2, bytes(513))}),
    "a long date": encode({"a": Ext(3, bytes(17))}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_session_may_hold(what: str) -> None:
    data = REFUSED[what]
    assert verdict(check_data, data)
    with pytest.raises(RemoteProtocolError):
        decode_data(data)
    with pytest.raises(MalformedError):
        patch_data(data)
    if data != b"\x90":
        with pytest.raises(MalformedError):
            patch_data(b"\x80", (((("a",)), data),))


def test_the_reason_says_where() -> None:
    for data, where in (
        (b"\x82\xa1a\x91\x81\xa1b\xc1", '["a", 0, "b"]'),
        (b"\x81\x05\x82\xa1b\x01\xa1b\x01", '[5, "b"]'),
    ):
        with pytest.raises(MalformedError) as raised:
            check_data(data)
        assert str(raised.value).endswith(where)
    with pytest.raises(MalformedError) as raised:
        check_values(((("x", 7), b"\x91\xc1"),))
    assert str(raised.value).endswith('["x", 7, 0]')
