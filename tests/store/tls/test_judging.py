"""Which connections end, when, and how many at once, after what is trusted has changed."""

import math

import pytest
from msgspec.structs import replace

from greenroom.identities import parse_identity
from greenroom.tls.judging import JUDGE_SECONDS, Judge
from greenroom.tls.standing import PATIENCE_SWEEPS, Objection, Proven, Trusted

FORMER, NEWER = b"former", b"newer"
BOTH = Trusted(frozenset({FORMER, NEWER}), frozenset())
ONE = Trusted(frozenset({NEWER}), frozenset())


def proven(serial: int, anchor: bytes = FORMER, *, shown: int = 0) -> Proven:
    identity = parse_identity(f"greenroom://shop/client/web{serial}")
    return Proven(identity, serial, 1e9, frozenset({anchor}), shown)


def connections(count: int, anchor: bytes = FORMER) -> dict[int, Proven]:
    return {number: proven(number, anchor) for number in range(1, count + 1)}


@pytest.mark.parametrize(("count", "most"), [(1, 1), (5, 2), (32, 2), (33, 3), (10_000, 625)])
def test_a_dropped_authority_ends_a_few_connections_a_sweep(count: int, most: int) -> None:
    """Whoever connects again is open beside those that wait, so each sweep ends as many."""
    judge: Judge[int] = Judge()
    assert judge.sweep(BOTH, 0.0, connections(count).items()) == []
    left, again, sweeps = connections(count), connections(0), 0
    while left:
        open_now = [*left.items(), *again.items()]
        told = [number for number, _ in judge.sweep(ONE, float(sweeps), open_now)]
        assert 0 < len(told) <= most
        assert set(told) <= set(left)
        for number in told:
            del left[number]
            again[-number] = proven(number, NEWER)
        sweeps += 1
    assert sweeps <= 16
    judge.sweep(ONE, float(sweeps), again.items())
    assert not judge.waiting


@pytest.mark.parametrize("change", ["revoked", "ended"])
def test_who_is_revoked_or_has_ended_is_cut_off_at_once(change: str) -> None:
    judge: Judge[int] = Judge()
    everybody = connections(100)
    judge.sweep(BOTH, 0.0, everybody.items())
    trusted = replace(ONE, revoked=frozenset(everybody)) if change == "revoked" else ONE
    told = judge.sweep(trusted, 0.0 if change == "revoked" else 1e9, everybody.items())
    assert [number for number, _ in told] == list(everybody)
    assert not any(objection.waits for _, objection in told)
    assert not judge.waiting


def test_what_cannot_be_replaced_ends_when_patience_does() -> None:
    """Each has its turn again and again until then, and none has two before all had one."""
    judge: Judge[int] = Judge()
    turns = [[number for number, _ in judge.sweep(ONE, 0.0, connections(6).items())] for _ in range(6)]
    assert turns[0] == turns[3]
    assert sorted(turns[0] + turns[1] + turns[2]) == [1, 2, 3, 4, 5, 6]
    for _ in range(PATIENCE_SWEEPS - len(turns)):
        assert all(objection.waits for _, objection in judge.sweep(ONE, 0.0, connections(6).items()))
    last = judge.sweep(ONE, 0.0, connections(6).items())
    assert last == [
        (number, Objection("the authority of its certificate is trusted no more")) for number in range(1, 7)
    ]


def test_our_own_renewal_never_ends_what_cannot_be_replaced() -> None:
    judge: Judge[int] = Judge()
    renewed = replace(BOTH, shown=8)
    links = {1: proven(1, shown=7), 2: proven(2, shown=8), 3: proven(3)}
    for _ in range(3 * PATIENCE_SWEEPS):
        assert judge.sweep(renewed, 0.0, links.items()) == [
            (1, Objection("our certificate was renewed", math.inf))
        ]


def test_nothing_is_judged_while_nothing_changes() -> None:
    """Only the ends of certificates are looked for, now and then; also if the clock is set back."""
    judge: Judge[int] = Judge()
    looked: list[float] = []

    def open_at(wall_seconds: float) -> list[tuple[int, Proven]]:
        class Noted(list[tuple[int, Proven]]):
            def __iter__(self):  # type: ignore[no-untyped-def]
                looked.append(wall_seconds)
                return super().__iter__()

        return Noted(connections(1).items())

    for wall_seconds in (100.0, 101.0, 100.0 + JUDGE_SECONDS - 1, 100.0 + JUDGE_SECONDS, 50.0, 51.0):
        judge.sweep(BOTH, wall_seconds, open_at(wall_seconds))
    assert looked == [100.0, 100.0 + JUDGE_SECONDS, 50.0]
