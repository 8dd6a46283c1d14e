"""A store in the memory of one process: for tests, for development, for apps of a single process.

It offers everything that the cluster offers and keeps the same promises, except surviving the process. No
operation awaits anything but its turn, so each is atomic under asyncio and trio and safe to cancel. It keeps
digests instead of ids, and encoded bytes instead of objects, so that callers never share mutable state with
it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import count
from typing import Any, ClassVar

import msgspec

from greenroom.clocks import microseconds_by
from greenroom.codec import encode_data
from greenroom.errors import SessionExistsError, UsageError
from greenroom.fields import (
    DATA_BYTES_MAX,
    UNCHANGED,
    Unchanged,
    check_data_size,
    check_limit,
    check_version,
    checked_label,
    checked_present_user_id,
    checked_user_id,
    datetime_of,
    micros_of,
    utc_now,
)
from greenroom.ids import (
    check_session_id,
    digest_if_possible,
    digest_of,
    handle_of,
    new_session_id,
    parse_handle,
    point_of,
)
from greenroom.options import MEMORY_STORE
from greenroom.patching import Changes, PathLike, PathValues, encode_changes
from greenroom.sessions import (
    ALL_FEATURES,
    BaseSessionStore,
    SessionData,
    SessionInfo,
    StoredSession,
    not_found,
    patched_bytes,
    stale_version,
)

LOOKS_PER_CREATE = 4
"""How many records a create looks at for expired ones."""


class _Record(msgspec.Struct, frozen=True, gc=False):
    """A session as it is kept: replaced as a whole, never changed. Times in microseconds."""

    point: int
    version: int
    user_id: str | None
    created: int
    expires: int
    absolute: int | None
    label: str
    data: bytes


class MemoryStore(BaseSessionStore):
    """All sessions of one process, gone when it ends.

    `clock` returns the present as an aware datetime; if it goes back, the store's time stands still until the
    clock has caught up, so that nothing expired lives again. `data_bytes_max` limits the encoded data of one
    session. Expired sessions are dropped when they are met, by `clean`, and a few at each `create`: what has
    expired is gone after a quarter as many creates as there are sessions, so nothing need call `clean`. Not
    for use by several threads at once.
    """

    features: ClassVar[frozenset[str]] = ALL_FEATURES
    suspends: ClassVar[bool] = False

    def __init__(
        self, *, clock: Callable[[], datetime] = utc_now, data_bytes_max: int = DATA_BYTES_MAX
    ) -> None:
        self._clock: Callable[[], datetime] = MEMORY_STORE.checked("clock", clock)
        self._now_us = microseconds_by(self._clock)
        self._data_bytes_max: int = MEMORY_STORE.checked("data_bytes_max", data_bytes_max)
        self._records: OrderedDict[bytes, _Record] = OrderedDict()
        self._users: dict[str, set[bytes]] = {}
        self._versions = count(1)
        self._newest_time = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self._records)} sessions>"

    # --- the five ----------------------------------------------------------------------------------------

    async def create(self, session: SessionData) -> int:
        """Store a new session and return its version.

        Raises SessionExistsError if a live session has this id.
        """
        digest = digest_of(session.session_id)
        created = micros_of(session.created, "created")
        absolute = None
        if session.absolute_expires is not None:
            absolute = micros_of(session.absolute_expires, "absolute_expires")
        expires = _earlier(micros_of(session.expires, "expires"), absolute)
        user_id = checked_user_id(session.user_id)
        label = checked_label(session.label)
        data = self._encoded(session.data)
        self._collect()
        if self._live(digest) is not None:
            raise SessionExistsError("a live session has this id; mint a new one with new_session_id()")
        return self._store(
            digest,
            _Record(
                point_of(session.session_id),
                next(self._versions),
                user_id,
                created,
                expires,
                absolute,
                label,
                data,
            ),
        )

    async def get(self, session_id: str) -> SessionData | None:
        """Return the session, or None if there is none or it has expired."""
        record = self._live(digest_if_possible(session_id))
        return None if record is None else _stored(session_id, record).session()

    async def get_stored(self, session_id: str) -> StoredSession | None:
        """Return the session with its data encoded; see `BaseSessionStore.get_stored`."""
        record = self._live(digest_if_possible(session_id))
        return None if record is None else _stored(session_id, record)

    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        """Replace user, lifetime, label and data of a stored session; return its new version.

        Never creates the session again if it is missing: that is how a logout would be undone.
        Raises SessionNotFoundError, and VersionConflictError if `version` is given and stale.
        """
        digest = digest_if_possible(session_id)
        if session.session_id != session_id:
            raise UsageError("update cannot change a session's id; use rotate")
        expires = micros_of(session.expires, "expires")
        user_id = checked_user_id(session.user_id)
        label = checked_label(session.label)
        check_version(version)
        data = self._encoded(session.data)
        old = self._live(digest)
        if old is None or digest is None:
            raise not_found()
        if version is not None and version != old.version:
            raise stale_version()
        return self._store(
            digest,
            _Record(
                old.point,
                next(self._versions),
                user_id,
                old.created,
                _earlier(expires, old.absolute),
                old.absolute,
                label,
                data,
            ),
        )

    async def delete(self, session_id: str) -> None:
        """Remove the session. That there is none is fine."""
        digest = digest_if_possible(session_id)
        if digest is not None:
            self._remove(digest)

    async def clean(self) -> int:
        """Remove what has expired and return how many sessions that were."""
        now = self._now()
        expired = [digest for digest, record in self._records.items() if record.expires <= now]
        for digest in expired:
            self._remove(digest)
        return len(expired)

    # --- in one step instead of the defaults -------------------------------------------------------------

    async def patch(
        self,
        session_id: str,
        *,
        set: PathValues | None = None,  # noqa: A002  the contract's name
        unset: Iterable[PathLike] = (),
        expect: PathValues | None = None,
        user_id: str | Unchanged | None = UNCHANGED,
        expires: datetime | None = None,
    ) -> SessionData:
        """Change single paths of the data (and user or lifetime); see `BaseSessionStore.patch`."""
        return self._patched(session_id, encode_changes(set, unset, expect), user_id, expires).session()

    async def patch_stored(
        self,
        session_id: str,
        *,
        set: PathValues | None = None,  # noqa: A002  the contract's name
        unset: Iterable[PathLike] = (),
        expect: PathValues | None = None,
        expires: datetime | None = None,
    ) -> StoredSession:
        """Change single paths; see `BaseSessionStore.patch_stored`."""
        return self._patched(session_id, encode_changes(set, unset, expect), UNCHANGED, expires)

    async def replace_stored(
        self, record: StoredSession, data: bytes, *, expires_us: int | None = None
    ) -> StoredSession | None:
        """Put encoded data in the place of what is stored; see `BaseSessionStore.replace_stored`."""
        digest = digest_if_possible(record.session_id)
        old = self._live(digest)
        if old is None or digest is None:
            raise not_found()
        if old.version != record.version:
            return None
        check_data_size(data, self._data_bytes_max)
        changed = _Record(
            old.point,
            next(self._versions),
            old.user_id,
            old.created,
            old.expires if expires_us is None else _earlier(expires_us, old.absolute),
            old.absolute,
            old.label,
            data,
        )
        self._records[digest] = changed
        return _stored(record.session_id, changed)

    async def rotate(
        self,
        session_id: str,
        *,
        user_id: str | Unchanged | None = UNCHANGED,
        set: PathValues | None = None,  # noqa: A002  the contract's name
        unset: Iterable[PathLike] = (),
        expires: datetime | None = None,
    ) -> SessionData:
        """Give the session a new id and kill the old one; see `BaseSessionStore.rotate`."""
        digest, record = self._changed(session_id, encode_changes(set, unset), user_id, expires)
        new_id = new_session_id(record.point)
        self._remove(digest)
        self._store(digest_of(new_id), record)
        return _stored(new_id, record).session()

    # --- by user -----------------------------------------------------------------------------------------

    async def list_by_user(self, user_id: str, *, limit: int = 1000) -> list[SessionInfo]:
        """Return the user's live sessions, at most `limit`, the newest first. No ids: handles."""
        user_id = checked_present_user_id(user_id)
        check_limit(limit)
        live = [
            (record.created, record.version, digest, record)
            for digest in tuple(self._users.get(user_id, ()))
            if (record := self._live(digest)) is not None
        ]
        live.sort(key=lambda entry: entry[:2], reverse=True)
        return [
            SessionInfo(
                handle=handle_of(record.point, digest),
                user_id=user_id,
                created=datetime_of(created),
                expires=datetime_of(record.expires),
                label=record.label,
                version=version,
            )
            for created, version, digest, record in live[:limit]
        ]

    async def delete_by_handle(self, user_id: str, handle: str) -> None:
        """Remove one of the user's sessions by its handle. Absent, or another user's: nothing happens."""
        user_id = checked_present_user_id(user_id)
        point, digest = parse_handle(handle)
        record = self._records.get(digest)
        if record is not None and record.user_id == user_id and record.point == point:
            self._remove(digest)

    async def delete_by_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Log the user out everywhere, except in the session with the id `keep`; return how many ended."""
        user_id = checked_present_user_id(user_id)
        kept = None
        if keep is not None:
            check_session_id(keep)
            kept = digest_of(keep)
        ended = 0
        for digest in tuple(self._users.get(user_id, ())):
            if digest != kept and self._live(digest) is not None:
                self._remove(digest)
                ended += 1
        return ended

    # --- inside ------------------------------------------------------------------------------------------

    def _now(self) -> int:
        now = self._now_us()
        if now > self._newest_time:
            self._newest_time = now
        return self._newest_time

    def _encoded(self, data: dict[Any, Any]) -> bytes:
        encoded = encode_data(data)
        check_data_size(encoded, self._data_bytes_max)
        return encoded

    def _live(self, digest: bytes | None) -> _Record | None:
        """Return the record if its time is not over, else drop it. None stands for an impossible id."""
        record = None if digest is None else self._records.get(digest)
        if digest is not None and record is not None and record.expires <= self._now():
            self._remove(digest)
            return None
        return record

    def _patched(
        self, session_id: str, changes: Changes, user_id: str | Unchanged | None, expires: datetime | None
    ) -> StoredSession:
        digest, record = self._changed(session_id, changes, user_id, expires)
        self._store(digest, record)
        return _stored(session_id, record)

    def _changed(
        self, session_id: str, changes: Changes, user_id: str | Unchanged | None, expires: datetime | None
    ) -> tuple[bytes, _Record]:
        """Return the digest, and what the live record becomes under these changes, without storing it."""
        digest = digest_if_possible(session_id)
        if user_id is not UNCHANGED:
            user_id = checked_user_id(user_id)
        new_expires = None if expires is None else micros_of(expires, "expires")
        old = self._live(digest)
        if old is None or digest is None:
            raise not_found()
        data = patched_bytes(old.data, changes)
        check_data_size(data, self._data_bytes_max)
        changed = _Record(
            old.point,
            next(self._versions),
            old.user_id if user_id is UNCHANGED else user_id,
            old.created,
            old.expires if new_expires is None else _earlier(new_expires, old.absolute),
            old.absolute,
            old.label,
            data,
        )
        return digest, changed

    def _collect(self) -> None:
        """Look at a few records, those first that were not looked at for longest, and drop the expired."""
        records, now = self._records, self._now()
        for _ in range(min(LOOKS_PER_CREATE, len(records))):
            digest = next(iter(records))
            if records[digest].expires <= now:
                self._remove(digest)
            else:
                records.move_to_end(digest)

    def _store(self, digest: bytes, record: _Record) -> int:
        old = self._records.get(digest)
        if old is None or old.user_id != record.user_id:
            self._remove(digest)
            if record.user_id is not None:
                self._users.setdefault(record.user_id, set()).add(digest)
        self._records[digest] = record
        return record.version

    def _remove(self, digest: bytes) -> None:
        record = self._records.pop(digest, None)
        if record is not None and record.user_id is not None:
            digests = self._users[record.user_id]
            digests.discard(digest)
            if not digests:
                del self._users[record.user_id]


def _earlier(expires: int, absolute: int | None) -> int:
    return expires if absolute is None else min(expires, absolute)


def _stored(session_id: str, record: _Record) -> StoredSession:
    return StoredSession(
        session_id,
        record.version,
        record.user_id,
        record.created,
        record.expires,
        record.absolute,
        record.label,
        record.data,
    )
