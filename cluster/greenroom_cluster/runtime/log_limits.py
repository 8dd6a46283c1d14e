"""How often the log tells the same: above all what strangers can cause, so that it does not fill the disk."""

import time
from typing import Any

_MINUTE_SECONDS = 60.0
_REMEMBERED_MAX = 32


class OnceAMinute:
    """Whether a warning is due again."""

    def __init__(self) -> None:
        self._last = -_MINUTE_SECONDS

    def is_due(self) -> bool:
        """Whether it is; if so, it counts as told."""
        now = time.monotonic()
        due = now >= self._last + _MINUTE_SECONDS
        if due:
            self._last = now
        return due


class LimitedLog:
    """Passes at most `lines` lines per event name and second, and counts those that it holds back.

    A line that says the same as one of its event did is held back for `repeat_seconds`; so many different
    ones are remembered as `_REMEMBERED_MAX`. The next line of that event that passes carries the count as
    `suppressed`.
    """

    def __init__(self, log: Any, *, lines: int = 5, repeat_seconds: float = 0) -> None:
        self._log = log
        self._lines = lines
        self._repeat_seconds = repeat_seconds
        # When each line was told, by its event and what it says.
        self._told: dict[str, dict[str, float]] = {}
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
        now = time.monotonic()
        second = int(now)
        window, used = self._windows.get(event, (second, 0))
        if window != second:
            used = 0
        if used >= self._lines or self._repeats(event, fields, now):
            self._suppressed[event] = self._suppressed.get(event, 0) + 1
            return
        self._windows[event] = (second, used + 1)
        suppressed = self._suppressed.pop(event, 0)
        if suppressed:
            fields = {**fields, "suppressed": suppressed}
        method(event, **fields)

    def _repeats(self, event: str, fields: dict[str, object], now: float) -> bool:
        """Whether that was said within `repeat_seconds`; if not, it counts as said now."""
        if not self._repeat_seconds:
            return False
        told, line = self._told.setdefault(event, {}), repr(fields)
        if now < told.get(line, now - self._repeat_seconds) + self._repeat_seconds:
            return True
        told.pop(line, None)
        told[line] = now  # behind all others, so the oldest are first
        if len(told) > _REMEMBERED_MAX:
            del told[next(iter(told))]
        return False
