"""New files, each of which takes its name when it is whole.

Until then it has no name (O_TMPFILE), so that nothing of it is left if this process is killed, and two that
write to one name do not meet. File systems that cannot do that get a file with a name of its own.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster.lasting_files import write_all


class NotWrittenError(GreenroomError):
    """What was to be written could not be, or not all of it, such as for want of room on the disk."""


class NewFile:
    """A new file for this user alone (0600), which replaces none; without `finish` there is none.

    Raises UsageError if it cannot be made there, NotWrittenError if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._directory = -1
        self._temporary: Path | None = None
        if not path.name or path.name == "..":
            raise UsageError(f"{path} is a directory: name a new file")
        try:
            os.lstat(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._impossible(error) from error
        else:
            # Also a link that leads nowhere.
            raise self._there()
        try:
            self._directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._file = self._opened()
        except OSError as error:
            self.close()
            raise self._impossible(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Write all of the data."""
        try:
            write_all(self._file, data)
        except OSError as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        """Give the file its name; it is on disk for good when this returns."""
        try:
            os.fsync(self._file)
            # A link, not a renaming: not over a file that was made meanwhile. With a directory, `os.link`
            # follows the link that /proc has of a file without a name.
            source = self._temporary or f"/proc/self/fd/{self._file}"
            os.link(source, self._path.absolute(), src_dir_fd=self._directory)
            self._keep_name()
        except FileExistsError:
            raise self._there() from None
        except OSError as error:
            raise self._failed(error) from error

    def _keep_name(self) -> None:
        """Have the name survive a power cut, or take it back: what may be gone then is no backup."""
        try:
            os.fsync(self._directory)
        except OSError:
            with suppress(OSError):
                self._path.unlink()
            raise

    def close(self) -> None:
        """Remove what was not finished; closing twice is fine."""
        for opened in (self._file, self._directory):
            if opened >= 0:
                os.close(opened)
        self._file = self._directory = -1
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None

    def _opened(self) -> int:
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            return os.open(self._path.parent, flags | os.O_TMPFILE, 0o600)
        except OSError:
            # Not known here, or what the next lines say too.
            temporary = self._path.absolute().with_name(f".greenroom-{secrets.token_hex(8)}.part")
            opened = os.open(temporary, flags | os.O_CREAT | os.O_EXCL, 0o600)
            self._temporary = temporary
            return opened

    def _there(self) -> UsageError:
        return UsageError(f"{self._path} is there already: name a new file, or remove it first")

    def _impossible(self, error: OSError) -> UsageError:
        return UsageError(
            f"{self._path} cannot be written ({error.strerror}): name a file in a directory that this user "
            "may write to"
        )

    def _failed(self, error: OSError) -> NotWrittenError:
        return NotWrittenError(
            f"{self._path} could not be written ({error.strerror}): make room there, or name a file on "
            "another disk. There is no such file now"
        )
