"""Limits log lines that strangers can cause, so that hostile traffic does not fill the disk."""

import time
from typing import Any


class LimitedLog:
    """Passes at most `lines` lines per event name and second, and counts those that it holds back.

    The next line of that event that passes carries the count as `suppressed`.
    """

    def __init__(self, log: Any, *, lines: int = 5) -> None:
        self._log = log
        self._lines = lines
        self._windows: dict[str, tuple[int, int]] = {}
        self._suppressed: dict[str, int] = {}

    def info(self, event: str, **fields: object) -> None:
        """Log at level info, if the limit allows."""
        self._emit(self._log.info, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log at level warning, if the limit allows."""
        self._emit(self._log.warning, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Log at level error, if the limit allows."""
        self._emit(self._log.error, event, fields)

    def _emit(self, method: Any, event: str, fields: dict[str, object]) -> None:
        second = int(time.monotonic())
        window, used = self._windows.get(event, (second, 0))
        if window != second:
            used = 0
        if used >= self._lines:
            self._suppressed[event] = self._suppressed.get(event, 0) + 1
            return
        self._windows[event] = (second, used + 1)
        suppressed = self._suppressed.pop(event, 0)
        if suppressed:
            fields = {**fields, "suppressed": suppressed}
        method(event, **fields)
