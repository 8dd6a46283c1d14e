"""`session.greenroom`: what a session offers beside being a dict.

All of it but `load`, `save`, `reload`, `modify`, `user`, `devices` and `end_device` are plain functions,
usable in `def` endpoints. What they ask for is done when the response starts, with the changes of the data in
one step: so a handler that raises has done nothing. `await session.greenroom.save()` does it earlier.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn, Self, TypeVar

from greenroom.bases import unset_fields_of
from greenroom.sessions import SessionInfo
from greenroom.web.modification import modify
from greenroom.web.typed import converted, plain_dict
from greenroom.web.visit import Visit
from greenroom.web.writes import LISTED_MAX

Shape = TypeVar("Shape")


class SessionControl:
    """Whose the session is, how long it lives, and what is to become of it.

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
        """Say that the handler looked at the session."""
        self._visit.note_look()

    def mark_modified(self) -> None:
        """Say that the handler changes the session. Raises as writing does."""
        self._visit.before_writing()

    # --- of whom, how long -------------------------------------------------------------------------------

    @property
    def user_id(self) -> str | None:
        """The user who is logged in, or None."""
        self._visit.before_reading()
        return self._visit.user_id

    async def user(self) -> Any:
        """Return what `deserialize_user` makes of the user id; None if nobody is logged in."""
        return await self._visit.settings.users.user_of(self.user_id)

    @property
    def stored(self) -> bool:
        """Whether there is a session in the store, as far as this request knows."""
        self._visit.before_reading()
        return self._visit.is_stored

    @property
    def lost(self) -> bool:
        """Whether it turned out that the session was deleted or rotated away while this request ran."""
        return self._visit.lost

    @property
    def handle(self) -> str | None:
        """What names this session among the user's devices; None if it is not stored. No secret."""
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
    ) -> None:
        """Log this user in: new id, user and all changes in one step; the old id is dead then.

        `user` goes through `serialize_user`. `data` is set on top of what an anonymous session holds; the
        session of another user who was logged in ends, and nothing of it goes over. The absolute lifetime
        begins anew.

        `idle_seconds` and `persistent` are those of this one session, until it ends or somebody logs in with
        others: "remember me". None is what the `Session` has. Raises UsageError for what is no user id or no
        such option, for an idle time beyond `absolute_seconds`, and after the response has started.
        """
        self._visit.login(user, {} if data is None else plain_dict(data), idle_seconds, persistent)

    def logout(self) -> None:
        """End the session: deleted in the store, cookie removed, data gone."""
        self._visit.logout()

    def logout_everywhere(self, *, keep_current: bool = False) -> None:
        """End all sessions of the user who is logged in, or all others; without a user, just this one.

        Raises UnsupportedError if the store cannot do that.
        """
        self._visit.logout_everywhere(keep_current=keep_current)

    def regenerate(self) -> None:
        """Give the session a new id, as whenever rights change. Raises UsageError once the response began."""
        self._visit.regenerate()

    def discard(self) -> None:
        """Save nothing of this request, as if its handler had raised."""
        self._visit.close()

    async def load(self) -> Self:
        """Load the session if that was not done yet. Raises what `get` of the store raises."""
        await self._visit.load()
        self._visit.note_look()
        return self

    async def save(self) -> bool:
        """Save now what differs, and do what was asked for.

        Returns False if that was dropped, because the session was deleted or rotated away meanwhile. Raises
        UnavailableError or OutcomeUnknownError, and UsageError for what cannot be stored.
        """
        return await self._visit.save()

    async def reload(self) -> Self:
        """Forget what was not saved and read the session again; empty if it is gone."""
        await self._visit.reload()
        return self

    async def modify(self, change: Callable[[dict[Any, Any]], object]) -> bool:
        """Save now, with a change that depends on what is stored, as of a counter or a list.

        `change` gets a dict with the data and alters it. If another request has altered one of the same
        values meanwhile, the session is read again and `change` is called again, so it must have no other
        effects. Returns False if the session was deleted or rotated away meanwhile. Raises as `save` does,
        and VersionConflictError if others go on changing it for the `contention_seconds` of the store.
        """
        return await modify(self._visit, change)

    # --- your devices ------------------------------------------------------------------------------------

    async def devices(self, *, limit: int = 1000) -> list[SessionInfo]:
        """Return the newest sessions of the user who is logged in, at most `limit` (1 to 2000).

        `handle` tells which is this one. Raises what `list_by_user` of the store raises, UnsupportedError if
        the store cannot do that.
        """
        user_id = self.user_id
        return [] if user_id is None else await self._visit.settings.store.list_by_user(user_id, limit=limit)

    async def end_device(self, handle: str) -> bool:
        """Log out another of the user's sessions now; this one with the response.

        Returns False if the user has no session of this handle: it has ended, or was given a new id since it
        was listed, and with it another handle, so that the devices are to be shown again. Raises what
        `delete_by_handle` of the store raises, UnsupportedError if the store cannot do that, and UsageError
        if this is no handle.
        """
        user_id = self.user_id
        if handle == self.handle:
            self.logout()
            return True
        if user_id is None:
            return False
        store = self._visit.settings.store
        listed = await store.list_by_user(user_id, limit=LISTED_MAX)
        # Asked for also where it is not listed: a user may have more sessions than a list shows.
        await store.delete_by_handle(user_id, handle)
        self._visit.settings.events.trace_handle(handle, "ended from another device")
        return any(each.handle == handle for each in listed)

    # --- typed -------------------------------------------------------------------------------------------

    def as_type(self, shape: type[Shape]) -> Shape:
        """Return the data as a value of this type, a Struct for example, validated.

        Fields that the type does not name stay in the session. Raises SessionDataError on a mismatch.
        """
        self._visit.before_reading()
        return converted(self._visit.contents(), shape)

    def put(self, value: Any) -> None:
        """Set the fields of a Struct, dataclass, attrs or pydantic object, or a mapping; others stay.

        The way back from `as_type`. A field at its default is stored too; one that is UNSET is removed.
        """
        data, unset = plain_dict(value), unset_fields_of(value)
        self._visit.before_writing()
        dict.update(self._visit.session, data)
        for name in unset:
            dict.pop(self._visit.session, name, None)
