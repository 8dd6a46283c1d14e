"""Opening the file of a store: what is made, what is checked, and what is refused.

The file says what it is: `application_id` and `user_version` stand in its header. Its journal stays what it
was when the file was made. SQLite before 3.51.3 can corrupt a file in WAL mode if two connections write or
checkpoint at the same instant (sqlite.org/wal.html#walresetbug), so such a library makes files with a
rollback journal, and opens no others.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from greenroom.errors import GreenroomError, UnavailableError, UsageError
from greenroom.sqlite.failures import is_busy, is_full, name_of, not_applied

APPLICATION_ID: Final = int.from_bytes(b"GrRm", "big")
SCHEMA_VERSION: Final = 1
MOUNTS = Path("/proc/self/mountinfo")
WAL_BYTES_MAX: Final = 16 << 20

_SCHEMA = (
    # With a rowid: sessions are too large for the inner pages of a tree. `STRICT` would need 3.37.
    """CREATE TABLE session (
        digest BLOB NOT NULL UNIQUE CHECK (typeof(digest) = 'blob'),
        version INTEGER NOT NULL CHECK (typeof(version) = 'integer'),
        expires_us INTEGER NOT NULL CHECK (typeof(expires_us) = 'integer'),
        created_us INTEGER NOT NULL CHECK (typeof(created_us) = 'integer'),
        absolute_us INTEGER CHECK (typeof(absolute_us) IN ('integer', 'null')),
        user_id TEXT CHECK (typeof(user_id) IN ('text', 'null')),
        label TEXT NOT NULL CHECK (typeof(label) = 'text'),
        point INTEGER NOT NULL CHECK (typeof(point) = 'integer'),
        data BLOB NOT NULL CHECK (typeof(data) = 'blob'))""",
    "CREATE INDEX session_by_expiry ON session (expires_us)",
    "CREATE INDEX session_by_user ON session (user_id, created_us, digest) WHERE user_id IS NOT NULL",
    """CREATE TABLE clock (
        id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, time_us INTEGER NOT NULL)""",
    "INSERT INTO clock VALUES (1, 0, 0)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_NETWORK = frozenset(
    {
        "9p",
        "afs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.sshfs",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
    }
    | {"smb3", "smbfs", "vboxsf", "virtiofs"}
)
_OPEN_SECONDS = 5.0
_PAUSE_SECONDS = 0.002

_log = logging.getLogger("greenroom")
# Two stores of one process could otherwise meet while one of them makes the file.
_making = threading.Lock()


def begin_anew() -> None:
    """Forget, in the child of a fork, which thread of the parent was making a file."""
    global _making
    _making = threading.Lock()


class Database(NamedTuple):
    """An open connection, the journal of its file, and which file that is."""

    connection: sqlite3.Connection
    wal: bool
    identity: tuple[int, int]


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """Whether several connections of SQLite of this version may share a file in WAL mode."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


def library_version() -> tuple[int, ...]:
    """Return the version of the SQLite that Python was linked with."""
    return sqlite3.sqlite_version_info


