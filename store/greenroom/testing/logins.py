"""Being logged in, for tests of pages that need it: no password, no login form.

>>> client = TestClient(app, base_url="https://testserver")
>>> login_as(client, "alice", cart={"sku-1": 2})
>>> client.get("/account")

The session is a real one, in the app's own store; only the cookie is put into the client's jar by hand. With
a client that is async, the same call returns something to await.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from email.message import Message
from threading import Thread
from typing import Any, NamedTuple
from urllib.request import Request

from greenroom.errors import UsageError
from greenroom.options import LOGIN, TESTING

LABEL = "login_as"


def login_as(
    client: Any,
    user_id: str,
    /,
    *,
    session: Any = None,
    idle_seconds: float | None = None,
    persistent: bool | None = None,
    **data: Any,
) -> Any:
    """Give this test client a session of this user, with this data.

    `idle_seconds` and `persistent` are those of `session.greenroom.login`.

    `client` is Starlette's or FastAPI's TestClient, or an httpx client over an app. The `Session` is found in
    the app's middleware; where it cannot be, hand it over as `session`. Returns the session's handle, or an
    awaitable of it if the client is async. Raises UsageError if there is no Session to be found.
    """
    TESTING.check(session=session)
    LOGIN.check(idle_seconds=idle_seconds, persistent=persistent)
    sessions = _session_of(client) if session is None else session

    async def login() -> str:
        visit = sessions.visit((), user_agent=LABEL)
        visit.session.greenroom.login(user_id, data, idle_seconds=idle_seconds, persistent=persistent)
        await visit.save()
        _put(client, sessions, visit.cookie)
        return str(visit.handle)

    return login() if hasattr(client, "aclose") else _finished(login)


def _put(client: Any, sessions: Any, header: str) -> None:
    """Put the cookie into the client's jar by the jar's own rules, as if the app had set it.

    So it lies where one that the app sets will lie, whatever the host: a name, an address, one of IPv6.
    """
    headers = Message()
    headers["Set-Cookie"] = header
    jar = client.cookies.jar
    name, _, signed = header.partition(";")[0].partition("=")
    jar.extract_cookies(_Response(headers), Request(str(client.base_url)))  # noqa: S310  nothing is opened
    for cookie in jar:
        if cookie.name == name and cookie.value == signed:
            cookie.secure = False  # sent over http and ws too, on which test clients insist for WebSockets
            return
    raise UsageError(
        f"the client takes no cookie of domain {sessions.cookie.domain!r} at {client.base_url.host}; give it "
        "a base_url= of that domain"
    )


class _Response(NamedTuple):
    """What a cookie jar takes for a response."""

    headers: Message

    def info(self) -> Message:
        """Return the headers."""
        return self.headers


def _session_of(client: Any) -> Any:
    from greenroom.web import SessionMiddleware

    transport = getattr(client, "_transport", None)
    for start in (getattr(client, "app", None), getattr(transport, "app", None)):
        for app in _layers(start):
            if isinstance(app, SessionMiddleware):
                return app.session
    raise UsageError(
        "login_as finds no SessionMiddleware in this client's app; hand its Session over: "
        "login_as(client, user_id, session=sessions)"
    )


def _layers(app: Any) -> Iterator[Any]:
    """Yield an app and what it wraps, through Starlette's and Litestar's stacks, and wrappers with `app`."""
    seen: set[int] = set()
    waiting = [app]
    while waiting:
        layer = waiting.pop(0)
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        if getattr(layer, "middleware_stack", layer) is None and callable(
            getattr(layer, "build_middleware_stack", None)
        ):
            # As Starlette does at the first request.
            layer.middleware_stack = layer.build_middleware_stack()
        waiting.extend(getattr(layer, name, None) for name in ("middleware_stack", "asgi_handler", "app"))


def _finished(action: Callable[[], Awaitable[str]]) -> str:
    """Run an async action to its end in an event loop of its own, whether or not this thread has one."""
    outcome: list[Any] = []

    async def main() -> str:
        return await action()

    def run() -> None:
        try:
            outcome.append((asyncio.run(main()), None))
        except BaseException as error:  # noqa: BLE001  raised on in the caller's thread
            outcome.append((None, error))

    thread = Thread(target=run, name="login_as")
    thread.start()
    thread.join()
    result, error = outcome[0]
    if error is not None:
        raise error
    return str(result)
