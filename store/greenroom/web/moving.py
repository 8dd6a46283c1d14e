"""Moves sessions from another library: a visitor who has only an old session gets one of Greenroom's.

A session is moved at the first request that loads it, before its handler runs. Three writes, in this order:

1. The session is stored under a new id.
2. A *note* is stored under a digest of the old session's key. Of several requests that do so at once, one is
   first: the others delete what they stored and go on with the session that the note leads to.
3. Once the response that brings the new cookie is about to be sent, the old session is ended: deleted in the
   old store, its cookie removed.

So whatever fails, the visitor still has one of the two. The note outlives the old session: where the response
never arrived, the old cookie still leads to the session; after a logout it leads nowhere, also for a slow
request or a copy of a cookie. It holds no id: a note's random bits and the old key together make the new id.
"""

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

from greenroom.codec import encode_data
from greenroom.errors import (
    GreenroomError,
    SessionExistsError,
    SessionNotFoundError,
    UnavailableError,
    UnreadableSessionError,
    UsageError,
)
from greenroom.fields import datetime_of, micros_of
from greenroom.ids import RANDOM_BYTES
from greenroom.sessions import SessionData, StoredSession, stored_form
from greenroom.web.cookies import CookieSettings, cookie_values
from greenroom.web.keeping import Keeping
from greenroom.web.lifetimes import USUAL, parted
from greenroom.web.old_sessions import OldSession
from greenroom.web.shielding import shielded
from greenroom.web.state import Found

CANDIDATES_MAX = 32
"""The most cookies of the old library's name to look at; opening one may mean to decrypt it."""
KEYS_MAX = 8
"""The most old sessions to look up for one request. Most libraries sign no ids: anyone makes keys up."""

_BITS = "bits"
_BITS_BYTES = 32


