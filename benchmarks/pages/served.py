"""The shop of one contender as uvicorn runs it: `uvicorn --factory benchmarks.pages.served:app`.

Which contender, and where its servers are, stands in the environment, because uvicorn passes nothing else on.
"""

import json
import os
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.races.catalogue import MEASURED
from benchmarks.races.shops import Contender

TITLE_VARIABLE = "BENCHMARK_SHOP"
ADDRESSES_VARIABLE = "BENCHMARK_ADDRESSES"


class _Served:
    """Opens the shop when the server starts, so that its store belongs to the server's event loop."""

    def __init__(self, contender: Contender, addresses: dict[str, str]) -> None:
        self._contender = contender
        self._addresses = addresses
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        async with AsyncExitStack() as stack:
            await receive()
            shop = await stack.enter_async_context(self._contender.open(self._addresses))
            self._app = shop.app
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def app() -> _Served:
    """Return the app that the environment names."""
    titled = {contender.title: contender for contender in MEASURED}
    return _Served(titled[os.environ[TITLE_VARIABLE]], json.loads(os.environ[ADDRESSES_VARIABLE]))
