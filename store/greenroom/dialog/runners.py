"""The runners of one store in one process, by event loop, and what becomes of them when it forks."""

from typing import Any, Generic, TypeVar

from greenroom.dialog.runner import DialogRunner

AnyRunner = TypeVar("AnyRunner", bound=DialogRunner)


class Runners(Generic[AnyRunner]):
    """The runners of a store. A loop is known by whatever identifies it."""

    def __init__(self) -> None:
        self._by_loop: dict[Any, AnyRunner] = {}

    def get(self, loop: object) -> AnyRunner | None:
        """Return the runner of a loop, if it has one."""
        return self._by_loop.get(loop)

    def put(self, loop: object, runner: AnyRunner) -> None:
        """Note the runner of a loop."""
        self._by_loop[loop] = runner

    def drop(self, loop: object) -> None:
        """Forget the runner of a loop."""
        del self._by_loop[loop]

    def items(self) -> list[tuple[Any, AnyRunner]]:
        """Return every loop with its runner."""
        return list(self._by_loop.items())

    def take_all(self) -> list[AnyRunner]:
        """Return every runner and forget them."""
        runners, self._by_loop = self._by_loop, {}
        return list(runners.values())

    def forked(self) -> list[AnyRunner]:
        """In the child of a fork, forget all that the parent has; return it, to be discarded.

        The child has what the parent keeps, but not its connections: nobody would tell it what has changed.
        And no two processes may speak as one client.
        """
        return self.take_all()
