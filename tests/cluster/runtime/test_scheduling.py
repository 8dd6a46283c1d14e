"""An actor lets whoever runs finish its turn, unless it then waits for much longer than it runs."""

import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from greenroom_cluster.runtime import scheduling
from greenroom_cluster.runtime.scheduling import BatchRule, keep_policy, read_times

SECOND = 1_000_000_000


def test_the_rule_holds_while_an_actor_waits_for_less_than_it_runs() -> None:
    rule = BatchRule(ran_ns=5, waited_ns=7)
    assert rule.look(1 * SECOND, SECOND // 2, SECOND // 2)
    # An actor that idles may wait for longer than it runs: there is nothing to gain.
    assert rule.look(2 * SECOND, SECOND // 2 + 1_000_000, SECOND // 2 + 40_000_000)


def test_the_policy_is_suspended_while_an_actor_waits_too_long() -> None:
    """For a minute, once the actor waits for much longer than it runs."""
    rule = BatchRule(ran_ns=0, waited_ns=0)
    assert not rule.look(1 * SECOND, SECOND // 10, SECOND // 2)
    assert not rule.look(2 * SECOND, SECOND, SECOND // 2)
    assert not rule.look(60 * SECOND, 30 * SECOND, SECOND)
    assert rule.look(61 * SECOND, 31 * SECOND, SECOND)
    assert not rule.look(62 * SECOND, 31 * SECOND + SECOND // 10, SECOND + SECOND // 2)


def test_the_kernel_tells_the_times() -> None:
    ran, waited = read_times()
    assert ran > 0
    assert waited >= 0


class Thread:
    """What the kernel keeps of a thread that runs a tenth of the time and waits for as much as it is told."""

    def __init__(self, clock: MockClock, waits: float) -> None:
        self.clock = clock
        self.waits = waits
        self.policies: list[int] = []

    def times(self) -> tuple[int, int]:
        now = self.clock.current_time()
        return int(now * 0.1 * SECOND), int(now * self.waits * SECOND)

    def now_ns(self) -> int:
        return int(self.clock.current_time() * SECOND)

    async def live(self, seconds: float) -> list[int]:
        with trio.move_on_after(seconds):
            await keep_policy(self.now_ns, self.times, self.policies.append)
        return self.policies


@pytest.mark.trio
async def test_the_policy_follows(autojump_clock: MockClock) -> None:
    assert await Thread(autojump_clock, waits=0.1).live(300) == [os.SCHED_BATCH]
    policies = await Thread(autojump_clock, waits=0.8).live(63.5)
    assert policies == [os.SCHED_BATCH, os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_OTHER]


@pytest.mark.trio
async def test_where_the_kernel_does_not_tell_nothing_is_done(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scheduling, "_SCHEDSTAT", tmp_path / "absent")
    thread = Thread(autojump_clock, waits=0.1)
    await keep_policy(thread.now_ns, read_times, thread.policies.append)
    assert thread.policies == []
    (tmp_path / "absent").write_text("no numbers here\n")
    await keep_policy(thread.now_ns, read_times, thread.policies.append)
    assert thread.policies == []
