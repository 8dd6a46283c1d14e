"""Work beside the callers, under asyncio and trio alike.

trio is never imported here; where it runs, it is loaded already.
"""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from greenroom.turns import running_trio

_log = logging.getLogger("greenroom")
# An event loop keeps no task alive by itself.
_tasks: set["asyncio.Task[None]"] = set()


def new_event() -> Any:
    """Return an event of the running library."""
    trio = running_trio()
    return asyncio.Event() if trio is None else trio.Event()


def begin(work: Callable[[], Awaitable[None]]) -> None:
    """Have work done in the running event loop. What it raises is logged; it ends with its loop."""
    trio = running_trio()
    if trio is not None:
        trio.lowlevel.spawn_system_task(_guarded, work, name="greenroom.background")
        return
    # Not in the context of the request that first needed it.
    task = asyncio.get_running_loop().create_task(_guarded(work), context=contextvars.Context())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _guarded(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Exception:  # noqa: BLE001  under trio what escapes would end the user's whole run
        _log.exception("a bug in greenroom: work in the background has ended")
