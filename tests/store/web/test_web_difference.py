"""The difference of two states, applied as a patch, is the new state; and touches nothing else."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greenroom import UsageError
from greenroom.codec import decode_data, encode_data
from greenroom.patching import encode_changes, patch_data
from greenroom.web import Difference, difference
from greenroom.web.difference import difference_of, over_lists

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.0, 1.0, float("nan"), "", "a", b"a", Decimal("1.0"), Decimal("1.00")]),
    st.sampled_from([{1}, {True}, frozenset({1}), [], {}]),
)
keys = st.one_of(st.sampled_from(["a", "b", "c"]), st.integers(0, 1))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)
states = st.dictionaries(keys, values, max_size=4)


def applied(data: dict[Any, Any], change: Difference) -> dict[Any, Any]:
    patched = patch_data(encode_data(data), *encode_changes(change.set, change.unset))
    assert patched is not None
    return decode_data(patched)


def stored(value: Any) -> Any:
    """Make values comparable by what is stored, whatever the order of keys."""
    if type(value) is dict:
        return {(type(key).__name__, key): stored(item) for key, item in value.items()}
    if type(value) is list:
        return [stored(item) for item in value]
    return encode_data({"": value})


@given(states, states)
@example({"a": {"b": 0.0}}, {"a": {"b": -0.0}})
@example({"a": 1, "b": {"c": 1}}, {"a": True, "b": {"c": 1.0}})
@example({"a": float("nan"), "c": (1,)}, {"a": float("nan"), "b": (1,), "c": [1]})
def test_what_is_encoded_has_the_same_difference(old: dict[Any, Any], new: dict[Any, Any]) -> None:
    found = difference_of(encode_data(old), encode_data(new))
    expected = difference(decode_data(encode_data(old)), decode_data(encode_data(new)))
    assert stored(found.set) == stored(expected.set)
    assert set(found.unset) == set(expected.unset)


def test_large_sessions_have_the_same_difference() -> None:
    old = {f"key-{number}": [number] for number in range(20_000)}
    new = {**old, "key-7": [8], "more": 1}
    del new["key-9"]
    assert difference_of(encode_data(old), encode_data(new)) == difference(old, new)


@given(states, states)
def test_difference_applied_to_old_is_new(old: dict[Any, Any], new: dict[Any, Any]) -> None:
    assert stored(applied(old, difference(old, new))) == stored(new)


@given(states)
def test_nothing_differs_from_itself(state: dict[Any, Any]) -> None:
    assert not difference(state, decode_data(encode_data(state)))


@given(states, states, states)
def test_changes_beside_each_other_both_survive(
    base: dict[Any, Any], left: dict[Any, Any], right: dict[Any, Any]
) -> None:
    """Two requests that began with the same data and change different keys: the order does not matter."""
    here = {**base, "left": left}
    there = {**base, "right": right}
    base.pop("left", None), base.pop("right", None)
    here_first = applied(applied(base, difference(base, here)), difference(base, there))
    there_first = applied(applied(base, difference(base, there)), difference(base, here))
    assert stored(here_first) == stored(there_first)
    assert stored(here_first["left"]) == stored(left)
    assert stored(here_first["right"]) == stored(right)


def test_paths_go_down_to_the_deepest_changed_dict() -> None:
    old = {"cart": {"a": {"n": 1, "note": "x"}, "b": 2}, "theme": "dark", "list": [1, {"deep": 1}]}
    new = {"cart": {"a": {"n": 2, "note": "x"}, "c": {}}, "theme": "dark", "list": [1, {"deep": 2}]}
    assert difference(old, new) == Difference(
        set={("cart", "a", "n"): 2, ("cart", "c"): {}, ("list",): [1, {"deep": 2}]}, unset=(("cart", "b"),)
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (1, True),
        (1, 1.0),
        (0, False),
        ({1}, {True}),
        (Decimal("1.0"), Decimal("1.00")),
        (datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
        ({}, None),
        ([], {}),
    ],
)
def test_values_that_only_look_equal_differ(old: Any, new: Any) -> None:
    assert difference({"x": old}, {"x": new}).set == {("x",): new}


def test_a_key_keeps_its_type() -> None:
    assert difference({1: "a"}, {"1": "a"}) == Difference({("1",): "a"}, ((1,),))


def test_what_cannot_be_stored_is_named_by_its_path() -> None:
    with pytest.raises(UsageError, match=r"data\['a'\]\['b'\]"):
        difference({"a": {"b": 1}}, {"a": {"b": object()}})


def test_lists_give_way_whole_and_nothing_else_does() -> None:
    changes = Difference(
        {("a", "x", "n"): 1, ("b", "y"): 2, ("a", "z"): 3}, (("a", "x", "old"), ("b", "gone"))
    )
    wanted = {"a": {"x": {"n": 1}, "z": 3}, "b": {"y": 2}}
    there = {"a": {"x": [1], "z": []}, "b": {"gone": 1, "kept": 2}}
    found = over_lists(changes, there, wanted)
    assert found == Difference({("a", "x"): {"n": 1}, ("b", "y"): 2, ("a", "z"): 3}, (("b", "gone"),))
    assert applied(there, found) == {"a": {"x": {"n": 1}, "z": 3}, "b": {"kept": 2, "y": 2}}
    assert over_lists(changes, {"a": [], "b": []}, wanted) == Difference(
        {("a",): wanted["a"], ("b",): wanted["b"]}, ()
    )
