"""The file of tokens: read by servers, and again when it changes; changed by `greenroom tokens`."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from greenroom.errors import GreenroomError, UsageError
from greenroom.rereading import Reread, ignore
from greenroom.secret_file import read_private
from greenroom_cluster.lasting_files import replace_file
from greenroom_cluster.tokens.entries import table_of
from greenroom_cluster.tokens.table import TokenTable

OPTION = "--tokens (GREENROOM_TOKENS)"
_WHAT = "the file of tokens"
_BYTES_MAX = 4 << 20


class Tokens(Reread[TokenTable]):
    """The tokens that a server knows, by the file as it is now; see `Reread`."""

    def __init__(
        self,
        path: Path,
        cluster: str,
        refused: Callable[[str], None],
        taken: Callable[[TokenTable], None] = ignore,
    ) -> None:
        kept = "the changed file of tokens is not used, the former one stays in use"
        super().__init__([path], lambda: _read(path, cluster), refused, taken, kept=kept)


def _read(path: Path, cluster: str) -> TokenTable:
    try:
        return table_of(text_of(path), cluster)
    except UsageError as error:
        raise UsageError(f"{OPTION}: {path}: {error}") from None


def text_of(path: Path) -> str:
    """Return the text of a file of tokens. Raises UsageError, which shows nothing of it."""
    absent = "is not there: `greenroom tokens issue` makes it"
    return read_private(path, _WHAT, _BYTES_MAX, absent=absent)[0].decode("utf-8", "replace")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep others from changing a file of tokens meanwhile. Raises UsageError."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{path} cannot be used ({error.strerror}): name another with --tokens") from None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def write_text(path: Path, text: str) -> None:
    """Have a file of tokens hold this. Raises GreenroomError, and then it is as before."""
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise GreenroomError(
            f"{path} could not be written ({error.strerror}), and is as before: name another with --tokens"
        ) from error
