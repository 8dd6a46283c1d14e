"""The table of sessions during one transaction: what `greenroom.table` decides over, in the rows of the file.

Sessions that the commands of a batch name are read at once, changed in memory, and written at once. Python
lets go of its interpreter at every step of a statement, and beside a busy event loop it takes milliseconds to
get it back. So a batch is a few steps, not a few for each session: what is read comes as one row of JSON, and
most changes are one statement.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from greenroom import wire
from greenroom.table import UNBOUNDED, CommandTable, State

_COLUMNS = "digest, version, expires_us, created_us, absolute_us, user_id, label, point, data"
_HEADING = "digest, version, expires_us, created_us, absolute_us, user_id, label, point"
_SIZES = (1, 8, 64)
"""How many sessions one statement reads or changes: a few texts, which SQLite prepares once."""
_JSON_BYTES_MAX = 16 << 10
_READ = {
    size: f"""SELECT version, time_us, (SELECT json_group_array(json_array(hex(digest),
        CASE WHEN length(data) <= {_JSON_BYTES_MAX} THEN hex(data) END,
        json_array(version, expires_us, created_us, absolute_us, user_id, label, point)))
        FROM session WHERE digest IN ({", ".join("?" * size)})) FROM clock"""  # noqa: S608  no input in it
    for size in (0, *_SIZES)
}
_READ_ONE = """SELECT version, expires_us, created_us, absolute_us, user_id, label, point, data
    FROM session WHERE digest = ?"""
_BY_USER = f"SELECT {_HEADING} FROM session WHERE user_id = ? ORDER BY created_us"  # noqa: S608  no input in it
_NEWEST = f"{_BY_USER} DESC, digest DESC"
_OLDEST = f"{_BY_USER}, digest"
_OVER = "SELECT digest FROM session WHERE expires_us <= ? ORDER BY expires_us LIMIT ?"
LOOKS_MAX: Final = 512
"""How many sessions one look is for."""
_LOOK = f"""SELECT json_group_array(json_array(hex(digest), expires_us, created_us)) FROM session
    WHERE digest IN ({", ".join("?" * LOOKS_MAX)})"""  # noqa: S608  no input in it
_INSERT = f"INSERT OR REPLACE INTO session ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  same
_UPDATE = """UPDATE session SET version = ?, expires_us = ?, created_us = ?, absolute_us = ?, user_id = ?,
    label = ?, point = ?, data = ? WHERE digest = ?"""
# What most patches do: it touches no index.
_PATCH = {
    size: f"""UPDATE session SET version = new.column2, data = new.column3
        FROM (VALUES {", ".join(["(?, ?, ?)"] * size)}) AS new WHERE digest = new.column1"""  # noqa: S608  same
    for size in _SIZES
}
_DELETE = "DELETE FROM session WHERE digest = ?"

LOADED_BYTES_MAX: Final = 16 << 20
"""How much data one transaction reads before it is asked for."""

_Heading = tuple[int, int, int, int | None, str | None, str, int]
_read = msgspec.json.Decoder(list[tuple[str, str | None, _Heading]]).decode
_read_look = msgspec.json.Decoder(list[tuple[str, int, int]]).decode


class RowTable(CommandTable[wire.Session]):
    """Sessions as rows of a file, between `begin` and `flush` of one transaction.

    `over_max` is how many sessions one `clean` removes. `loaded_bytes` is how much data was read or changed.
    """

    __slots__ = (
        "_changed",
        "_db",
        "_headings",
        "_rows",
        "_wrote",
        "loaded_bytes",
        "over_max",
    )

    def __init__(self, over_max: int) -> None:
        super().__init__()
        self.over_max = over_max
        self.loaded_bytes = 0
        self._wrote = False
        self._rows: dict[bytes, wire.SessionState | None] = {}
        self._headings: dict[bytes, wire.SessionHeading] = {}
        self._changed: dict[bytes, wire.SessionState | None] = {}
        """What the file has of those that have changed; None too for one that was not read."""
        self._db: sqlite3.Connection | None = None

    def begin(self, connection: sqlite3.Connection, digests: Iterable[bytes]) -> tuple[int, int]:
        """Forget the former transaction; read what the commands of this one name.

        Returns the highest version given, and the latest time by which something was decided.
        """
        self.forget()
        self._db = connection
        return self._load(list(dict.fromkeys(digests)))

    def forget(self) -> None:
        """Keep nothing of a transaction that is over."""
        self._rows, self._headings, self._changed = {}, {}, {}
        self.loaded_bytes = 0
        self._wrote = False
        self._db = None

    def flush(self) -> bool:
        """Write what has changed; return whether this transaction has written anything."""
        if not self._changed:
            return self._wrote
        self._wrote = True
        deleted: list[tuple[Any, ...]] = []
        inserted: list[tuple[Any, ...]] = []
        updated: list[tuple[Any, ...]] = []
        patched: list[tuple[Any, ...]] = []
        for digest, old in self._changed.items():
            new = self._rows[digest]
            if new is None:
                deleted.append((digest,))
            elif old is None:
                inserted.append((digest, *_fields(new)))
            elif _fields(new)[1:-1] == _fields(old)[1:-1]:
                patched.append((digest, new.version, new.data))
            else:
                updated.append((*_fields(new), digest))
        for statement, values in (
            (_DELETE, deleted),
            (_INSERT, inserted),
            (_UPDATE, updated),
        ):
            if values:
                self._connection().executemany(statement, values)
        for size, some in _portions(patched):
            self._connection().execute(_PATCH[size], [field for values in some for field in values])
        self._changed = {}
        return True

    def anything_over(self, connection: sqlite3.Connection, time_us: int) -> bool:
        """Whether there is an expired session, to find out without a transaction that writes."""
        return bool(connection.execute(_OVER, (time_us, 1)).fetchall())

    def seen(self, digests: Sequence[bytes]) -> dict[bytes, tuple[int, int]]:
        """Return which of at most `LOOKS_MAX` sessions there are: when each ends, and was created."""
        if not digests:
            return {}
        self.flush()
        filled = [*digests, *[digests[0]] * (LOOKS_MAX - len(digests))]
        [(found,)] = self._connection().execute(_LOOK, filled).fetchall()
        return {bytes.fromhex(hexed): (expires, created) for hexed, expires, created in _read_look(found)}

    def _connection(self) -> sqlite3.Connection:
        assert self._db is not None, "a table is used between begin and forget"
        return self._db

    def _load(self, digests: list[bytes]) -> tuple[int, int]:
        """Read these sessions, as many as may be held at once; others are read when they are asked for."""
        rows, execute = self._rows, self._connection().execute
        version = time_us = 0
        for size, some in _portions(digests) or [(0, [])]:
            if self.loaded_bytes > LOADED_BYTES_MAX:
                break
            [(version, time_us, found)] = execute(_READ[size], some).fetchall()
            rows.update(dict.fromkeys(some))
            for hexed_digest, hexed, heading in _read(found):
                digest = bytes.fromhex(hexed_digest)
                if hexed is not None:
                    rows[digest] = wire.SessionState(*heading, bytes.fromhex(hexed))
                    self.loaded_bytes += len(hexed) // 2
                elif self.loaded_bytes <= LOADED_BYTES_MAX:
                    self._load_one(digest)
                else:
                    del rows[digest]
        return version, time_us

    def _load_one(self, digest: bytes) -> None:
        """Read one session as it is now: its data may be too long for JSON."""
        self._rows[digest] = None
        for fields in self._connection().execute(_READ_ONE, (digest,)).fetchall():
            self._rows[digest] = state = wire.SessionState(*fields)
            self.loaded_bytes += len(state.data)

    # --- what `CommandTable` asks for ----------------------------------------------------------------------

    def _state(self, digest: bytes) -> wire.SessionState | None:
        if digest not in self._rows:
            self._load_one(digest)
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
            self._load_one(digest)
        if digest not in self._changed:
            self._changed[digest] = self._rows[digest]
        self._rows[digest] = made = wire.SessionState(*state)
        self.loaded_bytes += len(made.data)

    def _remove(self, digest: bytes) -> None:
        if digest in self._rows and self._rows[digest] is None:
            return
        if digest not in self._changed:
            self._changed[digest] = self._rows.get(digest)
        self._rows[digest] = None

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


def _portions(items: list[Any]) -> list[tuple[int, list[Any]]]:
    """Return the items in lists of `_SIZES`, filled up with repetitions, which change nothing."""
    portions = []
    for first in range(0, len(items), _SIZES[-1]):
        some = items[first : first + _SIZES[-1]]
        size = next(size for size in _SIZES if size >= len(some))
        portions.append((size, some + some[:1] * (size - len(some))))
    return portions
