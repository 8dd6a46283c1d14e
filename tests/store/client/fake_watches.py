"""How the tests' fake cluster tells of endings: by what its tables remove, and a look at what has expired."""

import time
from collections.abc import Callable
from typing import Any

from greenroom import wire
from greenroom.end_reasons import end_of
from greenroom.ending_messages import Unwatch, WatchBeacon, WatchEcho, Watching, WatchSession, told
from greenroom.table import StateTable


class FakeWatches:
    """Who watches what, by digest. `table_at` returns the table of a routing point."""

    def __init__(self, table_at: Callable[[int], StateTable]) -> None:
        self._table_at = table_at
        self._watched: dict[bytes, tuple[int, set[Any]]] = {}

    def take(self, connection: Any, message: Any, map_version: int) -> Any:
        """Return the answer to a message about watches, ... if it is another."""
        match message:
            case WatchSession():
                if self._table_at(message.point).live(message.digest, time.time_ns() // 1000) is None:
                    return wire.Missing(message.request_id)
                _, those = self._watched.setdefault(message.digest, (message.point, set()))
                those.add(connection)
                return Watching(message.request_id, is_full=False)
            case Unwatch():
                for digest in message.digests:
                    self._watched.get(digest, (0, set()))[1].discard(connection)
                return None
            case WatchBeacon():
                return WatchEcho(message.number, map_version, is_sure=True)
        return ...

    def deciding(self, table: StateTable, command: Any, decide: Callable[[], Any]) -> Any:
        """Decide a command, and tell whose session it has ended."""
        gone: list[bytes] = []
        table.gone = gone
        try:
            return decide()
        finally:
            table.gone = None
            for digest in gone:
                self._tell(digest, end_of(command, digest).reason)

    def look(self) -> None:
        """Tell who watches what has expired."""
        time_us = time.time_ns() // 1000
        for digest, (point, _) in list(self._watched.items()):
            if self._table_at(point).live(digest, time_us) is None:
                self._tell(digest, "expiry")

    def _tell(self, digest: bytes, reason: Any) -> None:
        _, those = self._watched.pop(digest, (0, set()))
        for connection in those:
            connection.send(told(reason, digest))
