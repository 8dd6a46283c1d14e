"""Litestar: sessions by Greenroom's middleware, and a `Store` for everything else that Litestar keeps.

>>> app = Litestar(
...     [add_to_cart],
...     plugins=[SessionPlugin(sessions)],
...     stores={"response_cache": GreenroomStore("greenroom://127.0.0.1:7400", namespace="cache")},
... )
>>>
>>> @post("/cart/{sku:str}")
... async def add_to_cart(sku: FromPath[str], session: SessionDep) -> dict[str, int]:
...     cart = session.setdefault("cart", {})
...     cart[sku] = 1
...     return cart

`request.session` is the same object. Litestar's own session middleware works with `GreenroomStore` too, but
writes the whole session on every response and takes over ids that clients make up; the plugin does neither.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

try:
    from litestar.config.app import AppConfig
    from litestar.di import NamedDependency, Provide
    from litestar.exceptions import HTTPException
    from litestar.handlers import ASGIRouteHandler
    from litestar.middleware import DefineMiddleware
    from litestar.plugins import InitPlugin
    from litestar.stores.base import Store
    from litestar.types import Empty, Scope
    from litestar.utils.scope.state import ScopeState
except ImportError as error:
    raise ImportError(
        "greenroom.integrations.litestar needs Litestar; install it with: "
        "pip install 'itsdangerous>=2.2' 'litestar>=2.23,<3'",
        name=error.name,
    ) from None

from greenroom.errors import (
    SessionExistsError,
    SessionNotFoundError,
    UnavailableError,
    UnreadableSessionError,
    UnsupportedError,
    UsageError,
    VersionConflictError,
)
from greenroom.fields import utc_now
from greenroom.options import LITESTAR_PLUGIN, LITESTAR_STORE, LITESTAR_USER
from greenroom.sessions import BaseSessionStore, SessionData
from greenroom.urls import store_given
from greenroom.web.departures import is_departure
from greenroom.web.middleware import SessionMiddleware
from greenroom.web.notices import Notices
from greenroom.web.request_session import RequestSession
from greenroom.web.scopes import innermost_visit
from greenroom.web.session import Session
from greenroom.web.skipping import Skip, skipping
from greenroom.web.visit import Visit

__all__ = ["GreenroomStore", "SessionDep", "SessionPlugin"]

SECONDS_WITHOUT_END = 100 * 365 * 24 * 3600
"""How long a value without `expires_in` is kept: a hundred years from its last `set`."""
ATTEMPTS_MAX = 16

SessionDep = NamedDependency[RequestSession]
"""As the type of a handler's parameter `session`: the session."""

_VALUE, _ENDS = "value", "ends"


class _LitestarMiddleware(SessionMiddleware):
    """Follows `set_session` and `clear_session`, which replace the session in the scope.

    Not below the mount of another ASGI app, whose own middleware may put something else there.
    """

    def follow(self, scope: Any, visit: Visit) -> None:
        """Have the visit adopt what Litestar's handlers put there."""
        handler = scope.get("route_handler")
        if isinstance(handler, ASGIRouteHandler) and handler.is_mount:
            return
        connection = ScopeState.from_scope(scope)
        connection.session_id = None  # of what Litestar notes, all that is left of a `clear_session`

        def adopt() -> None:
            if connection.session_id is Empty:
                connection.session_id = None
                visit.adopt(None)
            visit.adopt(scope.get("session", visit.session))

        visit.follow = adopt


