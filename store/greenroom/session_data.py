"""A session as callers have it, as stores keep it, and as lists show it."""

from datetime import datetime
from typing import Any

import msgspec

from greenroom.codec import decode_data, encode_data
from greenroom.errors import UnreadableSessionError, UsageError
from greenroom.fields import checked_label, checked_user_id, datetime_of, micros_of, utc_now

_SECRET_FIELDS = frozenset({"session_id", "data"})


class SessionData(msgspec.Struct, kw_only=True):
    """One session. Changing it does not change the store: pass it to `update`.

    `session_id` is a secret and `data` may hold some, so repr shows neither. `created` and
    `absolute_expires` are fixed when the session is created; `expires` never lies after `absolute_expires`.
    `version` is 0 for a session that was never stored, else opaque: it rises with every change and is never
    used again, not even by a new session under the same id. `label` (at most 256 bytes) is shown in lists of
    a user's sessions. Times are aware datetimes; stores return them in UTC, to the microsecond.
    """

    session_id: str
    expires: datetime
    user_id: str | None = None
    data: dict[Any, Any] = msgspec.field(default_factory=dict)
    created: datetime = msgspec.field(default_factory=utc_now)
    absolute_expires: datetime | None = None
    label: str = ""
    version: int = 0

    def __repr__(self) -> str:
        return f"SessionData({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in _SECRET_FIELDS]


class StoredSession(msgspec.Struct, frozen=True, gc=False):
    """A session as stores keep it: its data encoded, its times in microseconds since 1970 UTC.

    Like `SessionData`, its repr shows neither id nor data.
    """

    session_id: str
    version: int
    user_id: str | None
    created_us: int
    expires_us: int
    absolute_us: int | None
    label: str
    data: bytes

    def __repr__(self) -> str:
        return f"<{type(self).__name__} version {self.version}>"

    @property
    def created(self) -> datetime:
        """When it was created."""
        return datetime_of(self.created_us)

    @property
    def expires(self) -> datetime:
        """When it ends unless it is extended."""
        return datetime_of(self.expires_us)

    def decoded(self) -> dict[Any, Any]:
        """Return the data. Raises UnreadableSessionError, whose `expires` is the session's end."""
        try:
            return decode_data(self.data)
        except UnreadableSessionError as error:
            error.expires = self.expires
            raise

    def session(self) -> SessionData:
        """Return the session with its data decoded. Raises UnreadableSessionError."""
        # Without the properties: this is done for every read.
        return SessionData(
            session_id=self.session_id,
            user_id=self.user_id,
            expires=datetime_of(self.expires_us),
            data=self.decoded(),
            created=datetime_of(self.created_us),
            absolute_expires=None if self.absolute_us is None else datetime_of(self.absolute_us),
            label=self.label,
            version=self.version,
        )


def stored_form(session: SessionData) -> StoredSession:
    """Return a session from a store in its stored form.

    Raises UnreadableSessionError for one that no facade would have stored: a custom store may hold anything,
    and so may a cluster to which something else writes.
    """
    try:
        return StoredSession(
            session.session_id,
            session.version,
            checked_user_id(session.user_id),
            micros_of(session.created, "created"),
            micros_of(session.expires, "expires"),
            None
            if session.absolute_expires is None
            else micros_of(session.absolute_expires, "absolute_expires"),
            checked_label(session.label),
            encode_data(session.data),
        )
    except UsageError:
        pass
    # Raised out here because the other error names a path, whose keys may be secrets.
    raise UnreadableSessionError(
        "a stored session holds what no session can hold: something else wrote to this store"
    )


class SessionInfo(msgspec.Struct, kw_only=True, frozen=True):
    """One session in a list of a user's sessions.

    `handle` names it and is no secret: a page may hold it, it is no credential, and `delete_by_handle`
    ends the session that it names, so a user can log out another device.
    """

    handle: str
    user_id: str
    created: datetime
    expires: datetime
    label: str
    version: int
