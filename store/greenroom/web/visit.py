"""One request's dealings with its session: which it is, what the handler wants of it, what is to be written.

Nothing here knows ASGI: the middleware and the adapters of frameworks drive it. In this order:

>>> visit = sessions.visit(cookie_headers, secure_transport=True, user_agent=user_agent)
>>> await visit.load()                          # or later, or never
>>> ...                                         # the handler works with visit.session
>>> await visit.save(what_the_handler_left)     # before the headers are sent
>>> visit.set_cookie(), visit.accessed          # a Set-Cookie value or None, and whether to send Vary: Cookie
>>> visit.started = True                        # from now on there can be no new id
>>> await visit.save(what_the_handler_left)     # when the handler's background work is done
>>> visit.close()                               # or at once if the handler raised
"""

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from greenroom.codec import decode_data, encode_data
from greenroom.errors import (
    GreenroomError,
    SessionNotFoundError,
    UnreadableSessionError,
    UnsupportedError,
)
from greenroom.ids import handle_of, locate
from greenroom.sessions import SessionData
from greenroom.turns import new_lock
from greenroom.web.candidates import Candidates
from greenroom.web.difference import NO_DIFFERENCE, Difference, difference
from greenroom.web.errors import degraded, newer, not_loaded, started
from greenroom.web.records import (
    created,
    deleted_by_user,
    ended,
    extended,
    patched,
    rotated,
)
from greenroom.web.request_session import RequestSession, contents, fill_unloaded
from greenroom.web.shielding import shielded
from greenroom.web.typed import means_delete, plain_dict

if TYPE_CHECKING:
    from greenroom.web.session import Session

__all__ = ["IN_PLACE", "Visit"]

IN_PLACE: Any = object()
"""To `Visit.save`: the handler left `visit.session` where it was."""

_EMPTY = encode_data({})


