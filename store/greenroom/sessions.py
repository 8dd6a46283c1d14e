"""The contract that every session store keeps.

A custom store writes five methods (`create`, `get`, `update`, `delete`, `clean`); `patch` and `modify` then
work by reading, changing and conditionally updating. Stores that can do better override them, and may offer
the operations by user and `rotate`; `features` names what a store offers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import datetime
from inspect import iscoroutine
from types import TracebackType
from typing import Any, ClassVar, NoReturn, Self

from greenroom.codec import decode_data, encode_data
from greenroom.errors import (
    PathThroughListError,
    SessionNotFoundError,
    UnreadableSessionError,
    UnsupportedError,
    UsageError,
    VersionConflictError,
)
from greenroom.fields import (
    ABSENT,
    UNCHANGED,
    Unchanged,
    checked_user_id,
    datetime_of,
    micros_of,
)
from greenroom.patching import (
    Changes,
    ListInPathError,
    PathLike,
    PathValues,
    UnexpectedValueError,
    encode_changes,
    patch_data,
)
from greenroom.scan.bounds import MalformedError
from greenroom.scan.checks import check_data
from greenroom.session_data import SessionData, SessionInfo, StoredSession, stored_form
from greenroom.turns import Patience, in_turn
from greenroom.watching import WithEndings

__all__ = [
    "ABSENT",
    "ALL_FEATURES",
    "BASE_FEATURES",
    "CONTENTION_SECONDS",
    "UNCHANGED",
    "BaseSessionStore",
    "SessionData",
    "SessionInfo",
    "StoredSession",
    "stored_form",
]

BASE_FEATURES = frozenset({"patch", "modify"})
"""What every store offers beside the five basic operations, since `BaseSessionStore` has it."""
ALL_FEATURES = BASE_FEATURES | {"rotate", "list_by_user", "delete_by_handle", "delete_by_user", "endings"}
"""What a store may offer beside the five basic operations."""
CONTENTION_SECONDS = 5.0
"""How long the default `patch` and `modify` retry before they give up."""

_OPERATIONS = frozenset(
    {
        *("create", "get", "get_stored", "update", "delete", "patch", "patch_stored", "replace_stored"),
        *("rotate", "modify"),
    }
)
_READS = frozenset({"get", "get_stored"})


class BaseSessionStore(WithEndings, ABC):
    """A store of sessions. `async with store` closes it at the end; it also works without.

    Every operation may raise UsageError (the caller's mistake, nothing was done), and, for a store that is
    reached over a network, UnavailableError (not applied, safe to repeat) or OutcomeUnknownError. Those that
    return a session raise UnreadableSessionError if something else has written the stored session: one bad
    session must not look like a store that is down. `greenroom.codec.decode_data` raises it too.
    """

    features: ClassVar[frozenset[str]] = BASE_FEATURES
    """Which of `ALL_FEATURES` this store offers; the others raise UnsupportedError."""

    suspends: ClassVar[bool] = True
    """Whether an operation may wait for anything, but for its turn in `modify` and the defaults here."""

    contention_seconds: float = CONTENTION_SECONDS
    """How long `modify` (and the default `patch`) begins new attempts while others change the session."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A store that overrides `get` does so for all callers, including those of `get_stored`.
        for name, of_stored in (("get", "get_stored"), ("patch", "patch_stored")):
            if name in cls.__dict__ and of_stored not in cls.__dict__:
                setattr(cls, of_stored, getattr(BaseSessionStore, of_stored))
        if "at_hand" not in cls.__dict__ and not _READS.isdisjoint(cls.__dict__):
            cls.at_hand = BaseSessionStore.at_hand  # type: ignore[method-assign]  # it must not pass by those
        if "suspends" not in cls.__dict__ and not _OPERATIONS.isdisjoint(cls.__dict__):
            cls.suspends = True  # what it does there may wait, whatever it is a kind of

    # --- the five that a custom store writes -------------------------------------------------------------

    @abstractmethod
    async def create(self, session: SessionData) -> int:
        """Store a new session and return its version.

        Raises SessionExistsError if a live session has this id.
        """

    @abstractmethod
    async def get(self, session_id: str) -> SessionData | None:
        """Return the session, or None if there is none or it has expired."""

    @abstractmethod
    async def update(self, session_id: str, session: SessionData, *, version: int | None = None) -> int:
        """Replace user, lifetime, label and data of a stored session; return its new version.

        A missing session is never created again: an update that arrives after a logout must not undo it.
        Raises SessionNotFoundError if there is no live session with this id, and VersionConflictError if
        `version` is given and the stored session has another.
        """

    @abstractmethod
    async def delete(self, session_id: str) -> None:
        """Remove the session. That there is none is fine."""

    @abstractmethod
    async def clean(self) -> int:
        """Remove expired sessions and return their number. Never needed for correctness."""

    # --- with defaults over the five ---------------------------------------------------------------------

    async def patch(
        self,
        session_id: str,
        *,
        set: PathValues | None = None,  # noqa: A002  reads as what it does at the call
        unset: Iterable[PathLike] = (),
        expect: PathValues | None = None,
        user_id: str | Unchanged | None = UNCHANGED,
        expires: datetime | None = None,
    ) -> SessionData:
        """Change single paths of the data (and user or lifetime) in one step; return the new session.

        A path is a key or a tuple of keys. Patches of different paths never overwrite each other. Dicts are
        merged into dicts key by key; lists and other values are set whole. `unset` happens before `set`, so
        a dict is replaced whole by naming its path in both. `expect` makes the patch conditional: each path
        must have that value, or not exist if it is `ABSENT`.

        A path ("a", "b") where "a" holds a scalar replaces that by a dict. Raises SessionNotFoundError,
        VersionConflictError if an expectation failed, PathThroughListError if a path to set or unset runs
        through a list (use `modify`), and UsageError if one path of `set` lies below another.
        """
        changes = encode_changes(set, unset, expect)
        if user_id is not UNCHANGED:
            user_id = checked_user_id(user_id)
        if expires is not None:
            micros_of(expires, "expires")
        patience = Patience("patch", self.contention_seconds)
        async with in_turn(id(self), session_id):
            patience.begin()
            while True:
                session = await self._read(session_id)
                session.data = patched_data(session.data, changes)
                if user_id is not UNCHANGED:
                    session.user_id = user_id
                if expires is not None:
                    session.expires = expires
                if await self._written(session_id, session, session.version):
                    return session
                await patience.again()

    async def modify(self, session_id: str, change: Callable[[SessionData], None]) -> SessionData:
        """Read the session, let `change` alter it, and write it back; return the new session.

        For counters and lists, whose new value depends on the old one. Calls of one process for one session
        take turns. If someone else changed it in between, it is read again and `change` is called again, so
        `change` must have no other effects; it returns None.

        Raises SessionNotFoundError, and any exception of `change` (then nothing is written). If others keep
        changing the session for `contention_seconds`, raises VersionConflictError, or UnavailableError if its
        turn never came; then nothing was written either.
        """
        patience = Patience("modify", self.contention_seconds)
        async with in_turn(id(self), session_id):
            patience.begin()
            while (session := await self._modified(session_id, change)) is None:
                await patience.again()
            return session

    async def _modified(self, session_id: str, change: Callable[[SessionData], None]) -> SessionData | None:
        """Attempt to modify; return None if someone else was faster."""
        session = await self._read(session_id)
        version, created, absolute = session.version, session.created, session.absolute_expires
        outcome: object = change(session)  # type: ignore[func-returns-value]  # checked below
        if iscoroutine(outcome):
            outcome.close()
            raise UsageError("modify takes a plain function, not an async one: it may be called again")
        if outcome is not None:
            raise UsageError(
                "the function given to modify alters the session and returns None; this one returned a "
                f"{type(outcome).__name__}, which nothing would use"
            )
        if session.session_id != session_id:
            raise UsageError("modify cannot change the session's id; use rotate")
        session.created, session.absolute_expires = created, absolute
        session.data = decode_data(encode_data(session.data))
        return session if await self._written(session_id, session, version) else None

    async def _read(self, session_id: str) -> SessionData:
        session = await self.get(session_id)
        if session is None:
            raise not_found()
        return session

    async def _written(self, session_id: str, session: SessionData, version: int) -> bool:
        """Update on condition and make `session` equal the stored one; False if someone else was faster."""
        try:
            session.version = await self.update(session_id, session, version=version)
        except VersionConflictError:
            return False
        micros = micros_of(session.expires, "expires")
        if session.absolute_expires is not None:
            micros = min(micros, micros_of(session.absolute_expires, "absolute_expires"))
        session.expires = datetime_of(micros)
        return True

    # --- for callers that keep the data encoded ----------------------------------------------------------

    async def get_stored(self, session_id: str) -> StoredSession | None:
        """Do as `get` does, but return the session with its data encoded, which may prove unreadable.

        Stores that hold encoded data override it, to avoid decoding data that may not be read.
        """
        session = await self.get(session_id)
        return None if session is None else stored_form(session)

    def at_hand(self, session_id: str) -> StoredSession | None:
        """Return what `get_stored` would, if that takes no waiting; None: call `get_stored`.

        Most requests only read their session, and a coroutine takes longer than that where it is in memory.
        """
        return None

    async def patch_stored(
        self,
        session_id: str,
        *,
        set: PathValues | None = None,  # noqa: A002  as in patch
        unset: Iterable[PathLike] = (),
        expect: PathValues | None = None,
        expires: datetime | None = None,
    ) -> StoredSession:
        """Do as `patch` does, but return the session with its data encoded."""
        return stored_form(await self.patch(session_id, set=set, unset=unset, expect=expect, expires=expires))

    async def replace_stored(
        self, stored: StoredSession, data: bytes, *, expires_us: int | None = None
    ) -> StoredSession | None:
        """Replace the stored data by encoded data, if the session has not changed since `stored`.

        Returns None if it has, or if it takes a patch to find that out, as it does by default. Raises
        SessionNotFoundError.
        """
        return None

    # --- without a default -------------------------------------------------------------------------------

    async def rotate(
        self,
        session_id: str,
        *,
        user_id: str | Unchanged | None = UNCHANGED,
        set: PathValues | None = None,  # noqa: A002  as in patch
        unset: Iterable[PathLike] = (),
        expires: datetime | None = None,
    ) -> SessionData:
        """Give the session a new id, minted here, and kill the old one, in one step; return the session.

        Call it whenever rights change, above all at login, so that an earlier planted id is worthless. The
        rest is as in `patch`. Raises SessionNotFoundError.
        """
        self._unsupported("rotate")

    async def list_by_user(self, user_id: str, *, limit: int = 1000) -> list[SessionInfo]:
        """Return the user's live sessions, at most `limit` (1 to 2000), the newest first. No ids: handles."""
        self._unsupported("list_by_user")

    async def delete_by_handle(self, user_id: str, handle: str) -> None:
        """Remove one of the user's sessions by its handle. Absent, or another user's: nothing happens."""
        self._unsupported("delete_by_handle")

    async def delete_by_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Log the user out everywhere, except in the session with the id `keep`; return how many ended.

        Every session whose creation or user change was acknowledged before the call is gone afterwards.
        """
        self._unsupported("delete_by_user")

    def _unsupported(self, operation: str) -> NoReturn:
        name = type(self).__name__
        raise UnsupportedError(
            f"{name} does not offer {operation}; override it and name it in {name}.features, "
            "or use MemoryStore or ClusterStore"
        )

    # --- life --------------------------------------------------------------------------------------------

    async def check(self, *, every_shard: bool = False) -> None:
        """Check whether sessions can be read, at the start of an app or in a readiness probe.

        With `every_shard`, check that all of them can. Raises the errors of the operations, in time. Stores
        without connections have nothing to do.
        """
        return

    async def aclose(self) -> None:
        """Close connections. Harmless to repeat; stores without any have nothing to do.

        The store stays usable: the next operation connects again.
        """
        return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def patched_data(data: dict[Any, Any], changes: Changes) -> dict[Any, Any]:
    """Return the data after the changes. Raises as `patched_bytes` does."""
    return decode_data(patched_bytes(encode_data(data), changes))


def patched_bytes(data: bytes, changes: Changes) -> bytes:
    """Return encoded data after the changes.

    Raises VersionConflictError if an expectation failed, PathThroughListError if a path runs through a list,
    UnreadableSessionError if the data is malformed, UsageError if it would become what no session may hold.
    """
    try:
        return patch_data(data, *changes)
    except UnexpectedValueError as error:
        raise unexpected_value(str(error)) from None
    except ListInPathError as error:
        raise PathThroughListError(str(error)) from None
    except MalformedError as error:
        reason = str(error)
    # Raised out here because the other error names what the data holds, which may be a secret.
    raise refused_patch(data, reason)


def refused_patch(data: bytes, reason: str) -> UnreadableSessionError | UsageError:
    """Return the error of a patch whose stored data was malformed, or whose outcome would be."""
    try:
        check_data(data)
    except MalformedError:
        return UnreadableSessionError("the stored data cannot be changed: it is malformed")
    return UsageError(f"the patch was refused: {reason}")


def unexpected_value(path: str) -> VersionConflictError:
    """Return the error of a patch that expected another value at this path, given as text."""
    return VersionConflictError(f"{path} does not have the value that the patch expects: read it again")


def stale_version() -> VersionConflictError:
    """Return the error of a conditional update whose version the session no longer has."""
    return VersionConflictError("the session changed since that version: read it again")


def not_found() -> SessionNotFoundError:
    """Return the error of an operation on a session that is not there."""
    return SessionNotFoundError(
        "there is no live session with this id: never created, expired, deleted or rotated away"
    )
