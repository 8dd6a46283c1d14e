"""Performs plans: the one place that writes a request's session and interprets failures.

A save that has begun is finished even if its request is cancelled (`shielding`), and one request's saves take
turns. A session that turns out to be gone is marked as lost and planned again. A failure to extend one is
only counted, since the next request tries again; every other error of the store reaches the caller.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from greenroom.codec import decode_data, encode_data
from greenroom.errors import GreenroomError, SessionNotFoundError, UnreadableSessionError
from greenroom.fields import UNCHANGED, Unchanged, datetime_of
from greenroom.ids import new_session_id
from greenroom.sessions import SessionData, StoredSession, stored_form
from greenroom.turns import new_lock
from greenroom.web import writes
from greenroom.web.candidates import Candidates
from greenroom.web.keeping import Keeping
from greenroom.web.lifetimes import USUAL
from greenroom.web.moving import bar
from greenroom.web.plan import (
    NOTHING,
    AnyStep,
    Cookie,
    Create,
    Drop,
    End,
    EndEverywhere,
    Extend,
    Nothing,
    Patch,
    Rotate,
    plan,
)
from greenroom.web.shielding import shielded
from greenroom.web.state import EMPTY, VisitState
from greenroom.wire import PATHS_MAX


def _is_one_call(step: AnyStep) -> bool:
    return isinstance(step, Extend) or (isinstance(step, Patch) and step.changes.width <= PATHS_MAX)


class Saver:
    """Saves the session of one request. `label` returns the label of a session that it creates."""

    def __init__(
        self, keeping: Keeping, state: VisitState, candidates: Candidates, label: Callable[[], str]
    ) -> None:
        self._keeping = keeping
        self._state = state
        self._candidates = candidates
        self._label = label
        self._lock: Any = None

    async def save(self, encoded: bytes) -> bool:
        """Save this data and do what was requested; return False if a change was dropped.

        Raises UnavailableError, OutcomeUnknownError, UsageError.
        """
        state, keeping = self._state, self._keeping
        step = plan(state, encoded, keeping.now_us(), keeping.lifetimes)
        if step is NOTHING:
            # The usual case, with nothing to shield.
            state.snapshot = encoded
            return True
        if not keeping.store.suspends and self._lock is None and _is_one_call(step):
            # A store that never waits is done at once: no cancellation can come in between.
            try:
                return await self._perform(step)
            except (SessionNotFoundError, UnreadableSessionError) as error:
                self._note_loss(error)
        return await shielded(self._in_turn)

    async def extend(self) -> None:
        """Move the session's expiry if that is due, and write nothing else; only count failures."""
        await shielded(self._extended_in_turn)

    async def _extended_in_turn(self) -> None:
        state, keeping = self._state, self._keeping
        async with self._turn():
            if state.stored is None or state.lost or state.ending:
                return
            due_us = keeping.lifetimes.under(state.terms).extension_us(keeping.now_us(), state.stored)
            if due_us is not None:
                state.extension_failed = False
                await self._extended(Extend(state.stored, due_us))

    def _turn(self) -> Any:
        # Two tasks of one WebSocket may save at once.
        if self._lock is None:
            self._lock = new_lock()
        return self._lock

    async def _in_turn(self) -> bool:
        async with self._turn():
            while True:
                encoded = encode_data(self._state.contents())
                step = plan(self._state, encoded, self._keeping.now_us(), self._keeping.lifetimes)
                try:
                    saved = await self._perform(step)
                except (SessionNotFoundError, UnreadableSessionError) as error:
                    if self._state.lost:
                        raise
                    self._note_loss(error)
                    await self._look_for_twin()
                    continue
                if step.last:
                    return saved

    def _note_loss(self, error: SessionNotFoundError | UnreadableSessionError) -> None:
        if isinstance(error, UnreadableSessionError):
            self._keeping.events.unreadable(error)
        self._state.lost = True

    async def _look_for_twin(self) -> None:
        """Check whether the session is gone because its visitor sent the login form twice."""
        state = self._state
        stored, user_id = state.stored, state.user_id
        if state.logging_in and stored is not None and user_id is not None:
            # Another user's session would be ended, not lost, so this one was anonymous or this user's.
            state.logged_in_by_twin = await writes.goes_on(self._keeping.store, user_id, stored)

    async def _perform(self, step: AnyStep) -> bool:
        """Do one step and record its outcome. Raises SessionNotFoundError if the session is gone."""
        state, keeping = self._state, self._keeping
        match step:
            case Patch():
                await self._patch(step)
            case Extend():
                await self._extend(step)
            case Nothing():
                pass
            case Drop():
                state.rotating = False
                if step.data != state.dropped:  # a request saves more than once
                    keeping.events.dropped(state.stored)
                state.dropped = step.data
                return False
            case EndEverywhere():
                if keeping.moves_from is not None:
                    await bar(keeping, step.user_id)
                kept = None if step.keep is None else state.stored
                await writes.ended_everywhere(keeping.store, step.user_id, kept)
                if state.stored is not None:
                    ended = "ends all sessions of its user" + ("" if step.keep is None else " but itself")
                    keeping.events.trace(state.stored.session_id, ended)
                keeping.events.count("deletes")
                state.everywhere = None
            case End():
                await self._end(step)
            case Create():
                await self._create(step)
            case Rotate():
                await self._rotate(step)
        return True

    async def _end(self, step: End) -> None:
        state, stored = self._state, step.stored
        if stored is not None:
            await writes.ended(self._keeping.store, stored.session_id, stored.user_id, stored.created)
            self._keeping.events.count("deletes")
            self._keeping.events.trace(stored.session_id, "ended")
        # All others that the request named end too.
        await self._candidates.end(but=None if stored is None else stored.session_id)
        state.stored, state.lost, state.ending = None, False, False
        state.snapshot = state.base = EMPTY
        state.terms = USUAL
        self._tell_browser(step, None)

    async def _create(self, step: Create) -> None:
        keeping, state = self._keeping, self._state
        await self._candidates.end_unreadable()
        now_us = keeping.now_us()
        absolute_us = keeping.lifetimes.absolute_expiry_us(now_us)
        data = decode_data(step.data)
        session = SessionData(
            session_id=new_session_id(),
            user_id=step.user_id,
            created=datetime_of(now_us),
            expires=datetime_of(keeping.lifetimes.under(step.terms).expiry_us(now_us, absolute_us)),
            absolute_expires=None if absolute_us is None else datetime_of(absolute_us),
            label=self._label(),
            data=data,
        )
        session.version = await keeping.store.create(session)
        keeping.events.count("creates")
        keeping.events.trace(session.session_id, "created")
        if state.lost:
            state.replace_contents(data)
            state.lost = False
        self._has_new_id(step, stored_form(session), step.data)

    async def _rotate(self, step: Rotate) -> None:
        keeping = self._keeping
        absolute: datetime | Unchanged | None = UNCHANGED
        if step.absolute_us != step.stored.absolute_us:
            absolute = None if step.absolute_us is None else datetime_of(step.absolute_us)
        stored = await writes.rotated(
            keeping.store,
            step.stored.session_id,
            step.user_id,
            step.changes,
            partial(decode_data, step.data),
            datetime_of(step.expires_us),
            keeping.clock(),
            absolute,
            step.kept,
        )
        keeping.events.count("rotations")
        keeping.events.trace(step.stored.session_id, "has a new id now, and is", stored.session_id)
        self._has_new_id(step, stored, step.data)

    async def _patch(self, step: Patch) -> None:
        store = self._keeping.store
        stored = None
        if not store.suspends and step.stored.data == self._state.snapshot:
            # Possible if no one else has changed it, which costs nothing to find out here. After a patch or
            # an extension the stored session may hold what others wrote and this request has never seen.
            stored = await store.replace_stored(step.stored, step.data, expires_us=step.expires_us)
        if stored is None:
            stored = await writes.patched(
                store,
                step.stored.session_id,
                step.changes,
                partial(decode_data, step.data),
                None if step.expires_us is None else datetime_of(step.expires_us),
            )
        self._state.stored = stored
        self._state.snapshot = step.data
        self._keeping.events.count("patches")

    async def _extend(self, step: Extend) -> None:
        if not await self._extended(step):
            self._keeping.events.dropped(step.stored)

    async def _extended(self, step: Extend) -> bool:
        """Move the session's expiry; return False if the session is gone."""
        keeping, state = self._keeping, self._state
        try:
            state.stored = await keeping.store.patch_stored(
                step.stored.session_id, expires=datetime_of(step.expires_us)
            )
            keeping.events.count("extensions")
        except SessionNotFoundError:
            state.lost = True
        except GreenroomError as error:
            state.extension_failed = True
            keeping.events.failed("extending a session", error)
        return not state.lost

    def _has_new_id(self, step: Create | Rotate, stored: StoredSession, data: bytes) -> None:
        state = self._state
        if state.stored is not None:
            self._candidates.forget(state.stored.session_id)
        state.stored, state.snapshot, state.terms = stored, data, step.terms
        state.rotating = state.logging_in = state.logged_in_by_twin = False
        self._tell_browser(step, stored.session_id)

    def _tell_browser(self, step: End | Create | Rotate, session_id: str | None) -> None:
        keeping, state = self._keeping, self._state
        if step.cookie is Cookie.GIVEN and session_id is not None:
            state.cookie = keeping.cookie_of(session_id, state.terms)
            state.has_cookie = True
        elif step.cookie is Cookie.REMOVED:
            state.cookie = keeping.cookie.clearing_header() if state.has_cookie else None
