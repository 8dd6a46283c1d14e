"""How stores turn the replies to their commands into sessions and errors."""

from greenroom import wire
from greenroom.errors import GreenroomError, PathThroughListError, SessionExistsError, UsageError
from greenroom.fields import Unchanged, checked_user_id, datetime_of
from greenroom.ids import spelled_handle
from greenroom.patching import LIST_IN_PATH
from greenroom.sessions import SessionInfo, StoredSession, not_found, stale_version, unexpected_value
from greenroom.wire import FailureCode


def user_change(user_id: str | Unchanged | None) -> tuple[str | None] | None:
    """Return what a command says of the user. Raises UsageError."""
    return None if isinstance(user_id, Unchanged) else (checked_user_id(user_id),)


def stored_session(session_id: str, state: wire.SessionState) -> StoredSession:
    """Return a session as stores hand it out encoded."""
    return StoredSession(
        session_id,
        state.version,
        state.user_id,
        state.created_us,
        state.expires_us,
        state.absolute_us,
        state.label,
        state.data,
    )


def session_info(user_id: str, entry: wire.SessionHandle) -> SessionInfo:
    """Return one entry of a listing as callers see it."""
    return SessionInfo(
        handle=spelled_handle(entry.point, entry.listed),
        user_id=user_id,
        created=datetime_of(entry.created_us),
        expires=datetime_of(entry.expires_us),
        label=entry.label,
        version=entry.version,
    )


def written_version(reply: wire.Written | wire.Failed) -> int:
    """Return the version that a store of one table wrote. Raises why it did not."""
    if isinstance(reply, wire.Failed):
        raise failure(reply) or UsageError(f"the session was refused: {reply.detail}")
    return reply.version


def failure(reply: wire.Failed) -> GreenroomError | None:
    """Return the error of a refusal, None for one of which each store tells in its own words."""
    match reply.code:
        case FailureCode.EXISTS:
            return SessionExistsError("a live session has this id; mint a new one with new_session_id()")
        case FailureCode.NOT_FOUND:
            return not_found()
        case FailureCode.CONFLICT:
            return unexpected_value(reply.detail) if reply.detail else stale_version()
        case FailureCode.INVALID if reply.detail.startswith(LIST_IN_PATH):
            return PathThroughListError(reply.detail)
    return None
