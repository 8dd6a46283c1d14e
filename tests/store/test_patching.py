"""Patches do what an obvious model does; neither hostile data nor hostile patches get past ValueError."""

from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from greenroom import ABSENT, UsageError
from greenroom.codec import DEPTH_MAX, decode_data, encode_data, encode_value
from greenroom.patching import (
    ListInPathError,
    UnexpectedValueError,
    encode_changes,
    normalize_path,
    patch_data,
)
from greenroom.scan.bounds import MalformedError
from greenroom.scan.checks import check_data
from greenroom.testing.contract.model import apart, patched, same_value, value_at

keys = st.sampled_from(["a", "b", "", 0, 1, -5])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.just(2**80)
    | st.floats(allow_nan=True, width=16)
    | st.text("ü", max_size=1)
    | st.sets(st.integers(0, 2))
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
datas = st.dictionaries(keys, values, max_size=4)
paths = st.lists(keys, min_size=1, max_size=4).map(tuple)


def patch(data: dict[Any, Any], **changes: Any) -> dict[Any, Any] | None:
    try:
        return decode_data(patch_data(encode_data(data), *encode_changes(**changes)))
    except UnexpectedValueError:
        return None


path_values = st.dictionaries(paths, values, max_size=4).map(apart)


@given(datas, path_values, st.lists(paths, max_size=4))
def test_patch_does_what_the_model_does(data: Any, change: Any, unset: Any) -> None:
    expected = patched(data, change, unset)
    if expected is None:
        with pytest.raises(ListInPathError, match="a list stands at"):
            patch(data, set=change, unset=unset)
    else:
        assert same_value(patch(data, set=change, unset=unset), expected)


@given(datas, paths, values | st.just(ABSENT))
def test_expectation_holds_if_the_value_is_the_same_with_its_types(data: Any, path: Any, value: Any) -> None:
    found = patch(data, set={"done": 1}, expect={path: value})
    there = value_at(data, path)
    holds = there is value if ABSENT in (there, value) else same_value(there, value)
    assert (found is not None) == holds


@given(datas, paths)
def test_present_value_is_always_expected(data: Any, path: Any) -> None:
    assert patch(data, expect={path: value_at(data, path)}) is not None


def outcome(*arguments: Any) -> Any:
    try:
        return patch_data(*arguments)
    except (ListInPathError, UnexpectedValueError) as error:
        return type(error), str(error)


@given(datas, path_values, st.dictionaries(paths, values, max_size=3))
def test_same_bytes_give_same_bytes(data: Any, change: Any, expect: Any) -> None:
    arguments = (encode_data(data), *encode_changes(change, (), expect))
    assert outcome(*arguments) == outcome(*arguments)


@pytest.mark.parametrize(
    ("there", "expected", "holds"),
    [
        (1, 1, True),
        (1, True, False),
        (1, 1.0, False),
        (0, False, False),
        (0.0, -0.0, True),
        (float("nan"), float("nan"), True),
        ("1", 1, False),
        (b"a", "a", False),
        (None, ABSENT, False),
        ({}, ABSENT, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {1: 1}, False),
        ([1, 2], [2, 1], False),
        ([1], (1,), True),
        ({1, 2}, {2, 1}, True),
        ({1}, frozenset({1}), False),
        (2**80, 2**80, True),
    ],
)
def test_expectations_compare_with_types(there: Any, expected: Any, *, holds: bool) -> None:
    assert (patch({"k": there}, expect={"k": expected}) is not None) is holds


def test_order_is_expect_then_unset_then_set() -> None:
    data = {"cart": {"a": 1}}
    assert patch(data, set={"cart": {"b": 2}}, unset=["cart"], expect={("cart", "a"): 1}) == {
        "cart": {"b": 2}
    }


def test_paths_below_one_another_are_refused_whatever_their_order() -> None:
    for change in ({"a": 1, ("a", "b"): 2}, {("a", "b"): 2, "a": 1}, {("a", "b", "c"): 1, "a": {}}):
        with pytest.raises(UsageError, match=r'set names \["a"\] and, below it, \["a", "b"'):
            patch({}, set=change)
    with pytest.raises(UsageError, match="twice"):
        patch({}, set={"a": 1, ("a",): 1})
    assert patch({}, set={("a", "b"): 2, ("a", "c"): 1, ("ab",): 3}) == {"a": {"b": 2, "c": 1}, "ab": 3}


