"""In every framework: a request leaves no session to the collector of cycles."""

import asyncio
from collections.abc import Callable

import pytest

from greenroom import MemoryStore
from greenroom.web import Session
from tests.store.integrations.sites import SITES, Site
from tests.store.web.garbage import only_by_hand

REQUESTS = 5


@pytest.mark.parametrize("page", ["/who", "/fill", "/login/alice"])
@pytest.mark.parametrize("site", SITES.values(), ids=list(SITES))
def test_a_request_leaves_no_cycle(site: Callable[[Session], Site], page: str) -> None:
    async def story() -> list[object]:
        async with site(Session(dev=True, store=MemoryStore())) as browser:
            await browser.get("/login/alice")
            await browser.get(page)
            with only_by_hand() as found:
                for _ in range(REQUESTS):
                    assert (await browser.get(page)).status_code == 200
                return found()

    assert not asyncio.run(story())