class SessionPlugin(InitPlugin):
    """Gives every handler of an app a session; as `request.session` and as the dependency `session`.

    `skip` and `autoload` are those of `SessionMiddleware`; `dependency` renames the dependency, or leaves it
    out if None. Handlers (and controllers, routers) with a true `exclude_opt_key` among their options get no
    session, as with Litestar's own middleware: `@get("/health", skip_session=True)`.
    """

    def __init__(
        self,
        sessions: Session,
        *,
        skip: Skip = (),
        autoload: bool = True,
        dependency: str | None = "session",
        exclude_opt_key: str | None = "skip_session",
    ) -> None:
        checked = LITESTAR_PLUGIN.checked
        self.sessions: Session = checked("sessions", sessions)
        self._is_skipped = skipping(checked("skip", skip))
        self._autoload: bool = checked("autoload", autoload)
        self._dependency: str | None = checked("dependency", dependency)
        self._exclude_opt_key: str | None = checked("exclude_opt_key", exclude_opt_key)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the middleware, the dependency, and the end of the store at shutdown."""
        middleware: Any = _LitestarMiddleware
        app_config.middleware.insert(
            0, DefineMiddleware(middleware, session=self.sessions, skip=self._skips, autoload=self._autoload)
        )
        # Litestar answers an exception inside all middleware.
        app_config.after_exception.append(_discard)
        app_config.on_shutdown.append(self.sessions.aclose)
        if self._dependency is not None:
            provide = Provide(self._of_connection, sync_to_thread=False)
            app_config.dependencies.setdefault(self._dependency, provide)
        app_config.signature_namespace.setdefault("SessionDep", SessionDep)
        return app_config

    def _skips(self, scope: Any) -> bool:
        handler = scope.get("route_handler") if self._exclude_opt_key is not None else None
        if handler is not None and handler.opt.get(self._exclude_opt_key):
            return True
        return self._is_skipped(scope)

    def _of_connection(self, scope: Scope) -> RequestSession:
        session = self.sessions.of(scope)
        session.mark_accessed()
        return session


async def _discard(error: Exception, scope: Any) -> None:
    """Discard what a handler that failed did to the session.

    An HTTPException below 500 is an answer, and a client that left a WebSocket or a stream no failure.
    """
    visit = innermost_visit(scope)
    if visit is None or (isinstance(error, HTTPException) and error.status_code < 500):
        return
    if not (visit.started and is_departure(error, visit.sending)):
        visit.close()


class GreenroomStore(Store):
    """Any strings as keys, any bytes as values, in a session store or the one that a URL names.

    `namespace` keeps apart what shares a store. Each value is a stored session of its own, at most 1 MiB, and
    has the guarantees of one. `delete_all` needs a store that offers `delete_by_user`. What
    something else wrote under a key, and cannot be read, is no value; `set` puts one in its place.

    Raises UsageError for a value or key that is not text or bytes, UnavailableError, OutcomeUnknownError.
    """

    __slots__ = ("_clock", "_namespace", "_notices", "_owns_store", "_store", "_user_id")

    def __init__(
        self,
        store: BaseSessionStore | str,
        *,
        namespace: str = "litestar",
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        LITESTAR_STORE.check(store=store, clock=clock)
        self._owns_store = isinstance(store, str)
        self._store = store_given(store, clock)
        self._namespace: str = LITESTAR_STORE.checked("namespace", namespace)
        self._clock = clock
        self._notices = Notices(clock)
        # All values of a namespace belong to one user, so that they can be deleted together.
        self._user_id = f"{LITESTAR_USER}{self._namespace}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._namespace!r} in {self._store!r}>"

    async def set(self, key: str, value: str | bytes, expires_in: int | timedelta | None = None) -> None:
        """Set a value that ends after this many seconds; with None or 0 it does not."""
        if not isinstance(value, str | bytes):
            raise UsageError(f"a value is str or bytes, not {type(value).__name__}")
        encoded = value.encode() if isinstance(value, str) else value
        session_id, lifetime = self._id(key), _lifetime(expires_in)
        if lifetime is not None and lifetime <= timedelta(0):
            await self._store.delete(session_id)
            return
        data = {_VALUE: encoded, _ENDS: lifetime is not None}
        for _ in range(ATTEMPTS_MAX):
            expires = self._end(lifetime)
            try:
                await self._store.patch(session_id, set=data, expires=expires)
                return
            except SessionNotFoundError:
                pass
            except (UnreadableSessionError, UsageError):
                # A store may notice only now, when it is to change the value.
                if not await self._ended_unreadable(session_id):
                    raise
            try:
                await self._store.create(
                    SessionData(session_id=session_id, user_id=self._user_id, expires=expires, data=data)
                )
                return
            except SessionExistsError:
                continue  # someone else was faster
        raise UnavailableError("a key was set and deleted by others all the time: repeat this")

    async def get(self, key: str, renew_for: int | timedelta | None = None) -> bytes | None:
        """Return a value, or None. `renew_for` gives it a new end in the same step, if it has one."""
        session_id, lifetime = self._id(key), _lifetime(renew_for)
        if lifetime is not None and lifetime > timedelta(0):
            try:
                found = await self._store.patch(session_id, expect={_ENDS: True}, expires=self._end(lifetime))
                return _value(found)
            except SessionNotFoundError:
                return None
            except (VersionConflictError, UnreadableSessionError, UsageError):
                pass  # it does not end, or the store noticed that it cannot be read
        return _value(await self._found(session_id))

    async def delete(self, key: str) -> None:
        """Delete a value, if there is one."""
        await self._store.delete(self._id(key))

    async def delete_all(self) -> None:
        """Delete all values of the namespace. Raises UnsupportedError if the store lacks `delete_by_user`."""
        if "delete_by_user" not in self._store.features:
            name = type(self._store).__name__
            raise UnsupportedError(f"{name} cannot delete all values at once; it lacks delete_by_user")
        await self._store.delete_by_user(self._user_id)

    async def exists(self, key: str) -> bool:
        """Return whether there is a value."""
        return _value(await self._found(self._id(key))) is not None

    async def expires_in(self, key: str) -> int | None:
        """Return the whole seconds until a value ends; -1 if it does not, None if there is none.

        As Litestar's own stores do.
        """
        found = await self._found(self._id(key))
        if _value(found) is None or found is None:
            return None
        if not found.data.get(_ENDS):
            return -1
        return max(0, int((found.expires - self._clock()).total_seconds()))

    async def delete_expired(self) -> None:
        """Free the memory of values that have ended; stores that do so by themselves do nothing."""
        await self._store.clean()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Close the store if it was made here, from a URL."""
        if self._owns_store:
            await self._store.aclose()

    async def _found(self, session_id: str) -> SessionData | None:
        try:
            return await self._store.get(session_id)
        except UnreadableSessionError as error:
            self._unreadable(error)
            return None

    async def _ended_unreadable(self, session_id: str) -> bool:
        try:
            await self._store.get(session_id)
        except UnreadableSessionError as error:
            self._unreadable(error)
            await self._store.delete(session_id)
            return True
        return False

    def _unreadable(self, error: UnreadableSessionError) -> None:
        self._notices.warn("unreadable", f"a stored value counts as none, because it cannot be read: {error}")

    def _end(self, lifetime: timedelta | None) -> datetime:
        return self._clock() + (timedelta(seconds=SECONDS_WITHOUT_END) if lifetime is None else lifetime)

    def _id(self, key: str) -> str:
        """Return the id that a key is stored under; any key has one, however long and whatever is in it."""
        if not isinstance(key, str):
            raise UsageError(f"a key is a str, not {type(key).__name__}")
        space = self._namespace.encode()
        text = len(space).to_bytes(4, "big") + space + key.encode("utf-8", "surrogatepass")
        return "litestar-" + hashlib.blake2b(text, digest_size=32).hexdigest()


def _lifetime(given: int | timedelta | None) -> timedelta | None:
    """Return a lifetime, or None for one without end. Raises UsageError if it is invalid."""
    if given is None:
        return None
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise UsageError(f"a lifetime is a number of seconds or a timedelta, not a {type(given).__name__}")
    if seconds == 0:
        return None
    if not seconds <= SECONDS_WITHOUT_END:
        raise UsageError("a lifetime is at most a hundred years; None is one without end")
    return timedelta(seconds=max(seconds, -1))


def _value(found: SessionData | None) -> bytes | None:
    value = None if found is None else found.data.get(_VALUE)
    return value if isinstance(value, bytes) else None
