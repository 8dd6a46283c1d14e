"""In every framework: of an anonymous session a login keeps what it names, and nothing by default."""

import asyncio
from collections.abc import Callable

import pytest

from greenroom import MemoryStore
from greenroom.web import Session
from tests.store.integrations.sites import SITES, Site


@pytest.mark.parametrize("site", SITES.values(), ids=list(SITES))
def test_a_login_keeps_what_it_names(site: Callable[[Session], Site]) -> None:
    async def story(path: str) -> object:
        async with site(Session(dev=True, store=MemoryStore())) as browser:
            await browser.get("/fill")
            planted = dict(browser.cookies)
            await browser.get(path)
            assert dict(browser.cookies) != planted
            return (await browser.get("/who")).json()

    assert asyncio.run(story("/login/alice")) == ["alice", {}]
    assert asyncio.run(story("/keep/alice")) == ["alice", {"cart": {"mug": 1}}]
