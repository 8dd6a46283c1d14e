"""How one request finds, uses and saves its session, and which cookie it sends.

Nothing here knows ASGI: the middleware and the frameworks' adapters drive it, in this order:

>>> visit = sessions.visit(cookie_headers, secure_transport=True, user_agent=user_agent)
>>> await visit.load()                          # or later, or never
>>> ...                                         # the handler works with visit.session
>>> await visit.save()                          # before the headers are sent
>>> visit.set_cookies(), visit.accessed         # Set-Cookie values, and whether to send Vary: Cookie
>>> visit.started = True                        # from now on there can be no new id
>>> await visit.save()                          # when the handler's background work is done
>>> visit.close()                               # or at once if the handler raised
>>> visit.let_go()

What the handler requests becomes a mark in the visit (`state`); `plan` decides what to do, and `saving` does
it.
"""

import weakref
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any
from uuid import UUID

from greenroom.codec import decode_data, encode_data, encode_kept
from greenroom.errors import UnreadableSessionError, UnsupportedError, UsageError
from greenroom.ids import handle_of, locate
from greenroom.options import CALLS, LOGIN
from greenroom.sessions import StoredSession
from greenroom.web.candidates import Candidates
from greenroom.web.errors import degraded, newer, not_loaded, not_passed_on, over, started
from greenroom.web.keeping import Keeping
from greenroom.web.lifetimes import USUAL, Lifetimes, Terms
from greenroom.web.moving import Moving
from greenroom.web.saving import Saver
from greenroom.web.state import EMPTY, Found, VisitState
from greenroom.web.survival import Keep, kept_by
from greenroom.web.typed import means_delete, plain_dict

RETRY_US = 60_000_000
"""The pause between two attempts to extend the session of a WebSocket or a stream."""


class _NotLoaded:
    """A placeholder in a session that is not loaded, for C code that bypasses a dict's methods."""

    def __repr__(self) -> str:
        return "<this session is not loaded: await session.greenroom.load()>"


_NOT_LOADED = _NotLoaded()

_FIXED = frozenset({NoneType, bool, int, float, str, bytes, Decimal, UUID, datetime, date, time, timedelta})
"""The types of values that cannot change unnoticed; subclasses of them can."""


