"""The shop in Starlette with Greenroom's middleware, in memory and on a cluster."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from benchmarks.races.browser import pass_gate
from benchmarks.races.calls import Calls, no_calls
from benchmarks.races.shops import COOKIE, IDLE_SECONDS, USER, Shop
from benchmarks.races.starlette_shops import starlette_shop
from greenroom import BaseSessionStore, MemoryStore, new_session_id, store_from_url
from greenroom.sessions import StoredSession
from greenroom.web import Session, SessionMiddleware

SECRET = "secret"
"""The address under which workers of one app find the secret that they share."""

_WRITES = (
    *("create", "update", "patch", "patch_stored", "replace_stored", "rotate"),
    *("delete", "delete_by_handle", "delete_by_user"),
)


class _Counting:
    """Counts the calls to a store, which goes on as before."""

    def __init__(self, store: BaseSessionStore) -> None:
        self._reads = self._writes = 0
        for name in ("get", "get_stored", "list_by_user"):
            setattr(store, name, self._counted(getattr(store, name), writes=0))
        for name in _WRITES:
            setattr(store, name, self._counted(getattr(store, name), writes=1))
        self._at_hand = store.at_hand
        store.at_hand = self._counted_at_hand  # type: ignore[method-assign]  # as the others

    def _counted(
        self, method: Callable[..., Awaitable[Any]], *, writes: int
    ) -> Callable[..., Awaitable[Any]]:
        def count_and_call(*args: Any, **options: Any) -> Awaitable[Any]:
            self._writes += writes
            self._reads += 1 - writes
            return method(*args, **options)

        return count_and_call

    def _counted_at_hand(self, session_id: str) -> StoredSession | None:
        found = self._at_hand(session_id)
        self._reads += found is not None
        return found

    async def calls(self) -> Calls:
        return Calls(self._reads, self._writes)


async def _tally(request: Request) -> Response:
    await pass_gate(request.scope)

    def add(data: dict[Any, Any]) -> None:
        data["count"] = data.get("count", 0) + 1

    await request.session.greenroom.modify(add)  # type: ignore[attr-defined]  # Greenroom's session has it
    return PlainTextResponse("counted")


@asynccontextmanager
async def _open_greenroom(
    store: BaseSessionStore, addresses: Mapping[str, str], *, counted: bool
) -> AsyncIterator[Shop]:
    calls = _Counting(store).calls if counted else no_calls
    async with store:
        await store.check()
        sessions = Session(
            secret=addresses.get(SECRET) or secrets.token_hex(32),
            store=store,
            cookie_name=COOKIE,
            host_prefix=False,  # the name that all of them use
            idle_seconds=IDLE_SECONDS,
        )
        middleware: Any = SessionMiddleware  # whose keywords mypy cannot match with Starlette's protocol
        app = starlette_shop(
            [Middleware(middleware, session=sessions)],
            log_in=lambda request: sessions.login(request, USER, keep=True),
            log_out=sessions.logout,
            user=lambda request: sessions.of(request).greenroom.user_id,
            more=[Route("/tally", _tally, methods=["POST"])],
        )

        def made_up() -> str:
            return f"{new_session_id()}.{secrets.token_urlsafe(32)}"

        yield Shop(app, made_up, calls, adds_up=True)


@asynccontextmanager
async def open_memory(addresses: Mapping[str, str], *, counted: bool = True) -> AsyncIterator[Shop]:
    """Open the shop with Greenroom in the memory of this process."""
    async with _open_greenroom(MemoryStore(), addresses, counted=counted) as shop:
        yield shop


@asynccontextmanager
async def open_cluster(
    addresses: Mapping[str, str], *, counted: bool = True, near_sessions: int = 0
) -> AsyncIterator[Shop]:
    """Open the shop with Greenroom on a cluster; it may keep sessions near, see `near_sessions`."""
    url = addresses["cluster"]
    if near_sessions:
        url += f"{'&' if '?' in url else '?'}near_sessions={near_sessions}"
    async with _open_greenroom(store_from_url(url), addresses, counted=counted) as shop:
        yield shop
