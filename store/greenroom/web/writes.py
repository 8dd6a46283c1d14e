"""Reads and writes of sessions, each one call of the store where the store has that call."""

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
from greenroom.patching import encode_changes
from greenroom.sessions import (
    BaseSessionStore,
    SessionData,
    StoredSession,
    not_found,
    patched_data,
    stored_form,
    unexpected_value,
)
from greenroom.web.difference import NO_DIFFERENCE, Difference, apply, over_lists, value_at
from greenroom.wire import PATHS_MAX, Path

_BY_USER = frozenset({"list_by_user", "delete_by_handle"})
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

HELD_SECONDS = 60
"""How long the data of a login is held, where it takes two writes and the second fails."""

READS_MAX = 8
"""How often a save reads again what others write meanwhile, before it gives up."""


def may_be_sound(error: UnreadableSessionError, now_us: int, idle_us: int) -> bool:
    """Tell whether a session that cannot be read is to be kept for a later version, which may have stored it.

    Not if it ends much later than a session of this app would: then it is not of this app's making, and must
    not stand in the way of its user for ever.
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
    """Write the changes; where another request has put a list on a path, it gives way whole.

    `wanted` returns the data that the changes lead to. Raises what `write` raises.
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
    """Write changes of more paths than a patch takes: read the session, and replace it on condition.

    Atomic like a patch, and overwrites nothing that others change meanwhile; but they make it try again.
    Raises SessionNotFoundError, and VersionConflictError where a path has another value than expected.
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
    """Write the changes, and with them a new end if one is due. Raises SessionNotFoundError."""
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
) -> StoredSession:
    """Give the session a new id, user, changes and lifetime in one step. Raises SessionNotFoundError."""
    if changes.width > PATHS_MAX:
        await written_whole(store, session_id, changes, None)
        changes = NO_DIFFERENCE

    async def write(each: Difference) -> StoredSession:
        if "rotate" not in store.features:
            return await _moved(store, session_id, user_id, each, expires)
        return stored_form(
            await store.rotate(session_id, user_id=user_id, set=each.set, unset=each.unset, expires=expires)
        )

    return await written_over_lists(store, session_id, changes, wanted, write)


async def renewed(
    store: BaseSessionStore,
    session_id: str,
    user_id: str | None,
    changes: Difference,
    wanted: Callable[[], dict[Any, Any]],
    expires: datetime,
    absolute: datetime | None,
    now: datetime,
) -> StoredSession:
    """Rotate, with another absolute end, which no store changes in a session. Raises SessionNotFoundError.

    In one step the old id dies, and what was stored under it until then is held under an id that nobody gets,
    of no user; from there the session is created anew. So no change of another request is lost, and a list of
    devices never shows two. If the creation fails nobody is logged in, and what is held ends by itself.
    """
    if "rotate" not in store.features:

        async def write(each: Difference) -> StoredSession:
            return await _moved(store, session_id, user_id, each, expires, absolute)

        return await written_over_lists(store, session_id, changes, wanted, write)
    held = await rotated(store, session_id, None, changes, wanted, now + timedelta(seconds=HELD_SECONDS))
    session = _successor(held.session(), user_id, expires, absolute)
    session.version = await store.create(session)
    with suppress(UnavailableError, OutcomeUnknownError):  # nobody has its id, and it ends soon
        await store.delete(held.session_id)
    return stored_form(session)


async def _moved(
    store: BaseSessionStore,
    session_id: str,
    user_id: str | None,
    changes: Difference,
    expires: datetime,
    absolute: datetime | Unchanged | None = UNCHANGED,
) -> StoredSession:
    """Rotate in a store that writes only the five methods, and has no such step.

    There the new session is created before the old one is deleted, and a change that another request makes in
    between is lost.
    """
    old = await store.get(session_id)
    if old is None:
        raise not_found()
    session = _successor(old, user_id, expires, old.absolute_expires if absolute is UNCHANGED else absolute)
    session.data = patched_data(old.data, encode_changes(changes.set, changes.unset))
    session.version = await store.create(session)
    await store.delete(session_id)
    return stored_form(session)


def _successor(
    old: SessionData, user_id: str | None, expires: datetime, absolute: datetime | None
) -> SessionData:
    """Return what follows a session. The moment of creation stays: `ended` finds it by that."""
    return SessionData(
        session_id=new_session_id(),
        user_id=user_id,
        created=old.created,
        expires=expires if absolute is None else min(expires, absolute),
        absolute_expires=absolute,
        label=old.label,
        data=old.data,
    )


async def ended(store: BaseSessionStore, record: StoredSession) -> None:
    """Delete a session, also if another request has given it a new id meanwhile.

    Whether it has is told by the first write, which ends the session under its old id, so that nobody can
    rotate it any more. A new id keeps user and moment of creation, and by these the session is found.
    """
    user_id = record.user_id
    if user_id is not None and store.features >= _BY_USER:
        try:
            await store.patch(record.session_id, expires=_LONG_AGO)
        except SessionNotFoundError:
            created = record.created
            for each in await store.list_by_user(user_id):
                if each.created == created:
                    await store.delete_by_handle(user_id, each.handle)
        except UnreadableSessionError:
            pass  # it was there, under this id, and is deleted as it is
    await store.delete(record.session_id)


async def ended_everywhere(store: BaseSessionStore, user_id: str, kept: StoredSession | None) -> None:
    """End all sessions of a user but this one, also if another request has given it a new id meanwhile."""
    if kept is not None and store.features >= _BY_USER and await _is_gone(store, kept.session_id):
        listed = await store.list_by_user(user_id)
        if any(each.created == kept.created for each in listed):
            for each in listed:
                if each.created != kept.created:
                    await store.delete_by_handle(user_id, each.handle)
            return
    await store.delete_by_user(user_id, keep=None if kept is None else kept.session_id)


async def _is_gone(store: BaseSessionStore, session_id: str) -> bool:
    try:
        return await store.get_stored(session_id) is None
    except UnreadableSessionError:
        return False
