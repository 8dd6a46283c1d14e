"""Event loops that plain functions enter again and again: hypothesis state machines are not async."""

import asyncio
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")

START_SECONDS = 30


class Portal(Protocol):
    """An event loop that stays open between calls."""

    def run(self, action: Callable[[], Awaitable[Result]]) -> Result:
        """Run the action in the loop."""

    def close(self) -> None:
        """Close the loop."""


class AsyncioPortal:
    """An asyncio loop; it runs while it is called."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def run(self, action: Callable[[], Awaitable[Result]]) -> Result:
        """Run the action in the loop."""

        async def main() -> Result:
            return await action()

        return self._runner.run(main())

    def close(self) -> None:
        """Close the loop."""
        self._runner.close()


class TrioPortal:
    """A trio loop in a thread of its own, because trio's cannot be left and entered again."""

    def __init__(self) -> None:
        import trio

        self._trio = trio
        self._ready: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        self._thread = Thread(target=trio.run, args=(self._main,), daemon=True)
        self._thread.start()
        self._token, self._over = self._ready.get(timeout=START_SECONDS)

    async def _main(self) -> None:
        over = self._trio.Event()
        self._ready.put((self._trio.lowlevel.current_trio_token(), over))
        await over.wait()

    def run(self, action: Callable[[], Awaitable[Result]]) -> Result:
        """Run the action in the loop."""

        async def main() -> Result:
            return await action()

        return self._trio.from_thread.run(main, trio_token=self._token)

    def close(self) -> None:
        """Close the loop."""
        self._token.run_sync_soon(self._over.set)
        self._thread.join(START_SECONDS)


def open_portal(library: str) -> Portal:
    """Return an open portal of "asyncio" or "trio"."""
    if library == "asyncio":
        return AsyncioPortal()
    if library == "trio":
        return TrioPortal()
    raise ValueError(f'a library is "asyncio" or "trio", not {library!r}')
