"""What checks need of an async library, for asyncio and trio (imported on use)."""

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias, TypeVar

Result = TypeVar("Result")
Action: TypeAlias = Callable[[], Awaitable[Any]]


class Library(Protocol):
    """One async library, as checks use it."""

    name: str

    def run(self, action: Callable[[], Awaitable[Result]], seconds: float) -> Result:
        """Run the action in a new event loop. Raises TimeoutError if it takes longer."""

    async def sleep(self, seconds: float) -> None:
        """Let others run."""

    async def gather(self, *actions: Action) -> list[Any]:
        """Run the actions concurrently; return for each its result or the exception that it raised."""

    async def cancel_after(self, action: Action, seconds: float) -> bool:
        """Start the action, cancel it after that time; return whether it had finished before."""


class AsyncioLibrary:
    """The library of the standard library."""

    name = "asyncio"

    def run(self, action: Callable[[], Awaitable[Result]], seconds: float) -> Result:
        """Run the action in a new event loop. Raises TimeoutError if it takes longer."""

        async def main() -> Result:
            async with asyncio.timeout(seconds):
                return await action()

        return asyncio.run(main())

    async def sleep(self, seconds: float) -> None:
        """Let others run."""
        await asyncio.sleep(seconds)

    async def gather(self, *actions: Action) -> list[Any]:
        """Run the actions concurrently; return for each its result or the exception that it raised."""
        return await asyncio.gather(*(_settled(action) for action in actions))

    async def cancel_after(self, action: Action, seconds: float) -> bool:
        """Start the action, cancel it after that time; return whether it had finished before."""
        task = asyncio.ensure_future(action())
        await asyncio.sleep(seconds)
        if task.done():
            await task
            return True
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await task
        return False


class TrioLibrary:
    """trio, of any version from 0.22 on."""

    name = "trio"

    def run(self, action: Callable[[], Awaitable[Result]], seconds: float) -> Result:
        """Run the action in a new event loop. Raises TimeoutError if it takes longer."""
        import trio

        async def main() -> Result:
            with trio.move_on_after(seconds):
                return await action()
            raise TimeoutError(f"not done within {seconds} seconds")

        return trio.run(main)

    async def sleep(self, seconds: float) -> None:
        """Let others run."""
        import trio

        await trio.sleep(seconds)

    async def gather(self, *actions: Action) -> list[Any]:
        """Run the actions concurrently; return for each its result or the exception that it raised."""
        import trio

        results: list[Any] = [None] * len(actions)

        async def run(index: int, action: Action) -> None:
            results[index] = await _settled(action)

        async with trio.open_nursery() as nursery:
            for index, action in enumerate(actions):
                nursery.start_soon(run, index, action)
        return results

    async def cancel_after(self, action: Action, seconds: float) -> bool:
        """Start the action, cancel it after that time; return whether it had finished before."""
        import trio

        outcome: list[Any] = []
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                outcome.append(await _settled(action))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.sleep(seconds)
            finished = bool(outcome)
            scope.cancel()
        if outcome and isinstance(outcome[0], Exception):
            raise outcome[0]
        return finished


def available_libraries() -> tuple[str, ...]:
    """Return the names of the async libraries that are installed."""
    return ("asyncio", "trio") if importlib.util.find_spec("trio") is not None else ("asyncio",)


def library_named(name: str) -> Library:
    """Return the async library of that name. Raises ValueError if it is neither "asyncio" nor "trio"."""
    if name == "asyncio":
        return AsyncioLibrary()
    if name == "trio":
        return TrioLibrary()
    raise ValueError(f'a library is "asyncio" or "trio", not {name!r}')


async def _settled(action: Action) -> Any:
    try:
        return await action()
    except Exception as error:  # noqa: BLE001  handed to the check, which judges it
        return error
