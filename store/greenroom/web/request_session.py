"""The session as a handler sees it: a dict of plain values, with what a dict has no words for.

All its methods but `load`, `save`, `reload`, `modify`, `user`, `devices` and `end_device` are plain
functions, usable in `def` endpoints. What they ask for is done when the response starts, with the changes of
the data in one step: so a handler that raises has done nothing. `await session.save()` does it earlier.
"""

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from datetime import datetime
from typing import Any, Self, TypeVar

from greenroom.bases import unset_fields_of
from greenroom.sessions import SessionInfo
from greenroom.web.modification import modify
from greenroom.web.typed import converted, plain_dict
from greenroom.web.visit import Visit

Shape = TypeVar("Shape")

_NOTHING: Any = object()


class RequestSession(dict[Any, Any]):
    """What stands in `scope["session"]` during one request or WebSocket.

    Changes are found by comparison when it is saved, so nested ones count too. Reading raises
    SessionNotLoadedError where the middleware has `autoload=False` and `load` was not called. Writing raises
    UsageError where it would create a session after the response has started, and UnavailableError where the
    store did not answer and the app goes on for reads; so do `login`, `logout`, `logout_everywhere` and
    `regenerate`.
    """

    __slots__ = ("_visit",)
    _visit: Visit

    @classmethod
    def over(cls, visit: Visit) -> Self:
        """Return a session of this kind, in the place of the one that the visit has."""
        session = cls(visit.contents())
        session._visit = visit
        visit.session = session
        return session

    __hash__ = None

    # --- as Starlette has it -----------------------------------------------------------------------------

    @property
    def accessed(self) -> bool:
        """Whether the handler looked at the session, so that the response depends on the cookie."""
        return self._visit.accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        self._visit.accessed = value

    @property
    def modified(self) -> bool:
        """Whether it differs from what was loaded or saved last, at any depth."""
        return self._visit.is_modified()

    @modified.setter
    def modified(self, value: bool) -> None:
        """Take note; only what differs is ever written."""
        self._visit.accessed = self._visit.accessed or value

    def mark_accessed(self) -> None:
        """Say that the handler looked at the session."""
        self._visit.accessed = True

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
        return None if self._visit.record is None else self._visit.record.created

    @property
    def expires(self) -> datetime | None:
        """When it ends unless it is extended; None if it is not stored."""
        self._visit.before_reading()
        return None if self._visit.record is None else self._visit.record.expires

    # --- life --------------------------------------------------------------------------------------------

    def login(self, user: Any, data: Mapping[Any, Any] | None = None) -> None:
        """Log this user in: new id, user and all changes in one step; the old id is dead then.

        `user` goes through `serialize_user`. `data` is set on top of what an anonymous session holds; the
        data of another user who was logged in is dropped. Raises UsageError for what is no user id, and after
        the response has started.
        """
        self._visit.login(user, {} if data is None else plain_dict(data))

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
        self._visit.accessed = True
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

    async def end_device(self, handle: str) -> None:
        """Log out another of the user's sessions now; this one with the response.

        Raises what `delete_by_handle` of the store raises, UnsupportedError if the store cannot do that, and
        UsageError if this is no handle.
        """
        user_id = self.user_id
        if handle == self.handle:
            self.logout()
        elif user_id is not None:
            await self._visit.settings.store.delete_by_handle(user_id, handle)

    # --- typed -------------------------------------------------------------------------------------------

    def as_type(self, shape: type[Shape]) -> Shape:
        """Return the data as a value of this type, a Struct for example, validated.

        Fields that the type does not name stay in the session. Raises SessionDataError on a mismatch.
        """
        return converted(self.copy(), shape)

    def put(self, value: Any) -> None:
        """Set the fields of a Struct, dataclass, attrs or pydantic object, or a mapping; others stay.

        The way back from `as_type`. A field at its default is stored too; one that is UNSET is removed.
        """
        self.update(plain_dict(value))
        for name in unset_fields_of(value):
            self.pop(name, None)

    # --- reading, as dict has it -------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        self._visit.before_reading()
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._visit.before_reading()
        return super().__contains__(key)

    def __iter__(self) -> Iterator[Any]:
        self._visit.before_reading()
        return super().__iter__()

    def __reversed__(self) -> Iterator[Any]:
        self._visit.before_reading()
        return super().__reversed__()

    def __len__(self) -> int:
        self._visit.before_reading()
        return super().__len__()

    def __eq__(self, other: object) -> bool:
        self._visit.before_reading()
        return super().__eq__(other)

    def __or__(self, other: Any) -> dict[Any, Any]:
        return self.copy() | other  # type: ignore[no-any-return]  # dict or NotImplemented, as dict has it

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return other | self.copy()  # type: ignore[no-any-return]  # as above

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, or the default."""
        self._visit.before_reading()
        return super().get(key, default)

    def keys(self) -> KeysView[Any]:  # type: ignore[override]  # dict_keys cannot be named
        """Return the keys."""
        self._visit.before_reading()
        return super().keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]  # as above
        """Return the values."""
        self._visit.before_reading()
        return super().values()

    def items(self) -> ItemsView[Any, Any]:  # type: ignore[override]  # as above
        """Return the items."""
        self._visit.before_reading()
        return super().items()

    def copy(self) -> dict[Any, Any]:
        """Return a plain dict with the same values."""
        self._visit.before_reading()
        return self._visit.contents()

    # --- writing, as dict has it -------------------------------------------------------------------------

    def __setitem__(self, key: Any, value: Any) -> None:
        self._visit.before_writing()
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        self._visit.before_writing()
        super().__delitem__(key)

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def clear(self) -> None:
        """Forget everything. Left empty, the session is deleted, as apps written for Starlette mean it."""
        self._visit.clear()

    def pop(self, key: Any, default: Any = _NOTHING) -> Any:
        """Remove a key and return its value."""
        self._visit.before_reading()
        if dict.__contains__(self, key):
            self._visit.before_writing()
        return super().pop(key) if default is _NOTHING else super().pop(key, default)

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the item set last."""
        self._visit.before_writing()
        return super().popitem()

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, set to the default if it is absent."""
        self._visit.before_reading()
        if not dict.__contains__(self, key):
            self._visit.before_writing()
        return super().setdefault(key, default)

    def update(  # type: ignore[override]  # of what dict overloads, all in one
        self, other: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (), /, **more: Any
    ) -> None:
        """Set many keys."""
        self._visit.before_writing()
        super().update(other, **more)


def session_of(visit: Visit) -> RequestSession:
    """Return the session of a visit."""
    session = visit.session
    assert isinstance(session, RequestSession)
    return session
