"""Stores whose sessions lie in one table: what they do with arguments and replies.

`MemoryStore` and `SqliteStore` differ in where that table is. Session ids stay here: commands hold digests.
"""

from abc import abstractmethod
from collections.abc import Awaitable, Iterable
from datetime import datetime
from typing import Any, ClassVar

import msgspec

from greenroom import wire
from greenroom.codec import encode_within_limit
from greenroom.errors import UsageError
from greenroom.fanout import count_of
from greenroom.fields import (
    UNCHANGED,
    Unchanged,
    check_data_size,
    check_limit,
    check_version,
    checked_label,
    checked_present_user_id,
    checked_user_id,
    micros_of,
    oversized,
)
from greenroom.ids import (
    digest_if_possible,
    digest_of,
    locate,
    locate_if_possible,
    new_session_id,
    parse_handle,
)
from greenroom.patching import Changes, PathLike, PathValues, encode_changes
from greenroom.replies import (
    failure,
    session_info,
    stored_session,
    user_change,
    written_version,
)
from greenroom.sessions import (
    ALL_FEATURES,
    BaseSessionStore,
    SessionData,
    SessionInfo,
    StoredSession,
    not_found,
    refused_patch,
)


class OneTableStore(BaseSessionStore):
    """A store that passes commands to one `CommandTable`, wherever that is."""

    features: ClassVar[frozenset[str]] = ALL_FEATURES

    @abstractmethod
    def _perform(self, command: Any) -> Awaitable[Any]:
        """Return the table's reply to a command.

        To a `wire.Get` that is the live session's state or None, to a `wire.ListByUser` the handles.
        """

    # --- the five ----------------------------------------------------------------------------------------

    async def create(self, session: SessionData) -> int:
        """Store a new session and return its version.

        Raises SessionExistsError if a live session has this id.
        """
        point, digest = locate(session.session_id)
        created = micros_of(session.created, "created")
        absolute = None
        if session.absolute_expires is not None:
            absolute = micros_of(session.absolute_expires, "absolute_expires")
        expires = micros_of(session.expires, "expires")
        user_id = checked_user_id(session.user_id)
        label = checked_label(session.label)
        data = encode_within_limit(session.data)
        command = wire.Create(0, 0, 0, point, digest, user_id, created, expires, absolute, label, data)
        return written_version(await self._perform(command))

    async def get(self, session_id: str) -> SessionData | None:
        """Return the session, or None if there is none or it has expired."""
        # Not by `get_stored`: one more coroutine for each read.
        digest = digest_if_possible(session_id)
        if digest is None:
            return None
        state = await self._perform(wire.Get(0, 0, digest))
        return None if state is None else stored_session(session_id, state).session()

    async def get_stored(self, session_id: str) -> StoredSession | None:
        """Return the session with its data encoded; see `BaseSessionStore.get_stored`."""
        digest = digest_if_possible(session_id)
        if digest is None:
            return None
        state = await self._perform(wire.Get(0, 0, digest))
        return None if state is None else stored_session(session_id, state)

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
        data = encode_within_limit(session.data)
        if digest is None:
            raise not_found()
        command = wire.Update(0, 0, 0, 0, digest, user_id, expires, label, data, version)
        return written_version(await self._perform(command))

    async def delete(self, session_id: str) -> None:
        """Remove the session. That there is none is fine."""
        digest = digest_if_possible(session_id)
        if digest is not None:
            await self._perform(wire.Delete(0, 0, 0, 0, digest))

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
        changes = encode_changes(set, unset, expect)
        return (await self._patched(session_id, changes, user_id, expires)).session()

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
        return await self._patched(session_id, encode_changes(set, unset, expect), UNCHANGED, expires)

    async def replace_stored(
        self, stored: StoredSession, data: bytes, *, expires_us: int | None = None
    ) -> StoredSession | None:
        """Put encoded data in the place of what is stored; see `BaseSessionStore.replace_stored`."""
        digest = digest_if_possible(stored.session_id)
        if digest is None:
            raise not_found()
        check_data_size(data)
        expires = stored.expires_us if expires_us is None else expires_us
        if stored.absolute_us is not None:
            expires = min(expires, stored.absolute_us)
        command = wire.Update(0, 0, 0, 0, digest, stored.user_id, expires, stored.label, data, stored.version)
        reply = await self._perform(command)
        if isinstance(reply, wire.Failed) and reply.code == wire.FailureCode.CONFLICT:
            return None
        return msgspec.structs.replace(stored, version=written_version(reply), expires_us=expires, data=data)

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
        place = locate_if_possible(session_id)
        changes = encode_changes(set, unset)
        user = user_change(user_id)
        expires_us = None if expires is None else micros_of(expires, "expires")
        if place is None:
            raise not_found()
        point, digest = place
        new_id = new_session_id(point)
        command = wire.Rotate(
            0, 0, 0, point, digest, digest_of(new_id), changes.set, changes.unset, user, expires_us
        )
        reply = await self._perform(command)
        return (await self._shown(new_id, digest, reply)).session()

    # --- by user -----------------------------------------------------------------------------------------

    async def list_by_user(self, user_id: str, *, limit: int = 1000) -> list[SessionInfo]:
        """Return the user's live sessions, at most `limit`, the newest first. No ids: handles."""
        user_id = checked_present_user_id(user_id)
        check_limit(limit)
        live = await self._perform(wire.ListByUser(0, user_id, limit, ()))
        return [session_info(user_id, entry) for entry in live]

    async def delete_by_handle(self, user_id: str, handle: str) -> None:
        """Remove one of the user's sessions by its handle. Absent, or another user's: nothing happens."""
        user_id = checked_present_user_id(user_id)
        point, listed = parse_handle(handle)
        await self._perform(wire.DeleteByHandle(0, 0, 0, point, listed, user_id))

    async def delete_by_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Log the user out everywhere, except in the session with the id `keep`; return how many ended."""
        user_id = checked_present_user_id(user_id)
        kept = b"" if keep is None else digest_of(keep)
        return count_of(await self._perform(wire.DeleteByUser(0, 0, 0, user_id, kept, ())))

    # --- inside ------------------------------------------------------------------------------------------

    async def _patched(
        self, session_id: str, changes: Changes, user_id: str | Unchanged | None, expires: datetime | None
    ) -> StoredSession:
        digest = digest_if_possible(session_id)
        user = user_change(user_id)
        expires_us = None if expires is None else micros_of(expires, "expires")
        if digest is None:
            raise not_found()
        reply = await self._perform(wire.Patch(0, 0, 0, 0, digest, *changes, user, expires_us))
        return await self._shown(session_id, digest, reply)

    async def _shown(
        self, session_id: str, digest: bytes, reply: wire.Session | wire.Failed
    ) -> StoredSession:
        """Return the session of a reply, or raise why the one with this digest was not changed."""
        if isinstance(reply, wire.Session):
            return stored_session(session_id, reply.state)
        error = failure(reply)
        if error is not None:
            raise error
        if reply.code == wire.FailureCode.TOO_LARGE:
            raise oversized(reply.detail)
        state = await self._perform(wire.Get(0, 0, digest))
        if state is None:
            raise not_found()
        raise refused_patch(state.data, reply.detail)