class Visit:
    """See the module. `cookies` are the values of the session cookie that the browser sent.

    `unavailable` is set by who drives it if `load` failed and the app is to go on anonymously. `lost` tells
    that the session was deleted or rotated away by others while this request ran.
    """

    def __init__(
        self, settings: "Session", cookies: list[bytes], *, secure_transport: bool, label: str
    ) -> None:
        self.settings = settings
        self.session = RequestSession(self)
        self.record: SessionData | None = None
        self.accessed = False
        self.started = False
        self.unavailable = False
        self.lost = False
        self.closed = False
        self.user_id: str | None = None
        self._candidates = Candidates(settings, settings.verified(cookies))
        self._had_cookie = bool(cookies)
        self._secure_transport = secure_transport
        self._label = label
        self._loaded = not self._candidates
        if not self._loaded:
            fill_unloaded(self.session)
        self._snapshot = _EMPTY
        self._cookie: str | None = None
        # What the handler asked for and is not done yet.
        self._ending = False
        self._rotating = False
        self._logging_in = False
        self._cleared = False
        self._extension_failed = False
        self._everywhere: tuple[str, bool] | None = None  # whose sessions, and whether not this one
        self._lock: Any = None

    def __repr__(self) -> str:
        state = "stored" if self.is_stored else "anonymous" if self._loaded else "not loaded"
        return f"<{type(self).__name__} of a session that is {state}>"

    # --- what is known -----------------------------------------------------------------------------------

    @property
    def is_stored(self) -> bool:
        """Whether there is a session in the store, as far as this request knows."""
        return self.record is not None and not self.lost and not self._ending

    @property
    def handle(self) -> str | None:
        """The handle of the stored session, or None."""
        if self.record is None or not self.is_stored:
            return None
        session_id = self.record.session_id
        return handle_of(*locate(session_id))

    def is_modified(self) -> bool:
        """Whether there is anything to save."""
        if not self._loaded:
            return False
        if self._ending or self._rotating or self._everywhere is not None:
            return True
        return encode_data(contents(self.session)) != self._snapshot

    def set_cookie(self) -> str | None:
        """Return the value for a Set-Cookie header, once; None if there is nothing to say."""
        cookie, self._cookie = self._cookie, None
        if cookie is not None and not self._secure_transport:
            self.settings.warn_of_plain_http()
        return cookie

    # --- what the handler does ---------------------------------------------------------------------------

    def before_reading(self) -> None:
        """Take note that the handler looks. Raises SessionNotLoadedError."""
        if not self._loaded:
            raise not_loaded()
        self.accessed = True

    def before_writing(self) -> None:
        """Take note that the handler writes. Raises where that could never be saved."""
        self.before_reading()
        if self.unavailable:
            raise degraded()
        self._leave_to_later_version()
        if self.started and not self.closed and (self.record is None or self._ending):
            raise started("creating a session")

    def login(self, user: Any, data: dict[Any, Any]) -> None:
        """See `RequestSession.login`."""
        user_id = self.settings.user_id_of(user)
        self._before_new_id("a login")
        if self.user_id not in (None, user_id):
            dict.clear(self.session)
        dict.update(self.session, data)
        self.user_id = user_id
        self._rotating = self._logging_in = True
        self._cleared = False

    def logout(self) -> None:
        """See `RequestSession.logout`."""
        self.before_reading()
        if self.unavailable:
            raise degraded()
        self._ending = True
        self._rotating = self._logging_in = False
        self.user_id = None
        dict.clear(self.session)

    def logout_everywhere(self, *, keep_current: bool) -> None:
        """See `RequestSession.logout_everywhere`."""
        self.before_reading()
        if "delete_by_user" not in self.settings.store.features:
            name = type(self.settings.store).__name__
            raise UnsupportedError(f"{name} cannot log out everywhere; override delete_by_user")
        if self.unavailable:
            raise degraded()
        self._everywhere = None if self.user_id is None else (self.user_id, keep_current)
        if not keep_current:
            self.logout()

    def regenerate(self) -> None:
        """See `RequestSession.regenerate`."""
        self._before_new_id("a new id")
        self._leave_to_later_version()
        self._rotating = True

    def clear(self) -> None:
        """See `RequestSession.clear`."""
        if dict.__len__(self.session) or not self._loaded:
            self.before_writing()
        dict.clear(self.session)
        self._cleared = True

    def _leave_to_later_version(self) -> None:
        if self._candidates.newer and self.record is None and not self._ending and not self._logging_in:
            raise newer()

    def _before_new_id(self, action: str) -> None:
        self.before_reading()
        if self.unavailable:
            raise degraded()
        if self.started:
            raise started(action)

    # --- the store ---------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the session that the cookie names; once. No valid cookie: nothing is asked.

        Ids that the store does not know (forged, expired, rotated away) are never taken over. A session that
        cannot be read is none: its cookie is cleared, unless a later version may have stored it. Nor is there
        one if the cookies are those of several users: their sessions are ended.
        """
        if self._loaded:
            return
        chosen = await self._candidates.find()
        if chosen is not None:
            self.take(*chosen)
        else:
            self.take(None, _EMPTY)
            if self._candidates.refused:
                self._cookie = self.settings.cookie.clearing_header()
        self._loaded = True

    async def reload(self) -> None:
        """Read the session again, forgetting what was not saved."""
        if not self._loaded:
            await self.load()
        elif self.record is not None and not self.unavailable:
            current = await self._candidates.read(self.record.session_id)
            self.lost = current is None
            if current is not None:
                self.take(*current)
            else:
                self.take(self.record, self._snapshot)
                self.user_id = None
                dict.clear(self.session)
        else:
            dict.clear(self.session)
        self._ending = self._rotating = self._logging_in = self._cleared = False
        self._everywhere = None
        self.accessed = True

    def take(self, record: SessionData | None, snapshot: bytes) -> None:
        """Make this the state that is known, and the session's content; `snapshot` is its data as bytes."""
        self.record = record
        self.user_id = None if record is None else record.user_id
        self._snapshot = snapshot
        dict.clear(self.session)
        dict.update(self.session, {} if record is None else record.data)

    def adopt(self, value: object) -> None:
        """Make what the framework left in the session's place the content of `visit.session`.

        None or Litestar's `Empty` is a logout; a mapping or Struct replaces all data. Raises UsageError for
        anything else.
        """
        if value is IN_PLACE or value is self.session:
            return
        if means_delete(value):
            if not self._ending and (self.record is not None or self._candidates):
                self._loaded = True  # to delete it, one need not have read it
                self.logout()
            return
        data = plain_dict(value)
        if not self._loaded:
            raise not_loaded()
        if data != contents(self.session):
            self.accessed = True
        dict.clear(self.session)
        dict.update(self.session, data)

    async def save(self, value: object = IN_PLACE) -> bool:
        """Write what differs and do what the handler asked for, shielded from cancellation.

        `value` is what stands in the session's place in the framework. Returns False if it was dropped.
        Raises UnavailableError, OutcomeUnknownError, UsageError.
        """
        if self.closed:
            return False
        self.adopt(value)
        if not self._loaded:
            return True
        if self.unavailable:
            if dict.__len__(self.session):
                raise degraded()
            return True
        if dict.__len__(self.session):
            self._leave_to_later_version()
        if self._cleared and not dict.__len__(self.session):
            self.logout()
        self._cleared = False
        if not self.is_modified() and self._extension() is None:
            return True
        return await shielded(self._save_in_turn)

    def go_on_anonymously(self) -> None:
        """After `load` failed: for reads there is no session, and writes raise UnavailableError."""
        self.unavailable = self._loaded = True
        dict.clear(self.session)

    def close(self) -> None:
        """Save nothing from now on."""
        self.closed = True

    # --- saving ------------------------------------------------------------------------------------------

    async def _save_in_turn(self) -> bool:
        # Two tasks of one WebSocket may save at once.
        if self._lock is None:
            self._lock = new_lock()
        async with self._lock:
            if self._everywhere is not None:
                await self._end_everywhere(*self._everywhere)
            if self._ending:
                await self._end()
            encoded = encode_data(contents(self.session))
            changes = NO_DIFFERENCE
            if encoded != self._snapshot:
                changes = difference(decode_data(self._snapshot), decode_data(encoded))
            if self.record is None:
                return await self._create(changes, encoded)
            if self._rotating:
                return await self._rotate(changes, encoded)
            if not changes:
                await self._extend()
                self._snapshot = encoded
                return True
            return await self._patch(changes, encoded)

    async def _end_everywhere(self, user_id: str, keep_current: bool) -> None:  # noqa: FBT001  as it is kept
        # Before a login or a new id, so that a failure leaves the browser with the session that it has.
        keep = self.record.session_id if keep_current and self.record is not None else None
        await deleted_by_user(self.settings, user_id, keep)
        self._everywhere = None

    async def _end(self) -> None:
        """Delete the session, and say so to the browser that sent its cookie.

        All others that the request named go too.
        """
        own = None if self.record is None else self.record.session_id
        if self.record is not None:
            await ended(self.settings, self.record)
        await self._candidates.end(but=own)
        self.record, self.lost, self._ending = None, False, False
        self._snapshot = _EMPTY
        self._cookie = self.settings.cookie.clearing_header() if self._had_cookie else None

    async def _create(self, changes: Difference, encoded: bytes) -> bool:
        if not changes and self.user_id is None:
            self._rotating = self._logging_in = False
            return True
        if self.started:
            raise started("creating a session")
        await self._candidates.end_unreadable()
        data = decode_data(encoded)
        record = await created(self.settings, data, user_id=self.user_id, label=self._label)
        self._has_new_id(record, encoded)
        return True

    async def _rotate(self, changes: Difference, encoded: bytes) -> bool:
        assert self.record is not None
        if self.started:
            raise started("a new id")
        if not self.lost:
            try:
                record = await rotated(
                    self.settings,
                    self.record.session_id,
                    self.user_id,
                    changes,
                    partial(decode_data, encoded),
                )
            except SessionNotFoundError:
                self.lost = True
            except UnreadableSessionError as error:
                self.settings.unreadable(error)
                self.lost = True
            else:
                self._has_new_id(record, encoded)
                return True
        if not self._logging_in:
            self._rotating = False
            return self._dropped()
        # Who has just logged in gets a session all the same, with nothing of the one that is gone in it.
        fresh: dict[Any, Any] = {}
        for path, value in changes.set.items():
            _set(fresh, path, value)
        record = await created(self.settings, fresh, user_id=self.user_id, label=self._label)
        dict.clear(self.session)
        dict.update(self.session, fresh)
        self.lost = False
        self._has_new_id(record, encode_data(fresh))
        return True

    async def _patch(self, changes: Difference, encoded: bytes) -> bool:
        assert self.record is not None
        if self.lost:
            return self._dropped()
        expires = self.settings.extension(self.record)
        try:
            self.record = await patched(
                self.settings, self.record.session_id, changes, partial(decode_data, encoded), expires
            )
        except SessionNotFoundError:
            self.lost = True
            return self._dropped()
        except UnreadableSessionError as error:
            self.settings.unreadable(error)
            self.lost = True
            return self._dropped()
        self._snapshot = encoded
        return True

    def _extension(self) -> datetime | None:
        """Return the new end of the session if it is time to move it."""
        if self.record is None or self.lost or self._extension_failed:
            return None
        return self.settings.extension(self.record)

    async def _extend(self) -> None:
        """Move the end of a session that is in use. If that fails, the next request tries again."""
        record, expires = self.record, self._extension()
        if record is None or expires is None:
            return
        try:
            self.record = await extended(self.settings, record.session_id, expires)
        except SessionNotFoundError:
            self.lost = True
            self._dropped()
        except GreenroomError as error:
            self._extension_failed = True
            self.settings.failed("extending a session", error)

    def _has_new_id(self, record: SessionData, encoded: bytes) -> None:
        if self.record is not None and self.record.session_id in self._candidates.ids:
            self._candidates.ids.remove(self.record.session_id)
        self.record = record
        self._snapshot = encoded
        self._rotating = self._logging_in = False
        self._had_cookie = True
        self._cookie = self.settings.cookie.header(self.settings.signer.sign(record.session_id))

    def _dropped(self) -> bool:
        self.settings.dropped()
        return False


def _set(data: dict[Any, Any], path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        data = data.setdefault(key, {})
    data[path[-1]] = value
