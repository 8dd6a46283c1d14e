"""starsessions: a store for its middleware, as a bridge for apps on their way to Greenroom's own.

>>> store = GreenroomStore("greenroom://127.0.0.1:7400", user_key="user_id")
>>> app.add_middleware(SessionAutoloadMiddleware)
>>> app.add_middleware(SessionMiddleware, store=store, lifetime=14 * 86400, rolling=True)

starsessions hands a store the whole session as bytes, at every response. This store opens them: it stores the
data itself, and what it hands out carries, in the metadata that starsessions brings back, the state that was
loaded: sealed, since apps show metadata. So it writes the difference only, path by path, and nothing where
there is none; a write that comes after a logout or login of the same session is dropped.
`regenerate_session_id` and a change of `user_key` become one atomic rotation, after which the old id is dead.
Ids that clients make up are never adopted.

The sessions are those of `greenroom.web`: once the app uses Greenroom's middleware, the data is there. (Only
the cookies differ: Greenroom's are signed.)
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec

try:
    from starsessions import JsonSerializer
    from starsessions.stores import SessionStore
except ImportError as error:
    raise ImportError(
        "greenroom.integrations.starsessions needs starsessions; install it with: "
        "pip install 'starsessions>=2.2,<3'",
        name=error.name,
    ) from None

from greenroom.codec import decode_data
from greenroom.errors import SessionNotFoundError, UnreadableSessionError, UsageError
from greenroom.fields import datetime_of, utc_now
from greenroom.ids import new_session_id
from greenroom.integrations.sealing import Seal
from greenroom.integrations.users import kept_at_login, user_in
from greenroom.options import STARSESSIONS_STORE
from greenroom.sessions import BaseSessionStore, SessionData
from greenroom.urls import store_given
from greenroom.web.difference import difference
from greenroom.web.errors import DROPPED, newer
from greenroom.web.notices import Notices
from greenroom.web.survival import Keep, after_login, kept_by
from greenroom.web.traces import UNKNOWN, trace
from greenroom.web.writes import ended, may_be_sound, patched, rotated

__all__ = ["GreenroomStore", "Serializer"]

BROWSER_SECONDS = 24 * 3600.0
RENEWAL_SHARE = 6
"""A rolling session's end is moved once it would move by more than this part of the lifetime."""

_METADATA, _LOADED = "__metadata__", "greenroom"

_log = logging.getLogger("greenroom.integrations.starsessions")


class Serializer(Protocol):
    """What starsessions calls a serializer."""

    def serialize(self, data: Any) -> bytes:
        """Return the data as bytes."""

    def deserialize(self, data: bytes) -> dict[str, Any]:
        """Return the data in these bytes; an empty dict for none."""


