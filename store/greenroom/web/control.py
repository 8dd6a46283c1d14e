"""`session.greenroom`: everything that a session offers beyond a dict.

All methods but `load`, `save`, `reload`, `modify`, `user`, `devices`, `end_device` and `ended` are plain
functions, which `def` endpoints can call. What they request is done when the response starts, in one step
with the changes to the data: a handler that raises has changed nothing. `await session.greenroom.save()` does
it earlier.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn, Self, TypeVar

from greenroom.bases import unset_fields_of
from greenroom.endings import Ended
from greenroom.errors import UsageError
from greenroom.sessions import SessionInfo
from greenroom.web.modification import modify
from greenroom.web.survival import Keep
from greenroom.web.typed import converted, plain_dict
from greenroom.web.visit import Visit
from greenroom.web.writes import LISTED_MAX

Shape = TypeVar("Shape")


class SessionControl:
    """The session's user, its lifetime, and requests to change or end it.

    `login`, `logout`, `logout_everywhere`, `regenerate` and `mark_modified` raise as writing to the session
    does. Reading raises SessionNotLoadedError where nothing is loaded.
    """

    __slots__ = ("_visit",)

    def __init__(self, visit: Visit) -> None:
        self._visit = visit

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._visit.condition}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("this belongs to one request and its store; keep dict(session)")

    @property
    def accessed(self) -> bool:
        """Whether the handler looked at the session, so that the response depends on the cookie."""
        return self._visit.accessed

    @property
    def modified(self) -> bool:
        """Whether it differs from what was loaded or saved last, at any depth."""
        return self._visit.is_modified()

    def mark_accessed(self) -> None:
        """Note that the handler looked at the session."""
        self._visit.note_look()

    def mark_modified(self) -> None:
        """Note that the handler changes the session. Raises as writing does."""
        self._visit.before_writing()

    # --- user and lifetime -------------------------------------------------------------------------------

    @property
    def user_id(self) -> str | None:
        """The user who is logged in, or None."""
        self._visit.before_reading()
        return self._visit.user_id

    async def user(self) -> Any:
        """Return what `deserialize_user` returns for the user id; None if no one is logged in."""
        return await self._visit.settings.users.user_of(self.user_id)

    @property
    def stored(self) -> bool:
        """Whether there is a session in the store, as far as this request knows."""
        self._visit.before_reading()
        return self._visit.is_stored

    @property
    def lost(self) -> bool:
        """Whether a save found the session deleted or rotated away by another request."""
        return self._visit.lost

    @property
    def handle(self) -> str | None:
        """The name of this session among the user's devices, not a secret; None if it is not stored."""
        self._visit.before_reading()
        return self._visit.handle

    @property
    def created(self) -> datetime | None:
        """When it was created; None if it is not stored."""
        self._visit.before_reading()
        return None if self._visit.stored is None else self._visit.stored.created

    @property
    def expires(self) -> datetime | None:
        """When it ends unless it is extended; None if it is not stored."""
        self._visit.before_reading()
        return None if self._visit.stored is None else self._visit.stored.expires

    # --- life --------------------------------------------------------------------------------------------

    def login(
        self,
        user: Any,
        data: Mapping[Any, Any] | None = None,
        *,
        idle_seconds: float | None = None,
        persistent: bool | None = None,
        keep: Keep = False,
    ) -> None:
        """Log this user in: a new id, the user and all changes in one step. The old id is dead then.

        `user` goes through `serialize_user`. `data` is added. If another user was logged in, that session
        ends, and none of its data is carried over. The absolute lifetime starts again.

        `keep` is what survives of an anonymous session: its keys, such as `keep=("cart",)`; True for
        everything; False for nothing, because someone else may have filled it. What this request has set
        itself stays.

        `idle_seconds` and `persistent` ("remember me") apply to this session alone, until it ends or another
        login changes them; None means what the `Session` has. Raises UsageError for an invalid user id or
        option, for an idle time beyond `absolute_seconds`, and after the response has started.
        """
        self._visit.login(user, {} if data is None else plain_dict(data), idle_seconds, persistent, keep)

    def logout(self) -> None:
        """End the session: deleted in the store, cookie removed, data gone."""
        self._visit.logout()

    def logout_everywhere(self, *, keep_current: bool = False) -> None:
        """End all sessions of the logged-in user, or all but this one; without a user, just this one.

        Raises UnsupportedError if the store cannot do that.
        """
        self._visit.logout_everywhere(keep_current=keep_current)

    def regenerate(self) -> None:
        """Give the session a new id, as rights change. Raises UsageError once the response began."""
        self._visit.regenerate()

    def discard(self) -> None:
        """Save nothing of this request, as if its handler had raised."""
        self._visit.close()

    async def load(self) -> Self:
        """Load the session unless it is loaded. Raises what the store's `get` raises."""
        await self._visit.load()
        self._visit.note_look()
        return self

    async def save(self) -> bool:
        """Save the changes now, and do what was requested.

        Returns False if they were dropped, because another request deleted or rotated the session. Raises
        UnavailableError or OutcomeUnknownError, and UsageError for data that cannot be stored.
        """
        return await self._visit.save()

    async def reload(self) -> Self:
        """Discard unsaved changes and read the session again; it is empty if it is gone."""
        await self._visit.reload()
        return self

    async def modify(self, change: Callable[[dict[Any, Any]], object]) -> bool:
        """Save now, with a change that depends on the stored value, such as a counter or a list.

        `change` gets the data as a dict and alters it. If another request alters one of the same values in
        between, the session is read again and `change` is called again, so it must have no other effects.
        Returns False if another request deleted or rotated the session. Raises as `save` does, and
        VersionConflictError if others keep changing it for the store's `contention_seconds`.
        """
        return await modify(self._visit, change)

    async def ended(self) -> Ended:
        """Wait until the session has ended, in whatever worker, and return why. For WebSockets and streams.

        With `on_end="close"` a WebSocket is closed at that moment as well. Raises UsageError if there is no
        session in the store, UnsupportedError if the store does not tell of endings, and UnavailableError if
        too many sessions are watched.
        """
        self._visit.before_reading()
        stored = self._visit.stored
        if stored is None or not self._visit.is_stored:
            raise UsageError("there is no session to await the end of: look at session.greenroom.stored")
        return await anext(self._visit.settings.store.endings(stored.session_id))

    # --- the user's devices ------------------------------------------------------------------------------

    async def devices(self, *, limit: int = 1000) -> list[SessionInfo]:
        """Return the newest sessions of the logged-in user, at most `limit` (1 to 2000).

        `handle` identifies this one. Raises what the store's `list_by_user` raises, and UnsupportedError if
        the store has none.
        """
        user_id = self.user_id
        return [] if user_id is None else await self._visit.settings.store.list_by_user(user_id, limit=limit)

    async def end_device(self, handle: str) -> bool:
        """End another of the user's sessions now, or this one with the response.

        Returns False if the user has no session with this handle: since it was listed, it has ended, or got a
        new id and with it a new handle. Show the devices again. Raises what the store's `delete_by_handle`
        raises, UnsupportedError if the store has none, and UsageError if this is not a handle.
        """
        user_id = self.user_id
        if handle == self.handle:
            self.logout()
            return True
        if user_id is None:
            return False
        store = self._visit.settings.store
        listed = await store.list_by_user(user_id, limit=LISTED_MAX)
        # Deleted even if it is not listed: a user may have more sessions than a list shows.
        await store.delete_by_handle(user_id, handle)
        self._visit.settings.events.trace_handle(handle, "ended from another device")
        return any(each.handle == handle for each in listed)

    # --- typed -------------------------------------------------------------------------------------------

    def as_type(self, shape: type[Shape]) -> Shape:
        """Return the data, validated, as a value of this type, such as a Struct.

        Fields that the type does not name stay in the session. Raises SessionDataError on a mismatch.
        """
        self._visit.before_reading()
        return converted(self._visit.contents(), shape)

    def put(self, value: Any) -> None:
        """Set the fields of a Struct, dataclass, attrs or pydantic object, or a mapping; others stay.

        The inverse of `as_type`. A field at its default is stored too; one that is UNSET is removed.
        """
        data, unset = plain_dict(value), unset_fields_of(value)
        self._visit.before_writing()
        dict.update(self._visit.session, data)
        for name in unset:
            dict.pop(self._visit.session, name, None)
