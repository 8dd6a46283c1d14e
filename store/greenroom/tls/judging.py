"""Which of the open connections end, and when, after what a process trusts has changed. Pure.

Who is revoked is cut off at once. Those of an authority that is trusted no more are many, in all processes at
the same moment, and most of them belong to who has a newer certificate and connects again: so a few of them
end in each sweep. Otherwise all would shake hands at once, and leases would wait for that.
"""

from collections.abc import Hashable, Iterable
from math import inf
from typing import Generic, Protocol, TypeVar

from greenroom.tls.standing import Objection

SWEEP_SECONDS = 1.0
"""How long to wait between two sweeps while connections still have to end."""
JUDGE_SECONDS = 30.0
"""How long a certificate may have ended before its connections do."""
_SWEEPS = 16
"""In about so many sweeps all connections are ended that may end one after the other."""
_FEWEST = 2

Key = TypeVar("Key", bound=Hashable)
Who = TypeVar("Who")
SomeWho = TypeVar("SomeWho", contravariant=True)


class Standing(Protocol[SomeWho]):
    """Whom a process trusts now; another object, which differs, once that has changed."""

    def objection(self, proven: SomeWho, wall_seconds: float, /) -> Objection | None:
        """Return why a connection must end by now, None if it need not."""


class Judge(Generic[Key, Who]):
    """Judges the open connections of one listener, one link or one store."""

    def __init__(self) -> None:
        self._standing: Standing[Who] | None = None
        self._judged_at = self._next_at = 0.0
        self._sweeps = 0
        self._had_turn: set[Key] = set()
        self.waiting = False
        """Whether connections still have to end, so that the next sweep should come soon."""

    def sweep(
        self,
        standing: Standing[Who],
        wall_seconds: float,
        proven: Iterable[tuple[Key, Who]],
        next_end: float = inf,
    ) -> list[tuple[Key, Objection]]:
        """Return which connections end now, and why, of all that are open.

        `next_end` is when something ends that is not to wait until it is looked for.

        An objection that waits comes in its turn, and again while its connection is open; beyond its patience
        it waits no more.
        """
        if standing != self._standing:
            self._standing, self._sweeps, self._had_turn = standing, 0, set()
        elif not self.waiting and self._judged_at <= wall_seconds < self._next_at:
            return []
        else:
            self._sweeps += 1
        self._judged_at, self._next_at = wall_seconds, min(wall_seconds + JUDGE_SECONDS, next_end)
        ended: list[tuple[Key, Objection]] = []
        waiting: dict[Key, Objection] = {}
        count = 0
        for key, each in proven:
            count += 1
            objection = standing.objection(each, wall_seconds)
            if objection is None:
                continue
            if self._sweeps < objection.patience_sweeps:
                waiting[key] = objection
            else:
                ended.append((key, Objection(objection.reason)))
        self.waiting = bool(waiting)
        return ended + [(key, waiting[key]) for key in self._turn(waiting, count)]

    def _turn(self, waiting: dict[Key, Objection], count: int) -> list[Key]:
        """Return whose turn it is: nobody's twice before everybody's once."""
        fresh = [key for key in waiting if key not in self._had_turn]
        if not fresh:
            self._had_turn.clear()
            fresh = list(waiting)
        turn = fresh[: max(_FEWEST, -(-count // _SWEEPS))]
        self._had_turn = self._had_turn.intersection(waiting).union(turn)
        return turn