class Visit(VisitState):
    """See the module. `cookies` are the values of the session cookie that the browser sent.

    `unavailable`: `load` failed and the app goes on anonymously. `accessed`: the handler looked at the
    session; `seen`: it did so since the session was loaded. `follow` adopts what the framework left in the
    session's place, if it replaces sessions; it is called before each save. `over`: the request has ended.
    `sending` is what the server raised for the last message. `moving` brings a session from the library that
    the app used before. `on_load` is told what `load` has found.
    """

    follow: Callable[[], None] | None = None
    on_load: Callable[[StoredSession | None], None] | None = None
    loaded = True
    accessed = False
    seen = False
    unavailable = False
    closed = False
    over = False
    sending: BaseException | None = None
    _cookie_of_load: str | None = None
    _alive_us = 0
    _ids: dict[str, Terms] | None = None
    _known_candidates: Candidates | None = None
    moving: Moving | None = None
    _saver: Saver | None = None
    _let_go: weakref.ref[dict[Any, Any]] | None = None

    def __init__(
        self,
        keeping: Keeping,
        session: dict[Any, Any],
        cookies: list[bytes],
        secure_transport: bool,  # noqa: FBT001  one caller, for each request
        label: Callable[[], str],
        moving: Moving | None = None,
    ) -> None:
        self.session = session
        self.settings = keeping
        self._label = label
        self._secure_transport = secure_transport
        if cookies:
            self.has_cookie = True
            self._ids = keeping.verified(cookies) or None
        if moving is not None:
            self.moving = moving
        if self._ids is not None or moving is not None:
            self.loaded = False
            dict.__setitem__(session, _NOT_LOADED, _NOT_LOADED)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.condition}>"

    # --- what is known -----------------------------------------------------------------------------------

    @property
    def condition(self) -> str:
        """The session's condition, for reprs."""
        return "stored" if self.is_stored else "anonymous" if self.loaded else "not loaded"

    @property
    def handle(self) -> str | None:
        """The handle of the stored session, or None."""
        if self.stored is None or not self.is_stored:
            return None
        return handle_of(*locate(self.stored.session_id))

    @property
    def own_lifetimes(self) -> Lifetimes:
        """This session's lifetimes: those of the `Session`, or those that its login set."""
        return self.settings.lifetimes.under(self.terms)

    @property
    def is_persistent(self) -> bool:
        """Whether the cookie of this session outlives the browser."""
        own = (self.login_terms if self.logging_in else self.terms).persistent
        return self.settings.cookie.max_age_seconds is not None if own is None else own

    def is_modified(self) -> bool:
        """Whether there is anything to save."""
        return self.loaded and (self.is_asked or encode_data(self.contents()) != self.snapshot)

    def set_cookies(self) -> Sequence[str]:
        """Return the values for Set-Cookie headers, once; empty if there are none."""
        cookie, moving = self.cookie, self.moving
        removals = () if moving is None else moving.removals()
        if cookie is None:
            return removals
        self.cookie = None
        if not self._secure_transport and self.settings.cookie.secure:
            self.settings.events.sent_over_plain_http()
        return (cookie, *removals)

    # --- what the handler does ---------------------------------------------------------------------------

    def before_reading(self) -> None:
        """Note that the handler looks. Raises SessionNotLoadedError."""
        if not self.loaded:
            raise not_loaded()
        self.note_look()

    def note_look(self) -> None:
        """Note that the session was handed out, so that nested values may change at any time.

        It does not matter by which method: C code, as in msgspec and Litestar, bypasses them.
        """
        self.accessed = True
        if self.loaded and not self.seen:
            self.seen = True
            if not self.touched:
                self.touched = not _FIXED.issuperset(map(type, dict.values(self.session)))

    def before_asking(self) -> None:
        """Note that the handler changes or requests something. Raises SessionNotLoadedError."""
        self.before_reading()
        self.touched = True

    def before_writing(self) -> None:
        """Note that the handler writes. Raises if that could never be saved."""
        if self.over:
            raise over()
        self.before_asking()
        if self.unavailable:
            raise degraded()
        self._leave_to_later_version()
        if (self.started or self.mute) and not self.closed and (self.stored is None or self.ending):
            raise self._no_cookie("creating a session")

    def login(
        self,
        user: Any,
        data: dict[Any, Any],
        idle_seconds: float | None = None,
        persistent: bool | None = None,  # noqa: FBT001  as the control's, which takes it by name
        keep: Keep = (),
    ) -> None:
        """See `SessionControl.login`."""
        user_id = self.settings.users.id_of(user)
        kept = kept_by(LOGIN.checked("keep", keep))
        terms = self.settings.lifetimes.terms_of(idle_seconds, persistent)
        self._before_new_id("a login")
        self.note_login(user_id, data, terms, kept)

    def logout(self) -> None:
        """See `SessionControl.logout`."""
        if self.over:
            raise over()
        self.before_asking()
        if self.unavailable:
            raise degraded()
        self.note_logout()

    def logout_everywhere(self, *, keep_current: bool) -> None:
        """See `SessionControl.logout_everywhere`."""
        CALLS.check(keep_current=keep_current)
        if self.over:
            raise over()
        self.before_asking()
        if "delete_by_user" not in self.settings.store.features:
            name = type(self.settings.store).__name__
            raise UnsupportedError(f"{name} cannot log out everywhere; override delete_by_user")
        if self.unavailable:
            raise degraded()
        self.everywhere = None if self.user_id is None else (self.user_id, keep_current)
        if not keep_current:
            self.logout()

    def regenerate(self) -> None:
        """See `SessionControl.regenerate`."""
        self._before_new_id("a new id")
        self._leave_to_later_version()
        self.rotating = True

    def clear(self) -> None:
        """See `RequestSession.clear`."""
        if self.over:
            raise over()
        if dict.__len__(self.session) or not self.loaded:
            self.before_writing()
        else:
            self.before_asking()
        if not self.unavailable:
            self.note_logout()

    def _leave_to_later_version(self) -> None:
        candidates = self._known_candidates
        if candidates is None or not candidates.newer or self.stored is not None:
            return
        if not self.ending and not self.logging_in:
            raise newer()

    def _before_new_id(self, action: str) -> None:
        if self.over:
            raise over()
        self.before_asking()
        if self.unavailable:
            raise degraded()
        if self.started or self.mute:
            raise self._no_cookie(action)

    def _no_cookie(self, action: str) -> UsageError:
        return not_passed_on(action) if self.mute and not self.started else started(action)

    # --- the store ---------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the session that the cookie names, once. Without a valid cookie the store is not asked.

        An id that the store does not know (forged, expired, rotated away) is never adopted. An unreadable
        session counts as none, and its cookie is cleared, unless a later version may have stored it. There is
        none either if the cookies belong to several users, whose sessions are then ended.
        """
        if not self.load_at_hand():
            await self.fetch()
        if self.on_load is not None:
            self.on_load(self.stored)

    async def fetch(self) -> None:
        """Do as `load` does, for a session that is known not to be at hand."""
        if self.loaded:
            return
        candidates = self._candidates()
        self.take(await candidates.find())
        if self.stored is not None:
            self.terms = candidates.terms_of(self.stored.session_id)
        if self.moving is not None and self.moving.has_found(self.stored):
            self.has_cookie = True  # with the response
        elif candidates.refused:
            self.cookie = self._cookie_of_load = self.settings.cookie.clearing_header()
        self.loaded = True

    def load_at_hand(self) -> bool:
        """Load the session that the cookie names if the store has it at hand; return whether it is loaded.

        Most requests bring one cookie, and what else `load` has to think of does not arise.
        """
        if self.loaded:
            return True
        ids = self._ids
        if ids is None or len(ids) != 1 or self.moving is not None:
            return False
        ((session_id, terms),) = ids.items()
        settings = self.settings
        stored = settings.store.at_hand(session_id)
        if stored is None:
            return False
        try:
            data = decode_data(stored.data)
        except UnreadableSessionError:
            return False  # `fetch` meets it again, and says so
        settings.events.counts["loads"] += 1
        self.terms = terms
        self.take((stored, data))
        self.loaded = True
        return True

    async def reload(self) -> None:
        """Read the session again, discarding unsaved changes."""
        if not self.loaded:
            await self.load()
        elif self.stored is not None and not self.unavailable:
            found = await self._candidates().read(self.stored.session_id)
            self.lost = found is None
            if found is not None:
                self.take(found)
            else:
                self.user_id = None
                self.snapshot = self.base = EMPTY
                dict.clear(self.session)
        else:
            self.user_id = None
            dict.clear(self.session)
        self.forget_wishes()
        self.note_look()

    def take(self, found: Found | None) -> None:
        """Take this as the stored state, and as the session's contents."""
        session = self.session
        dict.clear(session)
        self.seen = False
        if found is None:
            self.stored = self.user_id = None
            self.snapshot = self.base = EMPTY
            return
        self.stored = stored = found[0]
        self.user_id = stored.user_id
        self.snapshot = self.base = stored.data
        dict.update(session, found[1])

    def adopt(self, value: object) -> None:
        """Copy what the framework left in the session's place into `visit.session`.

        None or Litestar's `Empty` is a logout; a mapping or Struct replaces all data. Raises UsageError for
        anything else.
        """
        if value is self.session:
            return
        self.touched = True
        if means_delete(value):
            if not self.ending and (self.stored is not None or self._candidates()):
                self.loaded = True  # to delete it, one need not have read it
                self.logout()
            return
        data = plain_dict(value)
        if not self.loaded:
            raise not_loaded()
        if data != self.contents():
            self.accessed = True
        self.replace_contents(data)

    def is_quiet(self) -> bool:
        """Whether `save` would find nothing to do: nothing has changed, and the session need not be extended.

        Most requests change nothing, and this takes no coroutine. Raises UsageError as `save` does.
        """
        if self.follow is not None or self.moving is not None or self.over:
            return False
        stored = self.stored
        if self.touched and not self.closed:
            if self.lost or self.unavailable or not self.loaded:
                return False
            if self.ending or self.rotating or self.everywhere is not None:
                return False
            if encode_kept(dict(dict.items(self.session)), self.snapshot) is not self.snapshot:
                return False
        if stored is None or self.lost or self.closed:
            return True
        lifetimes = self.settings.lifetimes
        if self.terms is not USUAL:
            lifetimes = lifetimes.under(self.terms)
        return stored.expires_us - self.settings.now_us() >= lifetimes.threshold_us

    async def save(self) -> bool:
        """Write the changes and do what the handler requested, shielded from cancellation.

        Returns False if they were dropped. Raises UnavailableError, OutcomeUnknownError, UsageError.
        """
        if self.over:
            raise over()
        if self.closed:
            return False
        if self.follow is not None:
            self.follow()
            # Such a framework hands out what is in its scope without our noticing.
            self.touched = self.touched or not _FIXED.issuperset(map(type, dict.values(self.session)))
        if not self.loaded:
            return True
        if self.unavailable:
            if dict.__len__(self.session):
                raise degraded()
            return True
        # A session that was not handed out cannot have changed.
        encoded = encode_kept(self.contents(), self.snapshot) if self.touched else self.snapshot
        if encoded is self.snapshot and not self.is_asked:
            stored, now_us = self.stored, self.settings.now_us
            if stored is None or stored.expires_us - now_us() >= self.own_lifetimes.threshold_us:
                return self.moving is None or await self._with_old_ended(self.moving)
        if dict.__len__(self.session):
            self._leave_to_later_version()
        saved = await self._saving().save(encoded)
        return saved and (self.moving is None or await self._with_old_ended(self.moving))

    async def _with_old_ended(self, moving: Moving) -> bool:
        """End the visitor's session in the old library, if the browser can be told; return True."""
        if self.is_stored and not (self.started or self.mute):
            stored = self.stored
            if stored is not None and moving.has_found(stored):
                # Only now: a faster request may have given it another id by a login.
                if not await moving.is_still_there(stored):
                    self._leave_old_cookie(moving)
                    return True
                self.cookie = self.settings.cookie_of(stored.session_id, self.terms)
            await moving.settle()
        return True

    def _leave_old_cookie(self, moving: Moving) -> None:
        """Send the browser nothing: its old cookie leads to the session that was moved."""
        self.cookie = None
        moving.removals()

    def _saving(self) -> Saver:
        if self._saver is None:
            self._saver = Saver(self.settings, self, self._candidates(), self._label)
        return self._saver

    def _candidates(self) -> Candidates:
        if self._known_candidates is None:
            self._known_candidates = Candidates(self.settings, self._ids or {}, self.moving)
        return self._known_candidates

    def go_on_anonymously(self) -> None:
        """Go on after `load` failed: the session reads as empty, and writing raises UnavailableError."""
        self.unavailable = self.loaded = True
        dict.clear(self.session)

    async def keep_alive(self) -> None:
        """Extend the session of a long WebSocket or stream, if that is due.

        Raises nothing: a store that does not answer is tried again with a later message.
        """
        stored = self.stored
        if stored is None or self.lost or self.ending or self.unavailable or self.closed:
            return
        now_us = self.settings.now_us()
        if now_us < self._alive_us or self.own_lifetimes.extension_us(now_us, stored) is None:
            return
        self._alive_us = now_us + RETRY_US
        await self._saving().extend()

    def close(self) -> None:
        """Save nothing from now on."""
        self.closed = True
        if self.moving is not None and self.moving.has_found(self.stored):
            self._leave_old_cookie(self.moving)

    def refuse(self) -> None:
        """Save nothing from now on; if `load` was to clear the cookie, leave that to the next request."""
        self.close()
        if self.cookie is self._cookie_of_load:
            self.cookie = None

    def end(self) -> None:
        """Note that the request has ended: changing the session raises from now on."""
        self.closed = self.over = True

    def let_go(self) -> None:
        """Hold the session weakly from now on; whoever keeps it finds it as it was.

        It holds its visit, so both would wait for the collector of cycles, which stops the whole process.
        """
        if self._let_go is None:
            self._let_go = weakref.ref(self.session)
            del self.session
            self.follow = self.on_load = self._saver = None

    def __getattr__(self, name: str) -> Any:
        # Only what is missing comes here: the session, once it was let go.
        if name != "session" or self._let_go is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        session = self._let_go()
        return decode_data(self.snapshot) if session is None else session
