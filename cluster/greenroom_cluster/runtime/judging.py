"""Judges open connections anew, at both of their ends, while the process runs."""

from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn

import trio

from greenroom.tls.judging import SWEEP_SECONDS, Judge
from greenroom.tls.standing import Objection
from greenroom_cluster.runtime.clocks import wall_us
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.refusals import tell_not_allowed
from greenroom_cluster.tokens.standing import Standing, Who


async def judge_forever(
    standing: Callable[[], Standing],
    connections: Callable[[], Iterable[FramedConnection]],
    end: Callable[[FramedConnection, Objection], Awaitable[None]],
) -> NoReturn:
    """Have `end` called for each of the connections open then that is to end now, or to be replaced."""
    judge: Judge[FramedConnection, Who] = Judge()
    while True:
        await trio.sleep(SWEEP_SECONDS)
        now, wall_seconds = standing(), wall_us() / 1e6
        proven = [(each, each.proven) for each in connections() if each.proven is not None]
        for connection, objection in judge.sweep(now, wall_seconds, proven, now.next_end(wall_seconds)):
            await end(connection, objection)


async def cut_off(connection: FramedConnection, objection: Objection) -> None:
    """End a connection, and tell why."""
    if connection.proven is not None and not connection.ended:
        tell_not_allowed(connection, connection.proven, objection.reason)
        connection.abort(objection.reason)
