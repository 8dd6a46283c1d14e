"""`Session`: the configuration of an app's sessions.

>>> sessions = Session(secret=os.environ["SESSION_SECRET"], store="greenroom://127.0.0.1:7400,127.0.0.1:7401")
>>> app.add_middleware(SessionMiddleware, session=sessions)

**A session ends 1800 seconds after its last use**, half an hour, as OWASP recommends for ordinary apps.
Starlette's own middleware keeps a session for 14 days; for the same, pass `idle_seconds=14 * 86400`.
"""

import secrets as randomness
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from math import ceil
from typing import Any, Self

from greenroom.clocks import microseconds_by
from greenroom.errors import UsageError
from greenroom.fields import checked_present_user_id, utc_now
from greenroom.memory import MemoryStore
from greenroom.option_kinds import HiddenSecret
from greenroom.options import CALLS, SESSION
from greenroom.secret_file import SecretFile
from greenroom.sessions import BaseSessionStore
from greenroom.urls import store_given
from greenroom.web import secret_strength
from greenroom.web.cookies import (
    PERSISTENT_SECONDS,
    CookieName,
    CookieSettings,
    CookieSigner,
    SameSite,
    name_of,
)
from greenroom.web.events import Events, SessionStatistics
from greenroom.web.file_signer import FileSigner
from greenroom.web.keeping import Keeping, OnEnd, OnUnavailable, UserOfId, Users
from greenroom.web.labels import label_of
from greenroom.web.lifetimes import lifetimes_of
from greenroom.web.moving import bar, moving_of
from greenroom.web.old_sessions import OldSessions
from greenroom.web.option_names import by_name
from greenroom.web.refusals import Refusals
from greenroom.web.request_session import RequestSession, session_of
from greenroom.web.scopes import innermost_visit, visit_in
from greenroom.web.survival import Keep
from greenroom.web.visit import Visit

END_CODE = 4401
IDLE_SECONDS = 1800


