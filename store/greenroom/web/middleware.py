"""The ASGI middleware: a session for every HTTP request and WebSocket, under asyncio and trio.

The middleware verifies the cookie, loads the session and runs the app. It saves the app's changes before the
first message of the response goes out, so that a redirect's target reads them, and once more when the app
call ends, for background tasks and WebSockets. If the app raises, or is cancelled before it answered, it has
changed nothing. The same holds for an answer with a status of 500 or above, since frameworks turn exceptions
into that before this middleware can see them. (`await session.greenroom.save()` saves even so.)
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias

from greenroom.errors import (
    GreenroomError,
    OutcomeUnknownError,
    RemoteProtocolError,
    UnavailableError,
    UsageError,
)
from greenroom.options import MIDDLEWARE
from greenroom.web.accepting import drops_headers_of_accept
from greenroom.web.departures import is_departure
from greenroom.web.ending import REASON, SessionEndedError, SocketEnding
from greenroom.web.option_names import session_options
from greenroom.web.scopes import VISITS_KEY, visit_in
from greenroom.web.session import Session
from greenroom.web.shielding import only_cancelled
from greenroom.web.skipping import Skip, skipping
from greenroom.web.visit import Visit

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

UNCONFIRMED = (UnavailableError, OutcomeUnknownError, RemoteProtocolError)
"""Exceptions of a store that is unreachable or did not answer: the request may be repeated."""

REFUSAL_TEXT = "The session store cannot do this now. Please try again later.\n"
"""The body of the 503. The log says whether the store is away or full."""

CLOSE_TRY_AGAIN_LATER = 1013
SERVER_ERROR = 500

_KINDS = frozenset({"http", "websocket"})
_SECURE = frozenset({"https", "wss"})
_STARTS = {"http.response.start", "websocket.accept", "websocket.close", "websocket.http.response.start"}
_WITH_HEADERS = _STARTS - {"websocket.close"}
_ABSENT: Any = object()
_VARY = (b"vary", b"Cookie")
_first = itemgetter(0)

_log = logging.getLogger("greenroom.web")


class SessionMiddleware:
    """Gives every request a session in `scope["session"]`, which frameworks show as `request.session`.

    Configure it with a `Session` in `session` (or as the first argument after the app), with the options of
    one, or with the keywords of Starlette's middleware of this name: `secret_key`, `session_cookie`,
    `max_age` (here: idle seconds, with a cookie that outlives the browser; None: a cookie that does not),
    `path`, `same_site`, `https_only`, `domain`, `partitioned`. Unlike Starlette's, the cookie is Secure
    unless you pass `https_only=False` or `dev=True`, and without `max_age` a session ends half an hour after
    its last use.

    `skip` names paths that get no session (each with all below it), or is a function of the scope. With
    `autoload=False` handlers call `await session.greenroom.load()` first. Raises UsageError for bad options.
    """

    def __init__(
        self,
        app: App,
        secret_key: Any = None,
        session_cookie: str = _ABSENT,
        max_age: int | None = _ABSENT,
        path: str = _ABSENT,
        same_site: Any = _ABSENT,
        https_only: bool = _ABSENT,  # noqa: FBT001  as Starlette has it
        domain: str | None = _ABSENT,
        partitioned: bool = _ABSENT,  # noqa: FBT001  as Starlette has it
        *,
        session: Session | None = None,
        skip: Skip = (),
        autoload: bool = True,
        **options: Any,
    ) -> None:
        if isinstance(secret_key, Session):  # as people write it who have one
            if session is not None:
                raise UsageError("SessionMiddleware was given two Sessions; give it one, as session=")
            session, secret_key = secret_key, None
        starlette = {
            "session_cookie": session_cookie,
            "max_age": max_age,
            "path": path,
            "same_site": same_site,
            "https_only": https_only,
            "domain": domain,
            "partitioned": partitioned,
        }
        given = {name: value for name, value in starlette.items() if value is not _ABSENT}
        if secret_key is not None:
            given["secret_key"] = secret_key
        MIDDLEWARE.check(session=session, autoload=autoload, **given)
        self.app = app
        self.autoload = autoload
        given_skip = MIDDLEWARE.checked("skip", skip)
        self._skips = skipping(given_skip) if callable(given_skip) or given_skip else None
        if session is not None and (given or options):
            either = ", ".join(sorted({*given, *options}))
            raise UsageError(f"give SessionMiddleware either session= or {either}")
        self.session = Session(**session_options(given, options)) if session is None else session

    def follow(self, scope: Scope, visit: Visit) -> None:
        """Have a visit adopt what its framework puts into `scope["session"]`, where that is its interface.

        Not so here: anything may put its own there, such as the middleware of a mounted app.
        """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, self._closing_the_store(send))
            return
        if kind not in _KINDS or (self._skips is not None and self._skips(scope)):
            await self.app(scope, receive, send)
            return
        if VISITS_KEY in scope and (same := visit_in(scope, self.session)) is not None:
            await self._pass_on(same, scope, receive, send)
            return
        headers = scope["headers"]
        visit = self.session.visit(
            _cookies(headers),
            secure_transport=scope.get("scheme") in _SECURE,
            user_agent=partial(_user_agent, headers),
        )
        self.follow(scope, visit)
        exchange = _Exchange(visit, scope, receive, send)
        if "session" in scope or VISITS_KEY in scope:
            before = _put_into(scope, visit)
        else:
            before = None
            scope["session"], scope[VISITS_KEY] = visit.session, (visit,)
        try:
            # The usual, without a coroutine.
            at_hand = visit.loaded or (self.autoload and visit.load_at_hand())
            error = None if at_hand else await self._loaded(visit)
            if error is None:
                await exchange.run(self.app)
            else:
                await exchange.refuse(error)
        finally:
            if before is not None:
                _put_back(scope, *before)

    async def _pass_on(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request to which an outer middleware of the same `Session` has given a session already."""
        before = _put_into(scope, visit)
        try:
            error = await self._loaded(visit)
            if error is None:
                await self.app(scope, receive, send)
            else:
                await _Exchange(visit, scope, receive, send).refuse(error)
        finally:
            if before is not None:
                _put_back(scope, *before)

    async def _loaded(self, visit: Visit) -> Exception | None:
        """Load the session unless told not to; return why the request cannot be served without it."""
        if self.autoload:
            try:
                await visit.fetch()  # not `load`: `__call__` has asked for what is at hand
            except UNCONFIRMED as error:
                self.session.events.failed("loading a session", error)
                if self.session.on_unavailable == "closed":
                    return error
                visit.go_on_anonymously()
        return None

    def _closing_the_store(self, send: Send) -> Send:
        async def send_after_closing(message: Message) -> None:
            if message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
                await self.session.aclose()
            await send(message)

        return send_after_closing