def test_keys_of_paths_may_be_of_a_subclass() -> None:
    class Key(StrEnum):
        CART = "cart"

    class Row(IntEnum):
        FIRST = 1

    class Path(NamedTuple):
        above: str
        below: int

    changes = encode_changes({(Key.CART, Row.FIRST): 1}, [Key.CART, Path("a", 1)], {Key.CART: 2})
    assert changes == encode_changes({("cart", 1): 1}, ["cart", ("a", 1)], {"cart": 2})
    for path in (*changes.unset, changes.set[0][0]):
        assert type(path) is tuple
        assert {type(key) for key in path} <= {str, int}
    for wrong in (True, (Key.CART, None), 1.5, (b"a",)):
        with pytest.raises(UsageError, match="a path is"):
            encode_changes({wrong: 1})


def test_of_raw_values_later_ones_win() -> None:
    above, below = (("a",), b"\x01"), (("a", "b"), b"\x02")
    assert patch_data(b"\x80", (above, below)) == encode_data({"a": {"b": 2}})
    assert patch_data(b"\x80", (below, above)) == encode_data({"a": 1})


def test_text_that_names_a_path_is_short() -> None:
    key = "ü" * 10_000
    data = encode_data({key: [1]})
    with pytest.raises(ListInPathError) as raised:
        patch_data(data, (((key, 0), b"\x01"),))
    assert len(str(raised.value)) < 700
    for expect, text in (
        ((((7, 'a"b'), b""), ((key,), b"\x01")), '["üüü'),
        ((((7, 'a"b'), b"\x01"),), '[7, "a\\"b"]'),
    ):
        with pytest.raises(UnexpectedValueError) as unexpected:
            patch_data(data, expect=expect)
        assert str(unexpected.value).startswith(text)
        assert len(str(unexpected.value)) < 250


def test_keys_of_new_dicts_keep_their_order() -> None:
    found = patch({"d": {"z": 0}}, set={"d": {"y": 1, "x": 2, "w": 3}})
    assert found is not None
    assert list(found["d"]) == ["z", "y", "x", "w"]


def test_extensions_stay_closed() -> None:
    data = msgspec.msgpack.encode({"a": Ext(2, b"no moment"), "at": Ext(9, b"\x91" + b"\xa1x")})
    decoded = msgspec.msgpack.decode(patch_data(data, (((("b",)), b"\x01"),)))
    assert decoded == {"a": Ext(2, b"no moment"), "at": Ext(9, b"\x91" + b"\xa1x"), "b": 1}


@pytest.mark.parametrize("code", [-1, 0, 11, 99])
def test_extensions_of_no_known_kind_are_refused(code: int) -> None:
    data = msgspec.msgpack.encode({"a": Ext(code, b"\0\0\0\1")})
    with pytest.raises(MalformedError, match="upgrade"):
        patch_data(data, (((("b",)), b"\x01"),))


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"k": value}
    return value


def test_nesting_is_bounded_whatever_the_stack() -> None:
    at_limit = msgspec.msgpack.encode(nested(DEPTH_MAX))
    beyond = msgspec.msgpack.encode(nested(DEPTH_MAX + 1))
    assert patch_data(at_limit) is not None
    with pytest.raises(ValueError, match="64 levels"):
        patch_data(at_limit, set=((("k",) * DEPTH_MAX, b"\x80"),))
    with pytest.raises(ValueError, match="64 levels"):
        patch_data(b"\x80", set=((("k",), at_limit),))
    with pytest.raises(ValueError, match="64 levels"):
        patch_data(b"\x80", expect=((("k",), beyond), (("k",), b"")))
    with pytest.raises(ValueError, match="64 levels"):
        patch_data(msgspec.msgpack.encode({"k": nested(DEPTH_MAX + 1)}), expect=((("k",), b"\x01"),))


def decided(*arguments: Any) -> Any:
    try:
        return patch_data(*arguments)
    except ListInPathError as error:
        return str(error)
    except ValueError:
        return None  # what is told of it does not depend on the reason


def deep_in_the_stack(frames: int, *arguments: Any) -> Any:
    return decided(*arguments) if frames == 0 else deep_in_the_stack(frames - 1, *arguments)


