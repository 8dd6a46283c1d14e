"""The clocks of the server side. The core never reads one: the driver samples them and passes them in."""

import time


def now_ns() -> int:
    """Return CLOCK_BOOTTIME in nanoseconds: it is never set, and runs while the machine is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wall_us() -> int:
    """Return the UTC wall clock in integer microseconds since 1970-01-01."""
    return time.time_ns() // 1_000
