"""A browser that has been to an app on Starlette's own sessions, and the app after the switch."""

from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware as StarlettesMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from greenroom.fields import utc_now
from greenroom.integrations.moving import OldSession, OldSessions, StarletteCookies
from tests.store.web.web_stage import Stage, browser, twin

OLD_SECRET = "the secret of the old middleware"
OLD_DATA = {"user_id": "alice", "theme": "dark"}
DAY = 86_400


async def remember(request: Request) -> Response:
    """Set keys of the session, as the query says."""
    request.session.update(request.query_params)
    return JSONResponse({})


def old_app(**options: Any) -> Starlette:
    """Return the app as it was before the switch, on Starlette's own middleware."""
    app = Starlette(routes=[Route("/remember", remember)])
    app.add_middleware(StarlettesMiddleware, secret_key=OLD_SECRET, https_only=True, **options)
    return app


async def visitor_of(app: Any, query: str = "user_id=alice&theme=dark") -> httpx.AsyncClient:
    """Return a browser that has been to the old app."""
    visitor = browser(app)
    await visitor.get(f"/remember?{query}")
    assert len(visitor.cookies) == 1
    return visitor


def moved_to(app: Any, visitor: httpx.AsyncClient) -> httpx.AsyncClient:
    """Return the same browser on the day of the switch."""
    return twin(app, visitor)


def user_of(data: dict[Any, Any]) -> Any:
    return data.get("user_id")


class Moving(Stage):
    """Sessions that move from Starlette's cookies; the clock stands at the real present, as theirs does."""

    def __init__(self, **options: Any) -> None:
        reader = StarletteCookies(OLD_SECRET, user=user_of)
        super().__init__(**{"moves_from": reader, **options})
        self.clock.advance(utc_now().timestamp() - self.clock().timestamp())


def names(visitor: httpx.AsyncClient) -> list[str]:
    return sorted(visitor.cookies)


class Readable(OldSessions):
    """One session in the memory of the test."""

    def __init__(self, old: OldSession | Exception | None, **options: Any) -> None:
        super().__init__(**options)
        self.old = old
        self.ended: list[str] = []

    def key_of(self, value: bytes) -> str | None:
        return value.decode()

    async def read(self, key: str) -> OldSession | None:
        if isinstance(self.old, Exception):
            raise self.old
        return self.old

    async def end(self, key: str) -> None:
        self.ended.append(key)


OLD_COOKIE = {"cookie": "session=of-old"}
