"""An app whose logins may ask for their own lifetimes, over stores of both kinds."""

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from greenroom import (
    BaseSessionStore,
    MemoryStore,
    SessionData,
)
from greenroom.testing import FaultyStore
from greenroom.web import Session
from tests.store.web.web_stage import SECRET, Stage, session_of

DAY = 86_400
MONTH = 30 * DAY


async def show(request: Request) -> Response:
    control = session_of(request).greenroom
    expires = control.expires
    return JSONResponse(
        {"user": control.user_id, "data": request.session, "repr": repr(request.session)}
        | ({"expires": expires.isoformat()} if expires else {})
    )


async def login(request: Request) -> Response:
    options: dict[str, Any] = {}
    if "remember" in request.query_params:
        options = {"idle_seconds": MONTH, "persistent": True}
    if "short" in request.query_params:
        options = {"idle_seconds": 60, "persistent": False}
    session_of(request).greenroom.login("alice", keep=True, **options)
    return PlainTextResponse("welcome")


async def regenerate(request: Request) -> Response:
    session_of(request).greenroom.regenerate()
    return PlainTextResponse("ok")


async def put(request: Request) -> Response:
    request.session.update(request.query_params)
    return PlainTextResponse("ok")


async def logout(request: Request) -> Response:
    session_of(request).greenroom.logout()
    return PlainTextResponse("bye")


async def devices(request: Request) -> Response:
    listed = await session_of(request).greenroom.devices()
    return JSONResponse([[repr(each), each.label] for each in listed])


HANDLERS = (show, login, regenerate, put, logout, devices)


class Five(BaseSessionStore):
    """A store of somebody's own, with the five methods alone."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner

    async def create(self, session: SessionData) -> int:
        return await self.inner.create(session)

    async def get(self, session_id: str) -> SessionData | None:
        return await self.inner.get(session_id)

    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        return await self.inner.update(session_id, session, version=version)

    async def delete(self, session_id: str) -> None:
        await self.inner.delete(session_id)

    async def clean(self) -> int:
        return await self.inner.clean()


def stage_of(kind: str, **options: Any) -> Stage:
    """Return a stage, over a store of one's own if that is asked for."""
    stage = Stage(**options)
    if kind == "five":
        stage.store = FaultyStore(Five(MemoryStore(clock=stage.clock)))
        stage.sessions = Session(**{"secret": SECRET, "store": stage.store, "clock": stage.clock} | options)
    return stage


STORES = pytest.mark.parametrize("kind", ["memory", "five"])
