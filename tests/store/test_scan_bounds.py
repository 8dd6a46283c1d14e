"""Bounds of session data, and of the time that one step takes."""

import contextlib
import struct
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from greenroom import UsageError
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
from greenroom.scan.plain import NOT_PLAIN, plain_value
from greenroom.scan.walk import walked
from greenroom.wire import PATHS_MAX
from tests.store.scan_stage import colliding_ints, encode, verdict


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