class _Exchange:
    """One HTTP request with its response, or one WebSocket, and its visit."""

    _connected = False
    _ending: SocketEnding | None = None
    _refused = False
    _streams = False
    _settled: object = _ABSENT

    def __init__(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        self._visit = visit
        self._scope = scope
        self._receive = receive
        self._send = send
        if scope["type"] == "websocket":
            visit.mute = drops_headers_of_accept(scope)
            self._ending = SocketEnding(visit.settings, send)
            visit.on_load = self._ending.loaded

    async def run(self, app: App) -> None:
        """Let the app answer, and save."""
        visit = self._visit
        try:
            await app(self._scope, self.receive, self.send)
        except UNCONFIRMED as error:
            # The handler itself asked the store, for example by session.save().
            visit.settings.events.failed("a request to the session store", error)
            if visit.started:
                raise
            await self.refuse(error)
        except BaseException as error:
            if visit.started and is_departure(error, visit.sending):
                await self._save_what_stands()
                visit.end()
                if self._ended and not only_cancelled(error):
                    return  # it is this middleware that has cut it off
            raise
        else:
            if not self._refused:
                visit.started = True
                # What nobody has touched or loaded since the response began is as quiet as it was then.
                if (visit.touched or visit.stored is not self._settled) and not visit.is_quiet():
                    await self._save_at_the_end()
            visit.end()
            if self._ending is not None and self._ending.ended:
                await self._ending.finish()
        finally:
            # An error page's changes to the session are void, like the handler's.
            visit.close()
            visit.let_go()
            if self._ending is not None:
                self._ending.stop()

    async def send(self, message: Message) -> None:
        """Send a message of the app. Before the first one, save, and send the browser the new id."""
        if self._refused:
            return
        visit, kind = self._visit, message["type"]
        if self._ending is not None and self._ending.ended:
            await self._cut_off(message)
            return
        if not visit.started and kind in _STARTS:
            with_headers = kind in _WITH_HEADERS
            # A WebSocket that is closed before it was accepted carries no cookie.
            visit.started = not with_headers
            if message.get("status", 0) >= SERVER_ERROR:
                visit.close()
            try:
                if not visit.is_quiet():
                    await visit.save()
                elif not visit.touched:
                    self._settled = visit.stored
            except UNCONFIRMED as error:
                visit.settings.events.failed("saving a session", error)
                await self.refuse(error)
                return
            except BaseException:
                # The framework's answer instead must not try to save again.
                visit.close()
                raise
            visit.started = True
            if with_headers:
                message = _with_session_headers(message, visit)
        elif self._streams or message.get("more_body") or kind == "websocket.send":
            await self._goes_on(message)
        try:
            await self._send(message)
        except Exception as error:
            visit.sending = error
            raise
        if self._ending is not None:
            self._ending.sent(message["type"], visit.stored)

    async def _cut_off(self, message: Message) -> None:
        """Drop a message for a WebSocket whose session has ended. Raises SessionEndedError."""
        assert self._ending is not None, "it has ended"
        await self._ending.finish()
        if message["type"] == "websocket.send":
            self._visit.sending = SessionEndedError(REASON)
            raise self._visit.sending

    @property
    def _ended(self) -> bool:
        """Whether this is a WebSocket that was closed because its session had ended."""
        return self._ending is not None and self._ending.ended

    async def _goes_on(self, message: Message) -> None:
        """Extend the session while a response or a WebSocket goes on, and save when a stream ends.

        The app's call may last longer than the stream: until its connection ends, which serves more requests.
        """
        if message.get("more_body") or message["type"] == "websocket.send":
            self._streams = True
            await self._visit.keep_alive()
        elif message["type"] == "http.response.body":
            await self._save_what_stands()

    async def receive(self) -> Message:
        """Return the next message to the app; after a refusal, that the client is gone."""
        if self._refused:
            kind = "websocket" if self._scope["type"] == "websocket" else "http"
            return {"type": f"{kind}.disconnect", "code": CLOSE_TRY_AGAIN_LATER}
        ending = self._ending
        if ending is not None and ending.ended:
            await ending.finish()
            return ending.disconnected()
        message = await self._receive()
        self._connected = True
        if ending is not None:
            if ending.ended:  # meanwhile: whatever the client says is nobody's now
                await ending.finish()
                return ending.disconnected()
            if message["type"] == "websocket.disconnect":
                ending.stop()
        if message["type"] == "websocket.receive":
            await self._visit.keep_alive()
        return message

    async def refuse(self, error: Exception) -> None:
        """Answer 503 instead of the app, whose messages are dropped from now on."""
        self._visit.refuse()
        self._visit.started = self._refused = True
        prefix = "http.response"
        if self._scope["type"] == "websocket":
            if not self._connected:
                await self._receive()
            if "websocket.http.response" not in (self._scope.get("extensions") or {}):
                await self._send({"type": "websocket.close", "code": CLOSE_TRY_AGAIN_LATER})
                return
            prefix = "websocket.http.response"
        body = REFUSAL_TEXT.encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", self._visit.settings.retry_after(error).encode()),
            (b"cache-control", b"no-store"),
        ]
        # Earlier saves stand, and a browser that does not get its new id is logged out.
        start = {"type": f"{prefix}.start", "status": 503, "headers": headers}
        await self._send(_with_session_headers(start, self._visit))
        await self._send({"type": f"{prefix}.body", "body": body, "more_body": False})

    async def _save_at_the_end(self) -> None:
        """Save when the call has ended, with no response left that could report a failure."""
        try:
            await self._visit.save()
        except UNCONFIRMED as error:
            self._visit.settings.events.failed("saving a session after the response", error)
            raise

    async def _save_what_stands(self) -> None:
        """Save at the end of a call that was cut off. Its exception propagates, so this only logs."""
        try:
            await self._visit.save()
        except GreenroomError as error:
            self._visit.settings.events.failed("saving a session at the end of its connection", error)


