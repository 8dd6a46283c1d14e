"""Whatever goes wrong, in any order: the judge's invariants after every event, and an explanation at the end.

`GREENROOM_SOAK_SEEDS` sets how many seeds the soak runs, `GREENROOM_SOAK_FIRST` the first one.
"""

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.cluster.shard.callers import KINDS
from tests.cluster.shard.chaos import CLOCK_JUMPS, Chaos, soak
from tests.cluster.shard.judge import Tape

SEEDS = int(os.environ.get("GREENROOM_SOAK_SEEDS", "200"))
FIRST = int(os.environ.get("GREENROOM_SOAK_FIRST", "0"))
PARTS = 8

number = st.integers(0, 3)


class Group(RuleBasedStateMachine):
    """A group of replicas of one shard, to which hypothesis does what it likes.

    The judge checks after every event, not only after every rule.
    """

    @initialize(seed=st.integers(0, 1 << 16), replicas=st.integers(2, 3))
    def begin(self, seed: int, replicas: int) -> None:
        self.tape = Tape()
        self.tape.__enter__()
        self.chaos = Chaos(self.tape, seed, shards=1, replicas=replicas)

    @rule(kind=st.sampled_from(KINDS), times=st.integers(1, 4))
    def call(self, kind: str, times: int) -> None:
        for _ in range(times):
            self.chaos.call(kind)

    @rule(seconds=st.sampled_from((0.0002, 0.0004, 0.001, 0.02, 0.3, 1.1, 3.0)))
    def wait(self, seconds: float) -> None:
        self.chaos.wait(seconds)

    @rule(actor=number, report=st.booleans())
    @precondition(lambda self: self.chaos.whole())
    def kill(self, actor: int, report: bool) -> None:
        self.chaos.kill(actor, report=report)

    @rule(actor=number)
    def pause(self, actor: int) -> None:
        self.chaos.pause(actor)

    @rule(actor=number)
    def resume(self, actor: int) -> None:
        self.chaos.resume(actor)

    @rule(one=number, other=number, one_way=st.booleans())
    def cut(self, one: int, other: int, one_way: bool) -> None:
        self.chaos.cut(one, other, one_way=one_way)

    @rule()
    def heal(self) -> None:
        self.chaos.heal()

    @rule(one=number, other=number, bulk=st.booleans())
    def break_link(self, one: int, other: int, bulk: bool) -> None:
        self.chaos.break_link(one, other, bulk=bulk)

    @rule(up=st.booleans())
    def coordinator(self, up: bool) -> None:
        self.chaos.coordinator(up=up)

    @rule(choice=st.integers(0, 4))
    def slow(self, choice: int) -> None:
        self.chaos.slow(choice)

    @rule(actor=number, seconds=st.sampled_from(CLOCK_JUMPS))
    def jump_clock(self, actor: int, seconds: float) -> None:
        self.chaos.jump_clock(actor, seconds)

    @rule(actor=number, leaves=st.booleans())
    def drain(self, actor: int, leaves: bool) -> None:
        if leaves:
            self.chaos.leave(actor)
        else:
            self.chaos.stay(actor)

    def teardown(self) -> None:
        if not hasattr(self, "chaos"):
            return
        try:
            self.chaos.recover()
        finally:
            self.tape.__exit__()


TestGroup = Group.TestCase
TestGroup.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("part", range(PARTS))
def test_random_worlds_keep_every_promise(part: int) -> None:
    answered = checked = 0
    with Tape() as tape:
        for seed in range(FIRST + part, FIRST + SEEDS, PARTS):
            chaos = soak(tape, seed)
            answered += chaos.callers.answered
            checked += chaos.judge.checked
    # A soak that does nothing proves nothing.
    assert answered > 25 * SEEDS // PARTS
    assert checked > 500 * SEEDS // PARTS