def identity_of(path: str) -> tuple[int, int] | None:
    """Return which file lies at the path now, None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  for every transaction, and half the time of Path's
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_database(path: str, on_busy: Callable[[], None], *, synchronous: str, reading: bool) -> Database:
    """Open the file, which is made if there is none. `on_busy` is called while another process holds it.

    `reading` gives a connection that cannot write. Raises UsageError for a file that is not a store's, and
    UnavailableError if it cannot be opened now.
    """
    _refuse_network(path)
    with _making:
        _make_private(path)
    try:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise not_applied(error, path) from None
    try:
        wal = _prepared(connection, path, on_busy)
        for pragma in _pragmas(synchronous, wal=wal, reading=reading):
            connection.execute(pragma).fetchall()
        identity = identity_of(path) or _raise_deleted(path)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise _refused(error, path) from None
        raise
    return Database(connection, wal, identity)


def _pragmas(synchronous: str, *, wal: bool, reading: bool) -> tuple[str, ...]:
    """Return what is set on every connection: docs/decisions/sqlite-store.md says why."""
    return (
        # A journal that stays is overwritten at its head and synced: a commit changes no directory.
        "PRAGMA journal_mode" if wal else "PRAGMA journal_mode = persist",
        f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}",
        f"PRAGMA synchronous = {synchronous}",
        "PRAGMA fullfsync = on",
        "PRAGMA wal_autocheckpoint = 0",
        "PRAGMA secure_delete = fast",
        "PRAGMA trusted_schema = off",
        "PRAGMA mmap_size = 0",
        "PRAGMA cache_size = -8192",
        f"PRAGMA query_only = {'on' if reading and wal else 'off'}",
    )


def _prepared(connection: sqlite3.Connection, path: str, on_busy: Callable[[], None]) -> bool:
    """Make the tables if there are none; return whether the file is in WAL mode."""
    end = time.monotonic() + _OPEN_SECONDS
    while True:
        try:
            if _number(connection, "application_id") == 0:
                _make(connection, path)
            return _checked(connection, path)
        except sqlite3.Error as error:
            if not is_busy(error) or time.monotonic() > end:
                raise
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        on_busy()
        time.sleep(_PAUSE_SECONDS)


def _make(connection: sqlite3.Connection, path: str) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        if _number(connection, "application_id") != 0:
            return  # another one has made it since that was looked at
        raise UsageError(f"{path} is the SQLite database of something else: give the store a file of its own")
    if wal_is_safe(library_version()):
        connection.execute("PRAGMA journal_mode = wal").fetchall()
    connection.execute("PRAGMA synchronous = full")
    connection.execute("BEGIN IMMEDIATE")
    if _number(connection, "application_id") == 0:  # else another process was faster
        for statement in _SCHEMA:
            connection.execute(statement)
    connection.execute("COMMIT")
    journal = "WAL" if wal_is_safe(library_version()) else "a rollback journal"
    _log.info("made the session store %s with %s (SQLite %s)", path, journal, sqlite3.sqlite_version)


def _checked(connection: sqlite3.Connection, path: str) -> bool:
    if _number(connection, "application_id") != APPLICATION_ID:
        raise UsageError(f"{path} is the SQLite database of something else: give the store a file of its own")
    version = _number(connection, "user_version")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"{path} has the format {version} of another version of greenroom, this one has "
            f"{SCHEMA_VERSION}: upgrade the older one, or give the store another file"
        )
    wal = bool(connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal")
    if wal and not wal_is_safe(library_version()):
        raise UsageError(
            f"{path} is in WAL mode, which SQLite {sqlite3.sqlite_version} of this Python may corrupt when "
            "several connections share it: use a Python with SQLite 3.51.3 or later, or stop the app and run "
            "`PRAGMA journal_mode = delete` on the file"
        )
    return wal


def _raise_deleted(path: str) -> NoReturn:
    raise UnavailableError(f"{path} was deleted while it was opened")


def _refused(error: sqlite3.Error, path: str) -> GreenroomError:
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
        return UsageError(
            f"{path} is no SQLite database: give the store a file of its own; or, if it was the store's, it "
            "is damaged: bring back a backup, or begin with a new file"
        )
    if is_full(error):
        return UnavailableError(
            f"{path} cannot be opened, there is no space left on its disk ({name_of(error)}): free space "
            "there"
        )
    if is_busy(error):
        return UnavailableError(
            f"{path} is held by another process: end the one that has locked it for so long"
        )
    return not_applied(error, path)


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _make_private(path: str) -> None:
    """Make the file readable by its owner alone; SQLite gives the files beside it the same rights."""
    # One that is there is not opened here: to close it would drop the locks that SQLite holds on it.
    try:
        made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except FileExistsError:
        if not os.path.isfile(path):  # noqa: PTH113  as os.open has it
            raise UsageError(
                f"{path} is no file: name one for the store, or one that is yet to be made"
            ) from None
        return
    except OSError as error:
        raise UnavailableError(
            f"{path} cannot be made ({error.strerror}): its folder must exist, and the user of this process "
            "needs to write it"
        ) from None
    os.close(made)
    if os.name != "posix":
        return
    # So that a power cut does not take the file itself; SQLite does so for the files beside it.
    folder = os.open(os.path.dirname(path), os.O_RDONLY)  # noqa: PTH120  as os.open has it
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _refuse_network(path: str) -> None:
    kind = _file_system(os.path.realpath(path))
    if kind in _NETWORK:
        raise UsageError(
            f"{path} lies on a network file system ({kind}), whose locks do not keep sessions safe: use a "
            "local disk, or a cluster (greenroom://) for several hosts"
        )


def _file_system(path: str) -> str:
    """Return the kind of the file system below the path, "" where that cannot be told."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        mount = fields[4].replace("\\040", " ").rstrip("/")
        if (path == mount or path.startswith(mount + "/")) and len(mount) >= len(best):
            best, kind = mount, after.split(" ")[0]
    return kind
