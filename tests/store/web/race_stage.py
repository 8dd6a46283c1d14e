"""Requests of one browser at once, in an order that the test decides."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from greenroom.testing import Gate, Library
from tests.store.web.web_stage import Stage, browser, session_of, tell, together, twin


def nest_and_log_in(session: Any) -> None:
    session.setdefault("cart", {})["slow"] = 1
    session.greenroom.login("alice", keep=True)


def act_fast(session: Any, request: Request) -> None:
    match request.query_params.get("then"):
        case "nested":
            session.setdefault("cart", {})["fast"] = 1
        case "other":
            session["other"] = 1
        case "list":
            session["cart"] = ["fast"]
        case "login":
            session.greenroom.login(request.query_params["user"], {"by": "fast"}, keep=True)
        case "regenerate":
            session.greenroom.regenerate()
        case "logout":
            session.greenroom.logout()
        case "everywhere":
            session.greenroom.logout_everywhere()


class Race:
    """A slow request, held inside its handler after its session was loaded, and faster ones beside it."""

    def __init__(self, library: Library, **options: Any) -> None:
        self.library = library
        self.stage = Stage(**options)
        self.gate = Gate()
        race = self

        async def slow(request: Request) -> Response:
            session = session_of(request)
            await race.gate.pass_through()
            match request.query_params.get("then"):
                case "set":
                    session["slow"] = {"key": 1}
                case "nested":
                    session.setdefault("cart", {})["slow"] = 1
                case "login":
                    session.greenroom.login(request.query_params["user"], {"by": "slow"}, keep=True)
                case "nested login":
                    nest_and_log_in(session)
                case "logout":
                    session.greenroom.logout()
                case "regenerate":
                    session.greenroom.regenerate()
                case "others out":
                    session.greenroom.logout_everywhere(keep_current=True)
                case "empty":
                    for key in list(session):
                        del session[key]
                case "save":
                    session["slow"] = 1
                    return JSONResponse(
                        {"saved": await session.greenroom.save(), "lost": session.greenroom.lost}
                    )
            return PlainTextResponse("slow")

        async def fast(request: Request) -> Response:
            session = session_of(request)
            act_fast(session, request)
            return JSONResponse({"user": session.greenroom.user_id, "data": session})

        self.app = self.stage.app(slow, fast)

    async def run(self, slow: str, fast: str, *, start: str = "nested") -> tuple[httpx.Response, Any]:
        """Begin a session, start the slow request, finish the fast one, let the slow one end.

        Returns the slow response and the browser (with the cookie of the fast one, not the slow one).
        """
        visitor = browser(self.app)
        await visitor.get(f"/fast?then={start}")
        slow_tab = twin(self.app, visitor)

        async def faster() -> None:
            await self.gate.reached()
            await visitor.get(f"/fast?then={fast}")
            self.stage.clock.advance(1)
            self.gate.open()

        response, _ = await together(self.library, lambda: slow_tab.get(f"/slow?then={slow}"), faster)
        return response, visitor

    def tell(self, story: Callable[[], Awaitable[Any]]) -> None:
        tell(self.library, story)


def in_loop(library: Library, story: Callable[[Race], Awaitable[None]], **options: Any) -> None:
    async def told() -> None:
        await story(Race(library, **options))

    tell(library, told)
