"""Writing files so that they outlast a crash: all of the data, and the names in a directory."""

import os
from pathlib import Path


def write_all(file: int, data: bytes) -> None:
    """Write all of the data to an open file. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def sync_directory(directory: Path) -> None:
    """Have names that were made, renamed or removed in a directory survive a power cut. Raises OSError."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def replace_file(path: Path, content: bytes) -> None:
    """Have a file hold this, or after a crash what it held before. Raises OSError.

    It is written beside the former one, with mode 0600, synced, and renamed.
    """
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(file, content)
        os.fsync(file)
    finally:
        os.close(file)
    temporary.rename(path)
    sync_directory(path.parent)
