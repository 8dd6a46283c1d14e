"""The table of sessions during one transaction: what `greenroom.table` decides over, in the rows of the file.

Sessions that the commands of a batch name are read at once, changed in memory, and written at once: one
session that many commands change is written once, and a thread lets go of the interpreter a few times for a
batch, not a few times for each command.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from greenroom import wire
from greenroom.table import UNBOUNDED, CommandTable, State

_COLUMNS = "digest, version, expires_us, created_us, absolute_us, user_id, label, point, data"
_HEADING = "digest, version, expires_us, created_us, absolute_us, user_id, label, point"
_READ_SIZES = (1, 8, 64)
_READ = {
    size: f"SELECT {_COLUMNS} FROM session WHERE digest IN ({', '.join('?' * size)})"  # noqa: S608  no input in it
    for size in _READ_SIZES
}
_BY_USER = f"SELECT {_HEADING} FROM session WHERE user_id = ? ORDER BY created_us"  # noqa: S608  no input in it
_NEWEST = f"{_BY_USER} DESC, digest DESC"
_OLDEST = f"{_BY_USER}, digest"
_OVER = "SELECT digest FROM session WHERE expires_us <= ? ORDER BY expires_us LIMIT ?"
_INSERT = f"INSERT OR REPLACE INTO session ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  same
_UPDATE = """UPDATE session SET version = ?, expires_us = ?, created_us = ?, absolute_us = ?, user_id = ?,
    label = ?, point = ?, data = ? WHERE digest = ?"""
# What most patches do: it touches no index.
_UPDATE_DATA = "UPDATE session SET version = ?, data = ? WHERE digest = ?"
_DELETE = "DELETE FROM session WHERE digest = ?"


class RowTable(CommandTable[wire.Session]):
    """Sessions as rows of a file, between `begin` and `flush` of one transaction.

    `over_max` is how many sessions one `clean` removes. `loaded_bytes` is how much data was read or changed.
    """

    __slots__ = ("_changed", "_db", "_headings", "_rows", "_stored", "loaded_bytes", "over_max")

    def __init__(self, over_max: int) -> None:
        super().__init__()
        self.over_max = over_max
        self.loaded_bytes = 0
        self._rows: dict[bytes, wire.SessionState | None] = {}
        self._stored: dict[bytes, wire.SessionState | None] = {}
        self._headings: dict[bytes, wire.SessionHeading] = {}
        self._changed: dict[bytes, None] = {}
        self._db: sqlite3.Connection | None = None

    def begin(self, connection: sqlite3.Connection, digests: Iterable[bytes]) -> None:
        """Forget the former transaction; read what the commands of this one name."""
        self.forget()
        self._db = connection
        self._load(list(dict.fromkeys(digests)))

    def forget(self) -> None:
        """Keep nothing of a transaction that is over."""
        self._rows, self._stored, self._headings, self._changed = {}, {}, {}, {}
        self.loaded_bytes = 0
        self._db = None

    def flush(self) -> None:
        """Write what has changed."""
        if not self._changed:
            return
        deleted: list[tuple[Any, ...]] = []
        inserted: list[tuple[Any, ...]] = []
        updated: list[tuple[Any, ...]] = []
        patched: list[tuple[Any, ...]] = []
        for digest in self._changed:
            new, old = self._rows[digest], self._stored.get(digest)
            if new is None:
                deleted.append((digest,))
            elif old is None:
                inserted.append((digest, *_fields(new)))
            elif _fields(new)[1:-1] == _fields(old)[1:-1]:
                patched.append((new.version, new.data, digest))
            else:
                updated.append((*_fields(new), digest))
            self._stored[digest] = new
        for statement, values in (
            (_DELETE, deleted),
            (_INSERT, inserted),
            (_UPDATE, updated),
            (_UPDATE_DATA, patched),
        ):
            if values:
                self._connection().executemany(statement, values)
        self._changed = {}

    def _connection(self) -> sqlite3.Connection:
        assert self._db is not None, "a table is used between begin and forget"
        return self._db

    def _load(self, digests: list[bytes]) -> None:
        rows, execute = self._rows, self._connection().execute
        for first in range(0, len(digests), _READ_SIZES[-1]):
            some = digests[first : first + _READ_SIZES[-1]]
            size = next(size for size in _READ_SIZES if size >= len(some))
            # Filled up, so that a few statements are prepared once.
            found = execute(_READ[size], some + some[:1] * (size - len(some))).fetchall()
            rows.update(dict.fromkeys(some))
            for digest, *fields in found:
                state = rows[digest] = wire.SessionState(*fields)
                self.loaded_bytes += len(state.data)
        self._stored.update((digest, rows[digest]) for digest in digests)

    # --- what `CommandTable` asks for ----------------------------------------------------------------------

    def _state(self, digest: bytes) -> wire.SessionState | None:
        if digest not in self._rows:
            self._load([digest])
        return self._rows[digest]

    def _heading(self, digest: bytes) -> wire.SessionHeading | None:
        if digest not in self._rows and digest in self._headings:
            return self._headings[digest]
        return self._state(digest)

    def _put(
        self,
        digest: bytes,
        state: State,
        user_id: str | None,
        expires_us: int,
        before: wire.SessionHeading | None,
        time_us: int,
    ) -> None:
        if digest not in self._rows:
            self._load([digest])
        self._rows[digest] = made = wire.SessionState(*state)
        self.loaded_bytes += len(made.data)
        self._changed[digest] = None

    def _remove(self, digest: bytes) -> None:
        if digest in self._rows and self._rows[digest] is None:
            return
        self._rows[digest] = None
        self._changed[digest] = None

    def _shown(self, request: int, digest: bytes) -> wire.Session:
        state = self._rows[digest]
        assert state is not None, "only a session that is there is shown"
        return wire.Session(request, state)

    def _newest(self, user_id: str) -> Iterator[bytes]:
        return self._of_user(_NEWEST, user_id)

    def _oldest(self, user_id: str) -> Iterator[bytes]:
        return self._of_user(_OLDEST, user_id)

    def _of_user(self, statement: str, user_id: str) -> Iterator[bytes]:
        self.flush()
        for digest, *fields in self._connection().execute(statement, (user_id,)):
            self._headings[digest] = wire.SessionHeading(*fields)
            yield digest

    def _over(self, time_us: int) -> list[bytes]:
        self.flush()
        most = min(self.over_max, UNBOUNDED)
        return [digest for (digest,) in self._connection().execute(_OVER, (time_us, most)).fetchall()]


def _fields(state: wire.SessionState) -> State:
    """Return the fields in the order of the columns."""
    return (
        state.version,
        state.expires_us,
        state.created_us,
        state.absolute_us,
        state.user_id,
        state.label,
        state.point,
        state.data,
    )