class Session(Keeping):
    """The sessions of one app: their store, cookie, lifetime and users. Raises UsageError for bad options.

    - `secret`: signs the cookies. Of several, the first signs and all verify, so that you can replace one
      without logging anyone out. At least 32 bytes (see `greenroom.web.secret_strength`); in `dev` any, or
      none, for a random one. A `SecretFile` is followed as it changes.
    - `app`: the app's name, which the signature covers: so a cookie of one app is none of another that has
      the same secret and name of the cookie.
    - `store`: a store or the URL of one. By default a MemoryStore, with a warning unless `dev`.
    - `dev`: for development on http://localhost: the cookie is not Secure, and nothing warns.
    - `cookie_name`, `path`, `domain`, `same_site` ("lax"), `secure` (True unless `dev`), `partitioned`,
      `host_prefix` (the name begins with `__Host-`, so that no other host of the domain can plant one; by
      default wherever browsers allow it: the cookie is secure, for this host alone and for all its paths) and
      `persistent` (the cookie outlives the browser; the store still decides when a session ends).
    - `idle_seconds`: how long a session lives after its last use. A session in use is extended once it has
      less than five sixths of that left: the only write that a request without changes may cause.
    - `absolute_seconds`: how long it lives at most, however it is used, from its creation or last login on.
    - `serialize_user` converts the argument of `login` to a user id (a str); `deserialize_user`, plain or
      async, converts it back for `await session.greenroom.user()`.
    - `label` converts the User-Agent to the label in a list of devices, at most 256 bytes of it; by default
      the label is the User-Agent itself.
    - `on_unavailable`: if the store does not answer, "closed" answers 503; "anonymous" goes on with an empty
      session, to which writes raise UnavailableError, and sends no cookie.
    - `on_end`: "close" closes a WebSocket whose session has ended, with `end_code`; "event" leaves that to
      handlers, which await `session.greenroom.ended()`.
    - `clock` returns the present, aware.
    - `moves_from`: the sessions of the app's former library. Visitors who have only those keep them: see
      `greenroom.integrations.moving`.
    """

    visit_type: type[Visit] = Visit
    """What `visit` makes one of; `greenroom.observing` puts its own in this place."""

    @by_name
    def __init__(
        self,
        *,
        secret: str | HiddenSecret | Sequence[str | HiddenSecret] | SecretFile | None = None,
        app: str | None = None,
        store: BaseSessionStore | str | None = None,
        dev: bool = False,
        cookie_name: str = "session",
        path: str = "/",
        domain: str | None = None,
        same_site: SameSite = "lax",
        secure: bool | None = None,
        partitioned: bool = False,
        host_prefix: bool | None = None,
        persistent: bool = False,
        idle_seconds: float = IDLE_SECONDS,
        absolute_seconds: float | None = None,
        serialize_user: Callable[[Any], str] | None = None,
        deserialize_user: UserOfId | None = None,
        label: Callable[[str], str | None] | None = None,
        on_unavailable: OnUnavailable = "closed",
        on_end: OnEnd = "close",
        end_code: int = END_CODE,
        clock: Callable[[], datetime] = utc_now,
        moves_from: OldSessions | None = None,
    ) -> None:
        checked = SESSION.checked
        secrets = checked("secret", secret)
        SESSION.check(store=store, dev=dev, secure=secure, host_prefix=host_prefix, persistent=persistent)
        self.idle_seconds: float = checked("idle_seconds", idle_seconds)
        self.absolute_seconds: float | None = checked("absolute_seconds", absolute_seconds)
        self.lifetimes = lifetimes_of(self.idle_seconds, self.absolute_seconds)
        self.on_unavailable: OnUnavailable = checked("on_unavailable", on_unavailable)
        self.on_end: OnEnd = checked("on_end", on_end)
        self.end_code: int = checked("end_code", end_code)
        self.secure = not dev if secure is None else secure
        cookie_name, path, domain = (
            checked("cookie_name", cookie_name),
            checked("path", path),
            checked("domain", domain),
        )
        self.cookie = CookieSettings(
            name=name_of(cookie_name, host_prefix, path, domain, secure=self.secure, dev=dev),
            path=path,
            domain=domain,
            same_site=checked("same_site", same_site),
            secure=self.secure,
            partitioned=checked("partitioned", partitioned),
            max_age_seconds=_max_age(self.absolute_seconds) if persistent else None,
        )
        self.persistent_max_age_seconds = _max_age(self.absolute_seconds)
        self._cookies = CookieName(self.cookie.name)
        # By the name without the prefix, so that turning the prefix on later needs no new secret.
        # A blank separates them, since no cookie's name holds one.
        app = checked("app", app)
        purpose = cookie_name if app is None else f"{cookie_name} {app}"
        self._owns_store = not isinstance(store, BaseSessionStore)
        self.clock: Callable[[], datetime] = checked("clock", clock)
        self.now_us = microseconds_by(self.clock)
        if isinstance(secrets, SecretFile):
            self.signer: CookieSigner = FileSigner(secrets, purpose, self.now_us, strict=not dev)
        else:
            self.signer = CookieSigner(_secrets(secrets, dev=dev), purpose)
        self.store = _store_of(store, self.clock, dev=dev)
        self.users = Users(
            checked("serialize_user", serialize_user), checked("deserialize_user", deserialize_user)
        )
        self.events = Events(self.clock)
        self._label = checked("label", label)
        self.moves_from: OldSessions | None = checked("moves_from", moves_from)
        if self.moves_from is not None:
            self.moves_from.used_by(self.cookie, self.signer)
        moving = self.moves_from is not None and self.moves_from.cookie.name == self.cookie.name
        self.refusals = Refusals(self.cookie.name, random_secret=secrets is None, moving=moving)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.cookie.name!r} in {self.store!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the store if it was made here, from a URL. The middleware does so at the app's shutdown."""
        if self._owns_store:
            await self.store.aclose()

    async def check(self, *, every_shard: bool = False) -> None:
        """Check whether the store can be read, at the start of an app or in a readiness probe.

        The app is ready if some sessions can be read; with `every_shard`, if all can. Raises the errors of
        the store's own `check`: UsageError if another cluster, or something else, listens at its addresses,
        and UnavailableError if no node answers in time. A store without connections has nothing to check.
        """
        CALLS.check(every_shard=every_shard)
        if every_shard:
            await self.store.check(every_shard=True)
        else:
            await self.store.check()  # a store of one's own may know no more than that

    async def clean(self) -> int:
        """Remove expired sessions from the store and return how many that were."""
        return await self.store.clean()

    def reload_secrets(self) -> bool:
        """Read the `SecretFile` now, as at a SIGHUP; return False if it cannot be used, as the log explains.

        It is read by itself within a second of a change, so this only makes sure. No signal handler is
        installed: `loop.add_signal_handler(signal.SIGHUP, sessions.reload_secrets)` is the app's to call.
        Raises UsageError if the secrets do not come from a file.
        """
        if not isinstance(self.signer, FileSigner):
            raise UsageError("secret= of this Session is no SecretFile, so there is nothing to reload")
        return self.signer.reload()

    async def end_old_sessions(self, user_id: str) -> None:
        """Stop moving sessions of a user that are still with the library of `moves_from`.

        Logging out everywhere does this itself; outside a request, call it before `store.delete_by_user`.
        Raises UnavailableError, OutcomeUnknownError, and UsageError for an invalid user id.
        """
        if self.moves_from is not None:
            await bar(self, checked_present_user_id(user_id))

    def statistics(self) -> SessionStatistics:
        """Return the counts of events so far."""
        return self.events.statistics()

    # --- of a request, in any framework that speaks ASGI -------------------------------------------------

    def of(self, connection: Any) -> RequestSession:
        """Return the session of a request, WebSocket or ASGI scope, whatever else stands in its scope.

        Raises UsageError where the middleware does not run.
        """
        scope = connection if isinstance(connection, dict) else connection.scope
        visit = visit_in(scope, self)
        if visit is None:
            raise UsageError("SessionMiddleware does not run here: add it to the app, or look at its skip=")
        if visit.follow is not None and innermost_visit(scope) is visit:
            visit.follow()
            scope["session"] = visit.session
        return session_of(visit)

    def login(
        self,
        connection: Any,
        user: Any,
        data: Mapping[Any, Any] | None = None,
        *,
        idle_seconds: float | None = None,
        persistent: bool | None = None,
        keep: Keep = False,
    ) -> None:
        """Log a user in with the response; see `SessionControl.login`."""
        control = self.of(connection).greenroom
        control.login(user, data, idle_seconds=idle_seconds, persistent=persistent, keep=keep)

    def logout(self, connection: Any) -> None:
        """End the session with the response; see `SessionControl.logout`."""
        self.of(connection).greenroom.logout()

    def logout_everywhere(self, connection: Any, *, keep_current: bool = False) -> None:
        """End all sessions of the user with the response; see `SessionControl.logout_everywhere`."""
        self.of(connection).greenroom.logout_everywhere(keep_current=keep_current)

    def regenerate(self, connection: Any) -> None:
        """Give the session a new id with the response; see `SessionControl.regenerate`."""
        self.of(connection).greenroom.regenerate()

    # --- for who drives visits: the middleware, and adapters of frameworks -------------------------------

    def visit(
        self,
        cookie_headers: Sequence[bytes | str],
        *,
        secure_transport: bool = True,
        user_agent: str | Callable[[], str] = "",
    ) -> Visit:
        """Return the visit of one request, given its Cookie headers. Asks no store.

        The User-Agent is needed only if a session is created: a function is called then.
        """
        session = RequestSession()
        cookies = self._cookies.values(cookie_headers) if cookie_headers else []
        label = partial(self._label_by, user_agent)
        moving = None
        if self.moves_from is not None:
            moving = moving_of(self, cookie_headers, label)
            if moving is not None:
                cookies = moving.ours(cookies)
        visit = self.visit_type(self, session, cookies, secure_transport, label, moving)
        session._greenroom_visit = visit  # noqa: SLF001  each belongs to the other
        return visit

    def _label_by(self, user_agent: str | Callable[[], str]) -> str:
        agent = user_agent() if callable(user_agent) else user_agent
        return label_of(agent, self._label, self.events)


def _secrets(secrets: list[str] | None, *, dev: bool) -> list[str]:
    if secrets is None:
        if not dev:
            raise UsageError(
                "secret is missing: a random str that signs the cookies, the same in all processes. Make one "
                f"with: {secret_strength.COMMAND}"
            )
        return [randomness.token_urlsafe(32)]
    if not dev:
        secret_strength.check(secrets)
    return secrets


def _store_of(
    store: BaseSessionStore | str | None, clock: Callable[[], datetime], *, dev: bool
) -> BaseSessionStore:
    if store is not None:
        return store_given(store, clock)
    if not dev:
        warnings.warn(
            "sessions are kept in the memory of this process: they end with it, and other workers do not see "
            'them. Give Session the store="greenroom://host:port,..." of a cluster, or MemoryStore() '
            "if that is meant, or dev=True",
            stacklevel=4,
        )
    return MemoryStore(clock=clock)


def _max_age(absolute_seconds: float | None) -> int:
    # Rounded up: browsers drop a cookie of Max-Age=0 at once.
    return PERSISTENT_SECONDS if absolute_seconds is None else min(ceil(absolute_seconds), PERSISTENT_SECONDS)
