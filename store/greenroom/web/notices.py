"""Warnings that clients can provoke with every request: one a minute of each kind, the rest counted."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

NOTICE_SECONDS = 60

_log = logging.getLogger("greenroom.web")


class Notices:
    """Logs warnings without filling a disk. `clock` returns the present, aware."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._logged: dict[str, datetime] = {}
        self._left_out: dict[str, int] = {}

    def warn(self, kind: str, text: str) -> None:
        """Log a warning, unless one of this kind was logged within the last minute."""
        now = self._clock()
        last = self._logged.get(kind)
        # A clock that was set back must not silence anything.
        if last is not None and last <= now < last + timedelta(seconds=NOTICE_SECONDS):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._logged[kind] = now
        left_out = self._left_out.pop(kind, 0)
        _log.warning("%s%s", text, f" ({left_out} more since the last such line)" if left_out else "")
