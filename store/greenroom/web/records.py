"""The writes of the middleware, each one call of the store where the store has that call."""

from datetime import datetime
from typing import TYPE_CHECKING

from greenroom.errors import SessionNotFoundError
from greenroom.ids import new_session_id
from greenroom.patching import encode_changes
from greenroom.sessions import SessionData, patched_data
from greenroom.web.difference import Difference

if TYPE_CHECKING:
    from greenroom.web.session import Session


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


async def patched(
    settings: "Session", session_id: str, changes: Difference, expires: datetime | None
) -> SessionData:
    """Write the changes, and with them a new end if one is due. Raises SessionNotFoundError."""
    record = await settings.store.patch(session_id, set=changes.set, unset=changes.unset, expires=expires)
    settings.count("patches")
    return record


async def extended(settings: "Session", session_id: str, expires: datetime) -> SessionData:
    """Move the end of a session and write nothing else. Raises SessionNotFoundError."""
    record = await settings.store.patch(session_id, expires=expires)
    settings.count("extensions")
    return record


async def rotated(
    settings: "Session", session_id: str, user_id: str | None, changes: Difference
) -> SessionData:
    """Give the session a new id, user, changes and lifetime in one step. Raises SessionNotFoundError.

    A store that writes only the five methods has no such step. There the new session is created before the
    old one is deleted, and a change that another request makes in between is lost.
    """
    now = settings.clock()
    expires = settings.expiry(now, None)
    store = settings.store
    if "rotate" in store.features:
        record = await store.rotate(
            session_id, user_id=user_id, set=changes.set, unset=changes.unset, expires=expires
        )
    else:
        old = await store.get(session_id)
        if old is None:
            raise SessionNotFoundError("there is no live session with this id")
        record = SessionData(
            session_id=new_session_id(),
            user_id=user_id,
            created=old.created,
            expires=settings.expiry(now, old.absolute_expires),
            absolute_expires=old.absolute_expires,
            label=old.label,
            data=patched_data(old.data, encode_changes(changes.set, changes.unset)),
        )
        record.version = await store.create(record)
        await store.delete(session_id)
    settings.count("rotations")
    return record


async def deleted_by_user(settings: "Session", user_id: str, keep: str | None) -> None:
    """End all sessions of a user but the one to keep."""
    await settings.store.delete_by_user(user_id, keep=keep)
    settings.count("deletes")
