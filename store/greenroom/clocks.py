"""Reading the clock that a store or an app was given, in microseconds, as often as requests come."""

from collections.abc import Callable
from datetime import datetime
from time import time_ns

from greenroom.fields import micros_of, utc_now


def microseconds_by(clock: Callable[[], datetime]) -> Callable[[], int]:
    """Return what reads a clock, which returns aware datetimes, in microseconds since 1970 UTC."""
    if clock is utc_now:
        return _utc_now_us
    return lambda: micros_of(clock(), "what clock() returns")


def _utc_now_us() -> int:
    return time_ns() // 1000
