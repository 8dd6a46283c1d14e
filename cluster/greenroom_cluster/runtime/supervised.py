"""The inside of a supervised process: runs one function, and reports to the supervisor.

It sends `{"ready": address}` once the function says so, with the `Standing` of its disk if it has one,
`{"beat": n}` throughout, with `"goes_on"` if a long start has got further, and `{"refused": text}` if the
settings are impossible (UsageError), which no restart changes, or is logged if it was ready. It receives
`{"stop": True}`, which cancels the function; the process exits after the function has cleaned up. At
`{"reload": True}` it reads its certificates anew. `{"ask": True}` is answered by `{"readings": bytes}`.

The process exits by `os._exit`, so the supervision library's teardown, which may wait for a peer that is
gone, cannot delay its end.
"""

import importlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, Protocol

import msgspec
import structlog
import trio

from greenroom.errors import UsageError
from greenroom_cluster.runtime.documents import decode_settings
from greenroom_cluster.runtime.reloading import reload_all
from greenroom_cluster.runtime.tasks import open_tasks

EXIT_STOPPED = 0
EXIT_FAILED = 70
EXIT_RETURNED = 71

_log = structlog.get_logger("greenroom.supervision")


class Standing(msgspec.Struct, frozen=True):
    """What a child keeps on disk: how, in the directory with that id, and up to that mark. Empty: nothing."""

    durability: str = ""
    directory: bytes = b""
    mark: int = 0


class Started(Protocol):
    """Given to a supervised function, to tell its supervisor how far its start has come."""

    def __call__(self, address: str, disk: Standing = ...) -> None:
        """Say that it serves at this address."""

    def goes_on(self) -> None:
        """Say that a start which takes long has got further. Any thread may call this."""

    def answer_with(self, readings: Callable[[], bytes]) -> None:
        """Answer the supervisor by these readings when it asks for some; before, by none."""


Work = Callable[[Any, Started], Awaitable[None]]


class MessageStream(Protocol):
    """The two-way stream between a supervised process and its supervisor."""

    async def send(self, data: Any) -> None:
        """Send one message."""

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over what the other side sends."""


def reference_to(thing: Any) -> str:
    """Return the `module:name` by which another process imports a function or class."""
    return f"{thing.__module__}:{thing.__qualname__}"


def resolve(reference: str) -> Any:
    """Import what a `module:name` refers to."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


class _Reports:
    """What the function says of its start, on its way to the supervisor."""

    def __init__(self, stream: MessageStream, tasks: trio.Nursery) -> None:
        self._stream = stream
        self._tasks = tasks
        self._goes_on = False
        self._readings: Callable[[], bytes] = bytes

    def __call__(self, address: str, disk: Standing = Standing()) -> None:  # noqa: B008  it is frozen
        self._tasks.start_soon(self._stream.send, {"ready": address, **msgspec.structs.asdict(disk)})

    def goes_on(self) -> None:
        self._goes_on = True

    def answer_with(self, readings: Callable[[], bytes]) -> None:
        self._readings = readings

    async def answer(self) -> None:
        """Send readings. A failure to make them is no failure of the process."""
        try:
            readings = self._readings()
        except Exception:  # noqa: BLE001  as above
            _log.exception("readings_failed")
            readings = b""
        await self._stream.send({"readings": readings})

    async def beat(self, seconds: float) -> None:
        """Send heartbeats until cancelled."""
        count = 0
        while True:
            goes_on, self._goes_on = self._goes_on, False
            await self._stream.send({"beat": count, "goes_on": goes_on})
            count += 1
            await trio.sleep(seconds)


async def _obey(stream: MessageStream, work: trio.CancelScope, reports: _Reports) -> None:
    async for message in stream:
        if message.get("stop"):
            work.cancel()
        if message.get("reload"):
            reload_all()
        if message.get("ask"):
            await reports.answer()


def leave(status: int) -> NoReturn:
    """End this process at once, without the teardown of the supervision library."""
    for output in (sys.stdout, sys.stderr):
        output.flush()
    os._exit(status)


async def run_supervised(
    stream: MessageStream, target: str, settings_type: str, settings: bytes, beat_seconds: float
) -> None:
    """Run `target(settings, started)` until it ends or is asked to stop, then exit the process."""
    status = EXIT_FAILED
    try:
        work: Work = resolve(target)
        decoded = decode_settings(settings, resolve(settings_type))
        async with open_tasks() as nursery:
            scope = trio.CancelScope()
            reports = _Reports(stream, nursery)
            nursery.start_soon(reports.beat, beat_seconds)
            nursery.start_soon(_obey, stream, scope, reports)
            ended = EXIT_RETURNED
            with scope:
                try:
                    await work(decoded, reports)
                except UsageError as error:
                    # The supervisor tells it in one line; a traceback would bury what the operator must do.
                    await stream.send({"refused": str(error)})
                    ended = EXIT_FAILED
            status = EXIT_STOPPED if scope.cancel_called else ended
            nursery.cancel_scope.cancel()
    except BaseException:  # noqa: BLE001  no caller would handle it: the process ends here
        _log.exception("process_failed", process=target)
    finally:
        leave(status)
