"""Who shares a look at the whole cluster with whom."""

import pytest
import trio
from trio.testing import MockClock

from greenroom_cluster.http.looks import Looks
from tests.cluster.http.port import FakeView

pytestmark = pytest.mark.trio


async def test_who_asks_at_once_shares_a_look(autojump_clock: MockClock) -> None:
    view = FakeView(lasts=0.05)
    looks = Looks(view)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(looks.look)
    assert view.looks == 1


async def test_who_asks_during_a_look_shares_the_next(autojump_clock: MockClock) -> None:
    """A look that has begun before may miss what they have just done."""
    view = FakeView(lasts=0.05)
    looks = Looks(view)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(looks.look)
        await trio.sleep(0.01)
        for _ in range(20):
            nursery.start_soon(looks.look)
    assert view.looks == 2
    assert trio.current_time() - began == pytest.approx(0.3), "four a second at most"
