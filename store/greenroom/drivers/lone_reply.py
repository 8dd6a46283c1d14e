"""What the only caller of an asyncio loop waits for: it goes on in the turn in which its reply is read.

A future has the loop wake who waits for it, one turn and one look at the sockets later. Where many callers
share a turn that costs little, and their next requests come together; one that is alone waits for it. asyncio
awaits whatever says that it is like a future (`asyncio.isfuture`); this is one that whoever reads the reply
wakes.
"""

import asyncio
import contextvars
from collections.abc import Callable, Generator
from typing import Any


class LoneReply:
    """The outcome of one operation, awaited by the coroutine that asked for it and by nobody else."""

    __slots__ = ("_asyncio_future_blocking", "_callback", "_context", "_done", "_error", "_loop", "_reply")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asyncio_future_blocking = False
        self._done = False
        self._reply: Any = None
        self._error: BaseException | None = None
        self._callback: Callable[[LoneReply], object] | None = None
        self._context: contextvars.Context | None = None

    def __await__(self) -> Generator["LoneReply", None, Any]:
        """Wait for the outcome; return the reply or raise the error."""
        if not self._done:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    # --- for who has the outcome -------------------------------------------------------------------------

    def set_result(self, reply: object) -> None:
        """Take the reply. `wake` must follow, once whoever calls is ready for the caller to go on."""
        self._reply = reply
        self._done = True

    def wake(self) -> None:
        """Have the caller go on now, if its reply is there; in the next turn of the loop if it cannot now.

        It cannot within another task, nor in a loop that may be entered again from within (nest_asyncio),
        which would call what reads the reply while that is still under way.
        """
        callback, loop = self._callback, self._loop
        if not self._done or callback is None:
            return
        if self._context is None or asyncio.current_task(loop) is not None or hasattr(loop, "_nest_patched"):
            self.wake_soon()
        else:
            self._callback = None
            self._context.run(callback, self)

    def wake_soon(self) -> None:
        """Have the caller go on in the next turn of the loop, if it waits."""
        if self._callback is not None:
            self._loop.call_soon(self._callback, self, context=self._context)
            self._callback = None

    def set_exception(self, error: BaseException) -> None:
        """Have the caller go on with this error in the next turn of the loop."""
        self._error = error
        self._done = True
        self.wake_soon()

    # --- for the task that awaits it, as `asyncio.Future` has them ---------------------------------------

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop."""
        return self._loop

    def done(self) -> bool:
        """Whether there is an outcome."""
        return self._done

    def result(self) -> Any:
        """Return the reply or raise the error, which is given away once.

        Raises asyncio.InvalidStateError where there is neither.
        """
        error, self._error = self._error, None
        if error is None:
            if self._reply is None:
                raise asyncio.InvalidStateError("there is no reply, or its error was given away")
            return self._reply
        # An error holds on to the frames that it goes through, so nothing in them may hold on to it.
        try:
            raise error
        finally:
            del error

    def add_done_callback(
        self, callback: Callable[["LoneReply"], object], *, context: contextvars.Context | None = None
    ) -> None:
        """Call this one function when there is an outcome."""
        self._callback, self._context = callback, context
        if self._done:
            self.wake_soon()

    def cancel(self, msg: str | None = None) -> bool:
        """End the wait with CancelledError; False if there is an outcome already."""
        if self._done:
            # Had whoever set the outcome been interrupted before it woke the caller, nobody else would.
            self.wake_soon()
            return False
        self.set_exception(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True
