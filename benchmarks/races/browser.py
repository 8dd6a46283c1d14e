"""A browser that talks ASGI to an app in this process: a cookie jar, and races scripted by gates.

Headers count from the moment they are sent, as in a real browser: Set-Cookie changes the jar then, and a
redirect can be followed then (`at_headers`), while the app is still busy with the same response.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeAlias

Message: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]

GATE_KEY = "benchmarks.gate"
"""Where a scope holds the gate at which its handler waits, after it has read and before it writes."""
_PATIENCE_SECONDS = 60.0


class Gate:
    """Where handlers wait until they are told to go on."""

    def __init__(self, expected: int = 1) -> None:
        self._missing = expected
        self._all_here = asyncio.Event()
        self._open = asyncio.Event()

    async def wait(self) -> None:
        """Wait, as a handler."""
        self._missing -= 1
        if not self._missing:
            self._all_here.set()
        await self._open.wait()

    async def until_all_wait(self) -> None:
        """Return once as many handlers as expected wait here. Raises TimeoutError."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self._all_here.wait()

    def open(self) -> None:
        """Let all of them go on."""
        self._open.set()


class Answer(NamedTuple):
    """A response."""

    status: int
    set_cookies: list[str]
    body: bytes

    def json(self) -> Any:
        """Return what the body says."""
        return json.loads(self.body)


class CookieChange(NamedTuple):
    """What a Set-Cookie header does: a new value, or None for removal."""

    name: str
    value: str | None


def cookie_change(header: str) -> CookieChange:
    """Return what a browser does with a Set-Cookie header; Max-Age goes before Expires (RFC 6265, 5.3)."""
    pair, *attributes = header.split(";")
    name, _, value = (part.strip() for part in pair.partition("="))
    said = {}
    for attribute in attributes:
        key, _, text = attribute.partition("=")
        said[key.strip().lower()] = text.strip()
    if "max-age" in said:
        gone = int(said["max-age"]) <= 0
    elif "expires" in said:
        ends = parsedate_to_datetime(said["expires"])
        gone = (ends if ends.tzinfo else ends.replace(tzinfo=UTC)) <= datetime.now(UTC)
    else:
        gone = False
    return CookieChange(name, None if gone else value)


class Browser:
    """Sends requests with the cookies it has been given."""

    def __init__(self, app: App, cookies: dict[str, str] | None = None) -> None:
        self._app = app
        self.cookies = dict(cookies or {})

    def another(self) -> "Browser":
        """Return a browser with a copy of the cookies, as of someone who got hold of them."""
        return Browser(self._app, self.cookies)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        gate: Gate | None = None,
        at_headers: Callable[[], Awaitable[None]] | None = None,
    ) -> Answer:
        """Send a request and return the response. Raises TimeoutError, and what the app raises."""
        statuses: list[int] = []
        set_cookies: list[str] = []
        body = bytearray()
        ended = asyncio.Event()
        unread = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            if unread:
                return unread.pop()
            await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
                for name, value in message.get("headers", ()):
                    if bytes(name).lower() == b"set-cookie":
                        set_cookies.append(bytes(value).decode())
                        self._keep(set_cookies[-1])
                if at_headers is not None:
                    await at_headers()
            else:
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    ended.set()

        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self._app(self._scope(method, path, gate), receive, send)
        return Answer(statuses[0], set_cookies, bytes(body))

    async def see(self) -> dict[str, Any]:
        """Return what the shop's page `/session` says: `user` and `data`."""
        answer = await self.ask("GET", "/session")
        if answer.status != 200:
            raise RuntimeError(f"/session answered {answer.status}")
        seen: dict[str, Any] = answer.json()
        return seen

    def _keep(self, header: str) -> None:
        name, value = cookie_change(header)
        if value is None:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value

    def _scope(self, method: str, path: str, gate: Gate | None) -> dict[str, Any]:
        headers = [(b"host", b"shop.example"), (b"user-agent", b"benchmark")]
        if self.cookies:
            pairs = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            headers.append((b"cookie", pairs.encode()))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 50000),
            "server": ("shop.example", 443),
            "state": {},
            "extensions": {},
            GATE_KEY: gate,
        }


async def pass_gate(scope: Any) -> None:
    """Wait where the request was told to, if it was."""
    gate = scope.get(GATE_KEY)
    if gate is not None:
        await gate.wait()
