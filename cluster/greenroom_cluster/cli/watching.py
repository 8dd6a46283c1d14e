"""Looks at a cluster again and again, until whoever watches has seen enough."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.exits import end_in_order
from greenroom_cluster.inspection import inspect_cluster
from greenroom_cluster.questions import NoNodeError
from greenroom_cluster.runtime.tasks import open_tasks

if TYPE_CHECKING:
    from greenroom_cluster.cli.screen import Screen
    from greenroom_cluster.runtime.proving import Keys


async def watch(
    addresses: Sequence[str],
    cluster: str,
    interval: float,
    count: int,
    screen: "Screen",
    seen: Callable[[ClusterStatus], None],
    missed: Callable[[str], None],
    *,
    credentials: "Keys | None",
) -> None:
    """Hand each look at the cluster to `seen`, or to `missed` why there was none.

    A signal ends it, the key q, and that nobody reads what is written. Raises what `fetch_map` does if the
    first look fails: then the address is wrong rather than the cluster away.
    """
    looks = 0
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_tasks() as tasks:
            tasks.start_soon(_end_on_signal, signals, tasks.cancel_scope)
            if screen.live:
                tasks.start_soon(_end_on_key, tasks.cancel_scope)
            with screen.opened():
                while True:
                    began = trio.current_time()
                    try:
                        found = await inspect_cluster(addresses, cluster, credentials=credentials)
                    except NoNodeError as error:
                        if not looks:
                            raise
                        found, reason = None, str(error)
                    try:
                        if found is None:
                            missed(reason)
                        else:
                            seen(found)
                    except BrokenPipeError:
                        _write_nowhere()
                        break
                    looks += 1
                    if looks == count:
                        break
                    await trio.sleep_until(began + interval)
            tasks.cancel_scope.cancel()


async def _end_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        end_in_order()
        scope.cancel()
        return


async def _end_on_key(scope: trio.CancelScope) -> None:
    from greenroom_cluster.cli.screen import until_key

    await until_key("q")
    scope.cancel()


def _write_nowhere() -> None:
    """Keep Python from complaining at its end that nobody reads."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