class Moving:
    """The old sessions that one request names. `label` returns a label for those whose library has none.

    `terms` are those of the session that was found.
    """

    terms = USUAL

    def __init__(
        self, keeping: Keeping, keys: list[str], cookies: list[CookieSettings], label: Callable[[], str]
    ) -> None:
        assert keeping.moves_from is not None
        self._keeping = keeping
        self._old = keeping.moves_from
        self._keys = keys
        self._cookies = cookies
        self._label = label
        self._noted: set[str] = set()
        self._exists: dict[str, bool] = {}
        self._found_id: str | None = None
        self._removals: tuple[str, ...] = ()
        self._left = False

    async def find_login(self) -> Found | None:
        """Do as `find` does, for sessions of users alone; leave those that cannot be read for later."""
        try:
            return await self.find(users_only=True)
        except GreenroomError as error:
            self._keeping.events.failed("reading an old session beside one of ours", error)
            self._left = True
            return None

    async def find(self, *, users_only: bool = False) -> Found | None:
        """Return the session that the old one has become, moving it now if need be; None if there is none.

        A user's session is preferred to an anonymous one, and otherwise the first. If the old cookies belong
        to several users, it is unknown whose request this is, and nothing is moved. Raises UnavailableError.
        """
        live: list[tuple[str | None, str, OldSession | Found]] = []
        for key in self._keys:
            note = await self._note_of(key)
            if note is None:
                old = await self._read(key)
                if old is not None:
                    live.append((self._old.user_of(old), key, old))
            else:
                found = await self._behind(key, note)
                if found is not None:
                    live.append((found[0].user_id, key, found))
        of_users = [each for each in live if each[0] is not None]
        if len({user_id for user_id, _, _ in of_users}) > 1:
            self._keeping.events.contested()
        elif of_users or (live and not users_only):
            user_id, key, chosen = (of_users or live)[0]
            self.terms = self._old.terms_of(key)
            if isinstance(chosen, OldSession):
                found = await shielded(partial(self._move, key, chosen, user_id))
            else:
                found = chosen
            self._found_id = None if found is None else found[0].session_id
            return found
        return None

    def has_found(self, stored: StoredSession | None) -> bool:
        """Return whether a session was found here, under this id: then the browser may not have it yet."""
        return stored is not None and stored.session_id == self._found_id

    async def is_still_there(self, stored: StoredSession) -> bool:
        """Return whether a session that was found here still has this id; False if the store cannot say."""
        try:
            return await self._keeping.store.get_stored(stored.session_id) is not None
        except GreenroomError as error:
            self._keeping.events.failed("reading a moved session again", error)
            return False

    async def settle(self, *, for_good: bool = False) -> None:
        """End the old sessions: their data is stored, or, with `for_good`, the visitor has logged out.

        A key that names no session leaves nothing in the store: anyone can make keys up. If a note cannot be
        stored, all are left to the next request; after a logout the error is raised.
        """
        if self._keys and (for_good or not self._left):
            await shielded(partial(self._settle, for_good))

    def ours(self, cookies: list[bytes]) -> list[bytes]:
        """Return the cookies of our name that are not the old library's."""
        verify, key_of = self._keeping.signer.verify, self._old.key_of
        first = cookies[:CANDIDATES_MAX]
        ours = [each for each in first if verify(each) is not None or key_of(each) not in self._keys]
        return [*ours, *cookies[CANDIDATES_MAX:]]

    def forget(self, session_id: str) -> None:
        """Note that this is no old session: the old store may have had our ids and our cookie."""
        self._keys = [key for key in self._keys if parted(key)[0] != session_id]

    def removals(self) -> tuple[str, ...]:
        """Return, once, the values of Set-Cookie headers that end the cookies of the old library."""
        removals, self._removals = self._removals, ()
        return removals

    async def _settle(self, for_good: bool) -> None:  # noqa: FBT001  from one place
        try:
            ending = [key for key in self._keys if await self._is_noted(key, for_good)]
        except GreenroomError as error:
            if for_good:
                raise
            # What the request is about has been stored, and its browser must be told.
            self._keeping.events.failed("noting that an old session has ended", error)
            return
        for key in ending:
            try:
                await self._old.end(key)
            except Exception as error:  # noqa: BLE001  a store of others may raise anything
                # A note says that it was moved, so it cannot come back to life here.
                self._keeping.events.failed("ending an old session", error)
        ours = self._keeping.cookie
        self._removals = tuple(
            each.clearing_header()
            for each in self._cookies
            if (each.name, each.path, each.domain) != (ours.name, ours.path, ours.domain)
        )
        self._keys = []

    async def _is_noted(self, key: str, for_good: bool) -> bool:  # noqa: FBT001  from one place
        """Ensure that there is a note of this old session; return False if there is no such session."""
        if key not in self._noted and key not in self._exists and await self._note_of(key) is None:
            try:
                await self._read(key)
            except GreenroomError:
                # After a logout it must not come back to life, so assume that it exists.
                if not for_good:
                    raise
        if key not in self._noted and self._exists.get(key, True):
            try:
                await self._store_note(key, {})
            except SessionExistsError:
                self._noted.add(key)
        return key in self._noted

    async def _read(self, key: str) -> OldSession | None:
        try:
            old = await self._old.read(key)
        except UnreadableSessionError as error:
            self._keeping.events.unreadable(error)
            self._exists[key] = True
            return None
        except GreenroomError:
            raise
        except Exception as error:
            raise UnavailableError(
                f"{type(self._old).__name__} of moves_from could not read an old session "
                f"({type(error).__name__}), which is left as it was"
            ) from error
        try:
            ended = old is None or (
                old.expires is not None and micros_of(old.expires, "expires") <= self._keeping.now_us()
            )
        except UsageError as error:
            # A time without a time zone, which only its reader can know.
            self._exists[key] = True
            self._keeping.events.immovable(error)
            return None
        self._exists[key] = not ended
        if old is None or ended or (not old.data and old.user_id is None):
            return None
        return old

    async def _move(self, key: str, old: OldSession, user_id: str | None) -> Found | None:
        keeping, store = self._keeping, self._keeping.store
        bits = secrets.token_bytes(_BITS_BYTES)
        try:
            session = self._session_of(old, user_id, _id_behind(key, bits))
            if session is None:
                return None
            encode_data(session.data)
            session.version = await store.create(session)
        except UsageError as error:
            # Otherwise every page would fail for as long as the old session lives.
            keeping.events.immovable(error)
            return None
        # Only now: of this and a simultaneous log-out everywhere, one sees what the other has written.
        if user_id is not None and await _is_barred(keeping, user_id):
            await store.delete(session.session_id)
            return None
        try:
            await self._store_note(key, {_BITS: bits})
        except SessionExistsError:
            await store.delete(session.session_id)
            note = await self._note_of(key)
            return None if note is None else await self._behind(key, note)
        keeping.events.count("moved")
        keeping.events.trace(session.session_id, "moved here from the old sessions")
        stored = stored_form(session)
        return stored, stored.decoded()

    def _session_of(self, old: OldSession, user_id: str | None, session_id: str) -> SessionData | None:
        """Return what an old session becomes, or None if it is older than this app's sessions may be."""
        lifetimes, now_us = self._keeping.lifetimes.under(self.terms), self._keeping.now_us()
        created_us = now_us if old.created is None else min(micros_of(old.created, "created"), now_us)
        ends_us = [
            each
            for each in (
                lifetimes.absolute_expiry_us(created_us),
                None if old.absolute_expires is None else micros_of(old.absolute_expires, "absolute_expires"),
            )
            if each is not None
        ]
        absolute_us = min(ends_us, default=None)
        if absolute_us is not None and absolute_us <= now_us:
            return None
        return SessionData(
            session_id=session_id,
            user_id=user_id,
            created=datetime_of(created_us),
            expires=datetime_of(lifetimes.expiry_us(now_us, absolute_us)),
            absolute_expires=None if absolute_us is None else datetime_of(absolute_us),
            label=self._label() if old.label is None else old.label,
            data=old.data,
        )

    async def _behind(self, key: str, note: dict[Any, Any]) -> Found | None:
        """Return the session that a note leads to; None if it has ended or has another id by now."""
        bits = note.get(_BITS)
        if not isinstance(bits, bytes):
            return None
        try:
            stored = await self._keeping.store.get_stored(_id_behind(key, bits))
            self._keeping.events.count("loads")
            return None if stored is None else (stored, stored.decoded())
        except UnreadableSessionError as error:
            self._keeping.events.unreadable(error)
            return None

    async def _note_of(self, key: str) -> dict[Any, Any] | None:
        try:
            note = await self._keeping.store.get(_note_id(key))
        except UnreadableSessionError as error:
            self._keeping.events.unreadable(error)
            return {}
        if note is None:
            return None
        self._noted.add(key)
        return note.data

    async def _store_note(self, key: str, data: dict[Any, Any]) -> None:
        keeping = self._keeping
        await keeping.store.create(
            SessionData(session_id=_note_id(key), expires=datetime_of(_end_of_notes_us(keeping)), data=data)
        )
        self._noted.add(key)


