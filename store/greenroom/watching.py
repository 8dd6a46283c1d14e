"""How an app learns that a session has ended.

>>> async for ended in store.endings(session_id):
...     print(ended.reason)

A session ends once, so there is one turn of that loop, or none before the loop is left.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, Self

from greenroom.background import new_event
from greenroom.endings import Ended, Tell, Watch
from greenroom.errors import GreenroomError, UnsupportedError


class Endings:
    """The end of one session, to be iterated over in one task. `watch` begins to watch it."""

    def __init__(self, watch: Callable[[Tell], Watch]) -> None:
        self._watch = watch
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Ended:
        """Wait for the end. Raises UnavailableError if the store is closed or too much is watched."""
        if self._over:
            raise StopAsyncIteration
        self._over = True
        event = new_event()
        told: list[Ended | GreenroomError] = []

        def tell(outcome: Ended | GreenroomError) -> None:
            told.append(outcome)
            event.set()

        watch = self._watch(tell)
        try:
            await event.wait()
        except BaseException:
            self._over = False  # a caller that was cancelled may ask again
            raise
        finally:
            watch.stop()
        outcome = told[0]
        if isinstance(outcome, GreenroomError):
            raise outcome
        return outcome


class WithEndings:
    """The part of a store that tells of endings. One that does overrides `watch`."""

    def watch(self, session_id: str, tell: Tell) -> Watch:
        """Have `tell` called once in this event loop when the session has ended; return at once.

        It is called with an error if nothing will be told any more, and must not raise or block. If the
        session is gone already, it may be called before this returns. Costs no task and no timer of its own.
        Raises UnavailableError if too many sessions are watched.
        """
        _unsupported(self)

    def endings(self, session_id: str) -> Endings:
        """Return an asynchronous iterator of the end of a session: it brings one `Ended`, then stops.

        That a session does not exist counts as an end. Raises UnavailableError, while it is iterated over, if
        the store is closed or too many sessions are watched. While the store cannot be reached it waits.
        """
        return Endings(partial(self.watch, session_id))


def _unsupported(store: Any) -> NoReturn:
    name = type(store).__name__
    raise UnsupportedError(
        f"{name} does not offer endings; override watch and name endings in {name}.features, "
        "or use MemoryStore, SqliteStore or ClusterStore"
    )
