"""Reads and writes of sessions, each a single call of the store where it has one."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from greenroom.codec import encode_value
from greenroom.errors import (
    OutcomeUnknownError,
    PathThroughListError,
    SessionNotFoundError,
    UnavailableError,
    UnreadableSessionError,
)
from greenroom.fields import ABSENT, UNCHANGED, Unchanged
from greenroom.ids import new_session_id
from greenroom.sessions import (
    BaseSessionStore,
    SessionData,
    SessionInfo,
    StoredSession,
    not_found,
    stored_form,
    unexpected_value,
)
from greenroom.web.difference import NO_DIFFERENCE, Difference, apply, over_lists, value_at
from greenroom.web.survival import Kept, leftovers
from greenroom.wire import PATHS_MAX, Path

_BY_USER = frozenset({"list_by_user", "delete_by_handle"})
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

HELD_SECONDS = 60
"""How long a login's data is kept if the login takes two writes and the second fails."""

LISTED_MAX = 2000
"""The most sessions of a user that a store lists."""

LISTS_MAX = 64
"""The most times that a user's sessions are listed to end some of them; then all are ended."""

READS_MAX = 8
"""The most times that a save reads again what others wrote before it gives up."""


def may_be_sound(error: UnreadableSessionError, now_us: int, idle_us: int) -> bool:
    """Return whether an unreadable session may be a later version's, and is to be kept for it.

    Not if it ends much later than this app's sessions do: then it is not this app's, and must not block its
    user forever.
    """
    if not error.newer or error.expires is None:
        return error.newer
    # Twice, because the clocks of two hosts differ.
    return error.expires.timestamp() * 1e6 <= now_us + 2 * idle_us


async def written_over_lists(
    store: BaseSessionStore,
    session_id: str,
    changes: Difference,
    wanted: Callable[[], dict[Any, Any]],
    write: Callable[[Difference], Awaitable[StoredSession]],
) -> StoredSession:
    """Write the changes, replacing any list that another request has put on one of their paths.

    `wanted` returns the data that the changes result in. Raises what `write` raises.
    """
    for _ in range(READS_MAX):
        try:
            return await write(changes)
        except PathThroughListError:
            found = await store.get(session_id)
        if found is None:
            raise not_found()
        changes = over_lists(changes, found.data, wanted())
    return await write(changes)


async def written_whole(
    store: BaseSessionStore,
    session_id: str,
    changes: Difference,
    expires: datetime | None,
    expect: dict[Path, Any] | None = None,
) -> StoredSession:
    """Write changes on more paths than a patch takes: read the session, and replace that version.

    As atomic as a patch, and overwrites no change of others, but starts again when there is one. Raises
    SessionNotFoundError, and VersionConflictError if a path does not have the expected value.
    """

    def change(session: SessionData) -> None:
        for path, value in ({} if expect is None else expect).items():
            if _stored_value(value_at(session.data, path)) != _stored_value(value):
                raise unexpected_value("a value")
        apply(changes, session.data)
        if expires is not None:
            session.expires = expires

    return stored_form(await store.modify(session_id, change))


def _stored_value(value: Any) -> bytes | None:
    return None if value is ABSENT else encode_value(value)


async def patched(
    store: BaseSessionStore,
    session_id: str,
    changes: Difference,
    wanted: Callable[[], dict[Any, Any]],
    expires: datetime | None,
) -> StoredSession:
    """Write the changes, with a new expiry if one is due. Raises SessionNotFoundError."""
    if changes.width > PATHS_MAX:
        return await written_whole(store, session_id, changes, expires)

    async def write(each: Difference) -> StoredSession:
        return await store.patch_stored(session_id, set=each.set, unset=each.unset, expires=expires)

    return await written_over_lists(store, session_id, changes, wanted, write)


async def rotated(
    store: BaseSessionStore,
    session_id: str,
    user_id: str | None,
    changes: Difference,
    wanted: Callable[[], dict[Any, Any]],
    expires: datetime,
    now: datetime,
    absolute: datetime | Unchanged | None = UNCHANGED,
    kept: Kept = None,
) -> StoredSession:
    """Give the session a new id, user, changes and lifetime. Raises SessionNotFoundError.

    With `kept`, of what other requests have written since these changes were made only those keys are taken
    along; the new id is given to no one before the rest is gone.

    This is one step, unless the absolute expiry changes or there are more paths than one step takes. In a
    store that has only the five methods, the new session is created before the old one is deleted, and a
    change that another request makes in between is lost.
    """
    if "rotate" not in store.features:
        old = await _read(store, session_id)
        session = _successor(old, changes, wanted, user_id, expires, absolute, kept)
        session.version = await store.create(session)
        await store.delete(session_id)
        return stored_form(session)
    if absolute is not UNCHANGED or changes.width > PATHS_MAX:
        return await _renewed(store, session_id, user_id, changes, wanted, expires, now, absolute, kept)

    async def write(each: Difference) -> StoredSession:
        return stored_form(
            await store.rotate(session_id, user_id=user_id, set=each.set, unset=each.unset, expires=expires)
        )

    stored = await written_over_lists(store, session_id, changes, wanted, write)
    left = NO_DIFFERENCE if kept is None else leftovers(stored.decoded(), wanted(), kept)
    return await patched(store, stored.session_id, left, wanted, None) if left else stored


