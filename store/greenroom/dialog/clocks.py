"""The difference between this host's clock and the cluster's, applied to times sent and received.

Sessions end by the clock of the cluster. If the clock of a store's host were wrong by minutes, its sessions
would have expired when they are stored, or would live too long, and no one would notice. So actors send their
time in their hellos. If none of them agrees with this host's clock, every time sent is moved by the
difference, and every time received is moved back. Callers see times by their own clock, and get the lifetimes
they ask for.
"""

from typing import TypeVar

import msgspec

from greenroom import wire
from greenroom.dialog.operations import Single
from greenroom.fields import moved_moment

Timed = TypeVar("Timed", bound=wire.Frame)

TOLERANCE_US = 5_000_000
"""Up to this difference no time is moved. The cluster follows larger jumps of its own clocks only slowly."""

_STEP_US = 1_000_000
"""A clock that is this far from where it should be was set, or the host was suspended."""

_TIMES = ("created_us", "expires_us", "absolute_us")
TIMED = (wire.Create, wire.Update, wire.Patch, wire.Rotate)
"""The requests that bear times."""


class ClusterClock:
    """How far the cluster's time is ahead of this host's: `offset_us`, 0 if they agree or if it is unknown.

    Of several actors the one nearest to this host's time counts: a host of the cluster may be wrong too.
    """

    def __init__(self, notices: list[str]) -> None:
        self.offset_us = 0
        self._notices = notices
        self._own_us: int | None = None
        # By incarnation, counted from where elapsed time begins, like `_own_us`.
        self._actors: dict[bytes, int] = {}
        self._suspended_us = 0
        # How far this host's clock was ahead of `now_ns` when it was looked at last.
        self._ahead_us = 0

    def was_set(self, now_ns: int, wall_us: int) -> bool:
        """Whether this host's clock was set since it was looked at: look again before it is used."""
        return not -_STEP_US < wall_us - now_ns // 1000 - self._ahead_us < _STEP_US

    def own(self, now_ns: int, wall_us: int, elapsed_ns: int | None) -> None:
        """Take in the time of this host's clock.

        `elapsed_ns` goes on while the host is suspended, which `now_ns` may not; None if there is no such
        clock. Then the actors' times are forgotten whenever the clock jumps, as it does after a suspension.
        """
        own_us = wall_us - (now_ns if elapsed_ns is None else elapsed_ns) // 1000
        if elapsed_ns is not None:
            self._suspended_us = (elapsed_ns - now_ns) // 1000
        elif self._own_us is not None and abs(own_us - self._own_us) > TOLERANCE_US:
            self._actors.clear()
        self._own_us = own_us
        self._ahead_us = wall_us - now_ns // 1000
        self._reckon()

    def heard(self, actor: bytes, clock_us: int, now_ns: int) -> None:
        """Take in the time of an actor's clock; 0 comes from a release that does not send it."""
        if clock_us:
            self._actors[actor] = clock_us - now_ns // 1000 - self._suspended_us
            self._reckon()

    def lost(self, actor: bytes) -> None:
        """Forget the time of an actor whose connection ended. The offset stays until others send theirs."""
        self._actors.pop(actor, None)

    def _reckon(self) -> None:
        own_us, before_us = self._own_us, self.offset_us
        if own_us is None or not self._actors:
            return
        nearest_us = min((clock - own_us for clock in self._actors.values()), key=abs)
        self.offset_us = nearest_us if abs(nearest_us) > TOLERANCE_US else 0
        if bool(before_us) == bool(self.offset_us):
            return
        if self.offset_us:
            way = "behind" if self.offset_us > 0 else "ahead of"
            self._notices.append(
                f"the clock of this host is {abs(self.offset_us) / 1e6:.0f} s {way} those of the cluster. "
                "Sessions still live as long as they should, but set the clock right (NTP)"
            )
        else:
            self._notices.append("the clock of this host agrees with those of the cluster again")

    def sent(self, request: Single) -> Single:
        """Return the request with its times in the cluster's clock."""
        return _moved(request, self.offset_us) if isinstance(request, TIMED) else request

    def received(self, reply: wire.Reply) -> wire.Reply:
        """Return the reply with its times in this host's clock."""
        match reply:
            case wire.Session():
                return wire.Session(reply.request_id, _moved(reply.state, -self.offset_us))
            case wire.Listing():
                sessions = tuple(_moved(each, -self.offset_us) for each in reply.sessions)
                return wire.Listing(reply.request_id, reply.shards, sessions)
            case _:
                return reply


def _moved(message: Timed, by_us: int) -> Timed:
    times = {
        field: moved_moment(getattr(message, field), by_us)
        for field in _TIMES
        if getattr(message, field, None) is not None
    }
    return msgspec.structs.replace(message, **times)
