"""aiohttp's server, by way of aiohttp-session: a storage for `aiohttp_session.setup`.

>>> aiohttp_session.setup(app, GreenroomStorage(sessions))
>>>
>>> async def add(request):
...     session = await aiohttp_session.get_session(request)
...     session.setdefault("cart", {})[request.match_info["sku"]] = 1      # nested changes count too
...     return web.Response()

`session.greenroom` is all that is no dict: `session.greenroom.login("alice")`, `session.greenroom.logout()`,
`await session.greenroom.devices()`. Apps that keep the user's id in the session name its key instead:
`GreenroomStorage(sessions, user_key="user_id")`; a change of that value is a login, with a new id.
"""

import asyncio
from copy import deepcopy
from functools import partial
from typing import Any

try:
    import aiohttp_session
    from aiohttp import web
except ImportError as error:
    raise ImportError(
        "greenroom.integrations.aiohttp needs aiohttp and aiohttp-session; install them with: "
        "pip install 'itsdangerous>=2.2' 'aiohttp>=3.10' 'aiohttp-session>=2.12'",
        name=error.name,
    ) from None

from greenroom.errors import UsageError
from greenroom.integrations.users import follow_user
from greenroom.options import AIOHTTP_STORAGE
from greenroom.turns import pause
from greenroom.web.control import SessionControl
from greenroom.web.ending import REASON, Ending
from greenroom.web.middleware import REFUSAL_TEXT, SERVER_ERROR, UNCONFIRMED
from greenroom.web.session import Session
from greenroom.web.survival import Keep
from greenroom.web.visit import Visit

__all__ = ["GreenroomSession", "GreenroomStorage"]

ATTEMPT_SECONDS, ATTEMPT_SECONDS_MAX = 0.01, 1.0
"""How long to wait before a WebSocket that is not open yet is closed again: twice as long each time."""

_VISIT = web.RequestKey("greenroom_visit", Visit) if hasattr(web, "RequestKey") else "greenroom_visit"


class GreenroomSession(aiohttp_session.Session):
    """What `get_session` returns. Changes at any depth are found by comparison, so `changed()` is not needed.

    `visit` is None for one that `new_session` made: it takes the place of the request's when it is saved.
    """

    def __init__(self, visit: Visit | None) -> None:
        super().__init__(None, data=None, new=visit is None or not visit.is_stored)
        self._visit = visit
        if visit is not None:
            self._mapping: Any = visit.session
            if visit.stored is not None:
                self._created = int(visit.stored.created.timestamp())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'new' if self.new else 'stored'}>"

    # A copy is the data alone: behind this are the store and the secret.

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return deepcopy(dict(self), memo)

    def __reduce_ex__(self, _protocol: object) -> tuple[type, tuple[dict[Any, Any]]]:
        return dict, (dict(self),)

    @property
    def greenroom(self) -> SessionControl:
        """Everything that Greenroom offers beyond a dict. Raises UsageError for one that is not saved yet."""
        if self._visit is None:
            raise UsageError(
                "what new_session() returned is a plain session until the response; get_session(request) "
                "returns one whose greenroom.login(user) gives it a new id"
            )
        return SessionControl(self._visit)

    @property
    def _changed(self) -> bool:
        # Always saved: that is where changes are found, and where a session in use is extended.
        return True

    @_changed.setter
    def _changed(self, value: bool) -> None:
        return

    @property
    def identity(self) -> str | None:
        """The session's handle, which names it and is no secret; None if it is not stored."""
        return None if self._visit is None else self._visit.handle

    @property
    def max_age(self) -> int | None:
        """None: how long sessions live is one choice for the app."""
        return None

    @max_age.setter
    def max_age(self, value: int | None) -> None:
        """Raise UsageError unless this is None."""
        if value is not None:
            raise UsageError("how long sessions live is one choice for the app: Session(idle_seconds=...)")

    def invalidate(self) -> None:
        """Remove everything; a session left empty is deleted."""
        if self._visit is None:
            self._mapping = {}
        else:
            self._visit.session.clear()

    def set_new_identity(self, identity: Any) -> None:
        """Raise UsageError: ids are minted by Greenroom."""
        raise UsageError("ids are minted by Greenroom; session.greenroom.regenerate() gives a new one")


