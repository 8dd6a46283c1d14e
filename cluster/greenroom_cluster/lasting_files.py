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
