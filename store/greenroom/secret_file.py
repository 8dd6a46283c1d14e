"""A file of secrets: one a line, the newest first.

It is its owner's alone: any other user of the host who can read it can sign cookies.
"""

import os
import stat
from pathlib import Path
from typing import NamedTuple

from greenroom import private_files
from greenroom.errors import UsageError
from greenroom.file_watch import Mark, mark_at, mark_of

FILE_BYTES_MAX = 1 << 16
"""A larger file is none of secrets."""


class Content(NamedTuple):
    """The secrets in a file, and the mark that it had then. Its repr shows neither."""

    secrets: list[str]
    mark: Mark

    def __repr__(self) -> str:
        return f"<{len(self.secrets)} secrets>"


class SecretFile:
    """Secrets for `Session(secret=...)` that stand in a file, and are read anew when it changes.

    >>> sessions = Session(secret=SecretFile("/etc/shop/session-secrets"), store=URL)

    One secret a line: the first signs, all verify. The file has the mode 0600 or 0400 and belongs to the
    user of this process, or to root. Replace it by renaming another over it, so that no half of it is read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            self.path = Path(path)
        except TypeError:
            raise UsageError(
                f"SecretFile takes the path of a file, a str or a Path, not {type(path).__name__}"
            ) from None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self.path)!r}>"

    def mark(self) -> Mark:
        """Return what tells whether the file has changed. Raises nothing."""
        return mark_at(self.path)

    def read(self) -> Content:
        """Read the secrets. Raises UsageError, which shows nothing of them."""
        try:
            # Not blocking: a pipe of this name must not hold up the app.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise self._wrong(f"cannot be opened ({type(error).__name__})") from None
        try:
            found = os.fstat(descriptor)
            self._check(found)
            content = os.read(descriptor, FILE_BYTES_MAX + 1)
        except OSError as error:
            raise self._wrong(f"cannot be read ({type(error).__name__})") from None
        finally:
            os.close(descriptor)
        if len(content) > FILE_BYTES_MAX:
            raise self._wrong(f"is larger than {FILE_BYTES_MAX} bytes")
        try:
            lines = content.decode().splitlines()
        except UnicodeDecodeError:
            raise self._wrong("is not text in UTF-8") from None
        secrets = [line.strip() for line in lines if line.strip()]
        if not secrets:
            raise self._wrong("holds no secret: it has one a line, the newest first")
        return Content(secrets, mark_of(found))

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise self._wrong("is no regular file")
        if objection := private_files.objection(found.st_mode):
            raise self._wrong(objection)
        if found.st_uid not in (0, os.geteuid()):
            raise self._wrong("belongs to another user, who can read and replace it: chown it")

    def _wrong(self, what: str) -> UsageError:
        return UsageError(f"the file of secrets {self.path} {what}")
