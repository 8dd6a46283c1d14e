"""Which other coordinators are dialled while one is connected to, and which of them is gone to."""

import pytest

from greenroom.deadlines import NEVER_NS
from greenroom_cluster.links.seeking import (
    SEEK_NS,
    SHUN_NS,
    Answered,
    Dial,
    Drop,
    Held,
    Released,
    Seeking,
    SeekingEffect,
    Shunned,
    Take,
    Tick,
    Unanswered,
)

A, B, C = "a:1", "b:1", "c:1"
US, THEM = b"u" * 16, b"t" * 16


def holding(*addresses: str) -> Seeking:
    """Of these the first is in use, since 0."""
    seeking = Seeking(addresses)
    assert seeking.step(0, Held(addresses[0], US)) == []
    return seeking


def test_others_are_dialled_twice_a_second_while_one_is_in_use() -> None:
    seeking = holding(A, B, C)
    assert seeking.next_deadline() == SEEK_NS
    assert seeking.step(SEEK_NS - 1, Tick()) == []
    assert seeking.step(SEEK_NS, Tick()) == [Dial(B), Dial(C)]
    assert seeking.next_deadline() == 2 * SEEK_NS
    for address in (B, C):
        assert seeking.step(SEEK_NS, Unanswered(address)) == []
    assert seeking.step(2 * SEEK_NS, Tick()) == [Dial(B), Dial(C)]


def test_one_that_says_nothing_delays_no_other() -> None:
    seeking = holding(A, B, C)
    seeking.step(SEEK_NS, Tick())
    seeking.step(SEEK_NS, Unanswered(C))
    assert seeking.step(2 * SEEK_NS, Tick()) == [Dial(C)]
    seeking.step(2 * SEEK_NS, Unanswered(B))
    assert seeking.step(3 * SEEK_NS, Tick()) == [Dial(B)]


def test_whoever_answers_elsewhere_is_gone_to() -> None:
    seeking = holding(A, B)
    seeking.step(SEEK_NS, Tick())
    assert seeking.step(SEEK_NS, Answered(B, THEM)) == [Take()]
    seeking.step(SEEK_NS, Released())
    seeking.step(SEEK_NS, Held(B, THEM))
    assert seeking.step(2 * SEEK_NS, Tick()) == [Dial(A)]


def late(*between: Held | Released) -> list[SeekingEffect]:
    """Return what becomes of an answer before which this has happened."""
    seeking = holding(A, B)
    seeking.step(SEEK_NS, Tick())
    for event in between:
        seeking.step(SEEK_NS, event)
    return seeking.step(SEEK_NS, Answered(B, THEM))


@pytest.mark.parametrize("between", [[Released()], [Released(), Held(B, b"o" * 16)]])
def test_an_answer_that_comes_late_is_dropped(between: list[Held | Released]) -> None:
    assert late() == [Take()]
    assert late(*between) == [Drop()]


def test_one_process_with_two_addresses_is_not_another() -> None:
    seeking = holding(A, B)
    for turn in range(1, 4):
        assert seeking.step(turn * SEEK_NS, Tick()) == [Dial(B)]
        assert seeking.step(turn * SEEK_NS, Answered(B, US)) == [Drop()]


@pytest.mark.parametrize("addresses", [(A,), (A, A)])
def test_of_one_address_nothing_is_asked(addresses: tuple[str, ...]) -> None:
    seeking = holding(*addresses)
    assert seeking.next_deadline() == NEVER_NS
    assert seeking.step(SEEK_NS, Tick()) == []


def test_nothing_is_dialled_while_none_is_in_use() -> None:
    seeking = holding(A, B)
    seeking.step(0, Released())
    assert seeking.next_deadline() == NEVER_NS
    assert seeking.step(SEEK_NS, Tick()) == []


def test_whoever_was_of_no_use_is_not_gone_to_again_soon() -> None:
    """A coordinator with another prefix in etcd drew all nodes away from the one that led, twice a second."""
    seeking = holding(A, B, C)
    assert seeking.step(SEEK_NS, Tick()) == [Dial(B), Dial(C)]
    assert seeking.step(SEEK_NS, Answered(B, THEM)) == [Take()]
    for event in (Released(), Held(B, THEM), Shunned(B), Released(), Held(A, US)):
        assert seeking.step(SEEK_NS, event) == []
    seeking.step(SEEK_NS, Unanswered(C))
    assert seeking.step(2 * SEEK_NS, Tick()) == [Dial(C)]
    assert seeking.step(SHUN_NS, Answered(B, THEM)) == [Drop()], "it was dialled before"
    seeking.step(SHUN_NS, Unanswered(C))
    assert seeking.step(SEEK_NS + SHUN_NS, Tick()) == [Dial(B), Dial(C)]
    assert seeking.step(SEEK_NS + SHUN_NS, Answered(B, THEM)) == [Take()]
