"""Quart, under asyncio and (quart-trio) trio: `quart.session` kept by Greenroom.

>>> app = Quart(__name__)
>>> GreenroomSessions(sessions).init_app(app)
>>>
>>> @app.post("/cart/<sku>")
... async def add(sku):
...     session.setdefault("cart", {})[sku] = 1      # nested changes count too
...     return {}

`session.greenroom` is all that is no dict: `session.greenroom.login("alice")`, `session.greenroom.logout()`.
`init_app` sets the session interface and puts Greenroom's ASGI middleware in front of the app, which saves
before a WebSocket is accepted and after background work, and answers 503 when the store does not. The
interface by itself (`app.session_interface = GreenroomSessions(sessions)`) does with what Quart offers one.
"""

from typing import TYPE_CHECKING, Any

try:
    from quart import has_request_context, has_websocket_context, request, session, websocket
    from quart.sessions import SessionInterface, SessionMixin
    from quart.signals import got_request_exception, got_websocket_exception
except ImportError as error:
    raise ImportError(
        "greenroom.integrations.quart needs Quart; install it with: "
        "pip install 'itsdangerous>=2.2' 'quart>=0.20'",
        name=error.name,
    ) from None

from greenroom.errors import UsageError
from greenroom.options import QUART_SESSIONS
from greenroom.web.departures import is_departure
from greenroom.web.middleware import REFUSAL_TEXT, SERVER_ERROR, UNCONFIRMED, SessionMiddleware
from greenroom.web.request_session import RequestSession, put_in_place
from greenroom.web.scopes import innermost_visit, visit_in
from greenroom.web.session import Session
from greenroom.web.visit import Visit

if TYPE_CHECKING:
    from quart import Quart
    from quart.wrappers import Response
    from quart.wrappers.base import BaseRequestWebsocket

__all__ = ["GreenroomSessions", "QuartSession"]


class QuartSession(RequestSession, SessionMixin):
    """The object behind `quart.session`: a `RequestSession` with the attributes that Quart expects."""

    __slots__ = ()

    @property
    def new(self) -> bool:  # type: ignore[override]  # a plain attribute there
        """Whether there is nothing in the store yet."""
        return not self._greenroom_visit.is_stored

    @property
    def accessed(self) -> bool:
        """Whether the handler looked at what is in the session."""
        return self._greenroom_visit.accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        """Ignore this: Quart 0.23 and later set it whenever they touch a session themselves."""

    @property
    def modified(self) -> bool:
        """Whether it differs from what was loaded or saved last, at any depth."""
        return self._greenroom_visit.is_modified()

    @modified.setter
    def modified(self, value: bool) -> None:
        """Note a look at the session; changes are found by comparison."""
        self._take_note(value)

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser: by `Session(persistent=...)`, or as the login asked."""
        return self._greenroom_visit.is_persistent

    @permanent.setter
    def permanent(self, value: bool) -> None:
        """Raise UsageError if this is not as configured."""
        if value != self.permanent:
            raise UsageError(
                "whether the cookie outlives the browser is one choice for the whole app, "
                f"Session(persistent={value}), and for one session that of its login, "
                f"session.greenroom.login(user, persistent={value})"
            )


class GreenroomSessions(SessionInterface):
    """Quart's session interface over a `Session`, which holds the cookie's and the lifetimes' options.

    Quart's SESSION_COOKIE_ settings and SECRET_KEY mean nothing here.
    """

    def __init__(self, sessions: Session) -> None:
        self.sessions: Session = QUART_SESSIONS.checked("sessions", sessions)
        # Quart answers an exception inside all middleware, so a signal tells that a handler failed and that
        # its changes to the session are void.
        got_request_exception.connect(self._discard)
        got_websocket_exception.connect(self._discard)

    def init_app(self, app: "Quart") -> None:
        """Keep the sessions of this app."""
        either: Any = app  # its attributes are typed as what Quart itself puts there
        either.session_interface = self
        either.asgi_app = SessionMiddleware(either.asgi_app, session=self.sessions)

    async def open_session(self, app: "Quart", request: "BaseRequestWebsocket") -> QuartSession:
        """Return the session of a request or WebSocket, loaded.

        A store that does not answer makes it one without content, in which writes raise UnavailableError and
        with which, unless `on_unavailable="anonymous"`, the response becomes a 503.
        """
        scope: Any = request.scope
        driven = visit_in(scope, self.sessions)
        if driven is not None:
            found = put_in_place(driven, QuartSession())
            if innermost_visit(scope) is driven:
                scope["session"] = found
            return found
        visit = self.sessions.visit(
            request.headers.getlist("cookie"),
            secure_transport=request.scheme in {"https", "wss"},
            user_agent=request.headers.get("user-agent", ""),
        )
        found = put_in_place(visit, QuartSession())
        # Once Quart has a WebSocket's session, it offers no way to send a cookie.
        visit.started = scope["type"] == "websocket"
        try:
            await visit.load()
        except UNCONFIRMED as error:
            self.sessions.events.failed("loading a session", error)
            visit.go_on_anonymously()
        visit.accessed = False
        return found

    async def save_session(  # type: ignore[override]  # Quart's type does not say that it may be None
        self, app: "Quart", session: Any, response: "Response | None"
    ) -> None:
        """Save the changes and set the cookie; `response` is None after a WebSocket."""
        visit: Visit = session._greenroom_visit  # noqa: SLF001  the way from a session to its visit
        if self._is_driven_elsewhere(visit):
            return
        try:
            if visit.unavailable and self.sessions.on_unavailable == "closed":
                self._refuse(visit, response)
                return
            if response is not None and response.status_code >= SERVER_ERROR:
                visit.close()
            failed = visit.closed
            await visit.save()
        except UNCONFIRMED as error:
            self.sessions.events.failed("saving a session", error)
            self._refuse(visit, response, error)
            return
        finally:
            if response is None:
                visit.close()
        visit.started = True
        if not failed:
            # Nothing is saved after this, whatever a streamed body or a task does to the session.
            visit.end()
            visit.let_go()
        if response is not None:
            _tell_browser(visit, response)

    def _is_driven_elsewhere(self, visit: Visit) -> bool:
        connection: Any = request if has_request_context() else websocket if has_websocket_context() else None
        return connection is not None and visit_in(connection.scope, self.sessions) is visit

    def _refuse(self, visit: Visit, response: "Response | None", error: Exception | None = None) -> None:
        visit.refuse()
        if response is not None:
            response.headers.clear()
            response.status_code = 503
            response.set_data(REFUSAL_TEXT)
            response.content_type = "text/plain; charset=utf-8"
            response.headers["Retry-After"] = self.sessions.retry_after(error)
            response.headers["Cache-Control"] = "no-store"
            _tell_browser(visit, response)

    async def _discard(self, app: Any, *, exception: BaseException, **_more: Any) -> None:
        if app.session_interface is self and (has_request_context() or has_websocket_context()):
            current: Any = session
            visit: Visit = current._greenroom_visit  # noqa: SLF001  the way from a session to its visit
            if not (visit.started and is_departure(exception, visit.sending)):
                visit.close()


def _tell_browser(visit: Visit, response: "Response") -> None:
    """Send the cookies that are due, even with a refusal: what was saved before it stands."""
    cookies = visit.set_cookies()
    if visit.accessed or cookies:
        response.vary.add("Cookie")
    for cookie in cookies:
        response.headers.add("Set-Cookie", cookie)
