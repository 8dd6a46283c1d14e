"""The few things that the load needs from an event loop, for each library that clients run under."""

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable

from benchmarks.orders import LoopName

Task = Callable[[], Awaitable[None]]


class Loop(ABC):
    """An event loop of one library."""

    @abstractmethod
    def run(self, main: Task) -> None:
        """Run until `main` ends."""

    @abstractmethod
    async def together(self, tasks: Iterable[Task]) -> None:
        """Run the tasks concurrently until all have ended."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Let others run for so long."""

    @abstractmethod
    async def read_line(self) -> str:
        """Return the next line of stdin, empty at its end; the loop runs on meanwhile."""


class AsyncioLoop(Loop):
    """asyncio's own loop."""

    def run(self, main: Task) -> None:
        """Run until `main` ends."""

        async def run() -> None:
            await main()

        asyncio.run(run())

    async def together(self, tasks: Iterable[Task]) -> None:
        """Run the tasks concurrently until all have ended."""
        await asyncio.gather(*(task() for task in tasks))

    async def sleep(self, seconds: float) -> None:
        """Let others run for so long."""
        await asyncio.sleep(seconds)

    async def read_line(self) -> str:
        """Return the next line of stdin."""
        return await asyncio.to_thread(sys.stdin.readline)


class UvloopLoop(AsyncioLoop):
    """asyncio on uvloop."""

    def run(self, main: Task) -> None:
        """Run until `main` ends."""
        import uvloop

        async def run() -> None:
            await main()

        uvloop.run(run())


class TrioLoop(Loop):
    """trio."""

    def run(self, main: Task) -> None:
        """Run until `main` ends."""
        import trio

        trio.run(main)

    async def together(self, tasks: Iterable[Task]) -> None:
        """Run the tasks concurrently until all have ended."""
        import trio

        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)

    async def sleep(self, seconds: float) -> None:
        """Let others run for so long."""
        import trio

        await trio.sleep(seconds)

    async def read_line(self) -> str:
        """Return the next line of stdin."""
        import trio

        return await trio.to_thread.run_sync(sys.stdin.readline)


def loop_named(name: LoopName) -> Loop:
    """Return the loop of that name."""
    return {"asyncio": AsyncioLoop, "uvloop": UvloopLoop, "trio": TrioLoop}[name]()
