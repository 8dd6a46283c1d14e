"""A note that proves the map on disk to be the latest one; no backup restores it.

It is kept in memory that does not outlive this boot of the host (/dev/shm), under the device and inode of the
coordinator's directory. It holds the boot id and the digests of the maps that may be on disk: the present one
and, while it is being replaced, the next. After another boot, or for a copy of the directory or the map, no
note matches. Only our own user can have written it. Without a note the coordinator waits until it has heard
all members (`hearing`).
"""

import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from greenroom.private_files import is_private

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  its owner and mode are checked
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NOTE_BYTES_MAX = 1024


class BootNote:
    """The note about the map in one directory, which must exist."""

    def __init__(self, directory: Path) -> None:
        found = directory.stat()
        self._path = SHARED_MEMORY / f"greenroom-{os.geteuid()}-{found.st_dev:x}-{found.st_ino:x}"

    def vouches_for(self, content: bytes) -> bool:
        """Whether this content is known to be the last one written, in this boot."""
        lines = self._read().split()
        return bool(lines) and lines[0] == _boot() and _digest(content) in lines[1:]

    def write(self, *contents: bytes) -> None:
        """Note that the map on disk is one of these."""
        text = " ".join((_boot(), *(_digest(content) for content in contents)))
        temporary = self._path.with_name(f"{self._path.name}-{os.getpid()}")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            temporary.unlink(missing_ok=True)
            file = os.open(temporary, flags, 0o600)
            try:
                os.write(file, text.encode())
            finally:
                os.close(file)
            temporary.rename(self._path)
        except OSError:
            self.void()

    def void(self) -> None:
        """Remove the note. One that cannot be removed names a map that is no longer on disk."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _read(self) -> str:
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            found = os.fstat(file)
            ours = found.st_uid == os.geteuid() and is_private(found.st_mode)
            return os.read(file, _NOTE_BYTES_MAX).decode(errors="replace") if ours else ""
        except OSError:
            return ""
        finally:
            os.close(file)


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return "unknown"


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=32).hexdigest()