def _user_agent(headers: Iterable[tuple[bytes, bytes]]) -> str:
    return next((value for name, value in headers if name == b"user-agent"), b"").decode("latin-1")


def _cookies(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the values of the headers of this name. Browsers send a dozen others, which are not walked."""
    pairs = headers if type(headers) is list else list(headers)
    names = [*map(_first, pairs)]
    found = names.count(b"cookie")
    if found == 1:
        return [pairs[names.index(b"cookie")][1]]
    return [value for name, value in pairs if name == b"cookie"] if found else []


def _put_into(scope: Scope, visit: Visit) -> tuple[Any, Any] | None:
    """Show a visit and its session in a scope; return what an outer middleware had put there, if any."""
    session, visits = scope.get("session", _ABSENT), scope.get(VISITS_KEY)
    scope["session"] = visit.session
    if visits is None:
        scope[VISITS_KEY] = (visit,)
        return None if session is _ABSENT else (session, None)
    scope[VISITS_KEY] = (visit, *(each for each in visits if each is not visit))
    return session, visits


def _put_back(scope: Scope, session: Any, visits: Any) -> None:
    scope.pop("session", None)
    scope.pop(VISITS_KEY, None)
    if session is not _ABSENT:
        scope["session"] = session
    if visits is not None:
        scope[VISITS_KEY] = visits


def _with_session_headers(message: Message, visit: Visit) -> Message:
    cookies = () if visit.cookie is None and visit.moving is None else visit.set_cookies()
    # Also where the handler did not look: a cache must not hand one browser's cookie, or its end, to others.
    if not visit.accessed and not cookies:
        return message
    headers = list(message.get("headers", ()))
    if b"vary" in b"".join(map(_first, headers)).lower():
        _vary_by_cookie(headers)
    else:
        headers.append(_VARY)
    if cookies:
        headers += [(b"set-cookie", cookie.encode("ascii")) for cookie in cookies]
    return {**message, "headers": headers}


def _vary_by_cookie(headers: list[tuple[bytes, bytes]]) -> None:
    for index, (name, value) in enumerate(headers):
        if name.lower() == b"vary":
            named = {each.strip().lower() for each in value.split(b",")}
            if not named & {b"cookie", b"*"}:
                headers[index] = (name, value + b", Cookie")
            return
    headers.append(_VARY)
