"""A file of batches: a SQLite database that one connection writes, a row a batch.

SQLite makes a batch atomic and stable, and says when it is; what may be believed of what is read, `batches`
decides. The connection is the only one: SQLite before 3.51.3 can corrupt a database in WAL mode that two
connections write. No checkpoint runs while the file is written, so that no batch waits for one: all of it
stays in the write-ahead log until the segment is sealed.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

APPLICATION_ID = 0x47524A31
"""Marks the database as a segment: "GRJ1"."""

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""A file that is none of SQLite's, or lacks the table, has lost what was there."""
_CREATE = "CREATE TABLE batch (number INTEGER PRIMARY KEY, data BLOB NOT NULL)"
_INSERT = "INSERT INTO batch VALUES (?, ?)"


class Segment:
    """A new segment, for batches from `first` on. Methods block, and one thread at a time may call them.

    With `syncs` a batch is on stable storage once it is appended. Without, it is in the file then, where it
    survives the end of this process, and on stable storage once `sync` has returned.
    """

    def __init__(self, path: Path, first: int, *, syncs: bool = True) -> None:
        self.path = path
        self.first = first
        # Nobody else may read it, not even before the mode is set.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        execute = self._connection.execute
        execute(f"PRAGMA application_id = {APPLICATION_ID}")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA wal_autocheckpoint = 0")
        execute(_CREATE)
        if not syncs:
            # A commit still writes all of its pages to the file, but no longer waits for the disk.
            execute("PRAGMA synchronous = NORMAL")
        # From here on, so that an error of any later write back is told to `sync`.
        self._log = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def stored_bytes(self) -> int:
        """What the segment takes on disk."""
        return os.fstat(self._log).st_size

    def append(self, number: int, data: bytes) -> None:
        """Write a batch.

        Raises sqlite3.Error if that failed. Whether it is there is unknown then, and stays so: the kernel may
        call the next sync a success without having written the pages of this one (Rebello et al., ATC 2020).
        """
        self._connection.execute(_INSERT, (number, data))

    def sync(self) -> None:
        """Wait until all batches are on stable storage. Raises OSError, which is as final as above."""
        os.fdatasync(self._log)

    def append_all(self, batches: Iterable[tuple[int, bytes]]) -> None:
        """Write batches in one go, and wait until all are on stable storage."""
        self._connection.execute("BEGIN")
        self._connection.executemany(_INSERT, batches)
        self._connection.execute("COMMIT")

    def seal(self) -> None:
        """Move the batches, synced, out of the write-ahead log, and close the file for good."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.abandon()

    def abandon(self) -> None:
        """Close the file as it is."""
        self._connection.close()
        if self._log >= 0:
            os.close(self._log)
            self._log = -1


def read_segment(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number and bytes of each batch, by number. Ends early where SQLite finds the file damaged.

    Raises sqlite3.Error if it cannot be read for another reason: a disk that is full is no damage.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.text_factory = bytes
        try:
            (application_id,) = connection.execute("PRAGMA application_id").fetchone()
            if application_id == APPLICATION_ID:
                for number, data in connection.execute("SELECT number, data FROM batch ORDER BY number"):
                    # In a damaged page a value may have any type.
                    yield number, data if isinstance(data, bytes) else b""
        except UnicodeDecodeError:
            return  # a name in a damaged table
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF not in _DAMAGE:
                raise


def remove_segment(path: Path) -> None:
    """Delete a segment and what SQLite keeps beside it; that there is none is fine."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def segment_bytes(path: Path) -> int:
    """Return what a segment takes on disk, its write-ahead log counted."""
    total = 0
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            total += path.with_name(path.name + suffix).stat().st_size
    return total
