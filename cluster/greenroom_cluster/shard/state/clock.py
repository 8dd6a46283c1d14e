"""Shard time: the clock by which a shard's sessions expire.

The primary stamps it into every record. It never goes back, so an expired session stays expired. After a
takeover it goes on from the last known value plus the time elapsed since. It follows the wall clock, but does
not believe one that is far ahead at once: otherwise a host whose clock jumps would log everybody out.
"""

from copy import copy

from greenroom.wire import TIME_US_MAX
from greenroom_cluster.shard.settings import US_PER_SECOND

BELIEVED_AHEAD_US = 5 * US_PER_SECOND
SLEW_DIVISOR = 10


class ShardClock:
    """One shard's clock on one actor. Times are microseconds UTC; `now_ns` is the actor's own clock."""

    __slots__ = ("_at_ns", "_last_us", "doubted_us")

    def __init__(self) -> None:
        self._last_us = 0
        self._at_ns = 0
        self.doubted_us = 0

    @property
    def last_us(self) -> int:
        """The newest time given out or heard of."""
        return self._last_us

    def heard(self, time_us: int, now_ns: int) -> None:
        """Take in a time that the primary stamped."""
        if time_us > self._last_us:
            self._last_us = time_us
            self._at_ns = now_ns

    def resume(self, now_ns: int, wall_us: int, recovered_us: int) -> None:
        """Go on after a time of unknown length without power, when the time last seen is on disk.

        Here alone a wall clock far ahead is believed: else that time would be slewed away. But only up to the
        coordinator's when that decided on the recovery (0: it did not say); from there on it is believed as
        always, so that one clock ahead ends sessions a little early at most. How long the time without power
        was is not known if the wall clock is behind; then sessions live that much longer.
        """
        believed_us = min(wall_us, recovered_us) if recovered_us else wall_us
        self._last_us = max(self._last_us, believed_us)
        self._at_ns = now_ns

    def shown(self, now_ns: int, wall_us: int) -> int:
        """Return what `read` would, without counting as given out."""
        return copy(self).read(now_ns, wall_us)

    def read(self, now_ns: int, wall_us: int) -> int:
        """Return the shard's time now, never less than any before.

        Afterwards `doubted_us` is how far the wall clock is ahead of the time believed, 0 if it is not.
        """
        last_us = self._last_us
        if wall_us == last_us and now_ns == self._at_ns:
            return last_us  # again in one step
        if last_us == 0:
            self._last_us, self._at_ns = wall_us, now_ns
            return wall_us
        elapsed_us = (now_ns - self._at_ns) // 1000
        if last_us <= wall_us <= last_us + elapsed_us + BELIEVED_AHEAD_US:
            self._last_us, self._at_ns, self.doubted_us = wall_us, now_ns, 0
            return wall_us
        if elapsed_us < SLEW_DIVISOR:
            return last_us
        if wall_us < last_us:
            self.doubted_us = 0
            time_us = last_us + elapsed_us - elapsed_us // SLEW_DIVISOR
        else:
            time_us = last_us + elapsed_us + elapsed_us // SLEW_DIVISOR
            self.doubted_us = wall_us - time_us
        time_us = min(time_us, TIME_US_MAX)
        self._last_us, self._at_ns = time_us, now_ns
        return time_us