class GreenroomStorage(aiohttp_session.AbstractStorage):
    """Keeps aiohttp-session's sessions by a `Session`, which has the options of cookie and lifetimes.

    `user_key` names the key of the session under which the app keeps the id of who is logged in, a str. With
    it, `keep` says what survives of an anonymous session at a login, as that of `session.greenroom.login`.
    """

    def __init__(self, sessions: Session, *, user_key: str | None = None, keep: Keep = False) -> None:
        AIOHTTP_STORAGE.check(sessions=sessions)
        self._keep: bool | frozenset[str | int] = AIOHTTP_STORAGE.checked("keep", keep)
        cookie = sessions.cookie
        super().__init__(
            cookie_name=cookie.name,
            domain=cookie.domain,
            path=cookie.path,
            secure=cookie.secure,
            samesite=cookie.same_site.capitalize(),
        )
        self.sessions = sessions
        self._user_key: str | None = AIOHTTP_STORAGE.checked("user_key", user_key)

    def close_sockets(self, app: web.Application) -> None:
        """Have each WebSocket of an app closed when its session ends, unless `on_end="event"`.

        Call it before the app starts, for each app whose handlers prepare WebSockets.
        """
        app.on_response_prepare.append(self._watch_socket)

    async def _watch_socket(self, request: web.Request, response: web.StreamResponse) -> None:
        if isinstance(response, web.WebSocketResponse) and self.sessions.on_end == "close":
            visit = await self._visit_of(request)
            ending = Ending(self.sessions, partial(_close, response, self.sessions.end_code, request.task))
            ending.begin(visit.stored)
            _stop_with(request, ending)

    async def new_session(self) -> GreenroomSession:
        """Return an empty session with a new id; saving it ends the one that the browser has."""
        return GreenroomSession(None)

    async def load_session(self, request: web.Request) -> GreenroomSession:
        """Return the session of the request's cookie; empty if there is none.

        Raises HTTPServiceUnavailable if the store does not answer, unless `on_unavailable="anonymous"`.
        """
        visit = await self._visit_of(request)
        visit.accessed = True
        return GreenroomSession(visit)

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: aiohttp_session.Session
    ) -> None:
        """Write the changes and set the cookie. Raises HTTPServiceUnavailable if the store is away."""
        visit = await self._visit_of(request)
        if visit.over:
            return  # by the middleware of an app below
        if response.status >= SERVER_ERROR:
            visit.close()  # a handler that failed has done nothing
        replaced = isinstance(session, GreenroomSession) and session._visit is None  # noqa: SLF001  made here
        if replaced:
            self._replace(visit, dict(session))
        if self._user_key is not None and visit.is_modified():
            follow_user(visit, self._user_key, self._keep, replaced=replaced)
        failed = visit.closed
        try:
            await visit.save()
        except UNCONFIRMED as error:
            visit.refuse()
            unavailable = self._unavailable("saving a session", error)
            _tell_browser(visit, unavailable)
            raise unavailable from None
        visit.started = True
        if not failed:
            # Nothing is saved after this, so changing the session must raise from now on.
            visit.end()
            visit.let_go()
        _tell_browser(visit, response)

    async def _visit_of(self, request: web.Request) -> Visit:
        visit: Visit | None = request.get(_VISIT)
        if visit is not None:
            return visit
        visit = self.sessions.visit(
            request.headers.getall("cookie", ()),
            secure_transport=request.secure,
            user_agent=request.headers.get("user-agent", ""),
        )
        # aiohttp-session saves nothing after a WebSocket, so whatever needs a cookie is refused at once.
        visit.started = request.headers.get("upgrade", "").lower() == "websocket"
        try:
            await visit.load()
        except UNCONFIRMED as error:
            unavailable = self._unavailable("loading a session", error)
            if self.sessions.on_unavailable == "closed":
                visit.refuse()
                raise unavailable from None
            visit.go_on_anonymously()
        request[_VISIT] = visit
        return visit

    def _replace(self, visit: Visit, data: dict[str, Any]) -> None:
        """Give the browser a new id with this data alone, as apps do at a login to prevent fixation."""
        visit.accessed = True
        if not data:
            visit.logout()
            return
        visit.regenerate()
        if visit.user_id is not None and self._user_key is None:
            visit.user_id = None
        if data != visit.contents():
            dict.clear(visit.session)
            visit.session.update(data)

    def _unavailable(self, action: str, error: Exception) -> web.HTTPServiceUnavailable:
        self.sessions.events.failed(action, error)
        headers = {"Retry-After": self.sessions.retry_after(error), "Cache-Control": "no-store"}
        return web.HTTPServiceUnavailable(headers=headers, text=REFUSAL_TEXT)


async def _close(socket: web.WebSocketResponse, code: int, task: "asyncio.Task[Any] | None") -> None:
    """Close a WebSocket of that task, which may still be on its way to being open."""
    seconds = ATTEMPT_SECONDS
    while True:
        try:
            # Not drained: until a client has read what is on its way, its handler would still hear it.
            await socket.close(code=code, message=REASON.encode(), drain=False)
        except RuntimeError:  # it is not open yet
            if task is None or task.done():
                return
            await pause(seconds)
            seconds = min(2 * seconds, ATTEMPT_SECONDS_MAX)
        else:
            return


def _stop_with(request: web.Request, ending: Ending) -> None:
    """Watch no longer than the request's handler runs."""
    task = request.task
    if task is not None:
        task.add_done_callback(lambda _: ending.stop())


def _tell_browser(visit: Visit, response: web.StreamResponse) -> None:
    """Send the cookies that are due, even with a refusal: what was saved before it stands."""
    cookies = visit.set_cookies()
    if visit.accessed or cookies:
        response.headers.add("Vary", "Cookie")
    for cookie in cookies:
        response.headers.add("Set-Cookie", cookie)
