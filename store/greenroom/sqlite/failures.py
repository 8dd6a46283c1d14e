"""What an error of SQLite means to a caller: what may have been applied, and what to do."""

import sqlite3

from greenroom.errors import GreenroomError, StoreFullError, UnavailableError

_PRIMARY = 0xFF
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def code_of(error: sqlite3.Error) -> int:
    """Return the primary result code of SQLite, 0 if the error has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & _PRIMARY


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the file: nothing is wrong, and a later attempt may succeed."""
    return code_of(error) in _BUSY


def is_io(error: sqlite3.Error) -> bool:
    """Whether the disk refused a read, a write or a sync."""
    return code_of(error) == sqlite3.SQLITE_IOERR


def is_full(error: sqlite3.Error) -> bool:
    """Whether there is no space left on the disk."""
    return code_of(error) == sqlite3.SQLITE_FULL


def name_of(error: sqlite3.Error) -> str:
    """Return SQLite's name of the error, such as SQLITE_IOERR_FSYNC."""
    return str(getattr(error, "sqlite_errorname", None) or type(error).__name__)


def not_applied(error: sqlite3.Error, path: str) -> GreenroomError:
    """Return the error for callers of a transaction of which nothing was applied."""
    name = name_of(error)
    code = code_of(error)
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError(
            f"nothing was written, there is no space left for {path} ({name}): free space on its disk. "
            "Reads go on"
        )
    if code in _DAMAGE:
        return UnavailableError(
            f"{path} is damaged ({name}): stop the app, keep a copy, and see what `PRAGMA integrity_check` "
            "says; bring back a backup, or begin with a new file"
        )
    if code == sqlite3.SQLITE_READONLY:
        return UnavailableError(
            f"{path} cannot be written ({name}): the user of this process needs to write the file and its "
            "folder"
        )
    if code == sqlite3.SQLITE_CANTOPEN:
        return UnavailableError(
            f"{path} cannot be opened ({name}): its folder must exist, and the user of this process needs to "
            "write the file and the folder"
        )
    if code == sqlite3.SQLITE_IOERR:
        return UnavailableError(
            f"the disk failed under {path} ({name}): look at the kernel's log and the disk, and whether "
            "the user of this process may write the files beside it too"
        )
    if code == sqlite3.SQLITE_ERROR:  # our statements are right where the tables of a store are
        return UnavailableError(
            f"{path} lacks the tables of a store ({name}): something has cut it off or overwritten it. Stop "
            "the app, keep a copy, and bring back a backup, or begin with a new file"
        )
    return UnavailableError(f"SQLite refused the operation on {path} ({name}): nothing was applied")
