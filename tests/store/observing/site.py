"""A web app whose sessions are observed, and what browsers do to it."""

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from greenroom.observing import Observer, observe
from tests.store.web.web_stage import Stage, browser, session_of

OK = PlainTextResponse("ok")


async def home(request: Request) -> Response:
    return OK


async def look(request: Request) -> Response:
    return PlainTextResponse(str(session_of(request).get("cart")))


async def add(request: Request) -> Response:
    session = session_of(request)
    session["cart"] = session.get("cart", 0) + 1
    return OK


async def login(request: Request) -> Response:
    session_of(request).greenroom.login("alice")
    return OK


async def logout(request: Request) -> Response:
    session_of(request).greenroom.logout()
    return OK


async def count(request: Request) -> Response:
    def one_more(data: dict[Any, Any]) -> None:
        data["cart"] = data.get("cart", 0) + 1

    await session_of(request).greenroom.modify(one_more)
    return OK


async def again(request: Request) -> Response:
    """Change, save, read again: what was saved counts."""
    session = session_of(request)
    session["cart"] = 9
    await session.greenroom.save()
    await session.greenroom.reload()
    return OK


async def fail(request: Request) -> Response:
    session_of(request)["cart"] = 0
    raise ValueError("cart of alice")


async def discard(request: Request) -> Response:
    session = session_of(request)
    session["cart"] = 0
    session.greenroom.discard()
    return OK


async def end_elsewhere(request: Request) -> Response:
    """Change a session that ends meanwhile, as by another device of its user."""
    session_of(request)["cart"] = 1
    await request.app.state.store.delete_by_user("alice")
    return OK


async def end_and_read(request: Request) -> Response:
    await request.app.state.store.delete_by_user("alice")
    await session_of(request).greenroom.reload()
    return OK


async def end_and_count(request: Request) -> Response:
    await request.app.state.store.delete_by_user("alice")
    return await count(request)


ENDING = (end_elsewhere, end_and_read, end_and_count)
HANDLERS = (home, look, add, login, logout, count, again, fail, discard)


class Site:
    """The app, and one browser at it."""

    def __init__(
        self, *observers: Observer, clock_ns: Callable[[], int] = perf_counter_ns, **options: Any
    ) -> None:
        self.stage = Stage(**options)
        observe(self.stage.sessions, *observers, clock_ns=clock_ns)
        self.app = self.stage.app(*HANDLERS, *ENDING)
        self.app.state.store = self.stage.store.inner
        self.jar = self.browser()

    def browser(self) -> httpx.AsyncClient:
        return browser(self.app, raise_app_exceptions=False)

    async def visit(self, *names: str) -> list[int]:
        """Go to pages one after the other; return their statuses."""
        return [(await self.jar.get(f"/{name}")).status_code for name in names]