@pytest.mark.parametrize("filler", [b"", b"x" * 20_000], ids=["short", "long"])
@pytest.mark.parametrize("levels", [64, 65, 500, 512, 513, 600, 700, 800, 900, 950, 1000, 5000])
def test_replicas_decide_alike_at_any_stack(levels: int, filler: bytes) -> None:
    # {"a": [[[...]]], "f": filler}: whether the interpreter can decode the lists depends on the frames below.
    data = b"\x82\xa1a" + b"\x91" * levels + b"\x01" + b"\xa1f" + msgspec.msgpack.encode(filler)
    changes = (((("b",), b"\x01"),), (("c", "d"),))
    shallow = decided(data, *changes)
    for frames in (50, 150, 300):
        assert deep_in_the_stack(frames, data, *changes) == shallow


FILLERS = {"containers": [[] for _ in range(600)], "long": "x" * 20_000}


@pytest.mark.parametrize("kind", FILLERS)
@given(datas, path_values, st.lists(paths, max_size=3), st.dictionaries(paths, values, max_size=2))
def test_what_is_decoded_makes_no_difference(
    kind: str, data: Any, change: Any, unset: Any, expect: Any
) -> None:
    filler = {"filler": FILLERS[kind]}
    changes = encode_changes(change, unset, expect)
    short = decided(encode_data(data), *changes)
    whole = decided(encode_data({**data, **filler}), *changes)
    if type(short) is bytes:
        assert same_value(decode_data(whole), {**decode_data(short), **filler})
    else:
        assert whole == short


def test_what_the_facade_accepts_the_server_accepts() -> None:
    path = ("k",) * DEPTH_MAX
    changes = encode_changes({path: 1})
    found = patch_data(b"\x80", *changes)
    assert found is not None
    assert patch_data(found, *changes) == found
    assert decode_data(found) == nested(DEPTH_MAX)
    with pytest.raises(UsageError):
        encode_changes({path: {}})
    assert patch_data(b"\x80", *encode_changes({path[1:]: {}})) is not None


@pytest.mark.parametrize(
    "bad", [b"", b"\xc1", b"\x81", b"\x01\x01", b"\x90" * 2, b"\xa1\xff", b"\x91" * 100_000]
)
def test_malformed_bytes_are_a_value_error(bad: bytes) -> None:
    good = encode_data({"a": {"b": 1}})
    with pytest.raises(MalformedError):
        patch_data(bad)
    with pytest.raises(MalformedError):
        patch_data(good, set=((("a",), bad),))
    if bad:
        with pytest.raises(MalformedError):
            patch_data(good, expect=((("a",), bad),))


@pytest.mark.parametrize("data", [b"\xc0", b"\x01", b"\x90", b"\xa1a", encode_value({1, 2})])
def test_data_that_is_no_dict_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a dict"):
        patch_data(data)


@pytest.mark.parametrize("path", [(), ("k",) * 65])
def test_paths_without_or_with_too_many_keys_are_a_value_error(path: tuple[str, ...]) -> None:
    for arguments in ({"set": ((path, b"\x01"),)}, {"unset": (path,)}, {"expect": ((path, b""),)}):
        with pytest.raises(ValueError, match="64 keys"):
            patch_data(b"\x80", **arguments)  # type: ignore[arg-type]


blobs = st.binary(max_size=24) | values.map(encode_value) | st.binary(max_size=12).map(lambda b: b"\x82" + b)
# Neither a store nor a frame lets an int key beyond 64 bits through.
raw_keys = st.integers(-(2**63), 2**64 - 1) | st.text(max_size=2)
raw_paths = st.lists(raw_keys, max_size=3).map(tuple)


@given(
    blobs,
    st.lists(st.tuples(raw_paths, blobs), max_size=2).map(tuple),
    st.lists(raw_paths, max_size=2).map(tuple),
    st.lists(st.tuples(raw_paths, blobs), max_size=1).map(tuple),
)
def test_hostile_patches_are_applied_or_a_value_error(
    data: Any, change: Any, unset: Any, expect: Any
) -> None:
    try:
        found = patch_data(data, change, unset, expect)
    except ValueError:
        return
    check_data(found)


def test_paths_are_normalized() -> None:
    assert normalize_path("theme") == ("theme",)
    assert normalize_path(7) == (7,)
    assert normalize_path(("cart", "sku-1", 2)) == ("cart", "sku-1", 2)


@pytest.mark.parametrize(
    "path",
    [(), None, 1.5, True, b"k", ["k"], ("k", None), ("k", True), ("k", ("n",)), 2**64, "\ud800", ("k",) * 65],
)
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(UsageError):
        normalize_path(path)
