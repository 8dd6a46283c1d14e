"""Readers of other libraries' sessions, for `Session(moves_from=...)`: moving house without a lost login.

>>> sessions = Session(
...     secret=SECRET,
...     store="greenroom://127.0.0.1:7400",
...     moves_from=StarletteCookies(OLD_SECRET_KEY, user=lambda data: data.get("user_id")),
... )

A visitor whose browser has only the old session keeps data and login; at the first response the old session
ends. `user` finds who is logged in, so that `session.greenroom.user_id`, lists of devices and log-out
everywhere know it from then on. Take `moves_from` away once `SessionStatistics.moved` stands still.

A reader for another library is a subclass of `OldSessions` with `key_of`, `read` and `end`.
"""

import json
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from itsdangerous import BadSignature, TimestampSigner

from greenroom.errors import UnreadableSessionError, UsageError
from greenroom.options import OLD_AIOHTTP, OLD_LITESTAR, OLD_STARLETTE, OLD_STARSESSIONS, OLD_STORE
from greenroom.sessions import BaseSessionStore
from greenroom.web.cookies import PERSISTENT_SECONDS, CookieSettings, CookieSigner
from greenroom.web.lifetimes import Terms, parted
from greenroom.web.old_sessions import LIFETIME_SECONDS, CookieValues, OldSession, OldSessions, UserOfData
from greenroom.web.session import Session

if TYPE_CHECKING:
    from aiohttp_session import AbstractStorage
    from litestar.middleware.session.client_side import CookieBackendConfig
    from quart import Quart

__all__ = [
    "AiohttpStorage",
    "LitestarCookies",
    "LitestarStore",
    "OldSession",
    "OldSessions",
    "OtherStore",
    "QuartCookies",
    "StarletteCookies",
    "StarsessionsStore",
]

ID_BYTES_MAX = 4096
"""Anything longer is not an id: browsers keep no longer cookies."""
PARTS_MAX = 32
"""The most parts of a Litestar cookie that are read."""

_NO_SESSION = {b"", b"null"}
"""Values that libraries give a cookie to remove it."""


class StarletteCookies(OldSessions):
    """The signed cookies of Starlette's own SessionMiddleware, which FastAPI apps have too.

    `secret_key`, `session_cookie`, `max_age`, `path` and `domain` are what that was given. Copies of a cookie
    that was moved are refused afterwards; copies of its earlier values are other sessions, here as there.
    """

    def __init__(
        self,
        secret_key: Any,
        session_cookie: str = "session",
        max_age: int | None = LIFETIME_SECONDS,
        path: str = "/",
        domain: str | None = None,
        *,
        user: UserOfData | None = None,
    ) -> None:
        OLD_STARLETTE.check(session_cookie=session_cookie, max_age=max_age)
        lifetime_seconds = PERSISTENT_SECONDS if max_age is None else max_age
        super().__init__(
            cookie_name=session_cookie,
            path=path,
            domain=domain,
            lifetime_seconds=lifetime_seconds,
            user=user,
        )
        secrets = OLD_STARLETTE.checked("secret_key", secret_key)
        # itsdangerous signs with the last and verifies with all.
        self._signer = TimestampSigner(list(reversed(secrets)))
        self._max_age = None if max_age is None else timedelta(seconds=max_age)

    def key_of(self, value: bytes) -> str | None:
        """Return the cookie if Starlette signed it, however old it is."""
        try:
            self._signer.unsign(value)
        except BadSignature:
            return None
        return value.decode("latin-1")

    async def read(self, key: str) -> OldSession | None:
        """Return what the cookie holds."""
        payload, signed = self._signer.unsign(key.encode("latin-1"), return_timestamp=True)
        expires = None if self._max_age is None else signed + self._max_age
        return OldSession(data=_decoded(_json_of_base64, payload), expires=expires)


class QuartCookies(OldSessions):
    """The signed cookies of Quart's (and Flask's) own sessions, by the settings of the app."""

    def __init__(self, app: "Quart", *, user: UserOfData | None = None) -> None:
        from quart.sessions import SecureCookieSessionInterface

        interface = SecureCookieSessionInterface()
        self._serializer: Any = interface.get_signing_serializer(app)
        self._lifetime = app.permanent_session_lifetime
        super().__init__(
            cookie_name=interface.get_cookie_name(app),
            path=interface.get_cookie_path(app),
            domain=interface.get_cookie_domain(app),
            lifetime_seconds=self._lifetime.total_seconds(),
            user=user,
        )

    def key_of(self, value: bytes) -> str | None:
        """Return the cookie if Quart signed it, however old it is."""
        try:
            self._serializer.loads(value)
        except BadSignature:
            return None
        return value.decode("latin-1")

    async def read(self, key: str) -> OldSession | None:
        """Return what the cookie holds."""
        found, signed = self._serializer.loads(key, return_timestamp=True)
        data = dict(found)
        data.pop("_permanent", None)
        return OldSession(data=data, expires=signed + self._lifetime)


