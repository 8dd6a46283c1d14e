"""To be remembered, in every framework: the cookie outlives the browser, and the session half an hour."""

import asyncio
from collections.abc import Callable

import pytest

from greenroom import MemoryStore
from greenroom.testing import ManualClock
from greenroom.web import Session
from tests.store.integrations.sites import MONTH_SECONDS, SITES, Site


@pytest.mark.parametrize("absolute_seconds", [None, 2 * MONTH_SECONDS])
@pytest.mark.parametrize("site", SITES.values(), ids=list(SITES))
def test_a_login_is_remembered_until_the_next(
    site: Callable[[Session], Site], absolute_seconds: float | None
) -> None:
    clock = ManualClock()
    sessions = Session(
        dev=True, store=MemoryStore(clock=clock), clock=clock, absolute_seconds=absolute_seconds
    )

    async def story() -> None:
        async with site(sessions) as browser:
            assert "Max-Age" not in (await browser.get("/login/alice")).headers["set-cookie"]
            clock.advance(1000)
            header = (await browser.get("/remember/alice")).headers["set-cookie"]
            assert f"Max-Age={absolute_seconds or 400 * 86_400}" in header
            clock.advance(MONTH_SECONDS - 1)
            assert (await browser.get("/who")).json() == ["alice", {}]
            clock.advance(MONTH_SECONDS - 1)
            assert (await browser.get("/who")).json() == ["alice", {}]
            assert "Max-Age" not in (await browser.get("/login/alice")).headers["set-cookie"]
            clock.advance(1799)
            assert (await browser.get("/who")).json() == ["alice", {}]
            clock.advance(1800)
            assert (await browser.get("/who")).json() == [None, {}]

    asyncio.run(story())
