"""The session as a handler sees it: a dict of plain values, with everything else under one attribute.

Templates look up attributes before keys, so a method `user` would hide the app's own key from `{{
session.user }}`. `session.greenroom` is the only name that we add.
"""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from copy import deepcopy
from typing import Any, NoReturn, Self, TypeVar

from greenroom.web.control import SessionControl
from greenroom.web.errors import over
from greenroom.web.visit import Visit

Session = TypeVar("Session", bound="RequestSession")

_NOTHING: Any = object()


class RequestSession(dict[Any, Any]):
    """The value of `scope["session"]` during one request or WebSocket: a dict, and `greenroom`.

    Changes are found by comparison on saving, so nested ones count too. Reading raises SessionNotLoadedError
    if the middleware has `autoload=False` and `greenroom.load` was not called. Writing raises UsageError if
    it would create a session after the response has started, and UnavailableError if the store did not answer
    and the app goes on without it. Copied or pickled, it is a plain dict.
    """

    __slots__ = ("__weakref__", "_greenroom_visit")
    _greenroom_visit: Visit

    __hash__ = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._greenroom_visit.condition}>"

    def _take_note(self, value: object) -> None:
        if value:
            self.mark_accessed()

    # For code that sets these on Starlette's sessions; changes are found by comparison. They cannot be read.
    accessed = property(None, _take_note)
    modified = property(None, _take_note)

    def __getattr__(self, name: str) -> NoReturn:
        hint = ""
        if hasattr(SessionControl, name):
            hint = f"; it is session.greenroom.{name}"
        elif not name.startswith("_"):
            hint = f'; a session is a dict: session["{name}"]'
        if name == "accessed":
            hint += ". If Starlette's SessionMiddleware asks, it stands around Greenroom's: remove it"
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    # A copy holds the data alone: the session itself leads to the store and to the secret.

    def __copy__(self) -> dict[Any, Any]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return deepcopy(self.copy(), memo)

    def __reduce_ex__(self, _protocol: object) -> tuple[type, tuple[dict[Any, Any]]]:
        return dict, (self.copy(),)

    @property
    def greenroom(self) -> SessionControl:
        """Everything beyond the dict, such as `session.greenroom.login("alice")`."""
        return SessionControl(self._greenroom_visit)

    def mark_accessed(self) -> None:
        """Note that the handler looked at the session. Starlette calls this when its session is requested."""
        visit = self._greenroom_visit
        if not (visit.seen and visit.accessed):
            visit.note_look()

    # --- reading, as dict has it -------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        visit = self._greenroom_visit
        if not (visit.seen and visit.accessed):
            visit.before_reading()
        return dict.__getitem__(self, key)

    def __contains__(self, key: object) -> bool:
        self._greenroom_visit.before_reading()
        return super().__contains__(key)

    def __iter__(self) -> Iterator[Any]:
        self._greenroom_visit.before_reading()
        return super().__iter__()

    def __reversed__(self) -> Iterator[Any]:
        self._greenroom_visit.before_reading()
        return super().__reversed__()

    def __len__(self) -> int:
        self._greenroom_visit.before_reading()
        return super().__len__()

    def __eq__(self, other: object) -> bool:
        self._greenroom_visit.before_reading()
        return super().__eq__(other)

    def __or__(self, other: Any) -> dict[Any, Any]:
        return self.copy() | other  # type: ignore[no-any-return]  # dict or NotImplemented, as dict has it

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return other | self.copy()  # type: ignore[no-any-return]  # as above

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, or the default."""
        visit = self._greenroom_visit
        if not (visit.seen and visit.accessed):
            visit.before_reading()
        return dict.get(self, key, default)

    def keys(self) -> KeysView[Any]:  # type: ignore[override]  # dict_keys cannot be named
        """Return the keys."""
        visit = self._greenroom_visit
        if not (visit.seen and visit.accessed):
            visit.before_reading()
        return dict.keys(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]  # as above
        """Return the values."""
        self._greenroom_visit.before_reading()
        return super().values()

    def items(self) -> ItemsView[Any, Any]:  # type: ignore[override]  # as above
        """Return the items."""
        self._greenroom_visit.before_reading()
        return super().items()

    def copy(self) -> dict[Any, Any]:
        """Return a plain dict with the same values."""
        self._greenroom_visit.before_reading()
        return self._greenroom_visit.contents()

    # --- writing, as dict has it -------------------------------------------------------------------------

    def __setitem__(self, key: Any, value: Any) -> None:
        self._greenroom_visit.before_writing()
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        self._greenroom_visit.before_writing()
        super().__delitem__(key)

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def clear(self) -> None:
        """End the session, as apps written for Starlette mean it. What is set later starts a new one."""
        self._greenroom_visit.clear()

    def pop(self, key: Any, default: Any = _NOTHING) -> Any:
        """Remove a key and return its value."""
        self._greenroom_visit.before_reading()
        if dict.__contains__(self, key):
            self._greenroom_visit.before_writing()
        return super().pop(key) if default is _NOTHING else super().pop(key, default)

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the item set last."""
        self._greenroom_visit.before_writing()
        return super().popitem()

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, set to the default if it is absent."""
        self._greenroom_visit.before_reading()
        if not dict.__contains__(self, key):
            self._greenroom_visit.before_writing()
        return super().setdefault(key, default)

    def update(  # type: ignore[override]  # of what dict overloads, all in one
        self, other: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (), /, **more: Any
    ) -> None:
        """Set many keys."""
        self._greenroom_visit.before_writing()
        super().update(other, **more)


def session_of(visit: Visit) -> RequestSession:
    """Return the session of a visit. Raises UsageError once it is over and nobody has kept the session."""
    session = visit.session
    if not isinstance(session, RequestSession):
        raise over()
    return session


def put_in_place(visit: Visit, session: Session) -> Session:
    """Give a visit this empty session in place of its own, with the same contents, and return it."""
    dict.update(session, visit.contents())
    session._greenroom_visit = visit  # noqa: SLF001  each belongs to the other
    visit.session = session
    return session