class _Reads(Protocol):
    async def read(self, session_id: str, lifetime: int) -> bytes: ...

    async def remove(self, session_id: str) -> None: ...


class _Deserializes(Protocol):
    def deserialize(self, data: bytes) -> dict[str, Any]: ...


class StarsessionsStore(OldSessions):
    """The sessions of starsessions, in Redis or any other of its stores.

    `store`, `lifetime`, `serializer`, `cookie_name`, `cookie_path` and `cookie_domain` are what its
    middleware was given; the store stays open for as long as the app runs.
    """

    def __init__(
        self,
        store: _Reads,
        *,
        lifetime: int = 0,
        serializer: _Deserializes | None = None,
        cookie_name: str = "session",
        cookie_path: str | None = None,
        cookie_domain: str | None = None,
        user: UserOfData | None = None,
    ) -> None:
        OLD_STARSESSIONS.check(
            store=store, serializer=serializer, cookie_path=cookie_path, cookie_domain=cookie_domain
        )
        self._lifetime: int = OLD_STARSESSIONS.checked("lifetime", lifetime)
        super().__init__(
            cookie_name=cookie_name,
            path=cookie_path or "/",
            domain=cookie_domain,
            lifetime_seconds=self._lifetime or LIFETIME_SECONDS,
            user=user,
        )
        self._store = store
        self._deserialize = json.loads if serializer is None else serializer.deserialize

    def key_of(self, value: bytes) -> str | None:
        """Return the id in the cookie, which is not signed."""
        return _id_in(value)

    async def read(self, key: str) -> OldSession | None:
        """Return the session that the store holds under this id."""
        raw = await self._store.read(session_id=key, lifetime=self._lifetime)
        if not raw:
            return None
        data = _decoded(self._deserialize, raw)
        return OldSession(data=data, created=_created(data.pop("__metadata__", None)))

    async def end(self, key: str) -> None:
        """Remove the session from the store."""
        await self._store.remove(session_id=key)


class LitestarStore(OldSessions):
    """The sessions of Litestar's ServerSideSessionBackend, in any `Store` of Litestar's.

    `store` is the one in which it kept them, opened; `key`, `max_age`, `path` and `domain` are those of its
    ServerSideSessionConfig.
    """

    def __init__(
        self,
        store: Any,
        *,
        key: str = "session",
        max_age: float = LIFETIME_SECONDS,
        path: str = "/",
        domain: str | None = None,
        user: UserOfData | None = None,
    ) -> None:
        OLD_LITESTAR.check(store=store, key=key, max_age=max_age)
        super().__init__(cookie_name=key, path=path, domain=domain, lifetime_seconds=max_age, user=user)
        self._store = store

    def key_of(self, value: bytes) -> str | None:
        """Return the id in the cookie, which is not signed."""
        return _id_in(value)

    async def read(self, key: str) -> OldSession | None:
        """Return the session that the store holds under this id."""
        raw = await self._store.get(key)
        return None if raw is None else OldSession(data=_decoded(msgspec.json.decode, raw))

    async def end(self, key: str) -> None:
        """Delete the session from the store."""
        await self._store.delete(key)


class AiohttpStorage(OldSessions):
    """The sessions of aiohttp-session, in Redis or memcached or in encrypted cookies.

    `storage` is what `aiohttp_session.setup` was given. Its Redis keeps an empty session in the place of one
    that was moved. Raises UsageError for SimpleCookieStorage, whose cookies anyone can forge.
    """

    def __init__(
        self,
        storage: "AbstractStorage",
        *,
        lifetime_seconds: float | None = None,
        user: UserOfData | None = None,
    ) -> None:
        from aiohttp_session import SimpleCookieStorage

        if isinstance(storage, SimpleCookieStorage):
            raise UsageError(
                "SimpleCookieStorage does not sign its cookies, so anyone can forge one with any user in "
                "it; its sessions cannot be moved"
            )
        OLD_AIOHTTP.check(storage=storage)
        if lifetime_seconds is None:
            lifetime_seconds = storage.max_age or LIFETIME_SECONDS
        super().__init__(
            cookie_name=storage.cookie_name,
            path=storage.cookie_params["path"],
            domain=storage.cookie_params["domain"],
            lifetime_seconds=lifetime_seconds,
            user=user,
        )
        self._storage = storage

    def key_of(self, value: bytes) -> str | None:
        """Return the cookie: an id that is not signed, or what the storage has encrypted."""
        return _id_in(value)

    async def read(self, key: str) -> OldSession | None:
        """Return the session that the storage reads from the cookie."""
        session = await self._storage.load_session(self._request(key))
        if session.new:
            return None
        return OldSession(data=dict(session), created=_created({"created": session.created}))

    async def end(self, key: str) -> None:
        """Have the storage save an empty session in its place."""
        from aiohttp import web

        request = self._request(key)
        session = await self._storage.load_session(request)
        session.invalidate()
        await self._storage.save_session(request, web.Response(), session)

    def _request(self, key: str) -> Any:
        # The only parts of a request that storages look at.
        return SimpleNamespace(cookies={self.cookie.name: key})


