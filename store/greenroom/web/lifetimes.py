"""How long sessions live: the arithmetic of idle and absolute lifetimes, in microseconds. Pure."""

from typing import NamedTuple

from greenroom.errors import UsageError
from greenroom.sessions import StoredSession

_MICROS = 1_000_000


class Lifetimes(NamedTuple):
    """What one app decided. A session in use is extended once less than `threshold_us` are left to it."""

    idle_us: int
    absolute_us: int | None
    threshold_us: int

    def expiry_us(self, now_us: int, absolute_us: int | None) -> int:
        """Return when a session used now ends unless it is extended."""
        idle_end_us = now_us + self.idle_us
        return idle_end_us if absolute_us is None else min(idle_end_us, absolute_us)

    def absolute_expiry_us(self, now_us: int) -> int | None:
        """Return when a session created now ends whatever its use."""
        return None if self.absolute_us is None else now_us + self.absolute_us

    def extension_us(self, now_us: int, record: StoredSession) -> int | None:
        """Return the new end of a session in use; None if it has time enough, or can get no more."""
        if record.expires_us - now_us >= self.threshold_us:
            return None
        expires_us = self.expiry_us(now_us, record.absolute_us)
        return expires_us if expires_us > record.expires_us else None


def lifetimes_of(idle_seconds: float, absolute_seconds: float | None, threshold_seconds: float) -> Lifetimes:
    """Return them. Raises UsageError for a threshold beyond the lifetime."""
    if threshold_seconds > idle_seconds:
        raise UsageError("extension_threshold_seconds lies between 0 (never extended) and idle_seconds")
    return Lifetimes(
        round(idle_seconds * _MICROS),
        None if absolute_seconds is None else round(absolute_seconds * _MICROS),
        round(threshold_seconds * _MICROS),
    )
