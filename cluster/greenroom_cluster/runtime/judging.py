"""Judges open connections anew, at both of their ends, while the process runs."""

from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import NoReturn, Protocol, TypeVar

import trio

from greenroom.tls.judging import SWEEP_SECONDS, Judge
from greenroom.tls.standing import Objection
from greenroom_cluster.runtime.clocks import wall_us
from greenroom_cluster.runtime.refusals import tell_not_allowed
from greenroom_cluster.tokens.standing import Standing, Who


class Judged(Hashable, Protocol):
    """A connection; `proven` is who is at its other end, None if that is not known."""

    remote: str

    @property
    def proven(self) -> Who | None:
        """Return who that is."""

    @property
    def ended(self) -> bool:
        """Return whether it has ended."""

    def abort(self, reason: str = ...) -> None:
        """End it."""


SomeJudged = TypeVar("SomeJudged", bound=Judged)


async def judge_forever(
    standing: Callable[[], Standing],
    connections: Callable[[], Iterable[SomeJudged]],
    end: Callable[[SomeJudged, Objection], Awaitable[None]],
) -> NoReturn:
    """Have `end` called for each of the connections open then that is to end now, or to be replaced."""
    judge: Judge[SomeJudged, Who] = Judge()
    while True:
        await trio.sleep(SWEEP_SECONDS)
        now, wall_seconds = standing(), wall_us() / 1e6
        proven = [(each, each.proven) for each in connections() if each.proven is not None]
        for connection, objection in judge.sweep(now, wall_seconds, proven, now.next_end(wall_seconds)):
            await end(connection, objection)


async def cut_off(connection: Judged, objection: Objection) -> None:
    """End a connection, and tell why."""
    if connection.proven is not None and not connection.ended:
        tell_not_allowed(connection, connection.proven, objection.reason)
        connection.abort(objection.reason)
