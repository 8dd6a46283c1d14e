"""Pages of sessions in memory, and the instructions of bytecode that each takes."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from greenroom import MemoryStore
from greenroom.web import Session, SessionMiddleware
from tests.opcodes import opcodes
from tests.store.web.web_stage import SECRET


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def read(scope: Any, receive: Any, send: Any) -> None:
    scope["session"].get("n")
    await answer(scope, receive, send)


async def change(scope: Any, receive: Any, send: Any) -> None:
    scope["session"]["n"] = scope["session"].get("n", 0) + 1
    await answer(scope, receive, send)


class Pages:
    """Pages of sessions in memory, which no event loop need serve, since they wait for nothing."""

    def __init__(self, *observers: Any) -> None:
        self.sessions = Session(secret=SECRET, store=MemoryStore())
        if observers:
            from greenroom.observing import observe

            observe(self.sessions, *observers)
        self.apps = {each: SessionMiddleware(each, session=self.sessions) for each in (answer, read, change)}
        self.cookies: list[bytes] = []
        asyncio.run(self.page(change, cookie=False))

    async def send(self, message: Any) -> None:
        for name, value in message.get("headers", ()):
            if name == b"set-cookie":
                self.cookies.append(value.partition(b";")[0])

    def page(self, app: Any, *, cookie: bool = True) -> Coroutine[Any, Any, None]:
        headers = [(b"host", b"app.test")]
        if cookie:
            headers.append((b"cookie", self.cookies[-1]))
        scope = {"type": "http", "scheme": "https", "headers": headers}
        return self.apps[app](scope, None, self.send)  # type: ignore[arg-type]

    def costs(self) -> dict[str, int]:
        """Return the instructions of each kind of page."""
        kinds = {"anonymous": (answer, False), "unused": (answer, True)}
        kinds |= {"read": (read, True), "changed": (change, True)}
        return {name: self._least(*kind) for name, kind in kinds.items()}

    def _least(self, app: Any, cookie: bool) -> int:
        counted = []
        for _ in range(3):  # the first fills caches
            page = self.page(app, cookie=cookie)
            counted.append(opcodes(partial(finish, page)))
        return min(counted)


def finish(page: Coroutine[Any, Any, None]) -> None:
    """Run what waits for nothing to its end."""
    try:
        page.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits for something")
