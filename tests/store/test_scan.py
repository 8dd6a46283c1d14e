"""What session data may be: one verdict on bytes, at any stack, in a time that the size bounds."""

import contextlib
import os
import random
import struct
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from greenroom import RemoteProtocolError, UsageError
from greenroom.codec import decode_data, encode_data, encode_value
from greenroom.patching import UnexpectedValueError, encode_changes, patch_data
from greenroom.scan.bounds import (
    DEPTH_MAX,
    HASHED_PER_CONTAINER_MAX,
    ITEMS_MAX,
    OPENINGS_MAX,
    PLAIN_ITEMS_MAX,
    MalformedError,
    Tally,
    path_text,
)
from greenroom.scan.checks import _read, check_data, check_value, check_values
from greenroom.scan.plain import NOT_PLAIN, bare_value, plain_value
from greenroom.scan.walk import walked
from greenroom.wire import PATHS_MAX
from tests.store.test_codec import values

encode = msgspec.msgpack.Encoder().encode


def verdict(check: Callable[..., Any], *arguments: Any) -> str:
    try:
        check(*arguments)
    except MalformedError as error:
        return error.reason
    return ""


def below(frames: int, call: Callable[[], Any]) -> Any:
    return call() if frames == 0 else below(frames - 1, call)


# --- what ended replicas, or made them differ -----------------------------------------------------------


def test_duplicate_keys_that_are_expected_often_are_refused_at_once() -> None:
    """8,000 times the same key equals one; 125,000 expectations of that in one patch took half a minute."""
    data = b"\x81\x00\xde" + struct.pack(">H", 8000) + b"\x00\xc0" * 8000
    started = time.process_time()
    with pytest.raises(MalformedError, match="twice"):
        patch_data(data, expect=((((0,), b"\x81\x00\xc0"),) * PATHS_MAX))
    assert time.process_time() - started < 0.1


@cache
def colliding_ints(count: int) -> list[int]:
    """Ints that take a dict of CPython quadratic time to hold, when they come in this order.

    Half of them lie where a search of the dict comes by, one after the other. The others come in groups of
    the same hash, whose search begins where the first of these lie, whatever the upper bits of the hash add.
    """
    bits = 3
    while (2 << bits) // 3 < count:
        bits += 1
    mask, half = (1 << bits) - 1, count // 2
    order: dict[int, int] = {}
    place = 1
    while len(order) < half:
        order[place] = len(order)
        place = (5 * place + 1) & mask
    row, keys, known, chance = list(order), list(order), set(order), random.Random(0)
    while len(keys) < count:
        first = chance.choice(row) | chance.randrange(1, 1024) << bits
        place, upper = first & mask, first
        while place in order and upper:
            upper >>= 5
            place = (5 * place + upper + 1) & mask
        if order.get(place, half) < half // 8 and first not in known:
            known.add(first)
            keys += [first + times * ((1 << 61) - 1) for times in range(8)]
    return keys[:count]


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


# --- one verdict --------------------------------------------------------------------------------------------

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


stored = st.dictionaries(st.text(max_size=2) | st.integers(), values, max_size=4)
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


# --- the bounds ---------------------------------------------------------------------------------------------


def plain_items(count: int) -> bytes:
    return encode({"a": [0] * (count - 1)})


def other_items(count: int) -> bytes:
    return encode({"a": [0] * (count - 2), "b": b""})


