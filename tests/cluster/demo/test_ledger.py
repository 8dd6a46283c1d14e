"""The ledger knows what a cart must hold, and shows every way in which a cart can be wrong."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_cluster.demo.ledger import Cell, Effect, Ledger

MUG = "cart/mug"


def confirmed(ledger: Ledger, cell: str, effect: Effect) -> None:
    ledger.confirm(ledger.begin(cell, effect))


def look(ledger: Ledger, **shown: object):
    cells = {name.replace("_", "/"): value for name, value in shown.items()}
    return ledger.end_read(ledger.begin_read(), cells)


@pytest.fixture
def ledger() -> Ledger:
    """A cart with 3 and then 4 more mugs, all confirmed."""
    ledger = Ledger()
    confirmed(ledger, MUG, Effect("add", 3))
    confirmed(ledger, MUG, Effect("add", 4))
    return ledger


def test_a_cart_that_holds_what_was_confirmed_is_right(ledger: Ledger) -> None:
    assert look(ledger, cart_mug=7) == []
    assert ledger.confirmed_writes == 2


def test_a_lost_write_is_found_and_counted(ledger: Ledger) -> None:
    (mismatch,) = look(ledger, cart_mug=3)
    assert (mismatch.cell, mismatch.shown, mismatch.expected) == (MUG, 3, {7})
    assert mismatch.lost_writes == 1


def test_an_empty_cart_has_lost_every_write(ledger: Ledger) -> None:
    confirmed(ledger, "note", Effect("set", "ring twice"))
    assert [mismatch.lost_writes for mismatch in look(ledger)] == [2, 1]


def test_a_write_done_twice_is_wrong_but_not_lost(ledger: Ledger) -> None:
    (mismatch,) = look(ledger, cart_mug=11)
    assert mismatch.lost_writes == 0


def test_an_article_that_nobody_added_is_wrong(ledger: Ledger) -> None:
    (mismatch,) = look(ledger, cart_mug=7, cart_pan=1)
    assert (mismatch.cell, mismatch.expected) == ("cart/pan", {None})


def test_a_removal_that_is_undone_is_a_lost_write(ledger: Ledger) -> None:
    confirmed(ledger, MUG, Effect("set", None))
    assert look(ledger) == []
    (mismatch,) = look(ledger, cart_mug=7)
    assert mismatch.lost_writes == 1


def test_a_refused_write_must_leave_no_trace(ledger: Ledger) -> None:
    ledger.refuse(ledger.begin(MUG, Effect("add", 5)))
    assert look(ledger, cart_mug=7) == []
    assert look(ledger, cart_mug=12)


def test_an_unknown_write_may_have_happened_but_cannot_vanish_again(ledger: Ledger) -> None:
    ledger.begin(MUG, Effect("add", 5))
    assert look(ledger, cart_mug=7) == []
    assert look(ledger, cart_mug=12) == []
    assert look(ledger, cart_mug=7)


def test_an_unknown_write_may_come_late(ledger: Ledger) -> None:
    ledger.begin(MUG, Effect("add", 5))
    confirmed(ledger, MUG, Effect("set", None))
    assert look(ledger, cart_mug=12)
    assert look(ledger) == []
    assert look(ledger, cart_mug=5) == []


def test_a_read_beside_a_write_may_show_either(ledger: Ledger) -> None:
    for value in (7, 12):
        read = ledger.begin_read()
        write = ledger.begin(MUG, Effect("add", 5))
        assert ledger.end_read(read, {MUG: value}) == []
        ledger.refuse(write) if value == 7 else ledger.confirm(write)


def test_a_read_that_overlaps_a_write_may_show_the_cart_before_it(ledger: Ledger) -> None:
    write = ledger.begin(MUG, Effect("add", 5))
    read = ledger.begin_read()
    ledger.confirm(write)
    assert ledger.end_read(read, {MUG: 7}) == []
    assert look(ledger, cart_mug=12) == []
    assert look(ledger, cart_mug=7)


def test_a_read_that_began_after_the_confirmation_may_not(ledger: Ledger) -> None:
    read = ledger.begin_read()
    assert ledger.end_read(read, {MUG: 3})


def test_a_dropped_read_is_forgotten(ledger: Ledger) -> None:
    ledger.drop_read(ledger.begin_read())
    confirmed(ledger, MUG, Effect("add", 1))
    assert look(ledger, cart_mug=8) == []


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["confirm", "refuse", "unknown"])), max_size=5))
def test_any_selection_of_undecided_writes_makes_a_possible_value(steps) -> None:
    cell = Cell()
    for number, (amount, fate) in enumerate(steps):
        cell.begin(number, Effect("add", amount))
        if fate != "unknown":
            getattr(cell, fate)(number)
    base = sum(amount for amount, fate in steps if fate == "confirm")
    maybe = [amount for amount, fate in steps if fate == "unknown"]
    sums = {
        base + sum(chosen) for size in range(len(maybe) + 1) for chosen in itertools.combinations(maybe, size)
    }
    assert {value or 0 for value in cell.values} == sums
