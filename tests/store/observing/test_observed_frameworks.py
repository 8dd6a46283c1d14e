"""Each adapter tells what came of its pages, once for each request that used a session."""

import pytest

pytest.importorskip("quart_trio", reason="the adapters' frameworks are not there")

from greenroom.observing import observe
from greenroom.testing import FaultyStore, library_named
from greenroom.web import Session
from tests.store.integrations.sites import SITES
from tests.store.observing.stage import Heard
from tests.store.web.web_stage import SECRET, tell

ASYNCIO = library_named("asyncio")


@pytest.mark.parametrize("name", SITES)
def test_every_framework_tells_its_pages(name: str) -> None:
    heard, store = Heard(), FaultyStore()
    sessions = Session(secret=SECRET, store=store, dev=True)
    observe(sessions, heard)

    async def story() -> None:
        async with SITES[name](sessions) as client:
            for path in ("/who", "/fill", "/who", "/login/alice", "/logout"):
                assert (await client.get(path)).status_code < 300
            await client.get("/fill")
            store.fail("get")
            assert (await client.get("/who")).status_code == 503
            store.heal()
            store.fail("patch")
            await client.get("/login/alice")
            store.fail("rotate")
            assert (await client.get("/login/bob")).status_code == 503

    tell(ASYNCIO, story)
    assert heard.pages == [
        *("anonymous", "created", "read", "rotated", "ended", "created", "refused", "rotated", "refused")
    ]
