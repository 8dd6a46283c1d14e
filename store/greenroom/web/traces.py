"""What became of single sessions, logged by handle at the level DEBUG: a lost login can be found so."""

import logging

from greenroom.ids import handle_of, locate_if_possible

UNKNOWN = "unknown to the store: ended, expired, under a new id, or kept by another store"


def trace(log: logging.Logger, session_id: str, what: str, *more: str) -> None:
    """Log what happened to the session of this id. `more` are ids of sessions, whose handles follow."""
    if log.isEnabledFor(logging.DEBUG):
        handles = [_handle(each) for each in (session_id, *more)]
        log.debug("session %s: %s", handles[0], " ".join((what, *handles[1:])))


def _handle(session_id: str) -> str:
    located = locate_if_possible(session_id)
    return "of no id" if located is None else handle_of(*located)