class _Loaded(msgspec.Struct, frozen=True, array_like=True):
    """The state that a request loaded. It stays in this process, sealed in starsessions' metadata.

    `newer` is one that a later version has stored, of which no more is known than its id.
    """

    session_id: str
    expires_us: int = 0
    user_id: str | None = None
    created_us: int = 0
    data: bytes = b""
    newer: bool = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class GreenroomStore(SessionStore):
    """Keeps starsessions' sessions in a session store, or the one that a URL names.

    - `user_key`: the key of the session under which the app keeps the id of who is logged in. With it, the
      store can list and end sessions by user, and a login gets a new id.
    - `keep`: what survives of an anonymous session at such a login: its keys, such as `("cart",)`, True for
      everything, False for nothing.
    - `serializer`: the one that starsessions' middleware is given, if it is given one.
    - `browser_seconds`: how long a session of `lifetime=0` is kept after its last use.

    Raises UsageError for bytes that the serializer cannot read, UnavailableError, OutcomeUnknownError.
    """

    def __init__(
        self,
        store: BaseSessionStore | str,
        *,
        user_key: str | None = None,
        keep: Keep = False,
        serializer: Serializer | None = None,
        browser_seconds: float = BROWSER_SECONDS,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        checked = STARSESSIONS_STORE.checked
        STARSESSIONS_STORE.check(store=store, serializer=serializer, clock=clock)
        self._owns_store = isinstance(store, str)
        self._store = store_given(store, clock)
        self._user_key: str | None = checked("user_key", user_key)
        self._kept = kept_by(checked("keep", keep))
        self._serializer: Serializer = JsonSerializer() if serializer is None else serializer
        self._browser_seconds: float = checked("browser_seconds", browser_seconds)
        self._clock = clock
        self._notices = Notices(clock)
        self._seal = Seal()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._store!r}>"

    async def aclose(self) -> None:
        """Close the store if it was made here, from a URL."""
        if self._owns_store:
            await self._store.aclose()

    async def read(self, session_id: str, lifetime: int) -> bytes:
        """Return the session as bytes; empty if there is no such session, or this is not an id.

        One that cannot be read, by this store or by the serializer, is no session. If a later version may
        have stored it, it is not overwritten either: a write raises UnavailableError then, unless the app
        logs a user in or gives the session a new id.
        """
        try:
            stored = await self._store.get_stored(session_id)
            if stored is None:
                trace(_log, session_id, UNKNOWN)
                return b""
            content = stored.decoded()
        except UsageError:
            return b""  # a cookie may hold anything
        except UnreadableSessionError as error:
            self._unreadable(str(error))
            seconds = lifetime if lifetime > 0 else self._browser_seconds
            if not may_be_sound(error, _micros(self._clock()), round(seconds * 1e6)):
                return b""
            created, content = self._clock().timestamp(), {}
            loaded = _Loaded(session_id, newer=True)
        else:
            created = stored.created.timestamp()
            loaded = _Loaded(session_id, stored.expires_us, stored.user_id, stored.created_us, stored.data)
        metadata = {"created": created, "lifetime": lifetime, _LOADED: self._sealed(loaded)}
        try:
            return self._serializer.serialize({**content, _METADATA: metadata})
        except Exception as error:  # noqa: BLE001  a serializer may raise anything
            # Not the error itself: it may quote a value.
            self._unreadable(f"{type(self._serializer).__name__} raised {type(error).__name__}")
            return b""

    async def write(self, session_id: str, data: bytes, lifetime: int, ttl: int) -> str:
        """Store the changes since the read; return the id for the cookie."""
        content = self._content(data)
        metadata = content.pop(_METADATA, {})
        loaded = self._opened(metadata.get(_LOADED))
        user_id = None if self._user_key is None else user_in(content, self._user_key)
        seconds = ttl if lifetime > 0 else self._browser_seconds
        if seconds <= 0:
            await self.remove(session_id)
            return session_id
        expires = self._clock() + timedelta(seconds=seconds)
        if loaded is not None and loaded.newer:
            if loaded.session_id == session_id and user_id is None:
                raise newer()
            loaded = None
        if loaded is None:
            return await self._created(content, user_id, expires)
        try:
            return await self._changed(session_id, loaded, content, user_id, expires, seconds)
        except SessionNotFoundError:
            _log.warning(DROPPED)
            trace(_log, loaded.session_id, "a change was dropped")
            return session_id

    async def remove(self, session_id: str) -> None:
        """Delete the session, if there is one."""
        try:
            await self._store.delete(session_id)
            trace(_log, session_id, "ended")
        except UsageError:
            return  # not an id, so there is nothing under it

    async def _created(self, content: dict[str, Any], user_id: str | None, expires: datetime) -> str:
        session_id = new_session_id()  # never the one that the client sent
        await self._store.create(
            SessionData(session_id=session_id, user_id=user_id, expires=expires, data=content)
        )
        trace(_log, session_id, "created")
        return session_id

    async def _changed(
        self,
        session_id: str,
        loaded: _Loaded,
        content: dict[str, Any],
        user_id: str | None,
        expires: datetime,
        seconds: float,
    ) -> str:
        before, kept = decode_data(loaded.data), None
        if self._user_key is not None and user_id not in (None, loaded.user_id):
            kept = kept_at_login(user_id, user_in(before, self._user_key), loaded.user_id, self._kept)
            content = after_login(content, before, kept)
        changes = difference(before, content)
        logged_in_or_out = self._user_key is not None and user_id != loaded.user_id
        if self._user_key is not None and loaded.user_id not in (None, user_id):
            # Another user gets nothing of it, nor of what the former user's other requests are writing.
            await ended(self._store, loaded.session_id, loaded.user_id, datetime_of(loaded.created_us))
            trace(_log, loaded.session_id, "ended: its user has logged out, or another in")
            return await self._created(content, user_id, expires)
        if logged_in_or_out or session_id != loaded.session_id:
            user = user_id if self._user_key is not None else loaded.user_id
            now = self._clock()
            found = await rotated(
                self._store, loaded.session_id, user, changes, lambda: content, expires, now, kept=kept
            )
            trace(_log, loaded.session_id, "has a new id now, and is", found.session_id)
            return found.session_id
        moved = (_micros(expires) - loaded.expires_us) / 1e6 > seconds / RENEWAL_SHARE
        if changes or moved:
            end = expires if moved else None
            await patched(self._store, session_id, changes, lambda: content, end)
        return session_id

    def _sealed(self, loaded: _Loaded) -> str:
        return self._seal.close(msgspec.msgpack.encode(loaded))

    def _opened(self, text: object) -> _Loaded | None:
        if text is None:
            return None
        payload = self._seal.open(text)
        if payload is None:
            raise UsageError(
                "the app has changed the metadata of a session, or brought that of another process: leave "
                "what starsessions keeps in there as it is"
            )
        return msgspec.msgpack.decode(payload, type=_Loaded)

    def _unreadable(self, why: str) -> None:
        self._notices.warn("unreadable", f"a session counts as none, because it cannot be read: {why}")

    def _content(self, data: bytes) -> dict[str, Any]:
        try:
            content = self._serializer.deserialize(data)
        except Exception as error:
            raise UsageError(
                f"{type(self._serializer).__name__} cannot read what starsessions wrote: give this store and "
                "SessionMiddleware the same serializer"
            ) from error
        return content


def _micros(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
