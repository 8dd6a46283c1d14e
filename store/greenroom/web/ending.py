"""A WebSocket whose session ends: it is closed, whichever worker the session was ended in."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from greenroom.background import begin
from greenroom.endings import Ended, Watch
from greenroom.errors import GreenroomError, UnavailableError
from greenroom.sessions import StoredSession
from greenroom.turns import new_lock
from greenroom.web.keeping import Keeping

REASON = "the session has ended"


class SessionEndedError(ConnectionError):
    """Raised to a handler that sends on a WebSocket that was closed because its session had ended."""


class Ending:
    """Closes one connection when its session ends. `close` does so; `ended` is set from then on."""

    ended = False
    _watch: Watch | None = None
    _closing: Any = None
    _over = False

    def __init__(self, keeping: Keeping, close: Callable[[], Awaitable[None]]) -> None:
        self._keeping = keeping
        self._close = close

    def begin(self, stored: StoredSession | None) -> None:
        """Watch the session, if there is one and the app wants that."""
        keeping = self._keeping
        if stored is None or self._watch is not None or self._over or keeping.on_end != "close":
            return
        if "endings" not in keeping.store.features:
            return
        try:
            self._watch = keeping.store.watch(stored.session_id, self._tell)
        except UnavailableError as error:  # there are too many
            keeping.events.failed("watching the session of a WebSocket", error)

    def stop(self) -> None:
        """Watch no longer: the connection has ended."""
        self._over = True
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()

    async def finish(self) -> None:
        """Close the connection, or wait until it is closed."""
        if self._closing is None:
            self._closing = new_lock()
        async with self._closing:
            if not self._over:
                self._over = True
                await self._close_it()

    def _tell(self, outcome: Ended | GreenroomError) -> None:
        if self._over:
            return
        if isinstance(outcome, GreenroomError):
            self._keeping.events.failed("watching the session of a WebSocket", outcome)
            return
        self.ended = True
        self._keeping.events.count("sockets_closed")
        begin(self.finish)

    async def _close_it(self) -> None:
        try:
            await self._close()
        except Exception as error:  # noqa: BLE001  the connection may be gone by now, and servers say so in their own ways
            self._keeping.events.not_closed(error)


class SocketEnding(Ending):
    """That of a WebSocket of ASGI. `send` is the server's."""

    _accepted = False

    def __init__(self, keeping: Keeping, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]) -> None:
        closing = {"type": "websocket.close", "code": keeping.end_code, "reason": REASON}
        super().__init__(keeping, lambda: send(closing))

    def sent(self, kind: str, stored: StoredSession | None) -> None:
        """Note which message of the app was sent."""
        if kind == "websocket.accept":
            self._accepted = True
            self.begin(stored)
        elif kind == "websocket.close":
            self.stop()

    def loaded(self, stored: StoredSession | None) -> None:
        """Note that the handler has loaded the session itself."""
        if self._accepted:
            self.begin(stored)

    def disconnected(self) -> dict[str, Any]:
        """Return what the app receives once its session has ended."""
        return {"type": "websocket.disconnect", "code": self._keeping.end_code, "reason": REASON}
