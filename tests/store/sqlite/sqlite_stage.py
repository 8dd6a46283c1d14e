"""Sessions, a SQLite that fails or hangs on demand, and the versions of its library."""

import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from greenroom import SessionData, new_session_id

WAL_VERSION = (3, 51, 3)
OLD_VERSION = (3, 40, 1)


def session(**fields: Any) -> SessionData:
    fields.setdefault("expires", datetime.now(UTC) + timedelta(hours=1))
    return SessionData(session_id=new_session_id(), **fields)


class Disk:
    """What befalls the connections of a store: `fail` gives an error for a statement, `hold` stops it."""

    def __init__(self) -> None:
        self._errors: dict[str, str] = {}
        self._gates: dict[str, threading.Event] = {}
        self.pragmas: tuple[str, ...] = ()
        self.only_in = ""
        """The thread to which all this happens; "": to all."""
        self.statements: list[str] = []

    def fail(self, statement: str, error: str) -> None:
        """Have statements that begin so raise this error of SQLite, such as SQLITE_IOERR_FSYNC."""
        self._errors[statement] = error

    def heal(self) -> None:
        self._errors.clear()

    def hold(self, statement: str) -> threading.Event:
        """Stop statements that begin so until the event is set."""
        return self._gates.setdefault(statement, threading.Event())

    def meet(self, statement: str) -> None:
        self.statements.append(statement)
        if self.only_in not in threading.current_thread().name:
            return
        for begin, gate in self._gates.items():
            if statement.startswith(begin):
                gate.wait()
        for begin, name in self._errors.items():
            if statement.startswith(begin):
                error = sqlite3.OperationalError(name)
                error.sqlite_errorname = name
                error.sqlite_errorcode = getattr(sqlite3, name)
                raise error


def remove(folder: Path) -> None:
    for path in folder.glob("sessions.db*"):
        path.unlink()


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM session").fetchone()[0])
