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

_WHAT = "the file of secrets"


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
    user of this process, or to root, who may let a group read it (0440). Replace it by renaming another over
    it, so that no half of it is read.
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
        content, mark = read_private(self.path, _WHAT)
        try:
            lines = content.decode().splitlines()
        except UnicodeDecodeError:
            raise self._wrong("is not text in UTF-8") from None
        secrets = [line.strip() for line in lines if line.strip()]
        if not secrets:
            raise self._wrong("holds no secret: it has one a line, the newest first")
        return Content(secrets, mark)

    def _wrong(self, what: str) -> UsageError:
        return UsageError(f"{_WHAT} {self.path} {what}")


def read_private(
    path: Path, what: str, bytes_max: int = FILE_BYTES_MAX, *, absent: str = "is not there"
) -> tuple[bytes, Mark]:
    """Return what a file holds that is its owner's alone, and the mark that it had then.

    Raises UsageError, which begins with `what` the file is, and shows nothing of it; `absent` is what it says
    of one that is not there.
    """
    try:
        # Not blocking: a pipe of this name must not hold up the app.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UsageError(f"{what} {path} {absent}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{what} {path} cannot be opened ({type(error).__name__})") from None
    try:
        found = os.fstat(descriptor)
        if objection := _objection(found):
            raise UsageError(f"{what} {path} {objection}")
        content = os.read(descriptor, bytes_max + 1)
    except OSError as error:
        raise UsageError(f"{what} {path} cannot be read ({type(error).__name__})") from None
    finally:
        os.close(descriptor)
    if len(content) > bytes_max:
        raise UsageError(f"{what} {path} is larger than {bytes_max} bytes")
    return content, mark_of(found)


def _objection(found: os.stat_result) -> str:
    """Return what is wrong with a file, to follow its path; empty if nothing is."""
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file"
    if objection := private_files.objection(found.st_mode, found.st_uid, os.geteuid()):
        return objection
    if found.st_uid not in (0, os.geteuid()):
        return "belongs to another user, who can read and replace it: chown it"
    return ""
