"""Decides the next step of saving a session from what its handler left. Pure: no store, no loop, no clock.

`plan` returns one step at a time. `saving` performs it, records its outcome in the state, and asks again
until there is `Nothing` to do; a step that leaves nothing to do is `last`. A logout followed by a login is
`End`, then `Create`; a login whose session turns out to be gone is planned again.

| asked | stored | the step |
|---|---|---|
| end all sessions of the user | any | `EndEverywhere`, then the rest |
| logout, `clear()` | any | `End`, then the rest |
| data or a login | no | `Create` |
| new id, login | yes | `Rotate`; a login begins a new absolute lifetime, and has its own terms |
| login of another user | yes, lost | `End`, then the rest |
| login | lost, to a login of the same user | `Create` with all that this request has |
| login | lost | `Create` with what this request set |
| new id, data | lost | `Drop` |
| data | yes | `Patch`, with a new end if one is due |
| nothing | yes | `Extend` if that is due |
"""

from enum import Enum
from typing import Any, ClassVar, TypeAlias

import msgspec

from greenroom.codec import encode_data
from greenroom.sessions import StoredSession
from greenroom.web.difference import NO_DIFFERENCE, Difference, difference_of
from greenroom.web.errors import started
from greenroom.web.lifetimes import USUAL, Lifetimes, Terms
from greenroom.web.state import EMPTY, VisitState
from greenroom.web.survival import Kept
from greenroom.wire import Path


class Cookie(Enum):
    """What a step does to the browser's cookie."""

    KEPT = "kept"
    GIVEN = "given"
    REMOVED = "removed"


class Step(msgspec.Struct, frozen=True):
    """One thing to do. Its repr shows neither id nor data."""

    cookie: ClassVar[Cookie] = Cookie.KEPT
    last: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Nothing(Step, frozen=True):
    """There is nothing to write."""


class Drop(Step, frozen=True):
    """Write nothing: another request has deleted or rotated the session."""

    data: bytes


class EndEverywhere(Step, frozen=True):
    """End all of a user's sessions but the one to keep."""

    last = False
    user_id: str
    keep: str | None


class End(Step, frozen=True):
    """Delete the session, if one is stored, and all others that the browser named."""

    cookie = Cookie.REMOVED
    last = False
    stored: StoredSession | None


class Create(Step, frozen=True):
    """Store a new session under a new id."""

    cookie = Cookie.GIVEN
    user_id: str | None
    data: bytes
    terms: Terms = USUAL


class Rotate(Step, frozen=True):
    """Give the session a new id, with this user and these changes; the old id is dead then.

    `absolute_us` is when it ends however much it is used; a login sets it anew. `kept` are the keys that may
    hold what other requests write meanwhile; None if all may.
    """

    cookie = Cookie.GIVEN
    stored: StoredSession
    user_id: str | None
    changes: Difference
    data: bytes
    expires_us: int
    absolute_us: int | None
    terms: Terms
    kept: Kept = None


class Patch(Step, frozen=True):
    """Write the changes, with a new expiry if one is due. `data` is their result."""

    stored: StoredSession
    changes: Difference
    data: bytes
    expires_us: int | None


class Extend(Step, frozen=True):
    """Move the expiry of a session in use and write nothing else."""

    stored: StoredSession
    expires_us: int


AnyStep: TypeAlias = Nothing | Drop | EndEverywhere | End | Create | Rotate | Patch | Extend

NOTHING = Nothing()


def plan(state: VisitState, encoded: bytes, now_us: int, lifetimes: Lifetimes) -> AnyStep:
    """Return the next step. `encoded` is the data that the handler left.

    Raises UsageError if the step needs a cookie and the response has started.
    """
    stored = state.stored
    if state.everywhere is not None:
        # Before a login or a new id, so that a failure leaves the browser with the session that it has.
        user_id, keeps_current = state.everywhere
        return EndEverywhere(user_id, stored.session_id if keeps_current and stored is not None else None)
    if state.ending:
        return End(stored)
    if stored is None:
        if encoded == EMPTY and state.user_id is None:
            return NOTHING
        if state.started or state.mute:
            raise started("creating a session")
        return Create(state.user_id, encoded, state.login_terms if state.logging_in else USUAL)
    changes = NO_DIFFERENCE if encoded == state.snapshot else difference_of(state.snapshot, encoded)
    if state.rotating:
        return _with_new_id(state, stored, changes, encoded, now_us, lifetimes)
    late = not (state.lost or state.extension_failed)
    due_us = lifetimes.under(state.terms).extension_us(now_us, stored) if late else None
    if changes:
        return Drop(encoded) if state.lost else Patch(stored, changes, encoded, due_us)
    return NOTHING if due_us is None else Extend(stored, due_us)


def _with_new_id(
    state: VisitState,
    stored: StoredSession,
    changes: Difference,
    encoded: bytes,
    now_us: int,
    lifetimes: Lifetimes,
) -> AnyStep:
    if state.started or state.mute:
        raise started("a new id")
    if state.logging_in and stored.user_id not in (None, state.user_id):
        # Another user gets nothing of it, nor of what the former user's other requests are writing.
        return End(stored)
    if not state.lost:
        terms = state.login_terms if state.logging_in else state.terms
        absolute_us = lifetimes.absolute_expiry_us(now_us) if state.logging_in else stored.absolute_us
        expires_us = lifetimes.under(terms).expiry_us(now_us, absolute_us)
        kept = state.login_kept if state.logging_in and stored.user_id is None else None
        return Rotate(stored, state.user_id, changes, encoded, expires_us, absolute_us, terms, kept)
    if not state.logging_in:
        return Drop(encoded)
    if state.logged_in_by_twin:
        return Create(state.user_id, encoded, state.login_terms)
    # The login gets a session all the same, with nothing of the one that is gone.
    fresh: dict[Any, Any] = {}
    for path, value in changes.set.items():
        _set(fresh, path, value)
    # What the login set explicitly counts, even where the session that is gone had the same.
    contents = state.contents()
    fresh.update((key, contents[key]) for key in state.login_data or () if key in contents)
    return Create(state.user_id, encode_data(fresh), state.login_terms)


def _set(data: dict[Any, Any], path: Path, value: Any) -> None:
    for key in path[:-1]:
        data = data.setdefault(key, {})
    data[path[-1]] = value
