"""A store whose operations are told to observers.

It wraps another one, so that a store that nobody observes has no place to look for observers. It offers all
that the other one does, and calls the same methods of it.
"""

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from time import perf_counter_ns
from typing import Any, TypeVar
from weakref import WeakMethod

from greenroom.endings import Tell, Watch
from greenroom.errors import UsageError
from greenroom.fields import UNCHANGED, Unchanged
from greenroom.observing.observer import DONE, MISSING, NS, Observer, Observers, Operation, outcome_of
from greenroom.patching import PathLike, PathValues
from greenroom.sessions import BaseSessionStore, SessionData, SessionInfo, StoredSession

Result = TypeVar("Result")


class ObservedStore(BaseSessionStore):
    """A store, and who hears of its operations. All that `inner` offers is here too, such as `near`.

    `clock_ns` reads a clock that never goes back. An operation that is made of others, as `modify` is, is
    told as one. Closing this closes the store.
    """

    def __init__(
        self,
        inner: BaseSessionStore,
        *observers: Observer,
        clock_ns: Callable[[], int] = perf_counter_ns,
    ) -> None:
        if not isinstance(inner, BaseSessionStore):
            raise UsageError(f"ObservedStore takes a store, not {type(inner).__name__}")
        self.inner = inner
        self.features = inner.features  # type: ignore[misc]  # offers what the inner store does
        self.suspends = inner.suspends  # type: ignore[misc]  # and waits when that does
        self.contention_seconds = inner.contention_seconds
        self._clock_ns = clock_ns
        self._observers = Observers(observers)
        near = getattr(inner, "near", None)
        if callable(near):
            for each in observers:
                each.follow_near(_while_there(near))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.inner!r}>"

    def __getattr__(self, name: str) -> Any:
        """Return what only the inner store has, such as `near` and `reload_tls` of a ClusterStore."""
        if name == "inner" or name.startswith("_"):  # a copy asks before it has one
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.inner, name)

    # --- operations --------------------------------------------------------------------------------------

    async def create(self, session: SessionData) -> int:
        """As the inner store."""
        return await self._observed("create", self.inner.create(session))

    async def get(self, session_id: str) -> SessionData | None:
        """As the inner store."""
        return await self._observed("get", self.inner.get(session_id))

    async def get_stored(self, session_id: str) -> StoredSession | None:
        """As the inner store."""
        return await self._observed("get", self.inner.get_stored(session_id))

    def at_hand(self, session_id: str) -> StoredSession | None:
        """As the inner store. What is not at hand is not told: `get_stored` follows."""
        began_ns = self._clock_ns()
        stored = self.inner.at_hand(session_id)
        if stored is not None:
            self._tell("get", DONE, began_ns)
        return stored

    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        """As the inner store."""
        return await self._observed("update", self.inner.update(session_id, session, version=version))

    async def replace_stored(
        self, stored: StoredSession, data: bytes, *, expires_us: int | None = None
    ) -> StoredSession | None:
        """As the inner store. That it takes a patch instead is not told: the patch follows."""
        began_ns = self._clock_ns()
        try:
            replaced = await self.inner.replace_stored(stored, data, expires_us=expires_us)
        except BaseException as error:
            self._tell("update", outcome_of(error), began_ns, error)
            raise
        if replaced is not None:
            self._tell("update", DONE, began_ns)
        return replaced

    async def delete(self, session_id: str) -> None:
        """As the inner store."""
        await self._observed("delete", self.inner.delete(session_id))

    async def clean(self) -> int:
        """As the inner store."""
        return await self._observed("clean", self.inner.clean())

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
        """As the inner store."""
        patched = self.inner.patch(
            session_id, set=set, unset=unset, expect=expect, user_id=user_id, expires=expires
        )
        return await self._observed("patch", patched)

    async def patch_stored(
        self,
        session_id: str,
        *,
        set: PathValues | None = None,  # noqa: A002  the contract's name
        unset: Iterable[PathLike] = (),
        expect: PathValues | None = None,
        expires: datetime | None = None,
    ) -> StoredSession:
        """As the inner store."""
        patched = self.inner.patch_stored(session_id, set=set, unset=unset, expect=expect, expires=expires)
        return await self._observed("patch", patched)

    async def modify(self, session_id: str, change: Callable[[SessionData], None]) -> SessionData:
        """As the inner store."""
        return await self._observed("modify", self.inner.modify(session_id, change))

    async def rotate(
        self,
        session_id: str,
        *,
        user_id: str | Unchanged | None = UNCHANGED,
        set: PathValues | None = None,  # noqa: A002  the contract's name
        unset: Iterable[PathLike] = (),
        expires: datetime | None = None,
    ) -> SessionData:
        """As the inner store."""
        rotated = self.inner.rotate(session_id, user_id=user_id, set=set, unset=unset, expires=expires)
        return await self._observed("rotate", rotated)

    async def list_by_user(self, user_id: str, *, limit: int = 1000) -> list[SessionInfo]:
        """As the inner store."""
        return await self._observed("list_by_user", self.inner.list_by_user(user_id, limit=limit))

    async def delete_by_handle(self, user_id: str, handle: str) -> None:
        """As the inner store."""
        await self._observed("delete_by_handle", self.inner.delete_by_handle(user_id, handle))

    async def delete_by_user(self, user_id: str, *, keep: str | None = None) -> int:
        """As the inner store."""
        return await self._observed("delete_by_user", self.inner.delete_by_user(user_id, keep=keep))

    def watch(self, session_id: str, tell: Tell) -> Watch:
        """As the inner store. What is told is that the watch has begun, not for how long it lasts."""
        began_ns = self._clock_ns()
        try:
            watch = self.inner.watch(session_id, tell)
        except BaseException as error:
            self._tell("watch", outcome_of(error), began_ns, error)
            raise
        self._tell("watch", DONE, began_ns)
        return watch

    async def check(self, *, every_shard: bool = False) -> None:
        """As the inner store."""
        # A store of one's own may know no more than `check()`.
        checked = self.inner.check(every_shard=every_shard) if every_shard else self.inner.check()
        await self._observed("check", checked)

    async def aclose(self) -> None:
        """As the inner store."""
        await self.inner.aclose()

    # --- telling -----------------------------------------------------------------------------------------

    async def _observed(self, kind: str, work: Awaitable[Result]) -> Result:
        began_ns = self._clock_ns()
        try:
            result = await work
        except BaseException as error:
            self._tell(kind, outcome_of(error), began_ns, error)
            raise
        self._tell(kind, MISSING if result is None and kind == "get" else DONE, began_ns)
        return result

    def _tell(self, kind: str, outcome: str, began_ns: int, error: BaseException | None = None) -> None:
        seconds = (self._clock_ns() - began_ns) * NS
        self._observers.operation(Operation(kind, outcome, seconds, error))


def _while_there(near: Callable[[], Any]) -> Callable[[], Any]:
    """Return what asks a store for as long as there is one: an observer lives longer than a test's store."""
    from greenroom.dialog.near import NearCounts

    try:
        weak = WeakMethod(near)
    except TypeError:
        return near  # not a method

    def told() -> Any:
        there = weak()
        return NearCounts() if there is None else there()

    return told
