"""Deadlines: nanoseconds of a clock that is never set."""

NEVER_NS = 1 << 62
"""The deadline of what is not due: later than any clock shows, and small enough to add to."""
