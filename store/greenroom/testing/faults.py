"""A store that fails or waits on demand, to test how an app behaves then.

>>> store = FaultyStore()
>>> store.fail("patch", UnavailableError("cut off"), times=1)     # not done
>>> store.fail("delete", OutcomeUnknownError("?", harmless_to_repeat=True), applied=True)   # done, not told
>>> gate = store.hold("get")      # the next get waits ...
>>> await gate.reached()          # ... and has come this far
>>> gate.open()                   # ... and goes on
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from greenroom.endings import Tell, Watch
from greenroom.errors import UnavailableError, UsageError
from greenroom.fields import UNCHANGED, Unchanged
from greenroom.memory import MemoryStore
from greenroom.options import TESTING
from greenroom.patching import PathLike, PathValues
from greenroom.sessions import BaseSessionStore, SessionData, SessionInfo

Result = TypeVar("Result")

READS = frozenset({"get", "list_by_user", "check"})
OPERATIONS = READS | {
    *("create", "update", "delete", "clean", "patch", "rotate", "delete_by_handle", "delete_by_user")
}


class Gate:
    """A point at which one operation waits until the test opens it. For tasks of one event loop."""

    def __init__(self) -> None:
        self._reached = _event()
        self._opened = _event()

    async def reached(self) -> None:
        """Wait until the operation stands here."""
        await self._reached.wait()

    def open(self) -> None:
        """Let the operation go on."""
        self._opened.set()

    async def pass_through(self) -> None:
        """Stand here until the gate opens. Called by the store."""
        self._reached.set()
        await self._opened.wait()


@dataclass(slots=True)
class _Fault:
    error: Exception
    times: int | None
    applied: bool


class FaultyStore(BaseSessionStore):
    """Any store (a MemoryStore unless given), with faults on demand. `calls` counts operations by name.

    Operations are named as the methods of a store, or "*" for all. `modify` is made of get and update here.
    """

    def __init__(self, inner: BaseSessionStore | None = None) -> None:
        TESTING.check(inner=inner)
        self.inner = MemoryStore() if inner is None else inner
        self.features = self.inner.features  # type: ignore[misc]  # offers what the inner store does
        self.contention_seconds = self.inner.contention_seconds
        self.calls: Counter[str] = Counter()
        self._faults: dict[str, _Fault] = {}
        self._gates: dict[str, list[Gate]] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.inner!r}>"

    # --- what the test says ------------------------------------------------------------------------------

    @property
    def writes(self) -> int:
        """How many operations were called that may change something."""
        return sum(count for name, count in self.calls.items() if name not in READS)

    def fail(
        self,
        operation: str,
        error: Exception | None = None,
        *,
        times: int | None = None,
        applied: bool = False,
    ) -> None:
        """Make an operation raise: `times` times or until `heal`, after having done its work if `applied`.

        The default error is UnavailableError.
        """
        _check(operation)
        TESTING.check(error=error, times=times, applied=applied)
        raised = UnavailableError("the test wants this store to be out of reach") if error is None else error
        self._faults[operation] = _Fault(raised, times, applied)

    def heal(self) -> None:
        """Let everything work again. Gates stay as they are."""
        self._faults.clear()

    def hold(self, operation: str) -> Gate:
        """Make the next call of an operation wait before it does anything. Call it inside the event loop."""
        _check(operation)
        gate = Gate()
        self._gates.setdefault(operation, []).append(gate)
        return gate

    # --- the store ---------------------------------------------------------------------------------------

    async def create(self, session: SessionData) -> int:
        """As the inner store."""
        return await self._perform("create", lambda: self.inner.create(session))

    async def get(self, session_id: str) -> SessionData | None:
        """As the inner store."""
        return await self._perform("get", lambda: self.inner.get(session_id))

    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        """As the inner store."""
        return await self._perform("update", lambda: self.inner.update(session_id, session, version=version))

    async def delete(self, session_id: str) -> None:
        """As the inner store."""
        await self._perform("delete", lambda: self.inner.delete(session_id))

    async def clean(self) -> int:
        """As the inner store."""
        return await self._perform("clean", self.inner.clean)

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
        return await self._perform(
            "patch",
            lambda: self.inner.patch(
                session_id, set=set, unset=unset, expect=expect, user_id=user_id, expires=expires
            ),
        )

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
        return await self._perform(
            "rotate",
            lambda: self.inner.rotate(session_id, user_id=user_id, set=set, unset=unset, expires=expires),
        )

    async def list_by_user(self, user_id: str, *, limit: int = 1000) -> list[SessionInfo]:
        """As the inner store."""
        return await self._perform("list_by_user", lambda: self.inner.list_by_user(user_id, limit=limit))

    async def delete_by_handle(self, user_id: str, handle: str) -> None:
        """As the inner store."""
        await self._perform("delete_by_handle", lambda: self.inner.delete_by_handle(user_id, handle))

    async def delete_by_user(self, user_id: str, *, keep: str | None = None) -> int:
        """As the inner store."""
        return await self._perform("delete_by_user", lambda: self.inner.delete_by_user(user_id, keep=keep))

    def watch(self, session_id: str, tell: Tell) -> Watch:
        """As the inner store. No operation: it does not fail."""
        return self.inner.watch(session_id, tell)

    async def check(self, *, every_shard: bool = False) -> None:
        """As the inner store."""
        await self._perform("check", lambda: self.inner.check(every_shard=every_shard))

    async def aclose(self) -> None:
        """As the inner store."""
        await self.inner.aclose()

    async def _perform(self, operation: str, call: Callable[[], Awaitable[Result]]) -> Result:
        self.calls[operation] += 1
        gates = self._gates.get(operation) or self._gates.get("*")
        if gates:
            await gates.pop(0).pass_through()
        fault = self._taken(operation) or self._taken("*")
        if fault is None:
            return await call()
        if fault.applied:
            await call()
        raise fault.error

    def _taken(self, operation: str) -> _Fault | None:
        fault = self._faults.get(operation)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                del self._faults[operation]
        return fault


def _check(operation: str) -> None:
    if operation != "*" and operation not in OPERATIONS:
        raise UsageError(
            f"{operation!r} is no operation of a store; there are {', '.join(sorted(OPERATIONS))}"
        )


def _event() -> Any:
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            pass
        else:
            return trio.Event()
    return asyncio.Event()