async def _renewed(
    store: BaseSessionStore,
    session_id: str,
    user_id: str | None,
    changes: Difference,
    wanted: Callable[[], dict[Any, Any]],
    expires: datetime,
    now: datetime,
    absolute: datetime | Unchanged | None,
    kept: Kept,
) -> StoredSession:
    """Rotate in several steps, each of which leaves one live session.

    1. The successor is created, to end soon: a store without room refuses here, with nothing changed.
    2. In one step the old id dies, and its data is held under an id that no one gets. So no change of another
       request is lost, and none can be made any more under an id that was planted.
    3. The successor gets those changes and its full lifetime. If it is gone, a logout has found it by its
       user and its time of creation.
    4. The held session ends.
    """
    held_until = now + timedelta(seconds=HELD_SECONDS)
    old = await _read(store, session_id)
    session = _successor(old, changes, wanted, user_id, min(expires, held_until), absolute, kept)
    version = await store.create(session)
    try:
        # Without a user, so that no list of devices shows it: the successor is listed already.
        held = await store.rotate(session_id, user_id=None, expires=held_until)
        session.data = _changed(held.data, changes, wanted, kept)
        session.expires = expires
        session.version = await store.update(session.session_id, session, version=version)
        with suppress(UnavailableError, OutcomeUnknownError):  # no one has its id, and it ends soon
            await store.patch(held.session_id, expires=_LONG_AGO)
    except SessionNotFoundError:
        await store.delete(session.session_id)
        raise
    return stored_form(session)


async def _read(store: BaseSessionStore, session_id: str) -> SessionData:
    session = await store.get(session_id)
    if session is None:
        raise not_found()
    return session


def _successor(
    old: SessionData,
    changes: Difference,
    wanted: Callable[[], dict[Any, Any]],
    user_id: str | None,
    expires: datetime,
    absolute: datetime | Unchanged | None,
    kept: Kept,
) -> SessionData:
    """Return a session's successor. It keeps the time of creation, by which `ended` finds it."""
    absolute = old.absolute_expires if isinstance(absolute, Unchanged) else absolute
    return SessionData(
        session_id=new_session_id(),
        user_id=user_id,
        created=old.created,
        expires=expires if absolute is None else min(expires, absolute),
        absolute_expires=absolute,
        label=old.label,
        data=_changed(old.data, changes, wanted, kept),
    )


def _changed(
    data: dict[Any, Any], changes: Difference, wanted: Callable[[], dict[Any, Any]], kept: Kept
) -> dict[Any, Any]:
    apply(over_lists(changes, data, wanted()), data)
    if kept is not None:
        apply(leftovers(data, wanted(), kept), data)
    return data


async def ended(store: BaseSessionStore, session_id: str, user_id: str | None, created: datetime) -> None:
    """Delete a session, even if another request has given it a new id.

    The first write ends the session under its old id, so that it cannot be rotated any more, and shows
    whether it has been. A rotated session keeps its user and its time of creation, and is found by them.
    """
    if user_id is not None and store.features >= _BY_USER:
        try:
            await store.patch(session_id, expires=_LONG_AGO)
        except SessionNotFoundError:
            await _ended_of(store, user_id, lambda each: each.created == created)
        except UnreadableSessionError:
            pass  # it was there, under this id, and is deleted as it is
    await store.delete(session_id)


async def ended_everywhere(store: BaseSessionStore, user_id: str, kept: StoredSession | None) -> None:
    """End all of a user's sessions but this one, even if another request has given it a new id."""
    gone = kept is not None and store.features >= _BY_USER and await _is_gone(store, kept.session_id)
    if (
        gone
        and kept is not None
        and await _ended_of(store, user_id, lambda each: each.created != kept.created)
    ):
        return
    await store.delete_by_user(user_id, keep=None if kept is None else kept.session_id)


async def _ended_of(store: BaseSessionStore, user_id: str, ends: Callable[[SessionInfo], bool]) -> bool:
    """End those of a user's sessions for which `ends` is true; return whether the last list had others.

    Repeat until a list shows none: a session may get a new id after it was listed, and is found under that.
    If sessions keep getting new ids, all of the user's are ended.
    """
    for _ in range(LISTS_MAX):
        listed = await store.list_by_user(user_id, limit=LISTED_MAX)
        ending = [each for each in listed if ends(each)]
        if not ending:
            return bool(listed)
        for each in ending:
            await store.delete_by_handle(user_id, each.handle)
    if "delete_by_user" in store.features:
        await store.delete_by_user(user_id)
    return True


async def goes_on(store: BaseSessionStore, user_id: str, stored: StoredSession) -> bool:
    """Return whether a session that is gone lives on under another id after a login of this user."""
    if not store.features >= _BY_USER:
        return False
    listed = await store.list_by_user(user_id, limit=LISTED_MAX)
    return any(each.created == stored.created for each in listed)


async def _is_gone(store: BaseSessionStore, session_id: str) -> bool:
    try:
        return await store.get_stored(session_id) is None
    except UnreadableSessionError:
        return False
