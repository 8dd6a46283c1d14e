"""Work that cancellation must not interrupt, under asyncio and trio alike.

A save that has begun is completed: half of a login (rotated in the store, cookie never sent) would log the
user out.
trio is never imported here; where it runs, it is loaded already.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from greenroom.turns import running_trio

Result = TypeVar("Result")

_log = logging.getLogger("greenroom.web")


async def shielded(work: Callable[[], Awaitable[Result]]) -> Result:
    """Complete the work even if the caller is cancelled; the cancellation takes effect afterwards."""
    trio = running_trio()
    if trio is None:
        return await _asyncio_shielded(work)
    with trio.CancelScope(shield=True):
        return await work()


def only_cancelled(error: BaseException) -> bool:
    """Return whether this is a cancellation, alone or in a group of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(only_cancelled, error.exceptions))
    trio = sys.modules.get("trio")
    return isinstance(error, asyncio.CancelledError) or (
        trio is not None and isinstance(error, getattr(trio, "Cancelled", ()))
    )


async def _asyncio_shielded(work: Callable[[], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        return await work()

    # A task of its own, because libraries on top of asyncio cancel a task again at each of its awaits.
    loop = asyncio.get_running_loop()
    task = loop.create_task(run())
    interruption: asyncio.CancelledError | None = None
    while not task.done():
        ended = loop.create_future()  # of its own too: to cancel the caller cancels what it waits for
        tell = partial(_tell, ended)
        task.add_done_callback(tell)
        try:
            await ended
        except asyncio.CancelledError as error:
            interruption = error
            task.remove_done_callback(tell)
    if interruption is None:
        return task.result()
    if not task.cancelled() and (failure := task.exception()) is not None:
        _log.error("saving a session failed while its request was cancelled: %s", type(failure).__name__)
    raise interruption


def _tell(ended: "asyncio.Future[None]", _task: object) -> None:
    if not ended.done():
        ended.set_result(None)
