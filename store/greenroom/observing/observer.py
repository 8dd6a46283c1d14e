"""What can be observed, in words of low number: operations of a store, and pages of an app.

An observer is called where the work is done, in its task, when it is over. So it must be quick and never
wait; what it raises is logged once and changes nothing for the app. It learns no session id, no user and no
data: those are not in what it is given, but for the text of an error, which may quote a key.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from greenroom.errors import (
    OutcomeUnknownError,
    SessionExistsError,
    SessionNotFoundError,
    StoreFullError,
    UnavailableError,
    UnreadableSessionError,
    UsageError,
    VersionConflictError,
)

if TYPE_CHECKING:
    from greenroom.dialog.near import NearCounts

KINDS = (
    *("get", "create", "update", "delete", "patch", "modify", "rotate"),
    *("list_by_user", "delete_by_handle", "delete_by_user", "clean", "watch", "check"),
)
"""What is asked of a store, by the words of the servers' metrics where they have one."""

NS = 1e-9
DONE = "done"
MISSING = "missing"
CANCELLED = "cancelled"
FAILED = "failed"

_OF_ERRORS: Mapping[type[BaseException], str] = {
    SessionExistsError: "exists",
    SessionNotFoundError: "not_found",
    VersionConflictError: "conflict",
    UsageError: "invalid",
    StoreFullError: "full",
    UnavailableError: "unavailable",
    OutcomeUnknownError: "unknown",
    UnreadableSessionError: "unreadable",
    Exception: FAILED,
    BaseException: CANCELLED,
}
OUTCOMES = (DONE, MISSING, *_OF_ERRORS.values())
"""What came of it: `missing` is a get that found none, `failed` an exception that is none of greenroom's."""

PAGES = (
    *("anonymous", "unused", "read", "extended", "changed", "created", "rotated", "ended"),
    *("dropped", "discarded", "degraded", "refused"),
)
"""What a request did to its session; see docs/how-to/observe.md."""

_log = logging.getLogger("greenroom.observing")


class Operation(msgspec.Struct, frozen=True):
    """One operation of a store that is over. `error` is what it raised: never show its text."""

    kind: str
    outcome: str
    seconds: float
    error: BaseException | None = None


class Page(msgspec.Struct, frozen=True):
    """One request that is over. `outcome`, one of `PAGES`, is what it did to its session.

    `seconds` is how long loading, saving and extending it took, waiting for the store included.
    """

    outcome: str
    seconds: float


class Observer:
    """Does nothing with anything; override what you want to know."""

    def operation(self, operation: Operation) -> None:
        """Hear of an operation of a store, as it ends."""

    def page(self, page: Page) -> None:
        """Hear what a request did to its session, when it is over."""

    def follow_near(self, near: Callable[[], "NearCounts"]) -> None:
        """Take what tells at any time what the near caches of a store have done."""

    def follow_events(self, events: Callable[[], Mapping[str, int]]) -> None:
        """Take what tells at any time how often each event of an app's sessions has happened."""


class Observers:
    """Several observers as one, which raises nothing."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self.all = tuple(observers)
        for each in self.all:
            if not isinstance(each, Observer):
                raise UsageError(
                    f"an observer is an object of a class below Observer, not {type(each).__name__}"
                )
        self._warned: set[type] = set()

    def operation(self, operation: Operation) -> None:
        """Tell all of an operation."""
        for each in self.all:
            try:
                each.operation(operation)
            except Exception as error:  # noqa: BLE001  the operation is over, whatever an observer makes of it
                self._warn(each, error)

    def page(self, page: Page) -> None:
        """Tell all of a page."""
        for each in self.all:
            try:
                each.page(page)
            except Exception as error:  # noqa: BLE001  as above
                self._warn(each, error)

    def _warn(self, observer: Observer, error: Exception) -> None:
        if type(observer) not in self._warned:
            self._warned.add(type(observer))
            # Not its text: an observer may have put in what it was given.
            _log.warning("%s raised %s; logged once", type(observer).__name__, type(error).__name__)


def outcome_of(error: BaseException) -> str:
    """Return the word for what an operation raised."""
    return next(_OF_ERRORS[each] for each in type(error).__mro__ if each in _OF_ERRORS)
