"""Exit codes of commands, and one line on stderr for an error that the user can fix."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster.escaping import printable

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
_EXIT_INTERRUPTED = 130

TRACTOR_MISSING = """\
tractor, which runs the processes of a cluster, is not installed. Install it too:
  pip:  pip install --no-deps tractor==0.1.0a5
  uv:   uv tool install --overrides overrides.txt \\
            "greenroom-cluster[tractor] @ file:///DIST/greenroom_cluster-0.1.0-py3-none-any.whl"
        (DIST is the directory with the wheels; overrides.txt holds two lines: pdbpp>=0.12
        and greenroom @ file:///DIST/greenroom-0.1.0-py3-none-any.whl)"""

CRYPTOGRAPHY_MISSING = """\
cryptography, which makes certificates, is not installed. Install it too:
  pip:  pip install "cryptography>=42"
  uv:   the command by which greenroom-cluster was installed, with --with "cryptography>=42" """
MISSING = {"tractor": TRACTOR_MISSING, "cryptography": CRYPTOGRAPHY_MISSING}
"""By library, what to do where it is not installed."""


_ending = False
_also_told: Callable[[str], None] | None = None


def tell_errors_also(tell: Callable[[str], None]) -> None:
    """Have `tell` tell an error that ends this process, beside the line on stderr."""
    global _also_told
    _also_told = tell


def fail(message: str, status: int, tell: Callable[[str], None] | None = None) -> NoReturn:
    """Print the message and end with that status; `tell` tells it in place of what `tell_errors_also` set."""
    tell = tell or _also_told
    if tell is not None:
        tell(message)
    sys.stderr.write(f"greenroom: {message}\n")
    sys.exit(status)


def leave_on_signals() -> None:
    """Let SIGINT and SIGTERM end this process quietly until something waits for them."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)


def end_in_order() -> None:
    """Note that this process is ending as asked: another signal, which nothing waits for, changes nothing.

    A terminal and a runner such as uv may both bring the same Ctrl-C.
    """
    global _ending
    _ending = True


def _leave(number: int, _frame: object) -> None:
    if not _ending:
        # The exit code by which shells report a signal. Nothing was started yet that would need stopping.
        os._exit(128 + number)


@contextmanager
def errors_told() -> Iterator[None]:
    """End the process with one line on stderr if the body raises an error that is meant for the user."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = MISSING.get((error.name or "").partition(".")[0])
        if missing is None:
            raise
        fail(missing, EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(_EXIT_INTERRUPTED)
    except BaseException as error:
        known = _user_error(error)
        if known is None:
            raise
        status = EXIT_USAGE if isinstance(known, UsageError) else EXIT_FAILED
        fail(printable(str(known)), status)


def _user_error(error: BaseException) -> GreenroomError | None:
    """Return the error that is meant for the user, also from within an exception group."""
    if isinstance(error, GreenroomError):
        return error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            known = _user_error(inner)
            if known is not None:
                return known
    return None
