"""A check, and its means: a store, an async library and perhaps a clock."""

import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, TypeAlias

from greenroom.fields import utc_now
from greenroom.ids import new_session_id
from greenroom.options import TESTING
from greenroom.sessions import BaseSessionStore, SessionData
from greenroom.testing.contract.libraries import Library

CheckFunction: TypeAlias = Callable[["Stage"], Awaitable[None]]

POLL_SECONDS = 0.02
WAIT_SECONDS = 15.0


@dataclass(frozen=True)
class Check:
    """One promise of the contract. `features` are those that a store must offer to be checked."""

    name: str
    run: CheckFunction
    features: frozenset[str]


class CheckList(list[Check]):
    """Checks of one concern, in the order in which they are written."""

    def check(self, *features: str) -> Callable[[CheckFunction], CheckFunction]:
        """Add the decorated `check_*` function; it runs over stores that offer these features."""

        def add(function: CheckFunction) -> CheckFunction:
            self.append(Check(function.__name__.removeprefix("check_"), function, frozenset(features)))
            return function

        return add


class ManualClock:
    """A clock that stands still until `advance`; call it for the present."""

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._present: datetime = TESTING.checked("start", start)

    def __call__(self) -> datetime:
        """Return the present."""
        return self._present

    def advance(self, seconds: float) -> None:
        """Let time pass (or, below zero, go back)."""
        self._present += timedelta(seconds=seconds)


@dataclass(frozen=True)
class Stage:
    """A store to check, and the means for it. `clock` is None if the store follows the real time."""

    store: BaseSessionStore
    library: Library
    clock: ManualClock | None

    def now(self) -> datetime:
        """Return the store's present."""
        return utc_now() if self.clock is None else self.clock()

    def after(self, seconds: float) -> datetime:
        """Return the moment that many seconds from now."""
        return self.now() + timedelta(seconds=seconds)

    def session(self, **fields: Any) -> SessionData:
        """Return a session to create: a fresh id, an hour to live, and these fields."""
        return SessionData(
            **{
                "session_id": new_session_id(),
                "created": self.now(),
                "expires": self.after(3600),
                **fields,
            }
        )

    def user(self) -> str:
        """Return a fresh user id."""
        return f"user-{secrets.token_hex(8)}"

    async def created(self, **fields: Any) -> SessionData:
        """Create such a session in the store and return it as the store has it."""
        session = self.session(**fields)
        await self.store.create(session)
        return await self.stored(session.session_id)

    async def stored(self, session_id: str) -> SessionData:
        """Return the session as the store has it, which must be there."""
        session = await self.store.get(session_id)
        if session is None:
            raise AssertionError("the session is not in the store")
        return session

    async def short_lived(self, **fields: Any) -> SessionData:
        """Create a session whose time is nearly over, and return what was created."""
        session = self.session(**{"expires": self.after(0.3), **fields})
        await self.store.create(session)
        return session

    async def expired(self, **fields: Any) -> SessionData:
        """Create a short-lived session, wait until it is gone, and return what was created."""
        session = await self.short_lived(**fields)
        await self.until_gone(session.session_id)
        return session

    async def until_gone(self, session_id: str) -> None:
        """Let time pass until the session, which must be about to expire, is gone."""
        if self.clock is not None:
            if await self.store.get(session_id) is None:
                raise AssertionError("the session is gone before its time")
            self.clock.advance(0.3)
            if await self.store.get(session_id) is not None:
                raise AssertionError("the session is still there when its time is over")
            return
        deadline = monotonic() + WAIT_SECONDS
        while await self.store.get(session_id) is not None:
            if monotonic() > deadline:
                raise AssertionError(f"a session that expired {WAIT_SECONDS} seconds ago is still there")
            await self.library.sleep(POLL_SECONDS)


@contextmanager
def raises(kind: type[Exception], *, naming: str = "", hiding: str | None = None) -> Iterator[None]:
    """Demand that the block raises this, with `naming` in its message and `hiding` nowhere in it."""
    try:
        yield
    except kind as error:
        if naming not in str(error):
            raise AssertionError(f"{naming!r} is not in the message {str(error)!r}") from error
        if hiding is not None and hiding in f"{error!r} {error.__cause__!r} {error.__context__!r}":
            raise AssertionError(f"{hiding!r} is shown by the error or its cause") from None
        return
    raise AssertionError(f"{kind.__name__} was not raised")
