"""Ids carry enough randomness and their point; handles name sessions; nothing shows an id."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom import UsageError, new_session_id
from greenroom.ids import (
    check_session_id,
    digest_of,
    handle_of,
    is_listed_as,
    listed_as,
    locate,
    locate_if_possible,
    parse_handle,
    point_of,
    spelled_handle,
)

points = st.integers(0, 65535)
digests = st.binary(min_size=32, max_size=32)
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)


def test_minted_ids_are_distinct_and_safe_in_cookies_and_urls() -> None:
    minted = [new_session_id() for _ in range(1000)]
    assert len(set(minted)) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{40}", session_id) for session_id in minted)


def test_minted_ids_are_spread_over_the_points() -> None:
    assert len({point_of(new_session_id()) >> 12 for _ in range(1000)}) == 16


def test_randomness_of_an_id_is_at_least_128_bits_beside_its_point() -> None:
    first, second = new_session_id(7), new_session_id(7)
    assert first[:8] == second[:8] == "gr-0007-"
    assert len(first[8:]) * 6 >= 128
    assert first != second


@given(points)
def test_minted_id_carries_its_point(point: int) -> None:
    session_id = new_session_id(point)
    assert point_of(session_id) == point
    assert locate(session_id) == locate_if_possible(session_id) == (point, digest_of(session_id))


@pytest.mark.parametrize("point", [-1, 65536])
def test_point_outside_of_16_bits_is_refused(point: int) -> None:
    with pytest.raises(UsageError):
        new_session_id(point)


@given(ids)
def test_other_ids_are_routed_by_their_digest(session_id: str) -> None:
    digest = hashlib.blake2b(session_id.encode(), digest_size=32).digest()
    assert digest_of(session_id) == digest
    assert point_of(session_id) == int.from_bytes(digest[:2], "big")
    assert locate(session_id) == locate_if_possible(session_id) == (point_of(session_id), digest)


@pytest.mark.parametrize("change", ["{}x", "x{}", "{}\n", " {}"])
def test_what_only_resembles_a_minted_id_is_routed_by_its_digest(change: str) -> None:
    session_id = change.format(new_session_id(7))
    assert point_of(session_id) == int.from_bytes(digest_of(session_id)[:2], "big")


@pytest.mark.parametrize("good", ["a", "x" * 256, "ü" * 128, "\0"])
def test_one_to_256_bytes_are_an_id(good: str) -> None:
    check_session_id(good)


@pytest.mark.parametrize(
    "bad", ["", "secret" + "x" * 251, "secretü" * 40, "secret\udc80", b"secret", None, 7]
)
def test_anything_else_is_refused_without_being_shown(bad: object) -> None:
    for function in (check_session_id, digest_of, locate):
        with pytest.raises(UsageError) as caught:
            function(bad)  # type: ignore[arg-type]
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is caught.value.__context__ is None
    if isinstance(bad, str):
        assert locate_if_possible(bad) is None
    else:
        with pytest.raises(UsageError):
            locate_if_possible(bad)  # type: ignore[arg-type]


@given(points, digests)
def test_handles_round_trip(point: int, digest: bytes) -> None:
    handle = handle_of(point, digest)
    assert handle == spelled_handle(point, listed_as(digest))
    assert re.fullmatch(r"[A-Za-z0-9_-]{46}", handle)
    assert parse_handle(handle) == (point, listed_as(digest))


@given(st.text() | st.text("abcABC019-_=", min_size=44, max_size=48))
def test_other_text_is_no_handle_or_the_one_that_it_spells(text: str) -> None:
    try:
        point, listed = parse_handle(text)
    except UsageError:
        return
    assert spelled_handle(point, listed) == text


@given(digests, digests)
def test_lists_name_sessions_in_the_order_of_digests_without_them(one: bytes, other: bytes) -> None:
    assert len(listed_as(one)) == 32
    assert is_listed_as(one, listed_as(one))
    assert is_listed_as(one, one)
    assert is_listed_as(one, listed_as(other)) is (one == other)
    assert listed_as(one)[4:] != one[4:]
    if one[:4] != other[:4]:
        assert (listed_as(one) < listed_as(other)) is (one < other)


@pytest.mark.parametrize("bad", [None, b"x" * 46, 7, "A" * 45 + "B"])
def test_no_handle(bad: object) -> None:
    with pytest.raises(UsageError):
        parse_handle(bad)  # type: ignore[arg-type]
