"""Events of an app's sessions: counted, and logged if someone must see them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime

from greenroom.errors import UnreadableSessionError
from greenroom.sessions import StoredSession
from greenroom.web.errors import CONTESTED, CROWDED, DROPPED
from greenroom.web.notices import Notices
from greenroom.web.traces import UNKNOWN, trace

_log = logging.getLogger("greenroom.web")


@dataclass(slots=True, frozen=True, kw_only=True)
class SessionStatistics:
    """Counts of events since the start.

    `unknown_ids` are signed cookies whose session is gone, `refused_cookies` those that no secret signed.
    `dropped` are changes that came too late, because the session had been deleted, rotated or lost; `failed`
    are operations that the store did not confirm. `unreadable` are stored sessions that could not be read and
    counted as none, `contested` are requests with live sessions of several users. `moved` are sessions that
    came from the app's former library. `sockets_closed` are WebSockets whose session ended.
    """

    loads: int = 0
    creates: int = 0
    patches: int = 0
    rotations: int = 0
    deletes: int = 0
    extensions: int = 0
    dropped: int = 0
    failed: int = 0
    unknown_ids: int = 0
    refused_cookies: int = 0
    unreadable: int = 0
    contested: int = 0
    moved: int = 0
    sockets_closed: int = 0


class Events:
    """See the module. `clock` returns the present, aware."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.counts = {each.name: 0 for each in fields(SessionStatistics)}
        self._notices = Notices(clock)
        self._warned_of_plain_http = False

    def statistics(self) -> SessionStatistics:
        """Return the counts so far."""
        return SessionStatistics(**self.counts)

    def count(self, what: str) -> None:
        """Count one event of `SessionStatistics`."""
        self.counts[what] += 1

    def trace(self, session_id: str, what: str, *more: str) -> None:
        """Log what happened to a session, by its handle; see `greenroom.web.traces`."""
        trace(_log, session_id, what, *more)

    def trace_handle(self, handle: str, what: str) -> None:
        """Log what happened to the session of a handle, at the level DEBUG."""
        _log.debug("session %s: %s", handle, what)

    def unknown(self, session_id: str) -> None:
        """Count a session that a signed cookie names and the store does not have."""
        self.count("unknown_ids")
        self.trace(session_id, UNKNOWN)

    def dropped(self, stored: StoredSession | None) -> None:
        """Count and log a change that came too late, to a session as it was known."""
        self.count("dropped")
        _log.warning(DROPPED)
        if stored is not None:
            self.trace(stored.session_id, "a change was dropped")

    def unreadable(self, error: UnreadableSessionError) -> None:
        """Count and log a stored session that cannot be read; the log stays readable if all are so."""
        self.count("unreadable")
        self._notices.warn("unreadable", f"a session counts as none, because it cannot be read: {error}")

    def foreign(self, cookie_name: str) -> None:
        """Log that a cookie of the old library's name is none of its cookies."""
        self._notices.warn(
            "foreign",
            f"a cookie {cookie_name} is no session of the old library: moves_from= has another secret than "
            "that had, or other software has set it",
        )

    def immovable(self, error: Exception) -> None:
        """Log that an old session was not moved. Not the error itself: it may quote a key."""
        self._notices.warn(
            "immovable",
            "a session of the old library counts as none, because it is too large or holds what no session "
            "of greenroom can hold, as data, user id, label or a moment without a time zone: "
            f"{type(error).__name__}",
        )

    def contested(self) -> None:
        """Count and log a request that brought the sessions of several users."""
        self.count("contested")
        self._notices.warn("contested", CONTESTED)

    def crowded(self, cookie_name: str) -> None:
        """Log a request with more cookies of the session's name than honest ones bring."""
        self._notices.warn("crowded", CROWDED.format(cookie_name))

    def no_label(self, why: str) -> None:
        """Log that the app's `label` made none of a User-Agent."""
        self._notices.warn("label", f"label {why}, so sessions of this User-Agent have none")

    def failed(self, action: str, error: Exception) -> None:
        """Count and log an operation that the store did not confirm."""
        self.count("failed")
        _log.warning("%s failed: %s: %s", action, type(error).__name__, error)

    def not_closed(self, error: Exception) -> None:
        """Log that a WebSocket whose session has ended was gone when it was to be closed."""
        _log.debug("a WebSocket was not closed at the end of its session: %s", type(error).__name__)

    def sent_over_plain_http(self) -> None:
        """Warn once that most clients do not return a Secure cookie that came over http."""
        if not self._warned_of_plain_http:
            self._warned_of_plain_http = True
            _log.warning(
                "a Secure session cookie was sent over http, where most clients do not return it, so each of "
                "their requests begins a new session. For development on this machine: Session(dev=True). "
                "Behind a proxy that ends TLS: let the server trust its headers (uvicorn --proxy-headers "
                '--forwarded-allow-ips=...). In tests: a client with base_url="https://testserver".'
            )