def moving_of(keeping: Keeping, headers: Sequence[bytes | str], label: Callable[[], str]) -> Moving | None:
    """Return the `Moving` of the old sessions that Cookie headers name; None if they name none."""
    old = keeping.moves_from
    if old is None or not headers:
        return None

    def cookies(name: str) -> list[bytes]:
        return cookie_values(headers, name)[:CANDIDATES_MAX]

    keys = list(dict.fromkeys(old.keys(cookies)))
    if old.cookie.name == keeping.cookie.name:
        # Old cookies of the same name may be unsigned, so that ours would pass for one of them.
        verify = keeping.signer.verify
        ours = {each.decode("latin-1") for each in cookies(old.cookie.name) if verify(each) is not None}
        keys = [key for key in keys if key not in ours]
    keys = keys[:KEYS_MAX]
    if not keys and old.cookie.name != keeping.cookie.name and any(cookies(old.cookie.name)):
        keeping.events.foreign(old.cookie.name)
    return Moving(keeping, keys, old.cookies_to_clear(cookies), label) if keys else None


async def bar(keeping: Keeping, user_id: str) -> None:
    """Keep a user's old sessions from being moved, because all of the user's sessions are to end."""
    expires = datetime_of(_end_of_notes_us(keeping))
    session_id = _bar_id(user_id)
    try:
        await keeping.store.create(SessionData(session_id=session_id, expires=expires))
    except SessionExistsError:
        try:
            await keeping.store.patch(session_id, expires=expires)
        except SessionNotFoundError:
            # It has ended, so there is no old session left that it would be needed for.
            return


async def _is_barred(keeping: Keeping, user_id: str) -> bool:
    return await keeping.store.get(_bar_id(user_id)) is not None


def _end_of_notes_us(keeping: Keeping) -> int:
    assert keeping.moves_from is not None
    lifetime_us = round(keeping.moves_from.lifetime_seconds * 1_000_000)
    return keeping.now_us() + max(lifetime_us, keeping.lifetimes.idle_us)


# Notes and bars are never put into a cookie, so their ids need no signature.


def _note_id(key: str) -> str:
    return f"moved-{_text(blake2b(key.encode('utf-8', 'surrogatepass'), person=b'greenroom moved').digest())}"


def _bar_id(user_id: str) -> str:
    return f"barred-{_text(blake2b(user_id.encode(), person=b'greenroom barred').digest())}"


def _id_behind(key: str, bits: bytes) -> str:
    """Return the id of a moved session, which cannot be known without both of these."""
    digest = blake2b(
        key.encode("utf-8", "surrogatepass"), key=bits, digest_size=2 + RANDOM_BYTES, person=b"greenroom id"
    ).digest()
    return f"gr-{digest[:2].hex()}-{_text(digest[2:])}"


def _text(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
