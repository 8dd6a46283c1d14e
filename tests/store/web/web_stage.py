"""What stories of the middleware need: an app with a faulty store, browsers, WebSockets, and cancellation."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.routing import Route

from greenroom import MemoryStore
from greenroom.testing import FaultyStore, Gate, Library, ManualClock
from greenroom.web import RequestSession, Session, SessionMiddleware, Visit

SECRET = "a secret for tests only, long enough"
SECONDS = 30.0
HOST = "https://app.test"


class FollowingMiddleware(SessionMiddleware):
    """For a framework whose interface is to replace what stands in the scope, as Litestar's is."""

    def follow(self, scope: Any, visit: Visit) -> None:
        visit.follow = lambda: visit.adopt(scope["session"])


class Stage:
    """Sessions over a faulty store that follows a clock; `app(...)` puts handlers behind the middleware."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.store = FaultyStore(MemoryStore(clock=self.clock))
        self.sessions = Session(
            **{"secret": SECRET, "store": self.store, "clock": self.clock, **options},
        )

    def app(self, *handlers: Callable[..., Any], kind: Any = SessionMiddleware, **options: Any) -> Starlette:
        """Return an app that serves each handler at its name."""
        routes = [Route(f"/{each.__name__}", each, methods=["GET", "POST"]) for each in handlers]
        app = Starlette(routes=routes)
        app.add_middleware(kind, session=self.sessions, **options)
        return app

    def count(self, what: str) -> int:
        return int(getattr(self.sessions.statistics(), what))

    def session_id(self, browser: httpx.AsyncClient) -> str | None:
        """Return the id in the browser's cookie."""
        signed = browser.cookies.get(self.sessions.cookie.name)
        return None if signed is None else self.sessions.signer.verify(signed.encode())

    async def data(self, browser: httpx.AsyncClient) -> dict[Any, Any] | None:
        """Return what the store holds for the browser's cookie."""
        session_id = self.session_id(browser)
        record = None if session_id is None else await self.store.inner.get(session_id)
        return None if record is None else record.data


def browser(app: Any, url: str = HOST, **options: Any) -> httpx.AsyncClient:
    """Return a client with a cookie jar that talks to the app."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, **options), base_url=url)


def twin(app: Any, of: httpx.AsyncClient) -> httpx.AsyncClient:
    """Return a second tab: a client with the same cookies now, whose later ones do not mix."""
    other = browser(app)
    for cookie in of.cookies.jar:
        other.cookies.jar.set_cookie(cookie)
    return other


def tell(library: Library, story: Callable[[], Awaitable[Any]]) -> Any:
    """Run a story in a new event loop."""
    return library.run(story, SECONDS)


async def begin(stage: Stage) -> tuple[str, str]:
    """Begin a session; return its id and its Cookie header."""
    visit = stage.sessions.visit(())
    visit.session.greenroom.login("alice", {"n": 0})
    await visit.save()
    assert visit.stored is not None
    (cookie,) = visit.set_cookies()
    return visit.stored.session_id, cookie.partition(";")[0]


async def together(library: Library, *actions: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Run actions at once, and raise what one of them raised."""
    outcomes = await library.gather(*actions)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


async def cancelled_at(library: Library, action: Callable[[], Awaitable[Any]], gate: Gate) -> bool:
    """Start the action, cancel it when it stands at the gate, open that; return whether it was cancelled."""
    if library.name == "asyncio":
        task = asyncio.ensure_future(action())
        await gate.reached()
        task.cancel()
        await library.sleep(0)
        gate.open()
        await asyncio.wait([task])
        return task.cancelled()
    import trio

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(action)
            with trio.CancelScope(shield=True):
                await gate.reached()
                scope.cancel()
                gate.open()
    return scope.cancelled_caught


class Socket:
    """The client's side of one WebSocket, scripted: what it sends, and what the app answered."""

    def __init__(self, *incoming: str, cookie: str = "", extensions: dict[str, Any] | None = None) -> None:
        headers = [(b"host", b"app.test")]
        if cookie:
            headers.append((b"cookie", cookie.encode()))
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss",
            "path": "/socket",
            "raw_path": b"/socket",
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("app.test", 443),
            "subprotocols": [],
            "extensions": {} if extensions is None else extensions,
        }
        self._incoming: deque[dict[str, Any]] = deque(
            [
                {"type": "websocket.connect"},
                *({"type": "websocket.receive", "text": text} for text in incoming),
                {"type": "websocket.disconnect", "code": 1000},
            ]
        )
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        return self._incoming.popleft()

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def header(self, name: bytes) -> bytes | None:
        """Return a header of the first message that the app sent."""
        return dict(self.sent[0].get("headers", ())).get(name)


@contextmanager
def patched_attribute(target: object, name: str, value: object) -> Iterator[None]:
    """Set an attribute for the length of the block."""
    old = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, old)


def session_of(request: Any) -> RequestSession:
    """Return the request's session with its real type."""
    session = request.session
    assert isinstance(session, RequestSession)
    return session
