"""Whose turn it is in handshakes, on a clock that stands still while anybody runs."""

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from greenroom_cluster.runtime.handshake_turn import CROWD, REST, HandshakeTurn

pytestmark = pytest.mark.trio

STEP_SECONDS = 0.001


async def began_after(turn: HandshakeTurn, steps: int) -> list[float]:
    """Make steps, all of which are asked for at once; return when each began."""
    began: list[float] = []
    start = trio.current_time()

    async def step() -> None:
        async with turn:
            began.append(trio.current_time() - start)
            await trio.sleep(STEP_SECONDS)

    async with trio.open_nursery() as nursery:
        for _ in range(steps):
            nursery.start_soon(step)
    return began


async def test_few_handshakes_follow_each_other_at_once(autojump_clock: MockClock) -> None:
    turn = HandshakeTurn(lambda: CROWD)
    assert await began_after(turn, 4) == pytest.approx([0, 0.001, 0.002, 0.003])


async def test_crowd_takes_a_fifth_of_the_time(autojump_clock: MockClock) -> None:
    turn = HandshakeTurn(lambda: CROWD + 1)
    each = STEP_SECONDS * (1 + REST)
    assert await began_after(turn, 4) == pytest.approx([0, each, 2 * each, 3 * each])


async def test_who_comes_after_the_rest_does_not_wait(autojump_clock: MockClock) -> None:
    turn = HandshakeTurn(lambda: CROWD + 1)
    await began_after(turn, 1)
    await trio.sleep(STEP_SECONDS * REST)
    assert await began_after(turn, 1) == [0]


async def test_who_gives_up_while_it_rests_keeps_nobody(autojump_clock: MockClock) -> None:
    turn = HandshakeTurn(lambda: CROWD + 1)
    await began_after(turn, 1)
    with trio.move_on_after(STEP_SECONDS):
        async with turn:
            raise AssertionError("it rests for four times a step")
    assert await began_after(turn, 1) == pytest.approx([STEP_SECONDS * (REST - 1)])


async def test_newest_has_the_next_turn_and_everybody_has_one(autojump_clock: MockClock) -> None:
    turn = HandshakeTurn(lambda: CROWD + 1)
    order: list[int] = []

    async def step(number: int) -> None:
        await trio.sleep(number * STEP_SECONDS / 10)
        async with turn:
            order.append(number)
            await trio.sleep(STEP_SECONDS)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(step, number)
    assert order == [0, 4, 3, 2, 1]


async def test_who_gives_up_while_it_waits_is_passed_over(autojump_clock: MockClock) -> None:
    turn = HandshakeTurn(lambda: 1)
    reached: list[str] = []

    async def wait(name: str, patience_seconds: float) -> None:
        with trio.move_on_after(patience_seconds):
            async with turn:
                reached.append(name)

    async with trio.open_nursery() as nursery, turn:
        nursery.start_soon(wait, "patient", 10)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait, "hasty", STEP_SECONDS)
        await trio.sleep(2 * STEP_SECONDS)
    assert reached == ["patient"]
    await began_after(turn, 1)
