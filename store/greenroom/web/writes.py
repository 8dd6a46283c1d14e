"""Reads and writes of the middleware, each one call of the store where the store has that call."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from greenroom.codec import encode_data, encode_value
from greenroom.errors import (
    PathThroughListError,
    SessionNotFoundError,
    UnreadableSessionError,
    UsageError,
)
from greenroom.fields import ABSENT, checked_label, checked_user_id
from greenroom.ids import new_session_id
from greenroom.patching import encode_changes
from greenroom.sessions import BaseSessionStore, SessionData, not_found, patched_data, unexpected_value
from greenroom.web.difference import NO_DIFFERENCE, Difference, apply, over_lists, value_at
from greenroom.wire import PATHS_MAX, Path

if TYPE_CHECKING:
    from greenroom.web.session import Session

_BY_USER = frozenset({"list_by_user", "delete_by_handle"})
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

READS_MAX = 8
"""How often a save reads again what others write meanwhile, before it gives up."""


def snapshot_of(record: SessionData) -> bytes:
    """Return the data of a stored session as bytes, with which it is compared when it is saved.

    Raises UnreadableSessionError for a session that no facade would have stored: a store of one's own may
    hold anything, and so may a cluster to which something else writes.
    """
    try:
        checked_user_id(record.user_id)
        checked_label(record.label)
        return encode_data(record.data)
    except UsageError:
        pass
    # Raised out here because the other error names a path, whose keys may be secrets.
    raise UnreadableSessionError(
        "a stored session holds what no session can hold: something else wrote to this store"
    )


def may_be_sound(error: UnreadableSessionError, now: datetime, idle_seconds: float) -> bool:
    """Tell whether a session that cannot be read is to be kept for a later version, which may have stored it.

    Not if it ends much later than a session of this app would: then it is not of this app's making, and must
    not stand in the way of its user for ever.
    """
    if not error.newer or error.expires is None:
        return error.newer
    # Twice, because the clocks of two hosts differ.
    return error.expires <= now + timedelta(seconds=2 * idle_seconds)


async def found(settings: "Session", session_id: str) -> tuple[SessionData, bytes] | None:
    """Return a stored session and its data as bytes, or None. Raises UnreadableSessionError."""
    record = await settings.store.get(session_id)
    settings.count("loads")
    return None if record is None else (record, snapshot_of(record))


async def created(
    settings: "Session", data: dict[object, object], *, user_id: str | None, label: str
) -> SessionData:
    """Store a new session under a new id and return it."""
    now = settings.clock()
    record = SessionData(
        session_id=new_session_id(),
        user_id=user_id,
        created=now,
        expires=settings.expiry(now, None),
        absolute_expires=settings.absolute_expiry(now),
        label=label,
        data=data,
    )
    record.version = await settings.store.create(record)
    settings.count("creates")
    return record


async def written_over_lists(
    store: BaseSessionStore,
    session_id: str,
    changes: Difference,
    wanted: Callable[[], dict[Any, Any]],
    write: Callable[[Difference], Awaitable[SessionData]],
) -> SessionData:
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
) -> SessionData:
    """Write changes of more paths than a patch takes: read the session, and replace it on condition.

    Atomic like a patch, and overwrites nothing that others change meanwhile; but they make it try again.
    Raises SessionNotFoundError, and VersionConflictError where a path has another value than expected.
    """

    def change(session: SessionData) -> None:
        for path, value in ({} if expect is None else expect).items():
            if _stored_form(value_at(session.data, path)) != _stored_form(value):
                raise unexpected_value("a value")
        apply(changes, session.data)
        if expires is not None:
            session.expires = expires

    return await store.modify(session_id, change)


def _stored_form(value: Any) -> bytes | None:
    return None if value is ABSENT else encode_value(value)


async def patched(
    settings: "Session",
    session_id: str,
    changes: Difference,
    wanted: Callable[[], dict[Any, Any]],
    expires: datetime | None,
) -> SessionData:
    """Write the changes, and with them a new end if one is due. Raises SessionNotFoundError."""
    store = settings.store

    async def write(each: Difference) -> SessionData:
        return await store.patch(session_id, set=each.set, unset=each.unset, expires=expires)

    if changes.width > PATHS_MAX:
        record = await written_whole(store, session_id, changes, expires)
    else:
        record = await written_over_lists(store, session_id, changes, wanted, write)
    settings.count("patches")
    return record


async def extended(settings: "Session", session_id: str, expires: datetime) -> SessionData:
    """Move the end of a session and write nothing else. Raises SessionNotFoundError."""
    record = await settings.store.patch(session_id, expires=expires)
    settings.count("extensions")
    return record


async def rotated(
    settings: "Session",
    session_id: str,
    user_id: str | None,
    changes: Difference,
    wanted: Callable[[], dict[Any, Any]],
) -> SessionData:
    """Give the session a new id, user, changes and lifetime in one step. Raises SessionNotFoundError."""
    store = settings.store
    if changes.width > PATHS_MAX:
        await written_whole(store, session_id, changes, None)
        changes = NO_DIFFERENCE

    async def write(each: Difference) -> SessionData:
        if "rotate" not in store.features:
            return await _moved(settings, session_id, user_id, each)
        expires = settings.expiry(settings.clock(), None)
        return await store.rotate(
            session_id, user_id=user_id, set=each.set, unset=each.unset, expires=expires
        )

    record = await written_over_lists(store, session_id, changes, wanted, write)
    settings.count("rotations")
    return record


async def _moved(
    settings: "Session", session_id: str, user_id: str | None, changes: Difference
) -> SessionData:
    """Rotate in a store that writes only the five methods, and has no such step.

    There the new session is created before the old one is deleted, and a change that another request makes in
    between is lost.
    """
    old = await settings.store.get(session_id)
    if old is None:
        raise not_found()
    record = SessionData(
        session_id=new_session_id(),
        user_id=user_id,
        created=old.created,
        expires=settings.expiry(settings.clock(), old.absolute_expires),
        absolute_expires=old.absolute_expires,
        label=old.label,
        data=patched_data(old.data, encode_changes(changes.set, changes.unset)),
    )
    record.version = await settings.store.create(record)
    await settings.store.delete(session_id)
    return record


async def ended(settings: "Session", record: SessionData) -> None:
    """Delete a session, also if another request has given it a new id meanwhile.

    Whether it has is told by the first write, which ends the session under its old id, so that nobody can
    rotate it any more. A new id keeps user and moment of creation, and by these the session is found.
    """
    store, user_id = settings.store, record.user_id
    if user_id is not None and store.features >= _BY_USER:
        try:
            await store.patch(record.session_id, expires=_LONG_AGO)
        except SessionNotFoundError:
            for each in await store.list_by_user(user_id):
                if each.created == record.created:
                    await store.delete_by_handle(user_id, each.handle)
        except UnreadableSessionError:
            pass  # it was there, under this id, and is deleted as it is
    await deleted(settings, record.session_id)


async def deleted(settings: "Session", session_id: str) -> None:
    """Delete what has this id."""
    await settings.store.delete(session_id)
    settings.count("deletes")


async def deleted_by_user(settings: "Session", user_id: str, keep: str | None) -> None:
    """End all sessions of a user but the one to keep."""
    await settings.store.delete_by_user(user_id, keep=keep)
    settings.count("deletes")
