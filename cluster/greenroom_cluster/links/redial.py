"""A connection that is kept open: when dialling takes too long, and when to dial again.

Whatever ended a connection is a reason to try again, first almost at once, then after pauses that double
while nothing lasts. The shell resets what has ended (linger 0) before it dials again, so that nothing of it
arrives later than what the next connection carries.
"""

from greenroom import wire
from greenroom_cluster.links.handshake import Accepted, Refusal, judge

DIAL_NS = 2_000_000_000
BACKOFF_NS_MIN = 20_000_000
BACKOFF_NS_MAX = 500_000_000
LASTING_NS = 1_000_000_000
"""A connection that lasted so long proves that the other side serves: the next attempt may come at once."""


class Redial:
    """One connection, over and over. Times are nanoseconds of any one clock."""

    def __init__(self, hello: wire.Hello) -> None:
        self.hello = hello
        self._dialled_ns = 0
        self._pause_ns = BACKOFF_NS_MIN

    def dial(self, now_ns: int) -> int:
        """Note that it is being dialled; return by when the other side must have answered our hello."""
        self._dialled_ns = now_ns
        return now_ns + DIAL_NS

    def answered(self, answer: wire.Hello | wire.Goodbye) -> Accepted | Refusal:
        """Return what an answer to our hello means for the connection."""
        return judge(self.hello, answer)

    def ended(self, now_ns: int) -> int:
        """Note that the connection, or the attempt, has ended; return when to dial again."""
        if now_ns - self._dialled_ns > LASTING_NS:
            self._pause_ns = BACKOFF_NS_MIN
        pause_ns, self._pause_ns = self._pause_ns, min(self._pause_ns * 2, BACKOFF_NS_MAX)
        return now_ns + pause_ns
