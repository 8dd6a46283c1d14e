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
from greenroom.sessions import (
    BaseSessionStore,
    SessionData,
    SessionInfo,
    StoredSession,
    not_found,
    stored_form,
    unexpected_value,
)
from greenroom.web.difference import Difference, apply, over_lists, value_at
from greenroom.wire import PATHS_MAX, Path

_BY_USER = frozenset({"list_by_user", "delete_by_handle"})
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

HELD_SECONDS = 60
"""How long the data of a login is held, where it takes two writes and the second fails."""

LISTED_MAX = 2000
"""How many sessions of a user a store lists at most."""

LISTS_MAX = 64
"""How often a user's sessions are listed to end some of them, before all of them end."""

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
    now: datetime,
    absolute: datetime | Unchanged | None = UNCHANGED,
) -> StoredSession:
    """Give the session a new id, user, changes and lifetime. Raises SessionNotFoundError.

    That is one step, but for another absolute end and for changes of more paths than one step takes. In a
    store that writes only the five methods the new session is created before the old one is deleted, and a
    change that another request makes in between is lost.
    """
    if "rotate" not in store.features:
        old = await _read(store, session_id)
        session = _successor(old, changes, wanted, user_id, expires, absolute)
        session.version = await store.create(session)
        await store.delete(session_id)
        return stored_form(session)
    if absolute is not UNCHANGED or changes.width > PATHS_MAX:
        return await _renewed(store, session_id, user_id, changes, wanted, expires, now, absolute)

    async def write(each: Difference) -> StoredSession:
        return stored_form(
            await store.rotate(session_id, user_id=user_id, set=each.set, unset=each.unset, expires=expires)
        )

    return await written_over_lists(store, session_id, changes, wanted, write)


async def _renewed(
    store: BaseSessionStore,
    session_id: str,
    user_id: str | None,
    changes: Difference,
    wanted: Callable[[], dict[Any, Any]],
    expires: datetime,
    now: datetime,
    absolute: datetime | Unchanged | None,
) -> StoredSession:
    """Rotate in several steps, of which each leaves one session that lives.

    1. What follows is created, to end soon: a store that has no room refuses here, and nothing has happened.
    2. In one step the old id dies, and what was stored under it until then is held under an id that nobody
       gets. So no change of another request is lost, nor one made under an id that was planted.
    3. What follows gets those changes and its full lifetime. If it is gone, a logout has found it by its user
       and moment of creation.
    4. What was held ends.
    """
    held_until = now + timedelta(seconds=HELD_SECONDS)
    old = await _read(store, session_id)
    session = _successor(old, changes, wanted, user_id, min(expires, held_until), absolute)
    version = await store.create(session)
    try:
        # Of no user: nobody can log out what they cannot see, and what follows is there to be seen already.
        held = await store.rotate(session_id, user_id=None, expires=held_until)
        session.data = _changed(held.data, changes, wanted)
        session.expires = expires
        session.version = await store.update(session.session_id, session, version=version)
        with suppress(UnavailableError, OutcomeUnknownError):  # nobody has its id, and it ends soon
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
) -> SessionData:
    """Return what follows a session. The moment of creation stays: `ended` finds it by that."""
    absolute = old.absolute_expires if isinstance(absolute, Unchanged) else absolute
    return SessionData(
        session_id=new_session_id(),
        user_id=user_id,
        created=old.created,
        expires=expires if absolute is None else min(expires, absolute),
        absolute_expires=absolute,
        label=old.label,
        data=_changed(old.data, changes, wanted),
    )


def _changed(
    data: dict[Any, Any], changes: Difference, wanted: Callable[[], dict[Any, Any]]
) -> dict[Any, Any]:
    apply(over_lists(changes, data, wanted()), data)
    return data


async def ended(store: BaseSessionStore, session_id: str, user_id: str | None, created: datetime) -> None:
    """Delete a session, also if another request has given it a new id meanwhile.

    Whether it has is told by the first write, which ends the session under its old id, so that nobody can
    rotate it any more. A new id keeps user and moment of creation, and by these the session is found.
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
    """End all sessions of a user but this one, also if another request has given it a new id meanwhile."""
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

    Until a list shows none: one may get a new id between the list and its end, and is found under that. What
    goes on getting new ids for too long is ended with all others.
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
    """Tell whether a session that is gone lives on under another id, by a login of this user."""
    if not store.features >= _BY_USER:
        return False
    listed = await store.list_by_user(user_id, limit=LISTED_MAX)
    return any(each.created == stored.created for each in listed)


async def _is_gone(store: BaseSessionStore, session_id: str) -> bool:
    try:
        return await store.get_stored(session_id) is None
    except UnreadableSessionError:
        return False
