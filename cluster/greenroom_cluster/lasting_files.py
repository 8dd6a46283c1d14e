"""Files that outlast a crash, all of their data and their names, and the lock on a directory of such."""

import fcntl
import os
import stat
from pathlib import Path


def write_all(file: int, data: bytes) -> None:
    """Write all of the data to an open file. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def lock_directory(directory: Path) -> int:
    """Return a file whose lock says, until it is closed, that this process alone uses the directory.

    The directory is created with mode 0700 if it is missing. Raises BlockingIOError if another process uses
    it, and another OSError if it cannot be used.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def sync_directory(directory: Path) -> None:
    """Have names that were made, renamed or removed in a directory survive a power cut. Raises OSError."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def replace_file(path: Path, content: bytes, like: Path | None = None) -> None:
    """Have a file hold this, or after a crash what it held before. Raises OSError, and then it does too.

    It is written beside the former one, synced, and renamed. It has the owner, group and mode of `like`, by
    default of the former one: who could read that can read it, also if root has replaced it. If there is
    none, it is this user's alone (0600).
    """
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            _give(file, like or path)
            write_all(file, content)
            os.fsync(file)
        finally:
            os.close(file)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _give(file: int, like: Path) -> None:
    """Give an open file to whom `like` belongs, if that is there."""
    try:
        former = like.stat()
    except FileNotFoundError:
        return
    own = os.fstat(file)
    if (own.st_uid, own.st_gid) != (former.st_uid, former.st_gid):
        os.fchown(file, former.st_uid, former.st_gid)
    os.fchmod(file, stat.S_IMODE(former.st_mode))