def test_lists_and_dicts_are_bounded_before_any_is_made() -> None:
    lists = encode({"a": [[] for _ in range(OPENINGS_MAX - 4)]})
    check_data(lists)
    assert plain_value(lists, 0) is not NOT_PLAIN
    more = encode({"a": [[] for _ in range(OPENINGS_MAX)]})
    assert plain_value(more, 0) is NOT_PLAIN
    assert "items" in verdict(check_data, more)
    half = encode([[] for _ in range(OPENINGS_MAX // 2 + 1)])
    check_values(((("a",), half),))
    with pytest.raises(MalformedError, match="items"):
        check_values(tuple(((str(number),), half) for number in range(4)))
    with pytest.raises(MalformedError, match="items"):
        patch_data(lists, (((("b",), half),)))


def test_long_text_in_any_language_is_read() -> None:
    """Its bytes may look like those that begin lists."""
    for text in ("\N{CYRILLIC SMALL LETTER ER}", "\N{CJK UNIFIED IDEOGRAPH-6F22}", "\N{GRINNING FACE}"):
        data = encode_data({"a": text * 200_000, "b": [text] * 5000})
        assert decode_data(patch_data(data, (((("c",), b"\x01")),)))["a"] == text * 200_000


def test_items_are_bounded() -> None:
    check_data(plain_items(PLAIN_ITEMS_MAX))
    check_data(other_items(ITEMS_MAX))
    assert "items" in verdict(check_data, plain_items(PLAIN_ITEMS_MAX + 1))
    assert "items" in verdict(check_data, other_items(ITEMS_MAX + 1))
    for item in (b"\x90", b"\x80", b"\xd4\x01\x00", b"\xa1a"):
        data = b"\x81\xa1a\xdd" + struct.pack(">I", 1_000_000 // len(item)) + item * (1_000_000 // len(item))
        assert "items" in verdict(check_data, data)
    with pytest.raises(UsageError, match="items"):
        encode_data({"a": [0] * PLAIN_ITEMS_MAX})
    with pytest.raises(UsageError, match="items"):
        encode_data({"a": [0] * ITEMS_MAX, "b": b""})


def test_what_is_hashed_without_a_secret_is_bounded() -> None:
    encode_data({"k": dict.fromkeys(range(HASHED_PER_CONTAINER_MAX)), "s": set(range(1000, 2024))})
    for data in (
        {"k": dict.fromkeys(range(HASHED_PER_CONTAINER_MAX + 1))},
        {"k": set(range(HASHED_PER_CONTAINER_MAX + 1))},
        {"k": {(number, str(number)) for number in range(HASHED_PER_CONTAINER_MAX + 1)}},
    ):
        with pytest.raises(UsageError, match="str"):
            encode_data(data)
    encode_data({"k": {str(number) for number in range(ITEMS_MAX - 2)}})


def test_depth_is_bounded() -> None:
    def nested(levels: int, kind: bytes, end: bytes) -> bytes:
        return b"\x81\xa1a" + kind * (levels - 1) + end

    for kind, end in ((b"\x91", b"\x01"), (b"\x81\xa1b", b"\x01"), (b"\x91", b"\x90"), (b"\x91", b"\x80")):
        inner = end in {b"\x90", b"\x80"}
        check_data(nested(DEPTH_MAX - inner, kind, end))
        assert "nesting" in verdict(check_data, nested(DEPTH_MAX - inner + 1, kind, end))
    check_value(b"\x90", ("k",) * (DEPTH_MAX - 1))
    assert "nesting" in verdict(check_value, b"\x90", ("k",) * DEPTH_MAX)
    chain = b"\x90"
    for _ in range(DEPTH_MAX):
        chain = b"\x91" + encode(Ext(10, chain))
    assert "nesting" in verdict(check_data, encode({"a": Ext(8, chain)}))


def test_what_a_patch_leads_to_has_the_same_bounds() -> None:
    data = encode_data({"k": dict.fromkeys(range(HASHED_PER_CONTAINER_MAX - 1), "x" * 5)})
    data = patch_data(data, (((("k", 5_000), b"\x01")),))
    with pytest.raises(MalformedError, match="int keys"):
        patch_data(data, (((("k", 5_001), b"\x01")),))
    full = plain_items(PLAIN_ITEMS_MAX)
    with pytest.raises(MalformedError, match="items"):
        patch_data(full, (((("b",), b"\x01")),))
    assert patch_data(full, (((("a",), b"\x01")),)) == encode({"a": 1})
    for path, value in ((("b",), encode(b"")), ((5,), b"\x01"), (("b",) * 7, b"\x01")):
        with pytest.raises(MalformedError, match="items"):
            patch_data(plain_items(ITEMS_MAX), ((path, value),))


def test_values_of_a_patch_count_together() -> None:
    half = encode([0] * (PLAIN_ITEMS_MAX // 2 + 1))
    check_values(((("a",), half),))
    with pytest.raises(MalformedError, match="items"):
        check_values(((("a",), half), (("b",), half)))
    ints = encode(dict.fromkeys(range(1000)))
    with pytest.raises(MalformedError, match="items"):
        check_values(tuple(((str(number),), ints) for number in range(9)))
    check_values(tuple(((str(number),), encode("x" * 10_000)) for number in range(100)))


def test_a_patch_names_at_most_1024_paths() -> None:
    encode_changes({str(number): 1 for number in range(1000)}, [("a", 1)] * 20, {"b": 1})
    with pytest.raises(UsageError, match="1024 paths"):
        encode_changes({str(number): 1 for number in range(1000)}, [("a", 1)] * 20, dict.fromkeys("abcdef"))


# --- the time that a step takes -----------------------------------------------------------------------------


def deep(levels: int, value: Any) -> Any:
    for _ in range(levels):
        value = {"k": value}
    return value


def worst() -> dict[str, tuple[Any, ...]]:
    """Patches, by what makes them slow: data, then what `patch_data` takes."""
    ints = colliding_ints(1000)
    sets = encode_data({"a": [{str(number)} for number in range(ITEMS_MAX // 2 - 1)]})
    lists = encode_data({"a": [[] for _ in range(OPENINGS_MAX - 10)]})
    int_keyed = encode_data({"k": [dict.fromkeys(ints) for _ in range(7)]})
    below_ints: Any = dict.fromkeys(ints[:120], 0)
    for _ in range(62):
        below_ints = {**dict.fromkeys(ints[:120], 0), ints[119]: below_ints}
    keys = encode_data({str(number): None for number in range(PLAIN_ITEMS_MAX - 1)})
    tree = encode_data(deep(62, [0] * 60))
    subtrees = [encode_value(deep(62 - levels, [0] * 60)) for levels in range(1, 61)]
    many = range(PATHS_MAX)
    return {
        "small lists": (lists, (((("b",), b"\x01")),)),
        "sets": (sets, (((("b",), encode(b""))),)),
        "colliding keys": (
            int_keyed,
            ((("k",), encode([dict.fromkeys(ints) for _ in range(7)])),),
        ),
        "many keys": (keys, tuple(((str(number),), b"\xc0") for number in many)),
        "deep paths": (encode_data(deep(63, 1)), tuple((("k",) * 63 + (str(n),), b"\x01") for n in many)),
        "new deep paths": (b"\x80", tuple(((str(n), *("k",) * 63), b"\x01") for n in many)),
        "new deep int paths": (
            b"\x80",
            tuple(((ints[n % 1000], *(ints[n % 7],) * 14), b"\x01") for n in many),
        ),
        "nested expectations": (
            tree,
            (),
            (),
            tuple((("k",) * (1 + number % 60), subtrees[number % 60]) for number in range(PATHS_MAX)),
        ),
        "the same large expectation": (
            encode_data({"a": [0] * 900}),
            (),
            (),
            ((("a",), encode([0] * 900)),) * 80,
        ),
        "int keys on the way": (
            encode_data(deep(1, dict.fromkeys(ints, 0))),
            tuple((("k", ints[-1], str(number)), b"\x01") for number in many),
        ),
        "merges": (
            encode_data({"a": {str(number): {} for number in range(OPENINGS_MAX // 2)}}),
            ((("a",), encode({str(number): {"x": 1} for number in range(OPENINGS_MAX // 2)})),),
        ),
        "long text": (encode_data({"a": "ü" * 400_000}), (((("b",), b"\x01")),)),
        "bytes": (encode_data({"a": bytes(1_000_000)}), (((("b",), b"\x01")),)),
        "plain, but cut": (plain_items(PLAIN_ITEMS_MAX)[:-1], ()),
    }


@pytest.mark.parametrize("what", worst())
def test_no_patch_takes_a_tenth_of_a_second(what: str) -> None:
    """Of processor time, the best of some: this machine may have other things to do."""
    arguments = worst()[what]

    def seconds() -> float:
        started = time.process_time()
        with contextlib.suppress(MalformedError, UnexpectedValueError):
            patch_data(*arguments)
        return time.process_time() - started

    assert min(seconds() for _ in range(5)) < 0.1


def test_reading_text_keyed_data_in_c_says_the_same_as_the_walk_on_bounds() -> None:
    for data in (plain_items(ITEMS_MAX), encode({"a": deep(5, 1)}), encode({"a": deep(4, 1)})):
        assert repr(_read(data, 0, Tally())) == repr(walked(data, 0, Tally()))


@given(st.lists(st.one_of(st.integers(0, 10**6), st.text(max_size=300)), max_size=64))
def test_a_path_is_shown_as_its_beginning_however_long_it_is(keys: list[str | int]) -> None:
    whole = f"[{', '.join(msgspec.json.encode(key).decode() for key in keys)}]"
    shown = path_text(tuple(keys))
    assert shown == (whole if len(whole) <= 200 else f"{whole[:200]}...")
