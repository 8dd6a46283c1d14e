"""What requests do to their sessions, told to observers.

A `Session` that is observed makes visits of its own class, which tell what came of each when it is over. That
is read off its state then: on the way only time is taken, and other visits have no place to look.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from time import perf_counter_ns
from typing import Any, ClassVar
from weakref import ref

from greenroom.errors import UsageError
from greenroom.observing.observer import NS, Observer, Observers, Page
from greenroom.observing.store import ObservedStore
from greenroom.sessions import StoredSession
from greenroom.web.session import Session
from greenroom.web.state import EMPTY, Found
from greenroom.web.visit import Visit

_WEIGHT = ("read", "extended", "changed", "rotated", "created", "ended")
"""What a request did, the weightier the later: it may do several, and is told as one."""


def observe(sessions: Session, *observers: Observer, clock_ns: Callable[[], int] = perf_counter_ns) -> None:
    """Have observers hear of a `Session`: its pages, its events, and the operations of its store.

    Call it once, before the app serves. A store that is an `ObservedStore` already is left as it is.
    `clock_ns` reads a clock that never goes back. Raises UsageError if the sessions are observed already.
    """
    if sessions.visit_type is not Visit:
        raise UsageError("these sessions are observed already: give observe all observers at once")
    if not isinstance(sessions.store, ObservedStore):
        sessions.store = ObservedStore(sessions.store, *observers, clock_ns=clock_ns)
    own = {"observers": Observers(observers), "clock_ns": staticmethod(clock_ns)}
    sessions.visit_type = type("ObservedVisit", (ObservedVisit,), own)
    events = _events_of(sessions)
    for each in observers:
        each.follow_events(events)


class ObservedVisit(Visit):
    """A visit that tells once how it ended, by one of `PAGES`. Each `Session` has its own class of them."""

    observers: ClassVar[Observers]
    clock_ns: ClassVar[Callable[[], int]]

    _spent_ns = 0
    _is_timed = False
    _known: StoredSession | None = None
    _known_data = EMPTY
    _done = ""
    _refused = False
    _found_lost = False
    _is_told = False

    def take(self, found: Found | None) -> None:
        """Take this as the stored state; what the request did before is kept in mind."""
        self._done = self._weightiest()
        super().take(found)
        self._known, self._known_data = self.stored, self.snapshot

    # --- what takes time ---------------------------------------------------------------------------------

    def load_at_hand(self) -> bool:
        """Load the session if the store has it at hand."""
        began_ns = self._begin()
        try:
            return super().load_at_hand()
        finally:
            self._spend(began_ns)

    async def fetch(self) -> None:
        """Load the session from the store."""
        began_ns = self._begin()
        try:
            await super().fetch()
        finally:
            self._spend(began_ns)

    async def reload(self) -> None:
        """Read the session again. That it is gone by now drops no change."""
        began_ns = self._begin()
        try:
            await super().reload()
        finally:
            self._spend(began_ns)
        self._found_lost = self.lost

    def is_quiet(self) -> bool:
        """Whether there is nothing to save."""
        began_ns = self._begin()
        try:
            return super().is_quiet()
        finally:
            self._spend(began_ns)

    async def save(self) -> bool:
        """Write the changes."""
        began_ns = self._begin()
        try:
            return await super().save()
        finally:
            self._spend(began_ns)

    async def keep_alive(self) -> None:
        """Extend the session of a long WebSocket or stream."""
        began_ns = self._begin()
        try:
            await super().keep_alive()
        finally:
            self._spend(began_ns)

    def _begin(self) -> int | None:
        """Return the time; None within what is timed already, as a load within `reload` is."""
        if self._is_timed:
            return None
        self._is_timed = True
        return type(self).clock_ns()

    def _spend(self, began_ns: int | None) -> None:
        if began_ns is not None:
            self._is_timed = False
            self._spent_ns += type(self).clock_ns() - began_ns

    # --- how it ends -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Save nothing from now on."""
        super().close()
        self._say(discarded=not self.over)

    def refuse(self) -> None:
        """Save nothing from now on, since the store did not answer."""
        self._refused = True
        super().refuse()

    def end(self) -> None:
        """Note that the request has ended."""
        super().end()
        self._say(discarded=False)

    def _say(self, *, discarded: bool) -> None:
        if not self._is_told:
            self._is_told = True
            self.observers.page(Page(self._outcome(discarded=discarded), self._spent_ns * NS))

    def _outcome(self, *, discarded: bool) -> str:
        if self._refused:
            return "refused"
        if self.unavailable:
            return "degraded"
        if self.dropped is not None or (self.lost and not self._found_lost):
            return "dropped"
        done = self._weightiest()
        if done:
            return done
        if discarded:
            return "discarded"
        if self.accessed:
            return "read" if self.stored is not None else "anonymous"
        return "anonymous" if self.stored is None and self.loaded else "unused"

    def _weightiest(self) -> str:
        """Return the weightiest that was done until now; empty if nothing was written."""
        done = self._since_known()
        return max((done, self._done), key=_WEIGHT.index) if done and self._done else done or self._done

    def _since_known(self) -> str:
        known, stored = self._known, self.stored
        if stored is None:
            return "" if known is None else "ended"
        if known is None:
            return "created"
        if known.session_id != stored.session_id:
            return "rotated"
        if self.snapshot != self._known_data:
            return "changed"
        return "extended" if stored.expires_us != known.expires_us else ""


def _events_of(sessions: Session) -> Callable[[], Mapping[str, int]]:
    """Return what tells the events, for as long as the sessions are there."""
    weak = ref(sessions)

    def events() -> Mapping[str, Any]:
        there = weak()
        return {} if there is None else asdict(there.statistics())

    return events