class OtherStore(OldSessions):
    """The sessions of Greenroom in another store: a `BaseSessionStore` of your own, or another cluster.

    `old` is that store, or the `Session` that the app had, where cookie or secret are others now. User, label
    and lifetimes come from the store, what a login asked for itself ("remember me") from the cookie; `user`
    is for a store that knows no users.
    """

    def __init__(
        self,
        old: BaseSessionStore | Session,
        *,
        lifetime_seconds: float = LIFETIME_SECONDS,
        user: UserOfData | None = None,
    ) -> None:
        super().__init__(lifetime_seconds=lifetime_seconds, user=user)
        OLD_STORE.check(old=old)
        self._store = old.store if isinstance(old, Session) else old
        self._signer: CookieSigner | None = None
        if isinstance(old, Session):
            self.cookie, self._signer = old.cookie, old.signer

    def used_by(self, cookie: CookieSettings, signer: CookieSigner) -> None:
        """Use the cookie and the signer of the `Session` that moves sessions, unless old ones were given."""
        if self._signer is None:
            self.cookie, self._signer = cookie, signer

    def key_of(self, value: bytes) -> str | None:
        """Return the id in the cookie, and the terms of its login, if one of the secrets signed them."""
        assert self._signer is not None
        found = self._signer.read(value)
        return None if found is None else found[0] + found[1].text()

    def terms_of(self, key: str) -> Terms:
        """Return what the login asked for itself."""
        return parted(key)[1]

    async def read(self, key: str) -> OldSession | None:
        """Return the session that the store holds under this id. Raises what its `get` raises."""
        found = await self._store.get(parted(key)[0])
        if found is None:
            return None
        return OldSession(
            data=found.data,
            user_id=found.user_id,
            created=found.created,
            expires=found.expires,
            absolute_expires=found.absolute_expires,
            label=found.label,
        )

    async def end(self, key: str) -> None:
        """Delete the session from the store."""
        await self._store.delete(parted(key)[0])


class LitestarCookies(OldSessions):
    """The encrypted cookies of Litestar's ClientSideSessionBackend, by its `CookieBackendConfig`."""

    def __init__(self, config: "CookieBackendConfig", *, user: UserOfData | None = None) -> None:
        from litestar.middleware.session.client_side import ClientSideSessionBackend

        super().__init__(
            cookie_name=config.key,
            path=config.path,
            domain=config.domain,
            lifetime_seconds=config.max_age,
            user=user,
        )
        self._backend = ClientSideSessionBackend(config)

    def keys(self, cookies: CookieValues) -> list[str]:
        """Return the cookie, or the parts of one that was too long, if Litestar encrypted it."""
        parts = [value for cookie in self._parts(cookies) for value in cookies(cookie.name)[:1]]
        whole = [*cookies(self.cookie.name), b"".join(parts)]
        return [key for key in map(self.key_of, whole) if key is not None]

    def cookies_to_clear(self, cookies: CookieValues) -> list[CookieSettings]:
        """Return the cookie and its parts."""
        return [self.cookie, *self._parts(cookies)]

    def key_of(self, value: bytes) -> str | None:
        """Return the cookie if Litestar encrypted it and it has not ended."""
        return value.decode("latin-1") if self._opened(value) else None

    async def read(self, key: str) -> OldSession | None:
        """Return what the cookie holds."""
        data = self._opened(key.encode("latin-1"))
        return OldSession(data=data) if data else None

    def _opened(self, value: bytes) -> dict[str, Any]:
        if value in _NO_SESSION:
            return {}
        try:
            return self._backend.load_data([value])
        except Exception:  # noqa: BLE001  a client may send any bytes
            return {}

    def _parts(self, cookies: CookieValues) -> list[CookieSettings]:
        found: list[CookieSettings] = []
        for number in range(PARTS_MAX):
            part = replace(self.cookie, name=f"{self.cookie.name}-{number}")
            if not cookies(part.name):
                break
            found.append(part)
        return found


def _created(metadata: Any) -> datetime | None:
    """Return when a session of starsessions began, from its metadata."""
    try:
        return datetime.fromtimestamp(metadata["created"], UTC)
    except (TypeError, KeyError, ValueError, OverflowError):
        return None


def _json_of_base64(payload: bytes) -> Any:
    return json.loads(b64decode(payload))


def _id_in(value: bytes) -> str | None:
    return None if value in _NO_SESSION or len(value) > ID_BYTES_MAX else value.decode("latin-1")


def _decoded(decode: Callable[[bytes], Any], raw: bytes) -> dict[Any, Any]:
    """Return the data in these bytes. Raises UnreadableSessionError, which quotes none of them."""
    try:
        data = decode(raw)
    except Exception as error:  # noqa: BLE001  a serializer may raise anything
        reason = f"decoding it raised {type(error).__name__}"
    else:
        if isinstance(data, dict):
            return data
        reason = f"it is a {type(data).__name__}, no dict"
    raise UnreadableSessionError(f"an old session, of which {reason}")
